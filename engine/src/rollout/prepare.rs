//! Before the strategy begins: the candidate runs its release, is healthy, and every
//! probe passes.

use super::RolloutError;
use super::driver::Driver;
use super::look::unseen;
use super::recovery::{self, Step};
use super::session::{Checks, Interrupt, Session};
use crate::journal::{Actor, Call, Event, Reply};
use crate::model::image::ImageReference;
use crate::model::{Decider, Goal, Hold, Level, Role, Source};
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
            match recovery::prepare(&session.header, &session.status, &live) {
                Step::Done => {
                    say_digest(session).await?;
                    return self.probe_all(session).await;
                }
                Step::Failed(reason) | Step::Stand(reason) => return Ok(Some(reason)),
                Step::Bake { .. } => {}
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

/// Writes down which image the candidate runs, by its digest: a tag may mean another one
/// tomorrow.
async fn say_digest(session: &mut Session) -> Result<(), Interrupt> {
    let Some(Source::Image(image)) = session.header.candidate.as_ref().map(|c| &c.source) else {
        return Ok(());
    };
    if ImageReference::parse(image).is_ok_and(|i| i.digest.is_some()) {
        return Ok(());
    }
    let arm = session.header.arm(Role::Candidate);
    let (level, message) = match session.target.digests(arm).await {
        Ok(digests) if digests.is_empty() => (
            Level::Info,
            format!("the target does not say which digest the image {image} of {arm} has"),
        ),
        Ok(digests) => {
            let all = digests.join(" and ");
            let stable = session.header.stable.as_ref();
            let same = stable.is_some_and(|s| digests.iter().any(|d| s.version.ends_with(d)));
            let note = match (same, digests.len()) {
                (true, _) => ", the image that the stable arm runs as well",
                (false, 1) => "",
                (false, _) => ": its tasks run different images",
            };
            (Level::Info, format!("{arm} runs {image} as {all}{note}"))
        }
        Err(error) => (
            Level::Warn,
            format!("which digest the image {image} of {arm} has could not be read: {error}"),
        ),
    };
    let event = Event::Exchanged {
        by: Actor::Host,
        call: Call::Log { level, message },
        reply: Reply::Done,
    };
    Ok(session.append(event, Durability::Process).await?)
}
