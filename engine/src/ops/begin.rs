//! Begins rollouts.

use super::app::App;
use super::error::{Error, Result};
use crate::journal::Header;
use crate::rollout::{Options, RolloutError};
use crate::store::StoreError;

/// Begins a rollout, or says who is in the way.
pub async fn begin(app: &App, options: Options, header: Header) -> Result<()> {
    let identity = header.identity.clone();
    match app.driver(options).begin(header).await {
        Err(RolloutError::Store(StoreError::Busy(busy))) => {
            let error = busy_with(app, &busy.rollout).await;
            Err(error.context(format!("nothing begins on {identity}")))
        }
        result => Ok(result?),
    }
}

/// Who is in the way.
pub async fn busy_with(app: &App, rollout: &str) -> Error {
    if app.driver(Options::default()).is_change(rollout).await {
        return Error::busy(format!(
            "the target is busy: `engine deploy` or `engine delete` changes its stack ({rollout})\n\nhint: `engine rollback` works meanwhile; wait with the rest"
        ));
    }
    Error::busy(format!(
        "the target is busy with rollout {rollout}\n\nhint: `engine status {rollout}` shows it, `engine abort {rollout}` takes its traffic back"
    ))
}

/// Short, readable aloud, and unlikely to collide: 8 letters and digits.
pub fn new_id_part() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    (0..8)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}
