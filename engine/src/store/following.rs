//! A rollout that is followed: its status, kept up to date by reading only what is
//! new in its journal.

use super::{Store, StoreError};
use crate::journal::status::Status;
use crate::journal::{Entry, Header, header};

/// A header and where the rollout stands, as far as it was read.
#[derive(Debug, Clone)]
pub struct Following {
    /// What the rollout is pinned to.
    pub header: Header,
    /// Where it stands.
    pub status: Status,
}

impl Following {
    /// Reads the journal once; none if there is none, or it has no beginning.
    ///
    /// # Errors
    /// The store fails, or an entry cannot be read.
    pub async fn begin(store: &dyn Store, rollout: &str) -> Result<Option<Self>, StoreError> {
        let entries = store.load(rollout, 0).await?;
        let (Some(header), Some(status)) = (header(&entries), Status::of(&entries)) else {
            return Ok(None);
        };
        let header = header.clone();
        Ok(Some(Self { header, status }))
    }

    /// Reads what came since the last time, and returns it.
    ///
    /// # Errors
    /// As for [`Following::begin`].
    pub async fn catch_up(&mut self, store: &dyn Store) -> Result<Vec<Entry>, StoreError> {
        let news = store
            .load(&self.header.rollout, self.status.entries)
            .await?;
        for entry in &news {
            self.status.apply(entry);
        }
        Ok(news)
    }
}
