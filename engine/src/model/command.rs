//! The commands that people give to a rollout, and who decided where it goes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Signal;

/// The payload of a `resume` that takes over the weights of the target.
const ADOPT: &str = "adopt";

/// A command that the engine itself understands. Every other signal belongs to
/// the strategy that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// All traffic back to the stable arm.
    Abort {
        /// The reason, for the history; may be empty.
        reason: String,
    },
    /// Hold the rollout where it is.
    Pause,
    /// Let a rollout go on that is held or has diverged.
    Resume {
        /// Go on from the weights that the target has now, whoever set them.
        adopt: bool,
    },
    /// All traffic to the new version, past every step that is left.
    PromoteFull {
        /// The reason, for the history; may be empty.
        reason: String,
    },
    /// End the present wait, whatever it waits for.
    Promote,
    /// Approve the step that a strategy waits before.
    Approve {
        /// A comment for the history; may be empty.
        comment: String,
    },
    /// All traffic to one arm while a stack is being changed.
    TakeBack {
        /// The name of that arm.
        to: String,
    },
}

impl Command {
    /// The name of the signal that ends a wait for an approval. The contract of
    /// strategies fixes it.
    pub const APPROVE: &str = "approve";

    /// The command that a signal carries; `None` if the signal is a strategy's own.
    #[must_use]
    pub fn of(signal: &Signal) -> Option<Self> {
        let text = || signal.payload.clone();
        Some(match signal.name.as_str() {
            "abort" => Self::Abort { reason: text() },
            "pause" => Self::Pause,
            "resume" => Self::Resume {
                adopt: signal.payload == ADOPT,
            },
            "promote-full" => Self::PromoteFull { reason: text() },
            "promote" => Self::Promote,
            Self::APPROVE => Self::Approve { comment: text() },
            "rollback" => Self::TakeBack { to: text() },
            _ => return None,
        })
    }

    /// The name of its signal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Abort { .. } => "abort",
            Self::Pause => "pause",
            Self::Resume { .. } => "resume",
            Self::PromoteFull { .. } => "promote-full",
            Self::Promote => "promote",
            Self::Approve { .. } => Self::APPROVE,
            Self::TakeBack { .. } => "rollback",
        }
    }

    /// The text that its signal carries.
    #[must_use]
    pub fn payload(&self) -> &str {
        match self {
            Self::Abort { reason } | Self::PromoteFull { reason } => reason,
            Self::Approve { comment } => comment,
            Self::TakeBack { to } => to,
            Self::Resume { adopt: true } => ADOPT,
            Self::Resume { adopt: false } | Self::Pause | Self::Promote => "",
        }
    }

    /// Whether the driver obeys it itself, in every phase. The others end waits
    /// of strategies, or belong to a change of a stack.
    #[must_use]
    pub fn is_for_the_driver(&self) -> bool {
        matches!(
            self,
            Self::Abort { .. } | Self::Pause | Self::Resume { .. } | Self::PromoteFull { .. }
        )
    }

    /// The signal that carries it.
    #[must_use]
    pub fn signal(&self, id: String, actor: &str) -> Signal {
        Signal {
            id,
            name: self.name().to_owned(),
            actor: actor.to_owned(),
            payload: self.payload().to_owned(),
            until: None,
        }
    }
}

/// Who decided where a rollout goes.
///
/// A journal has it as one string: the word for a part of the engine, or a
/// person's name. A person whose name is such a word is written with
/// `person:` before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
pub enum Decider {
    /// The strategy's verdict.
    Strategy,
    /// The host, because of an alarm or a failed deployment.
    Guard,
    /// The host, because the rollout's deadline has passed.
    Deadline,
    /// The host, because the strategy failed: the guardrails say what follows.
    OnPluginError,
    /// The host, because the candidate could not be made ready.
    Preparation,
    /// The host, because the promotion could not be finished.
    Promotion,
    /// A person, or a machine with a name of its own.
    Person(String),
}

/// Tells a person from a part of the engine whose word is the same.
const PERSON: &str = "person:";

impl Decider {
    const ENGINE: [(&str, Self); 6] = [
        ("strategy", Self::Strategy),
        ("guard", Self::Guard),
        ("deadline", Self::Deadline),
        ("guardrails.on-plugin-error", Self::OnPluginError),
        ("preparation", Self::Preparation),
        ("promotion", Self::Promotion),
    ];
}

impl fmt::Display for Decider {
    /// As people read it: a person's name as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => f.write_str(name),
            engine => {
                let word = Self::ENGINE.iter().find(|(_, decider)| decider == engine);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

impl From<Decider> for String {
    fn from(decider: Decider) -> Self {
        let text = decider.to_string();
        match decider {
            Decider::Person(_) if Decider::from(text.clone()) != decider => {
                format!("{PERSON}{text}")
            }
            _ => text,
        }
    }
}

impl From<String> for Decider {
    /// A word that is not one of the engine's own is a person's name.
    fn from(text: String) -> Self {
        if let Some((_, engine)) = Self::ENGINE.into_iter().find(|(word, _)| *word == text) {
            return engine;
        }
        match text.strip_prefix(PERSON) {
            Some(name) => Self::Person(name.to_owned()),
            None => Self::Person(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decider_keeps_its_word_and_a_person_keeps_every_name() {
        for (word, decider) in Decider::ENGINE {
            assert_eq!(String::from(decider.clone()), word);
            assert_eq!(Decider::from(word.to_owned()), decider);
        }
        for name in ["ada@host", "strategy", "guard", "person:ada", "", "person:"] {
            let person = Decider::Person(name.to_owned());
            let json = serde_json::to_string(&person).expect("JSON");
            let read: Decider = serde_json::from_str(&json).expect("read");
            assert_eq!(read, person, "{json}");
            assert_eq!(read.to_string(), name);
        }
        let plain = String::from(Decider::Person("ada@host".to_owned()));
        assert_eq!(plain, "ada@host", "as journals have it today");
    }

    #[test]
    fn every_command_survives_its_signal() {
        let text = || "a text".to_owned();
        for command in [
            Command::Abort { reason: text() },
            Command::Pause,
            Command::Resume { adopt: true },
            Command::Resume { adopt: false },
            Command::PromoteFull { reason: text() },
            Command::Promote,
            Command::Approve { comment: text() },
            Command::TakeBack { to: text() },
        ] {
            let signal = command.signal("id".to_owned(), "ada");
            assert_eq!(Command::of(&signal), Some(command));
        }
        let own = Signal {
            id: String::new(),
            name: "canary-ready".to_owned(),
            actor: "ci".to_owned(),
            payload: String::new(),
            until: None,
        };
        assert_eq!(Command::of(&own), None);
    }
}
