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

/// What whoever waits for a look is told.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// This is looked at now, in words; it may take long.
    Begins(&'a str),
    /// This was found.
    Ends(&'a Examined),
}

/// What was looked at so far. Each thing is told as soon as it was found.
pub struct Looks<'a> {
    tell: &'a (dyn Fn(Look<'_>) + Send + Sync),
    examined: Vec<Examined>,
}

impl<'a> Looks<'a> {
    /// Nothing so far.
    #[must_use]
    pub fn told_to(tell: &'a (dyn Fn(Look<'_>) + Send + Sync)) -> Self {
        Self {
            tell,
            examined: vec![],
        }
    }

    /// Says what is looked at now.
    pub fn begin(&self, what: &str) {
        (self.tell)(Look::Begins(what));
    }

    /// Says what was found.
    pub fn push(&mut self, one: Examined) {
        (self.tell)(Look::Ends(&one));
        self.examined.push(one);
    }

    /// Whether the same was found before.
    #[must_use]
    pub fn has(&self, one: &Examined) -> bool {
        self.examined.contains(one)
    }

    /// All that was found.
    #[must_use]
    pub fn into_all(self) -> Vec<Examined> {
        self.examined
    }
}

/// How many problems they have. What is wrong in several places, each of which a person has
/// to mend, is as many.
#[must_use]
pub fn wrong(examined: &[Examined]) -> usize {
    let of = |one: &Examined| match &one.found {
        Found::Wrong(error) => error.problems.len().max(1),
        _ => 0,
    };
    examined.iter().map(of).sum()
}

/// How many of them may be as intended, and a person should know of.
#[must_use]
pub fn doubtful(examined: &[Examined]) -> usize {
    let is = |one: &&Examined| matches!(one.found, Found::Doubtful(_));
    examined.iter().filter(is).count()
}
