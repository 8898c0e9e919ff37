//! The journal: every call of a rollout and its answer, in order.
//!
//! All that is known of a rollout after a crash is in it, and so it also serves as the
//! audit log and as the input of tests. The plugin's import, the journal's entry, what
//! the target does and the line in `history` are the same [`Call`].

pub mod exchanges;
pub mod narrate;
pub mod replay;
pub mod status;
pub mod summary;
pub mod verdict;

pub use exchanges::{Exchange, Question, Told, exchanges, header};

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::limits::Caps;
use crate::model::limits::Guardrails;
use crate::model::query::{Probe, Query};
use crate::model::secret::{redacted, redacted_arguments};
use crate::model::target::TargetSpec;
use crate::model::{
    Arm, ArmHealth, ArmScaling, Capacity, Command, Decider, Elsewhere, End, Finding, Goal, Hold,
    HostError, Level, MetricsQuery, Millis, Outcome, PlannedStep, Point, ProbeReport, Promotion,
    Release, Running, Sample, Scaling, Source, Wake, Weights, cut,
};

/// Version of the stored format, as every header has it.
pub const FORMAT: u32 = 1;

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Position, from 0.
    pub seq: u32,
    /// When it was appended, Unix ms.
    pub at: Millis,
    /// Epoch of the lease under which it was appended.
    pub epoch: u32,
    /// What happened.
    pub event: Event,
}

/// Who makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The plugin.
    Strategy,
    /// The engine itself: preparation, promotion, rollback, manual verbs.
    Host,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strategy => "strategy",
            Self::Host => "host",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The first entry: everything that the rollout is pinned to.
    Started(Box<Header>),
    /// The intent of a write, durable before the write is sent; or the beginning of a
    /// wait.
    Asked {
        /// Who makes the call.
        by: Actor,
        /// The call.
        call: Call,
        /// Weights just before a write.
        before: Option<Weights>,
        /// The deadline of a wait, Unix ms.
        deadline: Option<Millis>,
    },
    /// The answer to an intent.
    Answered {
        /// Who made the call.
        by: Actor,
        /// `seq` of the intent.
        of: u32,
        /// The answer.
        reply: Reply,
        /// Whether the process died in between, so that the answer was found by reading
        /// the target.
        recovered: bool,
    },
    /// A read, a log line or a refused call, with its answer in the same entry.
    Exchanged {
        /// Who made the call.
        by: Actor,
        /// The call.
        call: Call,
        /// The answer.
        reply: Reply,
    },
    /// The strategy returned a verdict.
    Finished(Outcome),
    /// The strategy trapped, ran out of fuel or returned an error.
    Failed {
        /// The text of the trap, with the last lines that the guest wrote.
        reason: String,
    },
    /// The rollout stands still until a person acts.
    Held {
        /// Why it stands still.
        hold: Hold,
        /// Id of the signal that caused it, if one did.
        signal: Option<String>,
    },
    /// A person let it go on.
    Continued {
        /// Who it was.
        actor: String,
        /// Weights that were taken over as if the rollout had written them.
        adopted: Option<Weights>,
        /// Id of the signal that caused it.
        signal: Option<String>,
    },
    /// The end is decided; what is left is to bring the traffic there.
    Decided {
        /// Where the traffic goes.
        goal: Goal,
        /// Who decided it.
        by: Decider,
        /// Why it was decided.
        reason: String,
        /// Id of the signal that caused it, if one did.
        signal: Option<String>,
    },
    /// A person's command that cannot be obeyed where the rollout stands.
    Ignored {
        /// Id of the signal.
        signal: String,
        /// Its name.
        name: String,
    },
    /// While a stack was being changed, a person asked for all traffic on one arm.
    TookBack {
        /// The arm.
        to: String,
        /// Who asked.
        actor: String,
        /// Why it could not be done; `None` if it was done and read back.
        refused: Option<String>,
        /// Id of the signal that carried the command.
        signal: String,
    },
    /// On replay the strategy made another call than the journal has.
    Diverged(replay::Mismatch),
    /// The rollout has ended; no entry follows.
    Ended {
        /// How it ended.
        end: End,
        /// Why it ended like this.
        reason: String,
    },
}

/// What a rollout is pinned to from its first moment on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Version of the stored format.
    pub format: u32,
    /// The rollout's id.
    pub rollout: String,
    /// When it began, Unix ms.
    pub created: Millis,
    /// Version of the engine that began it.
    pub engine: String,
    /// The rollout file that a person began it with, if it was one: whatever was added to it
    /// by flags, it is this file's rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is rolled out where.
    pub target: TargetSpec,
    /// Identity of the target, such as the ARN of its route: only one rollout at a time
    /// has a lease on it.
    pub identity: String,
    /// The period of the target's samples, ms.
    pub sample_period_ms: u32,
    /// The arms and their roles.
    pub arms: Vec<Arm>,
    /// Weights when it began.
    pub baseline: Weights,
    /// What the stable arm ran when it began; `None` for a single verb.
    pub stable: Option<Release>,
    /// What both arms ran when it began, with the digests of their images, as far as the
    /// target says them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<Running>,
    /// A release to put into the candidate arm first.
    pub candidate: Option<Release>,
    /// The digest of the image that the candidate must run, where it is known beforehand:
    /// if its name means another image now, the candidate is given it by this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Arms that ran an image of the candidate's very name when it began. A tag may mean
    /// another image now, so they are given the release although its name is the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeats: Vec<String>,
    /// How the new version takes over.
    pub promotion: Promotion,
    /// How many tasks the traffic needs; `None` where the engine does not set their
    /// number.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// The arms that auto scaling changes, as it was when the rollout began: what is put
    /// back at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<ArmScaling>,
    /// Limits that the host enforces.
    pub guardrails: Guardrails,
    /// Probes by name.
    pub probes: Vec<Probe>,
    /// Custom queries by name.
    pub queries: Vec<Query>,
    /// Limits that an operator has set for the strategy.
    #[serde(default = "Caps::of_old")]
    pub caps: Caps,
    /// A strategy, or what a person asked for.
    pub work: Work,
}

impl Header {
    /// The name of the arm with that role.
    #[must_use]
    pub fn arm(&self, role: crate::model::Role) -> &str {
        self.arms
            .iter()
            .find(|a| a.role == role)
            .map_or("", |a| a.name.as_str())
    }

    /// The digest of the image that the arm with that role ran when it began, if all its
    /// backends ran the same and the target said which.
    #[must_use]
    pub fn digest_of(&self, role: crate::model::Role) -> Option<&str> {
        let name = self.arm(role);
        let seen = self.running.iter().find(|seen| seen.arm == name)?;
        seen.digest()
    }

    /// Whether that arm is given the candidate's release although it ran an image of that
    /// name.
    #[must_use]
    pub fn repeats(&self, arm: &str) -> bool {
        self.repeats.iter().any(|name| name == arm)
    }

    /// The names of the arms.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.arms.iter().map(|a| a.name.clone()).collect()
    }

    /// The header as it may be shown: without credentials that an older engine has
    /// accepted in a rollout file.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        for query in &mut shown.queries {
            query.redact();
        }
        for probe in &mut shown.probes {
            probe.path = redacted(&probe.path);
        }
        let in_arms = match &mut shown.target {
            TargetSpec::Embedded { local, .. } => &mut local.arms[..],
            _ => &mut [],
        };
        let releases = in_arms.iter_mut().map(|arm| &mut arm.release);
        let named = [&mut shown.stable, &mut shown.candidate];
        let running = shown.running.iter_mut().map(|seen| &mut seen.release);
        for release in releases.chain(named.into_iter().flatten()).chain(running) {
            match &mut release.source {
                Source::Urls(urls) => urls.iter_mut().for_each(|url| *url = redacted(url)),
                Source::Command(command) => *command = redacted_arguments(command),
                _ => {}
            }
        }
        shown
    }

    /// What people call this rollout: the strategy's name or the verb.
    #[must_use]
    pub fn title(&self) -> &str {
        match &self.work {
            Work::Strategy(pin) => &pin.name,
            Work::Verb { verb, .. } => verb,
            Work::Undo { .. } => "undo",
            Work::StackChange {
                change: StackVerb::Deploy,
                ..
            } => "deploy",
            Work::StackChange {
                change: StackVerb::Delete,
                ..
            } => "delete",
        }
    }
}

/// What the rollout does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Work {
    /// Runs a strategy.
    Strategy(Pin),
    /// One write by a person: `set-weights`, `switch`, `rollback`.
    Verb {
        /// The verb.
        verb: String,
        /// Who typed it.
        actor: String,
        /// The weights to set.
        weights: Weights,
    },
    /// Brings back the release that served before a promotion: into the arm without
    /// traffic, and all traffic there.
    Undo {
        /// Id of the rollout whose promotion is undone.
        of: String,
        /// Who asked for it.
        actor: String,
    },
    /// Changes the stack that the target belongs to, and keeps the traffic where
    /// it is meanwhile.
    StackChange {
        /// Name of the stack.
        stack: String,
        /// What is done to it.
        change: StackVerb,
        /// Who asked for it.
        actor: String,
        /// The stack's own weights were accepted beforehand, so they are not undone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accepts: bool,
    },
}

/// What is done to a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StackVerb {
    /// It is created or updated.
    Deploy,
    /// It is deleted with all its resources.
    Delete,
}

impl fmt::Display for StackVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Delete => "delete",
        })
    }
}

impl Work {
    /// Whether a person wants all traffic back on the stable arm: then an error of the
    /// target that may pass does not end the work.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        matches!(self, Self::Verb { verb, .. } if verb == "rollback")
    }
}

/// The strategy that a rollout is pinned to, and its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pin {
    /// Lower-case hex digest of the component's bytes.
    pub sha256: String,
    /// Its name, as its function `describe` returns it.
    pub name: String,
    /// Its version, as its function `describe` returns it.
    pub version: String,
    /// Where the bytes came from; nothing depends on it.
    pub source: String,
    /// The world of the contract that it exports, with its version.
    pub world: String,
    /// Its parameters, a JSON object.
    pub parameters: serde_json::Value,
    /// Seed of everything random in the guest, hex.
    pub seed: String,
    /// The steps that it intends to take if all goes well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PlannedStep>,
}

/// What a strategy, or the host itself, asks of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "fn")]
pub enum Call {
    /// `traffic.get-weights`
    GetWeights,
    /// `traffic.set-weights`
    SetWeights {
        /// The weight of every arm.
        weights: Weights,
    },
    /// `traffic.switch-color`
    SwitchColor {
        /// The arm that gets everything.
        color: String,
    },
    /// `metrics.get-metrics`
    GetMetrics {
        /// Which samples.
        query: MetricsQuery,
    },
    /// `metrics.query`
    Query {
        /// Name in the rollout file.
        name: String,
        /// Only values from this time on, Unix ms.
        since: Millis,
    },
    /// `metrics.get-health`
    GetHealth,
    /// `control.wait`
    Wait {
        /// For how long at most, s.
        seconds: u32,
        /// Signals that end it.
        signals: Vec<String>,
    },
    /// `control.probe`
    Probe {
        /// Name in the rollout file.
        name: String,
    },
    /// `control.log`
    Log {
        /// How important it is.
        level: Level,
        /// The line.
        message: String,
    },
    /// `control.progress`
    Progress {
        /// Progress in percent, from 0 to 100.
        percent: u32,
        /// Where it stands and why.
        note: String,
    },
    /// `control.report`
    Report {
        /// What was found.
        finding: Box<Finding>,
    },
    /// Host only: what other routes send to the arms.
    GetElsewhere,
    /// Host only: what an arm runs, with the digests of its images.
    GetRelease {
        /// The arm.
        arm: String,
    },
    /// Host only: what auto scaling may do with arms of which that was not known.
    GetScaling,
    /// Host only: put a release into an arm.
    SetVersion {
        /// The arm.
        arm: String,
        /// What to run there.
        release: Release,
    },
    /// Host only: write the whole action of the route as it was before a change of
    /// its stack, with its stickiness and its login.
    Restore {
        /// The weights that are part of it.
        weights: Weights,
        /// The action, in the form in which the target gave it.
        action: serde_json::Value,
    },
    /// Host only: set what auto scaling may do with an arm.
    SetScaling {
        /// The arm.
        arm: String,
        /// All of it.
        scaling: Scaling,
    },
    /// Host only: set the number of tasks of an arm.
    SetTasks {
        /// The arm.
        arm: String,
        /// The number of tasks.
        tasks: u32,
    },
}

impl Call {
    /// Whether the call changes the target: then its intent is journaled first, and only
    /// one of them is under way at a time.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::SetWeights { .. }
                | Self::SwitchColor { .. }
                | Self::SetVersion { .. }
                | Self::SetTasks { .. }
                | Self::SetScaling { .. }
                | Self::Restore { .. }
        )
    }

    /// Whether the call changes how many tasks an arm has, or may have: the traffic does not
    /// depend on it.
    #[must_use]
    pub fn sizes(&self) -> bool {
        matches!(self, Self::SetTasks { .. } | Self::SetScaling { .. })
    }

    /// Whether the call only tells people something.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        matches!(
            self,
            Self::Log { .. } | Self::Progress { .. } | Self::Report { .. }
        )
    }

    /// Whether it waits for a person's approval.
    #[must_use]
    pub fn asks_for_approval(&self) -> bool {
        matches!(self, Self::Wait { signals, .. } if signals.iter().any(|s| s == Command::APPROVE))
    }

    /// Whether the call changes weights, so that the load balancer alone says what it did.
    #[must_use]
    pub fn moves_traffic(&self) -> bool {
        matches!(
            self,
            Self::SetWeights { .. } | Self::SwitchColor { .. } | Self::Restore { .. }
        )
    }

    /// The weights after the call, if `now` are the weights before it; `None` if it does
    /// not change weights.
    #[must_use]
    pub fn weights_after(&self, now: &Weights) -> Option<Weights> {
        match self {
            Self::SetWeights { weights } | Self::Restore { weights, .. } => Some(weights.clone()),
            Self::SwitchColor { color } => Some(now.all_to(color)),
            _ => None,
        }
    }
}

/// A time as people write it, in UTC.
pub(crate) fn time(at: Millis) -> humantime::Rfc3339Timestamp {
    // A guest or a file may name any time, and the form of RFC 3339 ends with the year 9999.
    let since_1970 = std::time::Duration::from_millis(at.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_1970)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GetWeights => write!(f, "get-weights"),
            Self::SetWeights { weights } => write!(f, "set-weights {weights}"),
            Self::SwitchColor { color } => write!(f, "switch-color {color}"),
            Self::GetMetrics { query } => write!(f, "get-metrics since {}", time(query.since)),
            Self::Query { name, since } => write!(f, "query {name} since {}", time(*since)),
            Self::GetHealth => write!(f, "get-health"),
            Self::Wait { seconds, signals } if signals.is_empty() => {
                write!(f, "wait {seconds} s")
            }
            Self::Wait { seconds, signals } => {
                write!(f, "wait {seconds} s or {}", signals.join(", "))
            }
            Self::Probe { name } => write!(f, "probe {name}"),
            Self::Log { message, .. } => write!(f, "log {message}"),
            Self::Progress { percent, note } => write!(f, "progress {percent} % {note}"),
            Self::Report { finding } => write!(f, "{finding}"),
            Self::GetElsewhere => write!(f, "get-elsewhere"),
            Self::GetRelease { arm } => write!(f, "get-release {arm}"),
            Self::GetScaling => write!(f, "get-scaling"),
            Self::SetVersion { arm, release } => {
                write!(f, "set-version {arm} {}", release.version)
            }
            Self::Restore { weights, .. } => {
                write!(f, "restore the whole action with {weights}")
            }
            Self::SetTasks { arm, tasks } => write!(f, "set-tasks {arm} {tasks}"),
            Self::SetScaling { arm, scaling } => write!(f, "set-scaling {arm} {scaling}"),
        }
    }
}

/// One answer of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done, and was read back.
    Done,
    /// The answer to `get-weights`.
    Weights(Weights),
    /// The answer to `get-metrics`.
    Samples(Vec<Sample>),
    /// The answer to `query`.
    Points(Vec<Point>),
    /// The answer to `get-health`.
    Health(Vec<ArmHealth>),
    /// The answer to `wait`.
    Woke(Wake),
    /// The answer to `probe`.
    Probed(ProbeReport),
    /// The answer to `get-elsewhere`.
    Elsewhere(Vec<Elsewhere>),
    /// The answer to `get-release`.
    Release(Box<Running>),
    /// The answer to `get-scaling`.
    Scaling(Vec<ArmScaling>),
    /// It could not or must not be done.
    Failed(HostError),
}

impl Event {
    /// Id of the signal that this event obeys, if it obeys one. A wait that a signal ends
    /// has the signal in its answer instead.
    #[must_use]
    pub fn signal(&self) -> Option<&str> {
        match self {
            Self::Held { signal, .. }
            | Self::Continued { signal, .. }
            | Self::Decided { signal, .. } => signal.as_deref(),
            Self::Ignored { signal, .. } | Self::TookBack { signal, .. } => Some(signal),
            _ => None,
        }
    }

    /// About how many bytes it takes in a journal. The result is always the same, because
    /// a replay must come to the same limit.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Exchanged { call, reply, .. } => exchange_size(call, reply),
            Self::Answered { reply, .. } => ENTRY_BYTES + reply.written(),
            event => ENTRY_BYTES + json_size(event),
        }
    }
}

/// About how many bytes a call and its answer take in a journal.
#[must_use]
pub fn exchange_size(call: &Call, reply: &Reply) -> u64 {
    ENTRY_BYTES + json_size(call) + reply.written()
}

/// The length of a value as JSON, in bytes.
fn json_size(value: &impl Serialize) -> u64 {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and only values that can be written as JSON are in journals.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Most samples or points in one answer; of more, the newest are kept.
pub const SAMPLES_MAX: usize = 10_000;

impl Reply {
    /// Whether a write has reached the target, also if somebody else has written over it
    /// since, or if the target accepted it and shows no change.
    #[must_use]
    pub fn reached_the_target(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Failed(error) => matches!(error.code.as_str(), FOREIGN_CHANGE | WRITE_IGNORED),
            _ => false,
        }
    }

    /// The same answer, cut to what a journal takes: a target may answer with anything.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::Samples(all) => drop(all.drain(..all.len().saturating_sub(SAMPLES_MAX))),
            Self::Points(all) => drop(all.drain(..all.len().saturating_sub(SAMPLES_MAX))),
            Self::Probed(report) => report.detail = cut(std::mem::take(&mut report.detail)),
            Self::Failed(error) => error.message = cut(std::mem::take(&mut error.message)),
            Self::Health(arms) => {
                for arm in arms {
                    arm.health_reason = arm.health_reason.take().map(cut);
                }
            }
            Self::Release(seen) => seen.unread = seen.unread.take().map(cut),
            Self::Done
            | Self::Weights(_)
            | Self::Elsewhere(_)
            | Self::Scaling(_)
            | Self::Woke(_) => {}
        }
        self
    }

    /// The bytes of the answer itself. Samples and points are many and alike, so their
    /// size is estimated: to write them as JSON would delay every call.
    fn written(&self) -> u64 {
        let digits = |n: &u32| n.checked_ilog10().unwrap_or(0) as usize + 2;
        let bytes: usize = match self {
            Self::Samples(samples) => {
                let each = samples.iter().map(|s| {
                    let counts: usize = s.over.iter().map(digits).sum();
                    SAMPLE_BYTES + s.arm.len() + counts
                });
                each.sum()
            }
            Self::Points(points) => points.iter().map(|p| POINT_BYTES + p.arm.len()).sum(),
            other => return json_size(other),
        };
        bytes as u64
    }

    /// About how many bytes it takes in a journal, in the count of earlier engines, which
    /// counted only answers.
    #[must_use]
    pub fn size(&self) -> u64 {
        let bytes = match self {
            Self::Samples(samples) => {
                let counts: usize = samples.iter().map(|s| s.over.len()).sum();
                samples.len() * SAMPLE_BYTES + counts * COUNT_BYTES
            }
            Self::Points(points) => points.len() * POINT_BYTES,
            _ => 0,
        };
        ENTRY_BYTES + bytes as u64
    }
}

/// Code of a write after which the target has something else: somebody else
/// writes to it too.
pub const FOREIGN_CHANGE: &str = "foreign-change";
/// Code of a write that the target accepted and did not do.
pub const WRITE_IGNORED: &str = "write-ignored";

// About how many bytes each takes as JSON; a test compares them with real entries.
const ENTRY_BYTES: u64 = 256;
const SAMPLE_BYTES: usize = 320;
const POINT_BYTES: usize = 64;
const COUNT_BYTES: usize = 4;

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "ok"),
            Self::Weights(weights) => write!(f, "{weights}"),
            Self::Samples(samples) => {
                let requests: u64 = samples.iter().map(|s| u64::from(s.requests)).sum();
                write!(f, "{} samples, {requests} requests", samples.len())
            }
            Self::Points(points) => write!(f, "{} values", points.len()),
            Self::Health(arms) => {
                for (index, a) in arms.iter().enumerate() {
                    let gap = if index == 0 { "" } else { ", " };
                    write!(f, "{gap}{} {}/{} healthy", a.arm, a.healthy, a.total)?;
                }
                Ok(())
            }
            Self::Woke(Wake::Timer) => write!(f, "time is over"),
            Self::Woke(Wake::Signal(s)) => write!(f, "{} by {}", s.name, s.actor),
            Self::Elsewhere(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(", "))
            }
            Self::Release(seen) => write!(f, "{seen}"),
            Self::Scaling(all) => {
                let all: Vec<String> = all
                    .iter()
                    .map(|one| format!("{} {}", one.arm, one.scaling))
                    .collect();
                f.write_str(&all.join(", "))
            }
            Self::Probed(p) => write!(f, "{}: {}", if p.ok { "ok" } else { "failed" }, p.detail),
            Self::Failed(e) => write!(f, "refused ({}): {}", e.code, e.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Latency;

    #[test]
    fn the_size_of_an_entry_is_about_that_of_its_json() {
        let latency = Latency {
            mean: 41.372_518,
            p50: 35.1,
            p90: 88.25,
            p95: 120.125,
            p99: 250.0,
        };
        let sample = |n: u64| Sample {
            arm: "stable".to_owned(),
            zone: Some("eu-west-1a".to_owned()),
            start: 1_800_000_000_000 + n * 60_000,
            period_ms: 60_000,
            requests: 6_000,
            errors: 3,
            client_errors: 11,
            over: vec![12; 8],
            latency: Some(latency),
            whole: None,
            cpu: Some(41.0),
            memory: None,
            healthy: Some(2),
        };
        let point = |n: u64| Point {
            arm: "stable".to_owned(),
            at: 1_800_000_000_000 + n * 60_000,
            value: 0.912_345,
        };
        for reply in [
            Reply::Samples((0..500).map(sample).collect()),
            Reply::Points((0..500).map(point).collect()),
        ] {
            let json = serde_json::to_vec(&reply).expect("JSON").len() as u64;
            let ratio = reply.size() * 100 / json;
            assert!((80..=150).contains(&ratio), "{} for {json}", reply.size());
            let ratio = reply.written() * 100 / json;
            assert!(
                (80..=150).contains(&ratio),
                "{} for {json}",
                reply.written()
            );
        }
        let text = "x".repeat(4_000);
        let finding = crate::model::Finding {
            until: 0,
            log_evidence: 0.0,
            log_limit: 0.0,
            decision: crate::model::Decision::Stay,
            excess_requests: 0.0,
            streams: (0..64)
                .map(|_| crate::model::StreamFinding {
                    name: text.clone(),
                    candidate_bad: 0.0,
                    candidate_of: 0.0,
                    stable_bad: 0.0,
                    stable_of: 0.0,
                    log_evidence: 0.0,
                })
                .collect(),
            explanation: text.clone(),
        };
        let weights = Weights::of([(text.as_str(), 1)]);
        let failed = HostError::new(crate::model::ErrorKind::Denied, "no", text.as_str());
        let (by, name) = (Actor::Strategy, text.clone());
        let exchanged = |call, reply| Event::Exchanged { by, call, reply };
        let query = MetricsQuery {
            since: 0,
            over_ms: vec![0.123_456_789; 64],
            by_zone: false,
        };
        for event in [
            exchanged(Call::GetMetrics { query }, Reply::Samples(vec![])),
            exchanged(
                Call::Query {
                    name: name.clone(),
                    since: 0,
                },
                Reply::Points(vec![]),
            ),
            exchanged(Call::Probe { name: name.clone() }, Reply::Done),
            exchanged(
                Call::Log {
                    level: Level::Info,
                    message: name.clone(),
                },
                Reply::Done,
            ),
            exchanged(
                Call::Progress {
                    percent: 1,
                    note: name.clone(),
                },
                Reply::Done,
            ),
            exchanged(
                Call::Report {
                    finding: Box::new(finding),
                },
                Reply::Done,
            ),
            exchanged(Call::SetWeights { weights }, Reply::Failed(failed.clone())),
            exchanged(
                Call::SwitchColor {
                    color: name.clone(),
                },
                Reply::Failed(failed),
            ),
            Event::Asked {
                by,
                call: Call::Wait {
                    seconds: 0,
                    signals: vec![name.clone(); 64],
                },
                before: None,
                deadline: Some(0),
            },
            Event::Answered {
                by,
                of: 1,
                reply: Reply::Woke(Wake::Signal(crate::model::Signal {
                    id: name.clone(),
                    name: name.clone(),
                    actor: name.clone(),
                    payload: name.clone(),
                    until: None,
                })),
                recovered: false,
            },
            Event::Failed { reason: name },
        ] {
            let entry = Entry {
                seq: 1,
                at: 1_800_000_000_000,
                epoch: 1,
                event,
            };
            let json = serde_json::to_vec(&entry).expect("JSON").len() as u64;
            let size = entry.event.size();
            assert!((json..json + 300).contains(&size), "{size} for {json}");
        }
    }

    #[test]
    fn an_answer_has_a_largest_size() {
        let point = |n| Point {
            arm: "stable".to_owned(),
            at: n,
            value: 1.0,
        };
        let Reply::Points(kept) = Reply::Points((0..10_003).map(point).collect()).bounded() else {
            panic!("still points");
        };
        assert_eq!((kept.len(), kept[0].at), (SAMPLES_MAX, 3));
        let endless = HostError::new(
            crate::model::ErrorKind::Internal,
            "endless",
            "x".repeat(1 << 20),
        );
        let Reply::Failed(cut) = Reply::Failed(endless).bounded() else {
            panic!("still a failure");
        };
        assert!(cut.message.len() < 5_000);
    }
}
