//! Why an operation failed: one type for every front end. A front end turns its
//! [`Kind`] into an exit code or an HTTP status, and its [`Advice`] into its own words.

use std::fmt::{self, Display};

use super::advice::{Advice, Ask, Input};
use crate::model::problem::{Located, Problems};
use crate::model::{ErrorKind, HostError};
use crate::rollout::RolloutError;
use crate::simulate::many::Broken;
use crate::simulate::rehearsal;
use crate::store::StoreError;
use crate::strategy::contract::Rejected;
use crate::supply::SupplyError;
use crate::supply::signature::KeyError;

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request or the configuration is wrong, or does not apply now.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Another rollout or process has the target, or it is not as expected.
    Busy,
    /// The plugin may not run here.
    Rejected,
    /// AWS, or the local balancer, does not permit it.
    Denied,
    /// The target or the registry does not answer, or cannot do it now.
    Unreachable,
    /// The traffic could not be taken back.
    RollbackFailed,
    /// Anything else: a failure of this machine, or a bug.
    Internal,
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct Error {
    /// Its class.
    pub kind: Kind,
    /// The part of the request that is wrong. The message is then the rest of a sentence
    /// that begins with it, and a front end may put its own name of that part there.
    pub argument: Option<Input>,
    /// What was wrong, in words that hold for every front end. What comes from beneath
    /// the operations may have a paragraph at its end that begins with `hint: `.
    pub message: String,
    /// What a person can do.
    pub advice: Vec<Advice>,
    /// The error of the target, if it came from the target.
    pub target: Option<Box<HostError>>,
    /// What is wrong with a file or a parameter, each for itself. The message has all of it.
    pub problems: Vec<Located>,
}

/// What an operation gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of that class.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            argument: None,
            message: message.into(),
            advice: vec![],
            target: None,
            problems: vec![],
        }
    }

    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// That part of the request is wrong; the message is what is said of it.
    pub fn argument(argument: Input, message: impl Into<String>) -> Self {
        Self {
            argument: Some(argument),
            ..Self::usage(message)
        }
    }

    /// Wrong configuration: a title, which ends in a colon, and a line for each problem.
    #[must_use]
    pub fn problems(title: impl Display, problems: Vec<Located>) -> Self {
        let lines = problems.iter().map(|problem| format!("  {problem}"));
        let lines = lines.collect::<Vec<_>>().join("\n");
        Self {
            problems,
            ..Self::usage(format!("{title}\n{lines}"))
        }
    }

    /// What was named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The target is busy, or not as expected.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// The traffic could not be taken back.
    pub fn rollback(message: impl Into<String>) -> Self {
        Self::new(Kind::RollbackFailed, message)
    }

    /// A failure of this machine, or a bug.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The same failure, with what was being done in front of its message.
    #[must_use]
    pub fn context(mut self, doing: impl Display) -> Self {
        self.message = format!("{doing}: {self}");
        self.argument = None;
        self
    }

    /// The same failure, and something more that a person can do.
    #[must_use]
    pub fn advise(mut self, advice: Advice) -> Self {
        self.advice.push(advice);
        self
    }

    /// As [`Self::advise`]: ask for something, which `does` that.
    #[must_use]
    pub fn ask(self, ask: Ask, does: impl Into<String>) -> Self {
        self.advise(Advice::ask(ask, does))
    }

    /// As [`Self::advise`]: give something with the same request, which `does` that.
    #[must_use]
    pub fn give(self, input: Input, does: impl Into<String>) -> Self {
        self.advise(Advice::give(input, does))
    }

    /// As [`Self::advise`]: name what is not named, with that.
    #[must_use]
    pub fn name_it(self, input: Input) -> Self {
        self.advise(Advice::Name(input))
    }

    /// As [`Self::advise`], in words.
    #[must_use]
    pub fn hint(self, words: impl Into<String>) -> Self {
        self.advise(Advice::words(words))
    }

    /// A failure of that class, with the messages of an error and its causes.
    fn of(kind: Kind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // Many errors contain the message of their cause.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = inner.source();
        }
        Self::new(kind, message)
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(argument) = &self.argument {
            write!(f, "{argument} ")?;
        }
        f.write_str(&self.message)
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// Puts a text before the message.
    fn context(self, doing: impl Display) -> Result<T>;
    /// Puts a text before the message that is made only if it is needed.
    fn with_context<D: Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|error| error.into().context(doing))
    }

    fn with_context<D: Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::Invalid => Kind::Usage,
            ErrorKind::Denied => Kind::Denied,
            ErrorKind::Conflict => Kind::Busy,
            ErrorKind::Unhealthy | ErrorKind::Throttled | ErrorKind::Unavailable => {
                Kind::Unreachable
            }
            ErrorKind::Internal => Kind::Internal,
        };
        Self {
            target: Some(Box::new(error.clone())),
            ..Self::of(kind, &error)
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Busy(_) | StoreError::Fenced { .. } => Kind::Busy,
            StoreError::NotFound(_) => Kind::NotFound,
            _ => Kind::Internal,
        };
        Self::of(kind, &error)
    }
}

impl From<RolloutError> for Error {
    fn from(error: RolloutError) -> Self {
        let message = Self::of(Kind::Internal, &error).message;
        let known = match error {
            RolloutError::Store(error) => Self::from(error),
            RolloutError::Target(error) => Self::from(error),
            RolloutError::Overtaken { landed: true, .. } => Self::rollback(""),
            RolloutError::Overtaken { landed: false, .. } => Self::busy(""),
            _ => Self::internal(""),
        };
        Self { message, ..known }
    }
}

impl From<rehearsal::Error> for Error {
    fn from(error: rehearsal::Error) -> Self {
        match error {
            rehearsal::Error::Rollout(error) => error.into(),
            rehearsal::Error::Store(error) => error.into(),
            rehearsal::Error::Endless => Self::of(Kind::Internal, &error),
        }
    }
}

impl From<SupplyError> for Error {
    fn from(error: SupplyError) -> Self {
        let kind = match &error {
            e if e.is_rejection() => Kind::Rejected,
            e if e.is_usage() => Kind::Usage,
            _ => Kind::Internal,
        };
        let problems = match &error {
            SupplyError::Plugins { file, problems } => problems.clone().located_in(file),
            _ => vec![],
        };
        Self {
            problems,
            ..Self::of(kind, &error)
        }
    }
}

impl From<Rejected> for Error {
    fn from(error: Rejected) -> Self {
        Self::of(Kind::Rejected, &error)
    }
}

impl From<Problems> for Error {
    fn from(error: Problems) -> Self {
        Self::of(Kind::Usage, &error)
    }
}

/// Errors of this machine.
macro_rules! internal {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::of(Kind::Internal, &error)
            }
        })+
    };
}

internal!(
    std::io::Error,
    serde_json::Error,
    toml::ser::Error,
    KeyError,
    Broken,
    crate::plot::Error
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_the_class_and_what_the_target_said() {
        let error = HostError::new(ErrorKind::Throttled, "throttled", "too many calls").retryable();
        let error: Result<()> = Err(error).context("failed to read the target");
        let error = error.expect_err("failed");
        assert_eq!(error.kind, Kind::Unreachable);
        assert_eq!(
            error.to_string(),
            "failed to read the target: too many calls"
        );
        assert!(error.target.is_some_and(|e| e.retryable));
    }

    #[test]
    fn a_context_keeps_the_advice_and_the_part_of_the_request() {
        let error = Error::argument(Input::Rule, "foo is wrong").ask(Ask::List, "shows it");
        assert_eq!(error.to_string(), "the rule foo is wrong");
        let error = error.context("failed to look");
        assert_eq!(error.to_string(), "failed to look: the rule foo is wrong");
        assert_eq!(error.advice, [Advice::ask(Ask::List, "shows it")]);
    }

    #[test]
    fn what_an_error_says_of_its_cause_is_not_said_twice() {
        let inner = HostError::new(ErrorKind::Conflict, "changed", "somebody changed it");
        let error = Error::from(RolloutError::Target(inner));
        assert_eq!(error.kind, Kind::Busy);
        assert_eq!(
            error.to_string(),
            "failed to reach the target: somebody changed it"
        );
    }
}
