//! Before the strategy begins: the candidate runs its release, is healthy, and every
//! probe passes.

use super::RolloutError;
use super::driver::Driver;
use super::look::{identify, unseen};
use super::recovery::{self, Step};
use super::session::{Checks, Interrupt, Session};
use crate::journal::{Actor, Call, Event, Reply};
use crate::model::image::ImageReference;
use crate::model::{Decider, Goal, Hold, Level, Role, Running, Source};
use crate::store::Durability;

impl Driver {
    /// True when the candidate runs its release and is healthy.
    pub(super) async fn prepare(&self, session: &mut Session) -> Result<bool, RolloutError> {
        match self.try_prepare(session).await {
            Ok(Some(reason)) => {
                let event = Event::Decided {
                    goal: Goal::RollBack,
                    by: Decider::Preparation,
                    reason,
                    signal: None,
                };
                session.append(event, Durability::Power).await?;
                Ok(false)
            }
            Ok(None) => Ok(true),
            Err(interrupt) => {
                self.or_hold(session, Err(interrupt)).await?;
                Ok(false)
            }
        }
    }

    /// Every probe of the rollout file must pass before the candidate gets
    /// traffic, whatever the strategy asks for.
    async fn probe_all(&self, session: &mut Session) -> Result<Option<String>, Interrupt> {
        for name in session
            .header
            .probes
            .iter()
            .map(|p| p.name.clone())
            .collect::<Vec<_>>()
        {
            let call = Call::Probe { name: name.clone() };
            let reply = session.read(&call).await;
            let event = Event::Exchanged {
                by: Actor::Host,
                call,
                reply: reply.clone(),
            };
            session.append(event, Durability::Process).await?;
            match reply {
                Reply::Probed(report) if report.ok => {}
                Reply::Probed(report) => {
                    return Ok(Some(format!("probe {name} failed: {}", report.detail)));
                }
                other => return Ok(Some(format!("probe {name} could not be made: {other}"))),
            }
        }
        Ok(None)
    }

    /// None when all is ready; otherwise why the candidate cannot be tried.
    async fn try_prepare(&self, session: &mut Session) -> Result<Option<String>, Interrupt> {
        let mut waited_until = None;
        loop {
            if session.needs_attention().await? {
                return Err(Interrupt::Attention);
            }
            let live = self.observe(session, 0).await?;
            let mut step = recovery::prepare(&session.header, &session.status, &live);
            if step == Step::Done
                && let Some(arm) = live.arm(session.header.arm(Role::Candidate))
            {
                let seen = identify(session, arm).await?;
                say_digest(session, &seen).await?;
                step = recovery::judge(&session.header, &session.status, &seen);
            }
            match step {
                Step::Done => return self.probe_all(session).await,
                Step::Failed(reason) | Step::Stand(reason) => return Ok(Some(reason)),
                Step::Bake { .. } | Step::Identify { .. } => {}
                Step::Await { arm, what } => {
                    if let Some(seconds) = self.out_of_patience(session, &mut waited_until).await {
                        return Ok(Some(format!(
                            "{arm} got no traffic: after {seconds} s {what}"
                        )));
                    }
                }
                Step::Do(call) => {
                    if live.traffic().serves(session.header.arm(Role::Candidate)) {
                        return Err(Interrupt::Held(Hold::Stuck {
                            reason: "the candidate arm already has traffic, so its release is not replaced; set its weight to 0 first".to_owned(),
                        }));
                    }
                    if let Err(error) = unseen(session, &call).await {
                        return Ok(Some(format!("{call} failed: {error}")));
                    }
                    if let Reply::Failed(error) = session
                        .write(Actor::Host, call.clone(), Checks::All)
                        .await?
                    {
                        return Ok(Some(format!("{call} failed: {error}")));
                    }
                }
            }
        }
    }
}

/// Says which image the candidate runs, by its digest: a tag may mean another one
/// tomorrow.
async fn say_digest(session: &mut Session, seen: &Running) -> Result<(), Interrupt> {
    let image = match (&session.header.candidate, &session.header.digest) {
        (Some(release), Some(_)) => &release.version,
        (Some(release), None) if matches!(release.source, Source::Image(_)) => &release.version,
        _ => return Ok(()),
    };
    if ImageReference::parse(image).is_ok_and(|i| i.digest.is_some()) {
        return Ok(());
    }
    let arm = &seen.arm;
    let (level, message) = match (&seen.digests[..], &seen.unread) {
        (_, Some(error)) => (
            Level::Warn,
            format!("which digest the image {image} of {arm} has could not be read: {error}"),
        ),
        ([], None) => (
            Level::Info,
            format!(
                "the target does not say which digest the image {image} of {arm} has; as long as it does not, a push of the same name during this rollout would not be noticed"
            ),
        ),
        (digests, None) => {
            let stable = session.header.stable.as_ref();
            let was = session.header.digest_of(Role::Stable);
            let same = digests.iter().any(|digest| {
                was == Some(digest) || stable.is_some_and(|s| s.version.ends_with(digest.as_str()))
            });
            let note = match (same, digests.len()) {
                (true, _) => ", the image that the stable arm runs as well",
                (false, 1) => "",
                (false, _) => ": its tasks run different images",
            };
            let silent = match seen.silent {
                0 => String::new(),
                n => format!("; of its tasks {n} do not say which image they run"),
            };
            let all = digests.join(" and ");
            (
                Level::Info,
                format!("{arm} runs {image} as {all}{note}{silent}"),
            )
        }
    };
    let event = Event::Exchanged {
        by: Actor::Host,
        call: Call::Log { level, message },
        reply: Reply::Done,
    };
    Ok(session.append(event, Durability::Process).await?)
}
