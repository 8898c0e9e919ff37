//! What an operation reports while it works.

use std::sync::Arc;

use super::advice::Advice;

/// Something that happened or is worth knowing, in words. The result of the operation
/// is its outcome, and not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Worth knowing, and not a failure.
    Note(Note),
    /// What is being done or waited for now.
    Progress(String),
    /// Something failed that does not stop the operation.
    Trouble(String),
}

/// Something worth knowing, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// In words that hold for every front end.
    pub text: String,
    /// What a person can do, if there is something.
    pub advice: Option<Advice>,
}

impl Note {
    /// The same note, with what a person can do about it.
    #[must_use]
    pub fn advise(mut self, advice: Advice) -> Self {
        self.advice = Some(advice);
        self
    }
}

impl<T: Into<String>> From<T> for Note {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            advice: None,
        }
    }
}

/// Receives the news. A front end shows or sends them as they come; it must not wait.
pub type Listener = Arc<dyn Fn(News) + Send + Sync>;
