//! A rollout that is followed: its status, kept up to date by reading only the
//! new entries of its journal.

use super::{Store, StoreError};
use crate::journal::status::Status;
use crate::journal::{Entry, Header, header};

/// A header and a status, as far as the journal was read.
#[derive(Debug, Clone)]
pub struct Following {
    /// What the rollout is pinned to.
    pub header: Header,
    /// The status after the entries that were read.
    pub status: Status,
}

impl Following {
    /// Reads the whole journal; `None` if it does not exist or has no first entry.
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

    /// Reads the entries that are new since the last time, and returns them.
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
