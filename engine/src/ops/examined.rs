//! What a look at a file, a target or this machine has found: a line for each thing that
//! was looked at.

use super::error::Error;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What it is, in a word or two, such as `parameters`.
    pub about: &'static str,
    /// What was found.
    pub found: Found,
}

/// What was found of a thing.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It is as it should be; says how it is.
    Fine(String),
    /// It was not looked at, or nothing needs it; says why.
    Skipped(String),
    /// It may be as intended, and a person should know of it.
    Doubtful(String),
    /// Something is wrong with it.
    Wrong(Error),
}

impl Examined {
    /// It is as it should be.
    pub fn fine(about: &'static str, text: impl Into<String>) -> Self {
        let found = Found::Fine(text.into());
        Self { about, found }
    }

    /// It was not looked at, or nothing needs it.
    pub fn skipped(about: &'static str, text: impl Into<String>) -> Self {
        let found = Found::Skipped(text.into());
        Self { about, found }
    }

    /// It may be as intended, and a person should know of it.
    pub fn doubtful(about: &'static str, text: impl Into<String>) -> Self {
        let found = Found::Doubtful(text.into());
        Self { about, found }
    }

    /// Something is wrong with it.
    pub fn wrong(about: &'static str, error: impl Into<Error>) -> Self {
        let found = Found::Wrong(error.into());
        Self { about, found }
    }

    /// Whether something is wrong with it.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self.found, Found::Wrong(_))
    }
}

/// How many of them are wrong.
#[must_use]
pub fn wrong(examined: &[Examined]) -> usize {
    examined.iter().filter(|one| one.is_wrong()).count()
}
