//! How the driver looks at a target: again and again where that may help, and on the
//! way back with more patience and for less.

use super::driver::Driver;
use super::session::{Interrupt, Session};
use crate::journal::{Actor, Call, Event, Header, Reply};
use crate::model::{
    ArmHealth, Deployment, Elsewhere, ErrorKind, Hold, HostError, Millis, Observed, ObservedArm,
    Release, Role, Running, Source, Traffic,
};
use crate::store::{Durability, StoreError};

impl Driver {
    /// How long the way back goes on asking a target that does not answer, ms.
    pub(super) fn patience(&self, session: &Session) -> Millis {
        let healthy = session.header.guardrails.healthy_timeout_ms;
        healthy.max(self.options.way_back_patience_ms)
    }

    /// Says why nothing happens for a while, and lets that while pass.
    pub(super) async fn try_again(
        &self,
        session: &mut Session,
        failures: u32,
        why: &str,
    ) -> Result<(), Interrupt> {
        let pause = self.options.pause_after(failures);
        let seconds = pause.div_ceil(1_000);
        self.say(session, &format!("{why}; tries again in {seconds} s"));
        self.pause(pause).await;
        Ok(session.keep_lease().await?)
    }

    pub(super) fn say(&self, session: &Session, text: &str) {
        self.resolve.notice(&session.header.rollout, text);
    }

    /// What the way back needs: while the stable arm runs its old release, no
    /// more than the load balancer says. The rest must not stand in its way, health neither.
    pub(super) async fn glance(
        &self,
        session: &mut Session,
        patience_ms: Millis,
    ) -> Result<Observed, Interrupt> {
        let header = session.header.clone();
        let target = session.target.clone();
        let asking = session.asks_for_health();
        let read = || async {
            let (traffic, health) = asking.beside(target.glance()).await;
            let traffic = traffic?;
            let home = traffic.all_on(header.arm(Role::Stable));
            if home && header.capacity.is_some() && health.is_ok() {
                // Best effort: tasks that are left over are no emergency.
                if let Ok(all) = target.observe().await {
                    return Ok(Ok(all));
                }
            }
            Ok(match health {
                Ok(health) => Ok(from_traffic(&header, &traffic, Some(&health))),
                Err(error) => Err((from_traffic(&header, &traffic, None), error)),
            })
        };
        match self.patiently(session, patience_ms, read).await? {
            Ok(live) => Ok(live),
            Err((live, error)) => {
                // Nobody has to go anywhere where all of them are.
                if !live.traffic().all_on(header.arm(Role::Stable)) {
                    session.overlook_health(&error).await?;
                    self.tell_of_health(session);
                }
                Ok(live)
            }
        }
    }

    /// Tells whoever watches that a way back went without the health of the arms, if it did
    /// and that was not told yet.
    pub(super) fn tell_of_health(&self, session: &mut Session) {
        if std::mem::take(&mut session.untold)
            && let Some(error) = session.went_without_health()
        {
            self.say(session, &without_health(error));
        }
    }

    /// Reads the target, with retries for what may pass: some, and for at least
    /// `patience_ms`.
    pub(super) async fn observe(
        &self,
        session: &mut Session,
        patience_ms: Millis,
    ) -> Result<Observed, Interrupt> {
        let target = session.target.clone();
        let read = || async { target.observe().await };
        self.patiently(session, patience_ms, read).await
    }

    pub(super) async fn patiently<T, F, R>(
        &self,
        session: &mut Session,
        patience_ms: Millis,
        read: F,
    ) -> Result<T, Interrupt>
    where
        F: Fn() -> R + Send,
        R: Future<Output = Result<T, HostError>> + Send,
    {
        let mut attempt = 1;
        let give_up = self.clock.now().saturating_add(patience_ms);
        loop {
            match read().await {
                Ok(live) => return Ok(live),
                // Not the rollout's fault: it stays as it is for who has the keys.
                Err(error) if is_locked_out(&error) => return Err(Interrupt::Locked(error)),
                // On the way back every error may pass, until patience is over.
                Err(error)
                    if error.retryable && attempt < self.options.attempts
                        || self.clock.now() < give_up =>
                {
                    let why = format!("the target could not be read: {error}");
                    if patience_ms > 0 {
                        self.try_again(session, attempt, &why).await?;
                    } else {
                        self.pause(self.options.pause_after(attempt)).await;
                        session.keep_lease().await?;
                    }
                    attempt += 1;
                }
                Err(error) => {
                    return Err(Interrupt::Held(Hold::Stuck {
                        reason: format!("the target could not be read: {error}"),
                    }));
                }
            }
        }
    }

    /// Pauses before the next look at an arm's health. Once the guardrail's time
    /// for it is over, says at once how many seconds that was.
    pub(super) async fn out_of_patience(
        &self,
        session: &Session,
        waited_until: &mut Option<Millis>,
    ) -> Option<Millis> {
        let limit = session.header.guardrails.healthy_timeout_ms;
        let now = self.clock.now();
        if now >= *waited_until.get_or_insert(now.saturating_add(limit)) {
            return Some(limit / 1_000);
        }
        self.pause(session.poll_ms()).await;
        None
    }

    pub(super) async fn pause(&self, ms: Millis) {
        self.clock.sleep_until(self.clock.now() + ms).await;
    }
}

/// Writes down what other routes send to the arms, if they do or did when it was last
/// read, or that nobody knows: it is what "all traffic" leaves out.
pub(super) async fn look_elsewhere(session: &mut Session) -> Result<(), StoreError> {
    let call = Call::GetElsewhere;
    let reply = session.read(&call).await;
    if reply == Reply::Elsewhere(vec![]) && session.status.elsewhere.is_empty() {
        return Ok(());
    }
    let event = Event::Exchanged {
        by: Actor::Host,
        call,
        reply,
    };
    session.append(event, Durability::Process).await
}

/// Reads which image an arm runs, and writes that down if it is news.
pub(super) async fn identify(
    session: &mut Session,
    arm: &ObservedArm,
) -> Result<Running, StoreError> {
    let seen = crate::target::running(session.target.as_ref(), arm).await;
    // A list of urls has no digest, and its journal need not say so.
    let tells = !seen.digests.is_empty()
        || seen.unread.is_some()
        || matches!(seen.release.source, Source::TaskDefinition(_));
    let known = session.status.running(&arm.name) == Some(&seen);
    if tells && (!known || session.status.on_trial(&seen).is_some()) {
        session.write_down(seen.clone()).await?;
    }
    Ok(seen)
}

/// Whether users would see a release change under them: another route may send
/// them to an arm that has no traffic of the one that moves.
pub(super) async fn unseen(session: &Session, call: &Call) -> Result<(), HostError> {
    let Call::SetVersion { arm, .. } = call else {
        return Ok(());
    };
    let elsewhere = session.target.elsewhere().await?;
    match Elsewhere::seen(&elsewhere, arm).next() {
        None => Ok(()),
        Some(route) => {
            let mut why = format!("{route}, so its release is not replaced");
            let other = session.header.arms.iter().find(|other| other.name != *arm);
            if let Some(other) = other.filter(|_| route.both) {
                why = format!(
                    "{why}; a rollback of {} alone, to {}, brings its users along",
                    route.route, other.name
                );
            }
            Err(HostError::new(ErrorKind::Conflict, "still-served", why))
        }
    }
}

/// The target as far as its load balancer knows it, with the releases that the
/// header remembers. Where nobody could read the health of the arms, they are taken for
/// healthy.
pub(super) fn from_traffic(
    header: &Header,
    traffic: &Traffic,
    health: Option<&[ArmHealth]>,
) -> Observed {
    let arms = traffic.weights.0.iter().map(|w| {
        let unread = u32::from(health.is_none());
        let health = health.and_then(|all| all.iter().find(|h| h.arm == w.arm));
        let release = match &header.stable {
            Some(old) if w.arm == header.arm(Role::Stable) => old.clone(),
            _ => Release {
                version: String::new(),
                source: Source::Urls(vec![]),
            },
        };
        ObservedArm {
            name: w.arm.clone(),
            release,
            weight: w.weight,
            healthy: health.map_or(unread, |h| h.healthy),
            total: health.map_or(unread, |h| h.total),
            health_reason: health.and_then(|h| h.health_reason.clone()),
            tasks: None,
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        }
    });
    Observed {
        arms: arms.collect(),
        sticky: traffic.sticky,
        address: traffic.address.clone(),
        others: traffic.others.clone(),
    }
}

/// That a way back did not wait for the health of the arms.
pub(super) fn without_health(error: &HostError) -> String {
    format!(
        "nobody could read whether the arm is healthy where users go back, and they do not wait for that: {error}"
    )
}

/// Whether this process has no credentials that the target accepts.
pub(super) fn is_locked_out(error: &HostError) -> bool {
    matches!(error.code.as_str(), "no-credentials" | "bad-credentials")
}
