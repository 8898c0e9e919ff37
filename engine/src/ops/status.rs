//! Where the traffic is, and the rollout that moves it.

use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use super::error::{Error, Kind, Result};
use super::find::{last_described, last_rollout};
use super::gone;
use super::request::TargetRequest;
use super::way_back::way_back;
use crate::journal::Header;
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::model::aws::AwsSpec;
use crate::model::target::TargetSpec;
use crate::model::{
    Elsewhere, End, ErrorKind, HostError, MetricsQuery, Millis, Observed, Role, Sample,
};
use crate::store::Page;
use crate::target::Target;

/// Number of samples for rates.
const RATE_SAMPLES: u32 = 5;

/// A target and its rollout.
#[derive(Debug)]
pub struct Overview {
    /// Identity of the target.
    pub identity: String,
    /// The target; `None` if it does not answer.
    pub live: Option<Live>,
    /// Why it does not answer, if it does not.
    pub silent: Option<Error>,
    /// The rollout that occupies the target, or the last one that did.
    pub rollout: Option<Known>,
    /// What has moved the traffic since that rollout ended: the newest verb.
    pub since: Option<Summary>,
}

impl Overview {
    /// Whether the target is not as its last rollout left it: a verb, or somebody else, has
    /// moved its traffic since.
    #[must_use]
    pub fn has_moved_on(&self) -> bool {
        let (Some(known), Some(live)) = (&self.rollout, &self.live) else {
            return self.since.is_some();
        };
        let now = live.seen.observed.weights();
        self.since.is_some() || known.status.is_over() && !now.shares_like(&known.status.weights)
    }

    /// When a rollout or a verb last moved the traffic, Unix ms, if one has.
    #[must_use]
    pub fn moved_at(&self) -> Option<Millis> {
        let verb = self.since.as_ref().map(|row| row.updated);
        verb.or(self.rollout.as_ref().map(|known| known.status.moved))
    }
}

impl Overview {
    /// Whether the last rollout was promoted, and its version does not have the traffic any
    /// more: somebody has taken that back, or the release from before was brought back.
    #[must_use]
    pub fn is_undone(&self) -> bool {
        let Some(known) = &self.rollout else {
            return false;
        };
        let promoted = matches!(known.status.end, Some((End::Promoted, _)));
        // After a promotion by copy both arms run the new one, whichever has the traffic, and
        // a version that came later is neither.
        let before = &known.header.arms.iter().find(|a| a.role == Role::Stable);
        let elsewhere = self.has_moved_on()
            && self.live.as_ref().is_some_and(|live| {
                let arms = live.seen.observed.arms.iter();
                let mut serving = arms.filter(|a| a.weight > 0).peekable();
                serving.peek().is_some()
                    && serving.all(|arm| before.is_some_and(|b| b.version == arm.release.version))
            });
        let back = |row: &Summary| match row.end {
            Some(End::Promoted) => row.title == "undo",
            end => end == Some(End::RolledBack) && self.live.is_none(),
        };
        promoted && (elsewhere || self.since.as_ref().is_some_and(back))
    }

    /// Whether the target is a balancer that has ended with the process of its rollout, as it
    /// was meant to: that it does not answer is no trouble.
    #[must_use]
    pub fn has_ended_with_its_process(&self) -> bool {
        self.live.is_none()
            && self.rollout.as_ref().is_some_and(|known| {
                known.status.is_over() && matches!(known.header.target, TargetSpec::Embedded { .. })
            })
    }
}

/// A target that answers.
#[derive(Debug)]
pub struct Live {
    /// Its arms and their samples.
    pub seen: Seen,
    /// What other routes send to the arms, or why that cannot be read.
    pub elsewhere: Result<Vec<Elsewhere>, HostError>,
    /// Whether the target may be written to; the error says why not.
    pub fit: Result<(), HostError>,
}

/// A rollout and its status.
#[derive(Debug)]
pub struct Known {
    /// The first entry.
    pub header: Header,
    /// The status.
    pub status: Status,
    /// Whether a living process drives it; `None` once it has ended.
    pub driven: Option<bool>,
}

/// A target at one moment, with its last samples.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The arms.
    pub observed: Observed,
    /// Samples of the last intervals.
    pub samples: Vec<Sample>,
}

impl Seen {
    /// The time that the samples cover; none without any.
    #[must_use]
    pub fn measured(&self) -> Option<Measured> {
        Measured::by(&self.samples)
    }

    /// The rates of what an arm runs now, without those of an earlier release.
    #[must_use]
    pub fn rates(&self, arm: &str) -> Rates {
        let mut arms = self.observed.arms.iter();
        let since = arms.find(|a| a.name == arm).and_then(|a| a.since);
        let its_own = |sample: &&Sample| since.is_none_or(|since| sample.start >= since);
        rates(self.samples.iter().filter(its_own), arm)
    }
}

/// A time in which something was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Its begin, Unix ms.
    pub since: Millis,
    /// Its end, Unix ms.
    pub until: Millis,
}

impl Measured {
    /// The time that samples cover, of whichever arm they are: a load that has just begun
    /// does not fill it all, and samples may come late.
    fn by<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Option<Self> {
        let of = |sample: &Sample| Self {
            since: sample.start,
            until: sample.start.saturating_add(sample.period_ms.into()),
        };
        let all = samples.into_iter().map(of);
        all.reduce(|a, b| Self {
            since: a.since.min(b.since),
            until: a.until.max(b.until),
        })
    }
}

/// The rollout that a request without a target means: the one that is named, or one
/// under way whose target answers. With a rollout file it may be one whose target flags named
/// when it began.
async fn spoken_of(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Option<String>> {
    match id {
        None if request.named()?.is_none() => Ok(app.rollout_in_sight().await?.map(|h| h.rollout)),
        None => app.led_elsewhere(request).await,
        Some(named) => app.id_of(named).await.map(Some),
    }
}

/// The rollout that [`overview`] would show.
pub async fn subject(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
) -> Result<Option<String>> {
    let found = find(app, request, id).await?;
    Ok(found.rollout)
}

/// What was found before the target is observed.
struct Found {
    identity: String,
    live: Result<(Seen, Arc<dyn Target>)>,
    rollout: Option<String>,
}

async fn find(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Found> {
    if let Some(id) = spoken_of(app, request, id).await? {
        let (header, ..) = app.journal(&id).await?;
        let live = look_again(app, &header.target).await;
        return Ok(Found {
            identity: header.identity,
            live,
            rollout: Some(id),
        });
    }
    let (identity, live) = match app.target(request).await {
        Ok((spec, target)) => {
            let now = app.clock.now();
            let (spec, target) = by_its_container(app, spec, target).await;
            let live = match look(target.as_ref(), now).await {
                // A part of the target may have been replaced, so it is found anew.
                Err(e) if e.kind == ErrorKind::NotFound => {
                    let (target, ..) = app.ports.start(&spec).await?;
                    (look(target.as_ref(), now).await?, target)
                }
                live => (live?, target),
            };
            (live.1.identity().to_owned(), Ok(live))
        }
        Err(error) if let Some(named) = request.named()? => {
            // The balancer of a rollout that can go on: that says more than the error.
            if let Some((header, _)) = gone::left_behind(app, &named.target).await
                && matches!(header.target, TargetSpec::Embedded { .. })
            {
                return Ok(Found {
                    identity: header.identity,
                    live: Err(error),
                    rollout: Some(header.rollout),
                });
            }
            match look_for_users(app, request, &error).await {
                Some((seen, target)) => (target.identity().to_owned(), Ok((seen, target))),
                // What its journals know is better than nothing.
                None if error.kind == Kind::Unreachable => {
                    match last_described(app, &named.target).await {
                        Some(header) => (header.identity, Err(error)),
                        None => return Err(error),
                    }
                }
                None => return Err(error),
            }
        }
        // The target of last time, and its last known state, are better than nothing.
        Err(error) => match app.store.history(&Page::newest(None, 1)).await?.first() {
            Some(last) => {
                let header = app.store.header(&last.rollout).await.unwrap_or_default();
                let live = match header {
                    Some(header) => look_again(app, &header.target).await,
                    None => Err(error),
                };
                (last.target.clone(), live)
            }
            None => return Err(error),
        },
    };
    let rollout = last_rollout(app, &identity).await?;
    Ok(Found {
        identity,
        live,
        rollout,
    })
}

/// Where what was named is no target any more: what the way back would find, because users
/// may still come by another route.
async fn look_for_users(
    app: &App,
    request: &TargetRequest,
    error: &Error,
) -> Option<(Seen, Arc<dyn Target>)> {
    // Where AWS does not permit or does not answer, nothing else would be found.
    let is_none = |error: &HostError| {
        matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) && !error.retryable
    };
    if !error.target.as_deref().is_some_and(is_none) {
        return None;
    }
    let (_, target) = way_back(app, request).await.ok()?;
    let seen = look(target.as_ref(), app.clock.now()).await.ok()?;
    Some((seen, target))
}

/// The target of a rollout, or why it does not answer: as it was pinned, or else with the
/// routes that it has today, because one that has gone must not hide the others.
async fn look_again(app: &App, pinned: &TargetSpec) -> Result<(Seen, Arc<dyn Target>)> {
    let now = app.clock.now();
    let target = app.ports.reach(pinned).await?;
    match (look(target.as_ref(), now).await, pinned) {
        (Ok(seen), _) => Ok((seen, target)),
        (Err(error), TargetSpec::Aws(spec)) if !error.retryable => {
            let Ok((target, _)) = app.ports.anew(spec).await else {
                return Err(error.into());
            };
            let seen = look(target.as_ref(), now).await?;
            Ok((seen, target))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// The target with the container that is the version where a task has several: if the
/// request does not name one, that of its last rollout.
async fn by_its_container(
    app: &App,
    spec: TargetSpec,
    target: Arc<dyn Target>,
) -> (TargetSpec, Arc<dyn Target>) {
    let TargetSpec::Aws(aws) = &spec else {
        return (spec, target);
    };
    if aws.container.is_some() {
        return (spec, target);
    }
    let last = match last_rollout(app, target.identity()).await {
        Ok(Some(id)) => app.store.header(&id).await.unwrap_or_default(),
        _ => None,
    };
    let container = match last.map(|header| header.target) {
        Some(TargetSpec::Aws(last)) if last.container.is_some() => last.container,
        _ => return (spec, target),
    };
    let known = TargetSpec::Aws(Box::new(AwsSpec {
        container,
        ..(**aws).clone()
    }));
    match app.ports.reach(&known).await {
        Ok(target) => (known, target),
        Err(_) => (spec, target),
    }
}

/// Observes a target and its rollout: the one that is named, or the one on the target
/// that the request names, or one that is under way.
pub async fn overview(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Overview> {
    if let Ok(open) = app.store.open(None).await {
        gone::end_gone(app, &open).await;
    }
    let found = find(app, request, id).await?;
    let (live, silent) = match found.live {
        Ok((seen, target)) => {
            let (elsewhere, fit) = tokio::join!(target.elsewhere(), target.fit());
            let live = Live {
                seen,
                elsewhere,
                fit,
            };
            (Some(live), None)
        }
        Err(error) => (None, Some(error)),
    };
    let rollout = match found.rollout {
        Some(id) => match app.journal(&id).await {
            Ok((header, status, _)) => {
                let driven = match status.is_over() {
                    true => None,
                    false => Some(app.living_owner(&header).await?.is_some()),
                };
                Some(Known {
                    header,
                    status,
                    driven,
                })
            }
            // Where the users are must be seen, whatever became of a journal.
            Err(error) if live.is_some() => {
                app.note(format!("rollout {id} cannot be shown: {error}"));
                None
            }
            Err(error) => return Err(error),
        },
        None => None,
    };
    let since = match &rollout {
        Some(known) if known.status.is_over() => {
            let newest = Page::newest(Some(&known.header.identity), 1);
            let newest = app.store.history(&newest).await?.into_iter().next();
            newest.filter(|row| row.created > known.status.updated)
        }
        _ => None,
    };
    Ok(Overview {
        identity: found.identity,
        live,
        silent,
        rollout,
        since,
    })
}

/// Observes the target, and reads its last samples.
pub async fn look(target: &dyn Target, now: Millis) -> Result<Seen, HostError> {
    let period = Millis::from(target.sample_period_ms());
    let window = period * Millis::from(RATE_SAMPLES);
    let query = MetricsQuery {
        since: (now / period * period).saturating_sub(window),
        ..MetricsQuery::default()
    };
    let (observed, samples) = tokio::try_join!(target.observe(), target.samples(&query))?;
    Ok(Seen { observed, samples })
}

/// The rates of what an arm runs, over the last samples.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Requests per second.
    pub rps: f64,
    /// Share of errors in percent; `None` without requests.
    pub error_percent: Option<f64>,
    /// p99 in ms, weighted by requests.
    pub p99_ms: Option<f64>,
    /// When that was measured; `None` without samples of any arm.
    pub measured: Option<Measured>,
}

/// The rates of an arm from samples of all arms.
fn rates<'a>(samples: impl Iterator<Item = &'a Sample> + Clone, arm: &str) -> Rates {
    let measured = Measured::by(samples.clone());
    let (mut requests, mut errors, mut weighted, mut known) = (0.0, 0.0, 0.0, 0.0);
    for sample in samples.filter(|s| s.arm == arm) {
        let count = f64::from(sample.requests);
        requests += count;
        errors += f64::from(sample.errors);
        if let Some(latency) = &sample.latency {
            weighted += latency.p99 * count;
            known += count;
        }
    }
    let covered = measured.map_or(0, |time| time.until.saturating_sub(time.since));
    Rates {
        rps: requests / Duration::from_millis(covered.max(1)).as_secs_f64(),
        error_percent: (requests > 0.0).then(|| 100.0 * errors / requests),
        p99_ms: (known > 0.0).then(|| weighted / known),
        measured,
    }
}
