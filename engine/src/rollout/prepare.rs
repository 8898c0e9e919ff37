//! Before the strategy begins: the candidate runs its release, is healthy, and every
//! probe passes.

use super::RolloutError;
use super::driver::Driver;
use super::look::{identify, unseen};
use super::recovery::{self, Step};
use super::session::{Checks, Interrupt, Session};
use crate::journal::{Actor, Call, Event, Reply};
use crate::model::image::ImageReference;
use crate::model::{Decider, Goal, Hold, Level, Millis, Role, Running, Source};
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
        let mut telling = Telling::default();
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
                    if telling.is_news(&what, self.clock.now()) {
                        self.say(session, &format!("waits for {arm}: {what}"));
                    }
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

/// How long an arm is waited for before that is said, ms; nearly all are ready by then.
const SILENT_MS: Millis = 5_000;
/// How long it takes at least until something else is said of it, ms.
const AGAIN_MS: Millis = 10_000;

/// What was said of a wait.
#[derive(Debug, Default)]
struct Telling {
    /// When something new may be said, Unix ms; none before the wait began.
    next: Option<Millis>,
    said: String,
}

impl Telling {
    /// Whether that is to be said now: that it is waited for, and later what has changed.
    fn is_news(&mut self, what: &str, now: Millis) -> bool {
        let next = *self.next.get_or_insert(now.saturating_add(SILENT_MS));
        if now < next || what == self.said {
            return false;
        }
        self.next = Some(now.saturating_add(AGAIN_MS));
        what.clone_into(&mut self.said);
        true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_within_ten_seconds_and_again_when_something_changes() {
        let mut telling = Telling::default();
        let mut told = vec![];
        for second in 0..60 {
            // What is wrong changes every second from the 20th to the 40th one on.
            let what = match second {
                0..20 => "no answer".to_owned(),
                20..40 => format!("status {second}"),
                _ => "status 40".to_owned(),
            };
            if telling.is_news(&what, 1_000_000 + second * 1_000) {
                told.push(second);
            }
        }
        assert_eq!(told, [5, 20, 30, 40]);
        // What is ready soon is not worth a word.
        let mut telling = Telling::default();
        assert!(
            (0..4_000)
                .step_by(250)
                .all(|ms| !telling.is_news("no answer", ms))
        );
    }
}
