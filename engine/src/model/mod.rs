//! What a rollout is about, as values: arms, weights, samples, verdicts.
//!
//! Pure data. What the strategy contract calls a record has the same name and
//! the same fields here, so that a journal reads like the contract.

pub mod address;
pub mod aws;
mod command;
pub mod image;
pub mod limits;
mod naming;
pub mod network;
pub mod problem;
pub mod query;
pub mod secret;
pub mod target;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use command::{Command, Decider};
pub use naming::{Naming, ROLES, is_name};

/// Unix time or a duration, in milliseconds.
pub type Millis = u64;

/// The largest weight an arm can have, as on an AWS load balancer.
pub const WEIGHT_MAX: u32 = 999;

/// What an arm is in one rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Serves the users today, and again after a rollback.
    Stable,
    /// The version on trial.
    Candidate,
}

/// One of the two versions that share the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Arm {
    /// `stable`/`canary`, `blue`/`green`, or what the target calls it.
    pub name: String,
    /// What it is in this rollout.
    pub role: Role,
    /// The version that it ran when the rollout began.
    pub version: String,
}

/// The weight of one arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Weight {
    /// The arm's name.
    pub arm: String,
    /// From 0 to 999; the arm's share is its weight over the sum of both.
    pub weight: u32,
}

/// The weights of all arms, in the target's order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Weights(pub Vec<Weight>);

impl Weights {
    /// Weights from pairs of name and weight.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(arm, weight)| Weight {
                    arm: arm.to_owned(),
                    weight,
                })
                .collect(),
        )
    }

    /// What the names of the arms say about their roles.
    #[must_use]
    pub fn naming(&self) -> Naming {
        Naming::of(self.0.iter().map(|w| w.arm.as_str()))
    }

    /// All traffic to `arm`: weight 100 for it, 0 for every other arm here.
    #[must_use]
    pub fn all_to(&self, arm: &str) -> Self {
        Self::of(
            self.0
                .iter()
                .map(|w| (w.arm.as_str(), if w.arm == arm { 100 } else { 0 })),
        )
    }

    /// The same arms without any traffic.
    #[must_use]
    pub fn none(&self) -> Self {
        Self::of(self.0.iter().map(|w| (w.arm.as_str(), 0)))
    }

    /// The shares for people, such as `stable 95 %, canary 5 %`.
    #[must_use]
    pub fn shares(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|w| format!("{} {} %", w.arm, percent(self.share(&w.arm))))
            .collect();
        parts.join(", ")
    }

    /// The weight of `arm`, from 0 to 999; 0 if it is not named here.
    #[must_use]
    pub fn weight(&self, arm: &str) -> u32 {
        self.0.iter().find(|w| w.arm == arm).map_or(0, |w| w.weight)
    }

    /// The share of `arm` in percent, 0-100.
    #[must_use]
    pub fn share(&self, arm: &str) -> f64 {
        // Weights of an imported journal may be any, so their sum may not fit a `u32`.
        let sum: f64 = self.0.iter().map(|w| f64::from(w.weight)).sum();
        if sum > 0.0 {
            100.0 * f64::from(self.weight(arm)) / sum
        } else {
            0.0
        }
    }

    /// Whether both share requests alike, in whatever numbers.
    #[must_use]
    pub fn shares_like(&self, other: &Self) -> bool {
        let alike = |w: &Weight| (self.share(&w.arm) - other.share(&w.arm)).abs() < 1e-9;
        self.0.iter().chain(&other.0).all(alike)
    }

    /// The same weights in the order of `arms`.
    ///
    /// # Errors
    /// What is wrong with them: each arm must be named once, with a weight from 0 to 999,
    /// and the sum must be above 0.
    pub fn ordered_as(&self, arms: &[String]) -> Result<Self, String> {
        let known = arms.join(", ");
        for (index, w) in self.0.iter().enumerate() {
            if !arms.contains(&w.arm) {
                return Err(format!("there is no arm {:?}; the arms are {known}", w.arm));
            }
            if self.0[..index].iter().any(|earlier| earlier.arm == w.arm) {
                return Err(format!("arm {:?} is named twice", w.arm));
            }
            if w.weight > WEIGHT_MAX {
                return Err(format!(
                    "the weight of {:?} is {}; a weight is 0 to {WEIGHT_MAX}",
                    w.arm, w.weight
                ));
            }
        }
        if let Some(missing) = arms.iter().find(|a| !self.0.iter().any(|w| w.arm == **a)) {
            return Err(format!("arm {missing:?} is missing; name all of {known}"));
        }
        if self.0.iter().all(|w| w.weight == 0) {
            return Err("all weights are 0, so nobody would get the traffic".to_owned());
        }
        Ok(Self::of(arms.iter().map(|a| (a.as_str(), self.weight(a)))))
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, w) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}={}", w.arm, w.weight)?;
        }
        Ok(())
    }
}

/// What runs in an arm: a version and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// A label that people recognise; equal labels mean the same software.
    pub version: String,
    /// How to run or reach it.
    pub source: Source,
}

/// Where the software of an arm comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Servers that somebody else runs.
    Urls(Vec<String>),
    /// A program that the balancer starts; `{port}` in an argument and the
    /// variable `PORT` carry the port it must listen on.
    Command(Vec<String>),
    /// The built-in demo service.
    Demo(DemoFault),
    /// A container image, put into a copy of the task definition that the arm
    /// runs today.
    Image(String),
    /// A revision of an ECS task definition, by ARN. Its release's version is
    /// the image of its main container.
    TaskDefinition(String),
    /// What one revision of a task definition changed against another, put into a
    /// copy of the task definition that the arm runs today.
    Changes(Box<aws::Changes>),
}

impl Release {
    /// Whether what runs is this release. Two revisions of a task definition count as
    /// different even with the same image, because their settings may differ.
    #[must_use]
    pub fn is(&self, running: &Self) -> bool {
        match (&self.source, &running.source) {
            (Source::TaskDefinition(wanted), Source::TaskDefinition(found)) => wanted == found,
            _ => self.version == running.version,
        }
    }

    /// The same image by its digest, to be put into a copy of what an arm runs; `None` if
    /// the version is not the name of one image.
    #[must_use]
    pub fn by_digest(&self, digest: &str) -> Option<Self> {
        image::ImageReference::parse(&self.version).ok()?;
        let version = image::by_digest(&self.version, digest);
        Some(Self {
            source: Source::Image(version.clone()),
            version,
        })
    }
}

/// What the running backends of an arm say of the images from which they were started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// Digests of the images, each once, sorted.
    pub digests: Vec<String>,
    /// How many backends do not say which one theirs is.
    pub silent: u32,
}

/// What an arm was seen to run. A tag can mean another image later, so it has the digests
/// of the images too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    /// The arm's name.
    pub arm: String,
    /// What it is set to run.
    pub release: Release,
    /// Digests of the images from which its backends were started, each once; none if the
    /// target does not say them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
    /// How many of its backends do not say from which image they were started; absent if
    /// all do, or if there is none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub silent: u32,
    /// Why the digests could not be read; absent if they could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Running {
    /// The digest, if all backends say which image they run, and it is the same.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match &self.digests[..] {
            [one] if self.silent == 0 => Some(one),
            _ => None,
        }
    }

    /// Whether some backends do not say which image they run, or it could not be read.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.silent > 0 || self.unread.is_some()
    }

    /// Whether it was started by the digest of its image, which always means the same.
    #[must_use]
    pub fn is_by_digest(&self) -> bool {
        self.release.version.contains("@sha256:")
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs {}", self.arm, self.release.version)?;
        match (&self.digests[..], &self.unread) {
            ([], Some(why)) => write!(f, ", and its digest could not be read: {why}"),
            ([], None) => write!(f, ", and the target does not say which digest that is"),
            (all, _) => {
                write!(f, " as {}", all.join(" and "))?;
                match self.silent {
                    0 => Ok(()),
                    1 => write!(f, ", and one of its tasks does not say which image it runs"),
                    n => write!(f, ", and {n} of its tasks do not say which image they run"),
                }
            }
        }
    }
}

/// What is wrong with a demo service, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DemoFault {
    /// Part of the requests that are answered with status 500, from 0 to 1.
    pub error_rate: f64,
    /// Latency added to every request, ms.
    pub latency_ms: u32,
}

/// So many of something: `1 backend`, `2 backends`.
#[must_use]
pub fn counted(count: u32, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A share in percent for people: whole where it is whole, else with one decimal, so that
/// weights 993 and 7 are `99.3` and `0.7`. Nothing that is not all or nothing is shown so.
#[must_use]
pub fn percent(share: f64) -> String {
    let tenths = (share * 10.0).round() / 10.0;
    if share > 0.0 && tenths <= 0.0 {
        "<0.1".to_owned()
    } else if share < 100.0 && tenths >= 100.0 {
        ">99.9".to_owned()
    } else if (tenths - tenths.round()).abs() < 1e-9 && (share - tenths).abs() < 0.05 {
        format!("{tenths:.0}")
    } else {
        format!("{tenths:.1}")
    }
}

/// The backends of an arm as the load balancer sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmHealth {
    /// The arm's name.
    pub arm: String,
    /// Backends that pass their health check.
    pub healthy: u32,
    /// All registered backends.
    pub total: u32,
    /// Why backends do not pass, in the load balancer's own words, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_reason: Option<String>,
}

/// Response times in one period, ms, until the headers of the response: the mean and
/// percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the statistics")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

/// What was measured on one arm in one complete period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The arm's name.
    pub arm: String,
    /// Availability zone, where the query asked to split by zone.
    pub zone: Option<String>,
    /// Start of the period, Unix ms.
    pub start: Millis,
    /// Length of the period, ms.
    pub period_ms: u32,
    /// Requests in the period: at least one, because a period without requests has no
    /// sample.
    pub requests: u32,
    /// 5xx answers, answers that broke off or whose protocol says failure (gRPC), and
    /// failed connections.
    pub errors: u32,
    /// 4xx answers.
    pub client_errors: u32,
    /// Number of requests slower than each threshold of the query, in its order.
    pub over: Vec<u32>,
    /// Times to the head of the answer, where the source knows them.
    pub latency: Option<Latency>,
    /// Times to the end of the answer, where the source knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Latency>,
    /// CPU, percent of what the arm has reserved.
    pub cpu: Option<f64>,
    /// Memory, percent of what the arm has reserved.
    pub memory: Option<f64>,
    /// Fewest healthy backends in the period, where the source knows.
    #[serde(default)]
    pub healthy: Option<u32>,
}

/// Which samples to return.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MetricsQuery {
    /// Only samples that start at or after this time, Unix ms.
    pub since: Millis,
    /// Latency thresholds, ms: requests that took longer are counted for each.
    pub over_ms: Vec<f64>,
    /// Split arms by availability zone where possible.
    pub by_zone: bool,
}

/// One value of a custom query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// The arm's name.
    pub arm: String,
    /// When it was measured, Unix ms.
    pub at: Millis,
    /// The value, in the query's own unit.
    pub value: f64,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    /// Whether the answer was as expected.
    pub ok: bool,
    /// HTTP status of the last attempt; 0 without an answer.
    pub status: u32,
    /// Milliseconds that the last attempt took.
    pub elapsed_ms: f64,
    /// What was expected and what came instead.
    pub detail: String,
}

/// What the gate concludes from a look at the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Stay at this step; it is not time to go on.
    Stay,
    /// Stay at this step although it was time to go on.
    Hold,
    /// Go on to the next step.
    Advance,
    /// Take the traffic back.
    RollBack,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stay => "stays",
            Self::Hold => "holds",
            Self::Advance => "goes on",
            Self::RollBack => "goes back",
        })
    }
}

/// What a look found about one stream: one kind of bad event, or one average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamFinding {
    /// The name of the stream for people, such as `errors`.
    pub name: String,
    /// Bad events of the candidate.
    pub candidate_bad: f64,
    /// Requests of the candidate.
    pub candidate_of: f64,
    /// Bad events of the stable arm.
    pub stable_bad: f64,
    /// Requests of the stable arm.
    pub stable_of: f64,
    /// Natural logarithm of the evidence, as odds, that the candidate is worse in this
    /// stream.
    pub log_evidence: f64,
}

/// One step that a strategy intends to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedStep {
    /// Percent of the traffic for the candidate.
    pub share: u32,
    /// Time at this step, s; `None` if it is not fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Whether a person must approve it first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_approval: bool,
}

/// What a look at the metrics found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// End of the newest sample that was read, Unix ms.
    pub until: Millis,
    /// Natural logarithm of the evidence, as odds, that the candidate is worse.
    pub log_evidence: f64,
    /// The value of `log_evidence` at which the gate rolls back.
    pub log_limit: f64,
    /// What the gate concludes from it.
    pub decision: Decision,
    /// An estimate of the bad requests so far that are the candidate's fault.
    pub excess_requests: f64,
    /// The finding about each stream.
    pub streams: Vec<StreamFinding>,
    /// The same in words.
    pub explanation: String,
}

/// How suspicious a candidate is, from 0 to 100, at which it goes back: the evidence in percent
/// of its limit, both as natural logarithms.
#[must_use]
pub fn suspicion(log_evidence: f64, log_limit: f64) -> f64 {
    match log_evidence >= log_limit {
        true => 100.0,
        false => (log_evidence - log_limit).exp() * 100.0,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.decision, self.explanation)
    }
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// A guardrail or a permission forbids it.
    Denied,
    /// The arguments of the call are not valid.
    Invalid,
    /// The arm that would get traffic has no healthy backend.
    Unhealthy,
    /// The target is not as the host left it.
    Conflict,
    /// What was named does not exist.
    NotFound,
    /// There were too many calls; the same call may succeed later.
    Throttled,
    /// The other side cannot be reached or does not answer.
    Unavailable,
    /// A bug of the engine or of the other side.
    Internal,
}

/// Why the host or a target could not or would not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// The kind of the failure.
    pub kind: ErrorKind,
    /// A word for programs, in kebab-case; it stays the same in later versions.
    pub code: String,
    /// For a person: what failed and what to do.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl HostError {
    /// An error that is final.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            retryable: false,
        }
    }

    /// The same error, marked as one that may pass.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

/// What the target looks like right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Every arm, in the target's order.
    pub arms: Vec<ObservedArm>,
    /// Whether clients stick to an arm whatever the weights say.
    pub sticky: bool,
    /// Where users send their requests.
    pub address: String,
    /// The other listeners and rules that move with the target's route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherRoute>,
}

/// One arm of a target, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObservedArm {
    /// The arm's name.
    pub name: String,
    /// What runs in it.
    pub release: Release,
    /// Its weight.
    pub weight: u32,
    /// Backends that pass their health check.
    pub healthy: u32,
    /// All registered backends.
    pub total: u32,
    /// Why backends do not pass, in the load balancer's own words, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_reason: Option<String>,
    /// Tasks that it shall have; `None` where the engine does not set their number.
    #[serde(default)]
    pub tasks: Option<u32>,
    /// Whether what runs is what shall run.
    #[serde(default)]
    pub deployment: Deployment,
    /// When that release replaced another one, Unix ms, where the target says so. What was
    /// measured before is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// Requests of that release that clients broke off or gave up, where the balancer
    /// counts them: no errors of the arm.
    #[serde(default)]
    pub spoiled: u64,
    /// Those of them that were wholly with the arm, which had not begun to answer.
    #[serde(default)]
    pub unanswered: u64,
    /// Requests that were sent to that release once more, because a connection to it was
    /// lost, where the balancer counts them.
    #[serde(default)]
    pub sent_again: u64,
}

/// Whether the platform has brought an arm where it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deployment {
    /// What runs is what shall run.
    #[default]
    Steady,
    /// The platform is still changing it; the text says how far it is.
    Moving(String),
    /// The platform gave up; the text is its own reason.
    Failed(String),
}

/// The weights of a target, without what runs in its arms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// The weights of the arms, in order.
    pub weights: Weights,
    /// Whether clients stick to an arm whatever the weights say.
    pub sticky: bool,
    /// Where users send their requests.
    pub address: String,
    /// The other listeners and rules that move with the target's route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherRoute>,
}

impl Traffic {
    /// The names of the arms, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.weights.0.iter().map(|w| w.arm.clone()).collect()
    }

    /// The other routes that do not have these weights.
    pub fn apart_from<'a>(
        &'a self,
        wanted: &'a Weights,
    ) -> impl Iterator<Item = &'a OtherRoute> + 'a {
        self.others.iter().filter(|other| !other.has(wanted))
    }

    /// The other routes that do not have the weights of the target's route.
    pub fn apart(&self) -> impl Iterator<Item = &OtherRoute> {
        self.apart_from(&self.weights)
    }

    /// Whether every route sends everything to that arm.
    #[must_use]
    pub fn all_on(&self, arm: &str) -> bool {
        self.weights.share(arm) >= 100.0 && self.others.iter().all(|o| o.gives_all_to(arm))
    }

    /// Whether any route sends requests to that arm, as far as is known.
    #[must_use]
    pub fn serves(&self, arm: &str) -> bool {
        self.weights.weight(arm) > 0 || self.others.iter().any(|o| o.weights.weight(arm) > 0)
    }

    /// The shares for people, with those of every route that has others.
    #[must_use]
    pub fn shares(&self) -> String {
        let apart = self.apart().map(ToString::to_string);
        let all: Vec<String> = std::iter::once(self.weights.shares())
            .chain(apart)
            .collect();
        all.join("; ")
    }
}

/// The weights, and every route that has others.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.weights)?;
        self.apart().try_for_each(|other| write!(f, "; {other}"))
    }
}

impl From<Weights> for Traffic {
    /// The traffic of a single route.
    fn from(weights: Weights) -> Self {
        Self {
            weights,
            sticky: false,
            address: String::new(),
            others: vec![],
        }
    }
}

/// What another listener or rule of a target does, which moves with its route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherRoute {
    /// The listener or rule, such as its ARN.
    pub route: String,
    /// The same as people call it, such as `HTTPS:443 rule 10`.
    pub place: String,
    /// The weights of the arms there; none if they are not known.
    pub weights: Weights,
    /// Why it does not share its requests between the two arms any more; absent while it
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amiss: Option<String>,
}

impl OtherRoute {
    /// Whether it shares its requests like this. One that has dropped out has no shares,
    /// but where all traffic is to go to one arm it is enough that it sends the other
    /// arm nothing.
    #[must_use]
    pub fn has(&self, wanted: &Weights) -> bool {
        match &self.amiss {
            None => self.weights.shares_like(wanted),
            Some(_) => wanted
                .0
                .iter()
                .any(|w| wanted.share(&w.arm) >= 100.0 && self.gives_all_to(&w.arm)),
        }
    }

    /// Whether it sends no request to any other arm.
    #[must_use]
    pub fn gives_all_to(&self, arm: &str) -> bool {
        let others = || self.weights.0.iter().filter(|w| w.arm != arm);
        match &self.amiss {
            None => self.weights.share(arm) >= 100.0,
            Some(_) => !self.weights.0.is_empty() && others().all(|w| w.weight == 0),
        }
    }
}

impl fmt::Display for OtherRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.amiss {
            None => write!(f, "{} is at {}", self.place, self.weights.shares()),
            Some(why) => write!(f, "{}: {why}", self.place),
        }
    }
}

/// What a listener or rule other than the target's own route sends to an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Elsewhere {
    /// The arm.
    pub arm: String,
    /// The listener or rule, such as its ARN.
    pub route: String,
    /// The same as people call it, such as `HTTPS:443`.
    pub place: String,
    /// Percent of the requests to that listener or rule that the arm gets.
    pub share: f64,
    /// Who sends requests there.
    pub way: Way,
    /// Whether it names the groups of both arms, as the routes of a target do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub both: bool,
}

/// Who sends requests to a listener or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Users, as far as is known.
    Users,
    /// Nobody has said who: all of it goes to one arm, and its port is neither 80
    /// nor 443, as test listeners have it.
    Unsaid,
    /// Only tests, because the stack or a person says so.
    Tests,
}

impl Elsewhere {
    /// The listeners and rules by which users may reach an arm: because of them it must
    /// not lose its tasks.
    pub fn serving<'a>(all: &'a [Self], arm: &'a str) -> impl Iterator<Item = &'a Self> {
        all.iter()
            .filter(move |e| e.arm == arm && e.way != Way::Tests)
    }

    /// The listeners and rules by which users reach an arm, as far as is known: because
    /// of them its release must not be replaced as if nobody used it.
    pub fn seen<'a>(all: &'a [Self], arm: &'a str) -> impl Iterator<Item = &'a Self> {
        all.iter()
            .filter(move |e| e.arm == arm && e.way == Way::Users)
    }

    /// The listeners and rules that are made to share users between both arms and do not
    /// send all of them to that one. One that nobody has said to be for tests alone is
    /// among them: it may be what a raise that broke off has left.
    pub fn left_behind<'a>(all: &'a [Self], arm: &'a str) -> impl Iterator<Item = &'a Self> {
        all.iter()
            .filter(move |e| e.both && e.arm != arm && e.way != Way::Tests)
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.way {
            Way::Users | Way::Unsaid => "",
            Way::Tests => " (for tests)",
        };
        write!(
            f,
            "{}{what} sends {} % to {}",
            self.place,
            percent(self.share),
            self.arm
        )
    }
}

/// What auto scaling may do with the number of tasks of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scaling {
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
    /// Whether its policies must not take tasks away.
    pub in_suspended: bool,
    /// Whether its policies must not add tasks.
    pub out_suspended: bool,
    /// Whether its schedules have no effect.
    pub scheduled_suspended: bool,
}

impl Scaling {
    /// The same, but what somebody else has changed stays: what is live and was not told.
    #[must_use]
    pub fn over(self, told: Option<Self>, live: Self) -> Self {
        fn keep<T: PartialEq>(wanted: T, told: Option<T>, live: T) -> T {
            match told {
                Some(told) if told != live => live,
                _ => wanted,
            }
        }
        let min = keep(self.min, told.map(|t| t.min), live.min);
        Self {
            min,
            // Where only one of both is somebody else's, they may not fit together.
            max: keep(self.max, told.map(|t| t.max), live.max).max(min),
            in_suspended: keep(
                self.in_suspended,
                told.map(|t| t.in_suspended),
                live.in_suspended,
            ),
            out_suspended: keep(
                self.out_suspended,
                told.map(|t| t.out_suspended),
                live.out_suspended,
            ),
            scheduled_suspended: keep(
                self.scheduled_suspended,
                told.map(|t| t.scheduled_suspended),
                live.scheduled_suspended,
            ),
        }
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} tasks", self.min, self.max)?;
        for (suspended, what) in [
            (self.in_suspended, "scale-in"),
            (self.out_suspended, "scale-out"),
            (self.scheduled_suspended, "schedules"),
        ] {
            if suspended {
                write!(f, ", {what} suspended")?;
            }
        }
        Ok(())
    }
}

/// An arm that auto scaling changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmScaling {
    /// Name of the arm.
    pub arm: String,
    /// What auto scaling may do with it.
    pub scaling: Scaling,
}

/// How many tasks carry the traffic of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// Tasks for all of the traffic.
    pub full: u32,
    /// Tasks that an arm without traffic keeps.
    pub idle: u32,
}

impl Capacity {
    /// What two arms need: `serving` tasks carry `share` percent today, and the
    /// other arm has `idle` of them.
    #[must_use]
    pub fn of(serving: u32, share: f64, idle: u32) -> Self {
        let full = f64::from(serving) * 100.0 / share.max(1.0);
        Self {
            full: whole(full.round()).max(serving).max(1),
            idle,
        }
    }

    /// Tasks for `share` percent of the traffic: at least one.
    #[must_use]
    pub fn for_share(&self, share: f64) -> u32 {
        // Shares are quotients, so 3 * 33.333... / 100 may come out a little above 1.
        whole((f64::from(self.full) * share / 100.0 - 1e-9).ceil()).max(1)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small, non-negative whole number; the cast saturates"
)]
fn whole(value: f64) -> u32 {
    value as u32
}

impl Observed {
    /// Where the traffic goes.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            weights: self.weights(),
            sticky: self.sticky,
            address: self.address.clone(),
            others: self.others.clone(),
        }
    }

    /// The names of the arms, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.arms.iter().map(|a| a.name.clone()).collect()
    }

    /// What the names of the arms say about their roles.
    #[must_use]
    pub fn naming(&self) -> Naming {
        Naming::of(self.arms.iter().map(|a| a.name.as_str()))
    }

    /// The weights of the arms, in order.
    #[must_use]
    pub fn weights(&self) -> Weights {
        Weights::of(self.arms.iter().map(|a| (a.name.as_str(), a.weight)))
    }

    /// The health of the arms, in order.
    #[must_use]
    pub fn health(&self) -> Vec<ArmHealth> {
        self.arms
            .iter()
            .map(|a| ArmHealth {
                arm: a.name.clone(),
                healthy: a.healthy,
                total: a.total,
                health_reason: a.health_reason.clone(),
            })
            .collect()
    }

    /// The arm of that name.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&ObservedArm> {
        self.arms.iter().find(|a| a.name == name)
    }
}

/// The stored form of a command that a person or a machine gave to a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// Signals with the same id count as one.
    pub id: String,
    /// `approve`, `promote`, `pause`, `resume`, `abort`, or a strategy's own.
    pub name: String,
    /// Who gave the command.
    pub actor: String,
    /// A text that belongs to the command, such as a reason; may be empty.
    pub payload: String,
    /// The deadline of the wait that it is meant for, Unix ms; `None` for any wait.
    #[serde(default)]
    pub until: Option<Millis>,
}

/// Why a wait ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wake {
    /// Its deadline has passed.
    Timer,
    /// A signal came first.
    Signal(Signal),
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Level {
    Debug,
    Info,
    Warn,
}

/// What a strategy returns at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The candidate is good: it gets all traffic.
    Promoted,
    /// The candidate is bad: it gets no traffic.
    RolledBack,
    /// The strategy cannot tell whether the candidate is good; a person must decide.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// A verdict and the sentence that explains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, for the person on call.
    pub reason: String,
}

/// How the new version takes over at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Promotion {
    /// The candidate arm keeps the traffic and is the stable arm from now on.
    Swap,
    /// The stable arm gets the candidate's release, then the traffic back. On AWS it
    /// keeps its own task definition but for what the new version changed in the
    /// candidate's.
    Copy,
    /// As `copy`, but on AWS the stable service gets the candidate's task definition as
    /// it is, with its size, roles, variables and logs.
    CopyWhole,
}

impl Promotion {
    /// Whether the stable arm gets the new release.
    #[must_use]
    pub fn copies(self) -> bool {
        matches!(self, Self::Copy | Self::CopyWhole)
    }
}

/// Where a rollout goes once it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// All traffic to the new version.
    Promote,
    /// All traffic to the stable arm.
    RollBack,
}

impl Verdict {
    /// Where it leads, if it decides anything.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        match self {
            Self::Promoted => Some(Goal::Promote),
            Self::RolledBack => Some(Goal::RollBack),
            Self::Inconclusive => None,
        }
    }
}

impl From<Goal> for Verdict {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Promote => Self::Promoted,
            Goal::RollBack => Self::RolledBack,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promote => "promote",
            Self::RollBack => "roll back",
        })
    }
}

/// How a rollout ended: what the host has read from the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The new version has all traffic, and that was read back.
    Promoted,
    /// The new version has no traffic, and that was read back.
    RolledBack,
    /// The traffic could not be taken back, so a person must look at it at once.
    RollbackFailed,
    /// A single verb by a person (`set-weights`, `switch`), done.
    Done,
    /// A single verb by a person, refused or failed; nothing was left half-way.
    Refused,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::RollbackFailed => "rollback failed",
            Self::Done => "done",
            Self::Refused => "refused",
        })
    }
}

/// Why a rollout stands still until a person acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Hold {
    /// A person paused the rollout.
    Asked {
        /// Who it was.
        actor: String,
    },
    /// The strategy could not tell good from bad.
    Inconclusive {
        /// Why, in the strategy's own words.
        reason: String,
    },
    /// The strategy failed, and the guardrails ask for a pause then.
    StrategyError {
        /// The text of the trap, or the strategy's own error.
        reason: String,
    },
    /// Somebody else moved the weights.
    ForeignChange {
        /// What this rollout last wrote.
        expected: Weights,
        /// What the target has now.
        found: Weights,
        /// The listener or rule, if it is not the target's own route but one that moves
        /// with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
    /// The deadline has passed, and the guardrails ask for a pause then.
    Deadline,
    /// The host could not reach the goal.
    Stuck {
        /// What it was doing and what went wrong.
        reason: String,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { actor } => write!(f, "asked by {actor}"),
            Self::Inconclusive { reason } => write!(f, "inconclusive: {reason}"),
            Self::StrategyError { reason } => write!(f, "the strategy failed: {reason}"),
            Self::ForeignChange {
                expected,
                found,
                place: None,
            } => write!(
                f,
                "somebody else moved the traffic: this rollout left {expected}, the target has {found}"
            ),
            Self::ForeignChange {
                expected,
                found,
                place: Some(place),
            } => write!(
                f,
                "somebody else changed {place}: this rollout left {expected} there, and now it has {found}; bring it back to that or give up, because --adopt takes over the weights of the target's own route alone"
            ),
            Self::Deadline => write!(f, "the deadline has passed"),
            Self::Stuck { reason } => write!(f, "{reason}"),
        }
    }
}

/// Which part of a rollout is under way, in the words of Argo Rollouts where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the field's own terms")]
pub enum Phase {
    Pending,
    Preparing,
    Progressing,
    /// The strategy has taken the share back for a while, and looks again.
    Retreated,
    Paused,
    Promoting,
    Baking,
    Succeeded,
    RollingBack,
    RolledBack,
    RollbackFailed,
    Diverged,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Progressing => "progressing",
            Self::Retreated => "retreated",
            Self::Paused => "paused",
            Self::Promoting => "promoting",
            Self::Baking => "baking",
            Self::Succeeded => "succeeded",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::RollbackFailed => "rollback-failed",
            Self::Diverged => "diverged",
        })
    }
}

/// Whether a terminal takes a character as a command instead of showing it.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether people do not see a character as itself: a terminal takes it as a command, or
/// it is invisible, so that two different names look the same.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    is_control(c)
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Longest text, in bytes, that a plugin or a target may send in one field; the rest is
/// cut off.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// Cuts a text from outside to [`TEXT_BYTES_MAX`], with `…` at the end if it was longer.
#[must_use]
pub fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Lower-case hex digest of some bytes.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    sha2::Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms() -> Vec<String> {
        vec!["stable".to_owned(), "canary".to_owned()]
    }

    #[test]
    fn what_somebody_else_told_auto_scaling_stays() {
        let first = Scaling {
            min: 2,
            max: 10,
            in_suspended: false,
            out_suspended: false,
            scheduled_suspended: false,
        };
        let told = Scaling {
            min: 4,
            in_suspended: true,
            ..first
        };
        assert_eq!(first.over(Some(told), told), first, "nobody else was there");
        // Somebody raised both numbers meanwhile.
        let live = Scaling {
            min: 6,
            max: 30,
            ..told
        };
        let back = Scaling {
            min: 6,
            max: 30,
            ..first
        };
        assert_eq!(first.over(Some(told), live), back);
        // Somebody let it scale in again.
        let live = Scaling {
            in_suspended: false,
            ..told
        };
        assert_eq!(told.over(Some(told), live), live);
        assert_eq!(told.over(None, first), told, "what is not known is told");
        let tight = Scaling { max: 4, ..first };
        let live = Scaling {
            min: 6,
            max: 8,
            ..told
        };
        let told = Scaling { max: 8, ..told };
        assert_eq!(tight.over(Some(told), live).max, 6, "not below the minimum");
    }

    #[test]
    fn shares_are_shown_as_exactly_as_people_read_them() {
        for (share, shown) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.7, "0.7"),
            (5.0, "5"),
            (100.0 / 3.0, "33.3"),
            (99.3, "99.3"),
            (99.99, ">99.9"),
            (100.0, "100"),
        ] {
            assert_eq!(percent(share), shown, "{share}");
        }
        let weights = Weights::of([("stable", 993), ("canary", 7)]);
        assert_eq!(weights.shares(), "stable 99.3 %, canary 0.7 %");
        let weights = Weights::of([("stable", 998), ("canary", 1)]);
        assert_eq!(weights.shares(), "stable 99.9 %, canary 0.1 %");
    }

    #[test]
    fn weights_are_put_in_the_targets_order() {
        let given = Weights::of([("canary", 5), ("stable", 95)]);
        let ordered = given.ordered_as(&arms()).expect("valid");
        assert_eq!(ordered, Weights::of([("stable", 95), ("canary", 5)]));
        assert!((ordered.share("canary") - 5.0).abs() < 1e-9);
    }

    #[test]
    fn capacity_follows_the_share() {
        // Two tasks carry 95 % today.
        let capacity = Capacity::of(2, 95.0, 1);
        assert_eq!(capacity, Capacity { full: 2, idle: 1 });
        let needs = |share| capacity.for_share(share);
        assert_eq!([0.0, 5.0, 50.0, 50.1, 100.0].map(needs), [1, 1, 1, 2, 2]);
        assert_eq!(Capacity::of(4, 50.0, 4).full, 8);
        assert_eq!(Capacity::of(3, 100.0, 0).for_share(100.0 / 3.0), 1);
        assert_eq!(Capacity::of(0, 0.0, 0).full, 1);
    }

    #[test]
    fn bad_weights_say_what_is_wrong() {
        let wrong = |pairs: &[(&str, u32)]| {
            Weights::of(pairs.iter().copied())
                .ordered_as(&arms())
                .expect_err("invalid")
        };
        assert!(wrong(&[("stable", 1)]).contains("\"canary\" is missing"));
        assert!(wrong(&[("stable", 1), ("stable", 2)]).contains("named twice"));
        assert!(wrong(&[("stable", 1), ("purple", 2)]).contains("the arms are stable, canary"));
        assert!(wrong(&[("stable", 0), ("canary", 0)]).contains("all weights are 0"));
        assert!(wrong(&[("stable", 1000), ("canary", 0)]).contains("0 to 999"));
    }
}
