//! What an operation reports while it works.

use std::sync::Arc;

/// Something that happened or is worth knowing, in words. The result of the operation
/// is its outcome, and not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Worth knowing, and not a failure.
    Note(String),
    /// What is being done or waited for now.
    Progress(String),
    /// Something failed that does not stop the operation.
    Trouble(String),
}

/// Receives the news. A front end shows or sends them as they come; it must not wait.
pub type Listener = Arc<dyn Fn(News) + Send + Sync>;
