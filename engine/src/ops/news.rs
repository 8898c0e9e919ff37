//! What an operation tells while it works.

use std::sync::Arc;

/// One thing that happened or is worth knowing, in words. What came of the
/// operation is not here: that is its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Worth knowing, and no failure.
    Note(String),
    /// What is being done or waited for now.
    Progress(String),
    /// Something failed that does not stop the operation.
    Trouble(String),
}

/// Who hears the news. A front end shows or sends them as they come; it must not
/// wait.
pub type Listener = Arc<dyn Fn(News) + Send + Sync>;
