//! The driver: takes a rollout from where its journal stands to its end, a
//! pause, or the next long wait.
//!
//! Starting, resuming after a crash and waking from a wait are the same
//! function, [`Driver::drive`]: load the journal, claim the lease, ask
//! [`recovery::next_move`], do it, write it down, ask again.

pub mod change;
#[cfg(test)]
pub(crate) mod fixture;
pub mod fleet;
pub mod guardrails;
pub mod recovery;
pub mod roles;
pub mod session;

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::journal::{Actor, Call, Entry, Event, FOREIGN_CHANGE, Header, Pin, Reply, Work};
use crate::model::limits::Caps;
use crate::model::target::TargetSpec;
use crate::model::{
    Arm, ArmHealth, Decider, Elsewhere, End, Goal, Hold, HostError, Millis, Observed, ObservedArm,
    Outcome, Release, Role, Traffic, Weights,
};
use crate::store::{Claim, Durability, Lease, Owner, Store, StoreError};
use crate::target::Target;
use recovery::{Move, Settled, Step};
use session::{Calls, Checks, Interrupt, Session, Shared};

/// What a strategy gets besides its calls.
#[derive(Debug, Clone)]
pub struct Run {
    /// The rollout's id.
    pub rollout: String,
    /// The arms and their roles.
    pub arms: Vec<Arm>,
    /// Weights when the rollout began.
    pub weights: Weights,
    /// Length of one metrics sample.
    pub sample_period_ms: u32,
    /// JSON object.
    pub parameters: String,
    /// Seed of everything random, hex.
    pub seed: String,
    /// Limits that an operator has set.
    pub caps: Caps,
}

impl Run {
    /// What a rollout's header says.
    #[must_use]
    pub fn of(header: &Header, pin: &Pin) -> Self {
        Self {
            rollout: header.rollout.clone(),
            arms: header.arms.clone(),
            weights: header.baseline.clone(),
            sample_period_ms: header.sample_period_ms,
            parameters: pin.parameters.to_string(),
            seed: pin.seed.clone(),
            caps: header.caps,
        }
    }
}

/// How a strategy's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It returned a verdict, or its own error.
    Returned(Result<Outcome, String>),
    /// It trapped or broke a limit: the explanation.
    Trapped(String),
    /// The host stopped it at a call.
    Interrupted,
}

/// Something that can run: a component, or a Rust closure in tests.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Runs from the beginning; the calls answer from the journal first.
    async fn run(&self, calls: Arc<dyn Calls>, run: Run) -> Ran;
}

/// Where the driver gets what a journal's header names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The target of a rollout.
    async fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, HostError>;
    /// The strategy with that digest.
    async fn strategy(&self, sha256: &str) -> Result<Arc<dyn Strategy>, String>;
    /// Something that a person who watches wants to know at once, such as why
    /// nothing happens for a while: one sentence.
    fn notice(&self, _rollout: &str, _text: &str) {}
}

/// Times and switches of a driver.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a lease lasts without a sign of life.
    pub lease_ttl_ms: Millis,
    /// How often a wait looks for signals.
    pub signal_poll_ms: Millis,
    /// Waits longer than this leave memory.
    pub park_after_ms: Millis,
    /// Tries of one write or read before it counts as failed.
    pub attempts: u32,
    /// Pause before the second try; doubles each time.
    pub retry_ms: Millis,
    /// How often alarms and deployments are looked at.
    pub guard_poll_ms: Millis,
    /// How long the way back goes on asking a target that does not answer.
    pub way_back_patience_ms: Millis,
    /// Whether commands and the deadline reach a strategy that computes and makes
    /// no call. Not where only the strategy can make time pass.
    pub watches_computing: bool,
    /// Evict the rollout at every call, to prove that replay rebuilds it.
    pub chaos_evict: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 30_000,
            signal_poll_ms: 100,
            park_after_ms: 5_000,
            attempts: 4,
            retry_ms: 250,
            guard_poll_ms: 15_000,
            way_back_patience_ms: 300_000,
            watches_computing: true,
            chaos_evict: false,
        }
    }
}

/// Where a rollout stands when the driver lets go of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It has ended.
    Over(End, String),
    /// A person must act.
    Held(Hold),
    /// The strategy did not repeat itself.
    Diverged(crate::journal::replay::Mismatch),
    /// It waits until then (Unix ms).
    Parked(Millis),
}

impl Standing {
    /// That of a rollout that does not move any more; none if it goes on.
    #[must_use]
    pub fn settled(status: &Status) -> Option<Self> {
        match (&status.end, &status.hold, &status.mismatch) {
            (Some((end, reason)), ..) => Some(Self::Over(*end, reason.clone())),
            (None, Some(hold), _) => Some(Self::Held(hold.clone())),
            (None, None, Some(mismatch)) => Some(Self::Diverged(mismatch.clone())),
            (None, None, None) => None,
        }
    }
}

/// Why the driver could not do its work at all. The rollout is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The store refused, or another process is the driver.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target cannot be reached.
    #[error("failed to reach the target: {0}")]
    Target(#[from] HostError),
    /// The pinned plugin cannot be loaded.
    #[error("failed to load the strategy: {0}")]
    Strategy(String),
    /// The journal does not begin with a header.
    #[error("the journal of rollout {0} has no beginning")]
    Journal(String),
    /// The task that drove it panicked: a defect of the engine.
    #[error("the engine failed while it drove the rollout: {0}")]
    Panicked(String),
    /// Another process took over while a write of this one was on its way.
    #[error("{report}")]
    Overtaken {
        /// What that write has done.
        report: String,
        /// Whether it had its effect after all.
        landed: bool,
    },
}

/// Longest pause between two tries on the way back, ms.
pub const PAUSE_MAX_MS: Millis = 15_000;

/// Most writes on the way to an end. The longest plan, a way back after a
/// promotion by copy, has four; the rest is for others who write meanwhile.
pub const WRITES_MAX: u32 = 6;

/// See the module.
#[derive(Clone)]
pub struct Driver {
    /// Where rollouts live.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Targets and strategies.
    pub resolve: Arc<dyn Resolve>,
    /// This process.
    pub owner: Owner,
    /// Times and switches.
    pub options: Options,
}

impl Driver {
    /// Writes the first entry of a rollout and occupies its target.
    pub async fn begin(&self, header: Header) -> Result<(), RolloutError> {
        let lease = self.claim_new(&header.identity, &header.rollout).await?;
        self.first_entry(&lease, &header).await?;
        Ok(())
    }

    /// Writes down how a rollout begins; the answer is its journal so far and what
    /// that adds up to.
    async fn first_entry(
        &self,
        lease: &Lease,
        header: &Header,
    ) -> Result<(Status, Vec<Entry>), RolloutError> {
        let entry = Entry {
            seq: 0,
            at: header.created,
            epoch: lease.epoch,
            event: Event::Started(Box::new(header.clone())),
        };
        let mut status = Status::new(header);
        status.apply(&entry);
        let entries = vec![entry];
        let summary = Summary::of(header, &status);
        self.store
            .append(lease, entries.clone(), &summary, Durability::Power)
            .await?;
        Ok((status, entries))
    }

    async fn claim(&self, target: &str, rollout: &str) -> Result<Lease, StoreError> {
        let claim = Claim {
            target,
            rollout,
            owner: &self.owner,
            now: self.clock.now(),
            ttl_ms: self.options.lease_ttl_ms,
            dead_epoch: None,
        };
        self.claim_as(claim).await
    }

    /// Claims a target; at once if its owner is certainly gone and left nothing.
    pub async fn claim_as(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        let rollout = claim.rollout;
        match self.store.claim(claim.clone()).await {
            Err(StoreError::Busy(busy))
                if busy.owner.as_ref().is_some_and(|o| self.store.is_dead(o))
                    && (busy.rollout == rollout
                        || self.store.load(&busy.rollout, 0).await?.is_empty()) =>
            {
                let dead_epoch = Some(busy.epoch);
                self.store
                    .claim(Claim {
                        dead_epoch,
                        ..claim
                    })
                    .await
            }
            result => result,
        }
    }

    /// Moves a rollout on until it ends, must wait for a person, or waits long.
    pub async fn drive(&self, rollout: &str) -> Result<Standing, RolloutError> {
        let mut entries = self.store.load(rollout, 0).await?;
        let Some(Event::Started(header)) = entries.first().map(|e| &e.event) else {
            return Err(if entries.is_empty() {
                StoreError::NotFound(rollout.to_owned()).into()
            } else {
                RolloutError::Journal(rollout.to_owned())
            });
        };
        if let Some(Event::Ended { end, reason }) = entries.last().map(|e| &e.event) {
            return Ok(Standing::Over(*end, reason.clone()));
        }
        let header = Arc::new((**header).clone());
        let target = match self.target_of(&header).await {
            Ok(target) => target,
            Err(error) if change::is_gone(&header, &error) => {
                return self.end_without_target(&header, &entries, &error).await;
            }
            Err(error) => return Err(error.into()),
        };
        let lease = self.claim(&header.identity, rollout).await?;
        // What came meanwhile; under the lease nobody else appends any more.
        let known = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        entries.extend(self.store.load(rollout, known).await?);
        let status =
            Status::of(&entries).ok_or_else(|| RolloutError::Journal(rollout.to_owned()))?;
        let ports = (self.store.clone(), target, self.clock.clone());
        let session = Session::new(header, status, entries, ports, lease, self.options);
        let shared = Arc::new(Shared::new(session));
        let standing = loop {
            match self.step(&shared).await {
                Ok(None) => {}
                Ok(Some(standing)) => break standing,
                Err(error) => {
                    let mut session = shared.session.lock().await;
                    return Err(self.overtaken(&mut session, error).await);
                }
            }
        };
        let session = shared.session.lock().await;
        let lease = session.lease();
        match &standing {
            Standing::Over(..) => self.store.release(lease).await?,
            Standing::Parked(until) => self.store.park(lease, Some(*until)).await?,
            Standing::Held(_) | Standing::Diverged(_) => self.store.park(lease, None).await?,
        }
        Ok(standing)
    }

    /// The target of a rollout; of a change of a stack, one that is still there.
    async fn target_of(&self, header: &Header) -> Result<Arc<dyn Target>, HostError> {
        let target = self.resolve.target(&header.target).await?;
        if matches!(header.work, Work::StackChange { .. })
            && let Err(error) = target.traffic().await
            && change::is_gone(header, &error)
        {
            return Err(error);
        }
        Ok(target)
    }

    /// What a lost lease means for a write that was on its way just then: nobody
    /// else knows of it, so this process looks what became of it, and says so.
    async fn overtaken(&self, session: &mut Session, error: RolloutError) -> RolloutError {
        let RolloutError::Store(StoreError::Fenced { rollout }) = &error else {
            return error;
        };
        let Some(write) = session.sent.take() else {
            return error;
        };
        let mut found = session.look_at(&write).await;
        if !matches!(found, Ok((Settled::Happened, _))) {
            let late = self.clock.now() + session.target.late_write_ms();
            self.clock.sleep_until(late).await;
            found = session.look_at(&write).await;
        }
        let call = &write.call;
        let (landed, fate) = match found {
            Ok((Settled::Happened, live)) => (
                true,
                format!(
                    "the target has {live} now, so that write had its effect: see where the traffic belongs with `engine status`, and take it back with `engine rollback`"
                ),
            ),
            Ok((_, live)) => (
                false,
                format!("the target has {live} now, so that write had no lasting effect"),
            ),
            Err(error) => (
                true,
                format!(
                    "what became of that write could not be read ({error}): look with `engine status`"
                ),
            ),
        };
        RolloutError::Overtaken {
            report: format!(
                "another process has taken over rollout {rollout} while this one had sent {call} and waited for the answer; {fate}"
            ),
            landed,
        }
    }

    /// Decides and does one move; some standing when the driver must let go.
    async fn step(&self, shared: &Arc<Shared>) -> Result<Option<Standing>, RolloutError> {
        let mut guard = shared.session.lock().await;
        let session = &mut *guard;
        let signals = session.pending().await?;
        let now = self.clock.now();
        let tripped = session.tripped.as_deref();
        match recovery::next_move(&session.header, &session.status, &signals, tripped, now) {
            Move::Over => {
                let (end, reason) = session
                    .status
                    .end
                    .clone()
                    .unwrap_or((End::RollbackFailed, String::new()));
                return Ok(Some(Standing::Over(end, reason)));
            }
            Move::Rest => {
                let settled = Standing::settled(&session.status);
                return Ok(Some(settled.unwrap_or(Standing::Parked(now))));
            }
            Move::Record(event) => session.append(event, Durability::Power).await?,
            Move::Adopt { actor, signal } => {
                let event = Event::Continued {
                    actor,
                    adopted: Some(session.target.observe().await?.weights()),
                    signal: Some(signal),
                };
                session.append(event, Durability::Power).await?;
            }
            Move::Settle(write) => {
                let settled = match &session.header.work {
                    Work::StackChange { .. } => self.settle_change(session, &write).await,
                    _ => self.settle(session, &write).await,
                };
                self.or_hold(session, settled).await?;
            }
            Move::Finalize(goal) => {
                let ended = self.finalize(session, goal).await;
                self.or_hold(session, ended).await?;
            }
            Move::Verb { weights } => {
                let done = self.verb(session, weights).await;
                self.or_hold(session, done).await?;
            }
            Move::TakeBack { to, actor, signal } => {
                let done = self.take_back(session, to, actor, signal).await;
                self.or_hold(session, done).await?;
            }
            Move::ReadBack => match self.read_back(session).await {
                Err(Interrupt::Parked { until }) => return Ok(Some(Standing::Parked(until))),
                done => self.or_hold(session, done).await?,
            },
            Move::Strategy => {
                if !session.status.strategy_called && !self.prepare(session).await? {
                    return Ok(None);
                }
                session.rewind().await?;
                shared.rewound(session);
                drop(guard);
                return self.strategy(shared).await;
            }
        }
        Ok(None)
    }

    /// Turns an interruption of the host's own work into what it means.
    async fn or_hold(
        &self,
        session: &mut Session,
        result: Result<(), Interrupt>,
    ) -> Result<(), RolloutError> {
        match result {
            Ok(()) | Err(Interrupt::Attention | Interrupt::Parked { .. }) => Ok(()),
            Err(Interrupt::Store(error)) => Err(error.into()),
            Err(Interrupt::Locked(error)) => Err(error.into()),
            Err(Interrupt::Held(hold)) => {
                let event = match (&session.status.decision, &session.header.work) {
                    (Some(d), _) if d.goal == Goal::RollBack => Event::Ended {
                        end: End::RollbackFailed,
                        reason: format!("{hold}; {}", session.last_seen()),
                    },
                    (_, Work::Verb { .. }) => Event::Ended {
                        end: End::Refused,
                        reason: hold.to_string(),
                    },
                    _ => Event::Held { hold, signal: None },
                };
                Ok(session.append(event, Durability::Power).await?)
            }
            Err(Interrupt::Diverged(mismatch)) => Ok(session
                .append(Event::Diverged(*mismatch), Durability::Power)
                .await?),
            Err(Interrupt::Limit(reason)) => Ok(session
                .append(Event::Failed { reason }, Durability::Power)
                .await?),
        }
    }

    async fn settle(
        &self,
        session: &mut Session,
        write: &crate::journal::status::InDoubt,
    ) -> Result<(), Interrupt> {
        let going_back = session
            .status
            .decision
            .as_ref()
            .is_some_and(|d| d.goal == Goal::RollBack);
        if going_back && session.status.given.is_none() && !write.call.moves_traffic() {
            // What became of it is no matter there, and needs another service to tell.
            let event = Event::Answered {
                by: write.by,
                of: write.seq,
                reply: Reply::Failed(abandoned()),
                recovered: true,
            };
            return Ok(session.append(event, Durability::Power).await?);
        }
        let live = match going_back {
            true if write.call.moves_traffic() => {
                self.glance(session, self.patience(session)).await?
            }
            true => self.observe(session, self.patience(session)).await?,
            false => self.observe(session, 0).await?,
        };
        let due = recovery::deadline_is_due(&session.header, &session.status, self.clock.now());
        let (reply, conflict) = match recovery::settle(write, &live) {
            // It never happened, and is not wanted any more.
            Settled::Reissue if going_back || due => (Reply::Failed(abandoned()), None),
            Settled::Reissue => match session.still_healthy(write).await? {
                Ok(()) => return session.issue(write).await.map(|_| ()),
                Err(error) => (Reply::Failed(error), None),
            },
            Settled::Happened => (Reply::Done, None),
            Settled::Conflict => {
                let hold = Hold::ForeignChange {
                    expected: write.before.clone(),
                    found: live.weights(),
                };
                let error = HostError::new(
                    crate::model::ErrorKind::Conflict,
                    FOREIGN_CHANGE,
                    hold.to_string(),
                );
                (Reply::Failed(error), Some(hold))
            }
        };
        let event = Event::Answered {
            by: write.by,
            of: write.seq,
            reply,
            recovered: true,
        };
        session.append(event, Durability::Power).await?;
        // The way back to stable is not blocked by what somebody else did.
        match conflict {
            Some(hold) if !going_back => Err(Interrupt::Held(hold)),
            _ => Ok(()),
        }
    }

    /// Walks to the goal, step by step, from what is live.
    async fn finalize(&self, session: &mut Session, goal: Goal) -> Result<(), Interrupt> {
        let decision = session.status.decision.clone();
        let by_strategy = decision.as_ref().is_some_and(|d| d.by == Decider::Strategy);
        let checks = match goal {
            Goal::RollBack => Checks::WayBack,
            Goal::Promote if by_strategy => Checks::All,
            Goal::Promote => Checks::NoGuardrails,
        };
        let mut waited_until = None;
        let mut failures = 0;
        let mut unscaled = None;
        let patience = match goal {
            // A target that does not answer is no reason to give up on users.
            Goal::RollBack => self.patience(session),
            Goal::Promote => 0,
        };
        let mut give_up = self.clock.now().saturating_add(patience);
        loop {
            session.keep_lease().await?;
            let live = match goal {
                Goal::RollBack if session.status.given.is_none() => {
                    self.glance(session, patience).await?
                }
                _ => self.observe(session, patience).await?,
            };
            session.saw(&live.weights());
            let now = self.clock.now();
            let step = recovery::finalize(goal, &session.header, &session.status, &live, now);
            // The traffic is where it shall be; a task too many harms nobody.
            let step = match step {
                Step::Do(Call::SetTasks { .. }) if unscaled.is_some() => Step::Done,
                // Nor is it worth one write more than the plan has.
                Step::Do(Call::SetTasks { .. }) if session.status.moves >= WRITES_MAX => Step::Done,
                step => step,
            };
            if !matches!(step, Step::Await { .. }) {
                waited_until = None;
            }
            match step {
                Step::Done => {
                    if self.outwait(session).await? {
                        continue;
                    }
                    let evidence = Event::Exchanged {
                        by: Actor::Host,
                        call: Call::GetWeights,
                        reply: Reply::Weights(live.weights()),
                    };
                    session.append(evidence, Durability::Process).await?;
                    look_elsewhere(session).await?;
                    let end = match goal {
                        Goal::Promote => End::Promoted,
                        Goal::RollBack => End::RolledBack,
                    };
                    let mut reason = decision.map(|d| d.reason).unwrap_or_default();
                    reason.push_str(unscaled.as_deref().unwrap_or(""));
                    return Ok(session
                        .append(Event::Ended { end, reason }, Durability::Power)
                        .await?);
                }
                Step::Await { arm, what } => {
                    self.await_arm(session, &arm, &what, &mut waited_until, goal)
                        .await?;
                }
                Step::Bake { until } => {
                    // Only signals and guards matter meanwhile.
                    while self.clock.now() < until && !session.needs_attention().await? {
                        let look_again = self.clock.now() + session.poll_ms();
                        self.clock.sleep_until(until.min(look_again)).await;
                    }
                }
                Step::Failed(reason) if goal == Goal::Promote => {
                    let event = Event::Decided {
                        goal: Goal::RollBack,
                        by: Decider::Promotion,
                        reason,
                        signal: None,
                    };
                    return Ok(session.append(event, Durability::Power).await?);
                }
                Step::Failed(reason) | Step::Stand(reason) => {
                    return Err(Interrupt::Held(Hold::Stuck { reason }));
                }
                Step::Do(call) if session.status.moves >= WRITES_MAX => {
                    return Err(Interrupt::Held(Hold::Stuck {
                        reason: format!(
                            "{} writes have not brought the traffic where it belongs, and {call} would be one more: something else writes to this target, or undoes what is written",
                            session.status.moves
                        ),
                    }));
                }
                Step::Do(call) => {
                    // The way back restores what users had, and asks nobody.
                    if goal == Goal::Promote
                        && let Err(error) = unseen(session, &call).await
                    {
                        return Err(Interrupt::Held(Hold::Stuck {
                            reason: error.to_string(),
                        }));
                    }
                    let patient = self.clock.now() < give_up;
                    let written = match goal {
                        // It was looked at a moment ago, and users wait.
                        Goal::RollBack => {
                            let (before, health) = (live.weights(), Some(Ok(live.health())));
                            session
                                .write_over(Actor::Host, call.clone(), checks, before, health)
                                .await
                        }
                        Goal::Promote => session.write(Actor::Host, call.clone(), checks).await,
                    };
                    match written {
                        Ok(Reply::Failed(error)) if matches!(call, Call::SetTasks { .. }) => {
                            unscaled = Some(format!(" ({call} failed: {error})"));
                        }
                        Ok(Reply::Failed(error)) => {
                            failures += 1;
                            let again = error.retryable && failures < self.options.attempts;
                            if !again && !patient {
                                return Err(Interrupt::Held(Hold::Stuck {
                                    reason: format!("{call} failed: {error}"),
                                }));
                            }
                            let why = format!("{call} failed: {error}");
                            self.try_again(session, failures, &why).await?;
                        }
                        // It made progress, so its time begins anew.
                        Ok(_) => {
                            failures = 0;
                            give_up = self.clock.now().saturating_add(patience);
                        }
                        // Written or not, nobody can tell yet: look again.
                        Err(Interrupt::Held(hold)) if patient => {
                            failures += 1;
                            self.try_again(session, failures, &hold.to_string()).await?;
                        }
                        Err(interrupt) => return Err(interrupt),
                    }
                }
            }
            if goal == Goal::Promote && session.needs_attention().await? {
                return Err(Interrupt::Attention);
            }
        }
    }

    /// How long the way back goes on asking a target that does not answer, ms.
    fn patience(&self, session: &Session) -> Millis {
        let healthy = session.header.guardrails.healthy_timeout_ms;
        healthy.max(self.options.way_back_patience_ms)
    }

    /// Says why nothing happens for a while, and lets that while pass.
    async fn try_again(
        &self,
        session: &mut Session,
        failures: u32,
        why: &str,
    ) -> Result<(), Interrupt> {
        let pause = self.pause_after(failures);
        let seconds = pause.div_ceil(1_000);
        self.say(session, &format!("{why}; tries again in {seconds} s"));
        self.pause(pause).await;
        Ok(session.keep_lease().await?)
    }

    fn pause_after(&self, failures: u32) -> Millis {
        let doubled = self.options.retry_ms << failures.saturating_sub(1).min(10);
        doubled.min(PAUSE_MAX_MS)
    }

    fn say(&self, session: &Session, text: &str) {
        self.resolve.notice(&session.header.rollout, text);
    }

    /// Lets the time pass in which a write of the process that was here before
    /// could still land. True if it had to: then look once more.
    async fn outwait(&self, session: &mut Session) -> Result<bool, Interrupt> {
        let late = session.target.late_write_ms();
        let until = session
            .status
            .recovered
            .map_or(0, |at| at.saturating_add(late));
        let now = self.clock.now();
        if late == 0 || now >= until {
            return Ok(false);
        }
        let seconds = (until - now).div_ceil(1_000);
        self.say(
            session,
            &format!(
                "the traffic is where it belongs; looks once more in {seconds} s, because a write of the process that drove this rollout before could still arrive"
            ),
        );
        while self.clock.now() < until {
            let look_again = self.clock.now() + session.poll_ms();
            self.clock.sleep_until(until.min(look_again)).await;
            session.keep_lease().await?;
        }
        Ok(true)
    }

    /// What the way back needs: while the stable arm runs its old release, no
    /// more than the load balancer says. The rest must not stand in its way.
    async fn glance(
        &self,
        session: &mut Session,
        patience_ms: Millis,
    ) -> Result<Observed, Interrupt> {
        let header = session.header.clone();
        let target = session.target.clone();
        let read = || async {
            let (traffic, health) = tokio::join!(target.traffic(), target.health());
            let traffic = traffic?;
            let home = traffic.weights.share(header.arm(Role::Stable)) >= 100.0;
            if home && header.capacity.is_some() {
                // Best effort: tasks that are left over are no emergency.
                if let Ok(all) = target.observe().await {
                    return Ok(all);
                }
            }
            Ok(from_traffic(&header, &traffic, &health?))
        };
        self.patiently(session, patience_ms, read).await
    }

    /// Reads the target, with retries for what may pass: some, and for at least
    /// `patience_ms`.
    async fn observe(
        &self,
        session: &mut Session,
        patience_ms: Millis,
    ) -> Result<Observed, Interrupt> {
        let target = session.target.clone();
        let read = || async { target.observe().await };
        self.patiently(session, patience_ms, read).await
    }

    async fn patiently<F, R>(
        &self,
        session: &mut Session,
        patience_ms: Millis,
        read: F,
    ) -> Result<Observed, Interrupt>
    where
        F: Fn() -> R + Send,
        R: Future<Output = Result<Observed, HostError>> + Send,
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
                        self.pause(self.pause_after(attempt)).await;
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

    async fn await_arm(
        &self,
        session: &mut Session,
        arm: &str,
        what: &str,
        waited_until: &mut Option<Millis>,
        goal: Goal,
    ) -> Result<(), Interrupt> {
        if goal == Goal::RollBack && waited_until.is_none() {
            self.say(session, &format!("the way back waits for {arm}: {what}"));
        }
        if let Some(seconds) = self.out_of_patience(session, waited_until).await {
            let goal = match goal {
                Goal::Promote => "the promotion",
                Goal::RollBack => "the way back",
            };
            return Err(Interrupt::Held(Hold::Stuck {
                reason: format!("{goal} needs {arm}: after {seconds} s {what}"),
            }));
        }
        Ok(())
    }

    /// Pauses before the next look at an arm's health. Once the guardrail's time
    /// for it is over, says at once how many seconds that was.
    async fn out_of_patience(
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

    async fn pause(&self, ms: Millis) {
        self.clock.sleep_until(self.clock.now() + ms).await;
    }

    /// One write by a person.
    async fn verb(&self, session: &mut Session, weights: Weights) -> Result<(), Interrupt> {
        let call = Call::SetWeights { weights };
        let way_back = call
            .weights_after(&Weights::default())
            .is_some_and(|w| w.share(session.header.arm(Role::Stable)) >= 100.0);
        if !way_back && let Err(error) = session.target.fit().await {
            let (end, reason) = (End::Refused, error.message);
            return Ok(session
                .append(Event::Ended { end, reason }, Durability::Power)
                .await?);
        }
        let checks = if way_back {
            Checks::WayBack
        } else {
            Checks::NoGuardrails
        };
        let mut reply = session.write(Actor::Host, call.clone(), checks).await?;
        if reply == Reply::Done && self.outwait(session).await? {
            reply = session.write(Actor::Host, call.clone(), checks).await?;
        }
        let (end, reason) = match reply {
            Reply::Failed(error) => (End::Refused, error.message),
            _ => (End::Done, call.to_string()),
        };
        Ok(session
            .append(Event::Ended { end, reason }, Durability::Power)
            .await?)
    }

    /// Runs the strategy from its beginning; the journal answers first.
    async fn strategy(&self, shared: &Arc<Shared>) -> Result<Option<Standing>, RolloutError> {
        let header = shared.session.lock().await.header.clone();
        let Work::Strategy(pin) = &header.work else {
            return Ok(None);
        };
        let strategy = self
            .resolve
            .strategy(&pin.sha256)
            .await
            .map_err(RolloutError::Strategy)?;
        let run = Run::of(&header, pin);
        let ran = tokio::select! {
            biased;
            ran = strategy.run(shared.clone(), run) => ran,
            interrupt = watch(shared), if self.options.watches_computing => {
                shared.session.lock().await.interrupt = Some(interrupt);
                Ran::Interrupted
            }
        };
        let mut guard = shared.session.lock().await;
        let session = &mut *guard;
        let interrupt = session.interrupt.take();
        let event = match (ran, interrupt) {
            (_, Some(Interrupt::Parked { until })) => return Ok(Some(Standing::Parked(until))),
            (_, Some(interrupt)) => {
                self.or_hold(session, Err(interrupt)).await?;
                return Ok(None);
            }
            (Ran::Returned(result), None) => match (session.left_over(), result) {
                (Some(mismatch), _) => Event::Diverged(mismatch),
                (None, Ok(outcome)) => Event::Finished(outcome),
                (None, Err(reason)) => Event::Failed { reason },
            },
            (Ran::Trapped(reason), None) => Event::Failed { reason },
            (Ran::Interrupted, None) => Event::Failed {
                reason: "it stopped at a call without being told to".to_owned(),
            },
        };
        session.append(event, Durability::Power).await?;
        Ok(None)
    }

    /// True when the candidate runs its release and is healthy.
    async fn prepare(&self, session: &mut Session) -> Result<bool, RolloutError> {
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
                Step::Done => return self.probe_all(session).await,
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
                    if live.weights().share(session.header.arm(Role::Candidate)) > 0.0 {
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

/// Writes down what other routes send to the arms, if they do, or that nobody
/// knows: it is what "all traffic" leaves out.
async fn look_elsewhere(session: &mut Session) -> Result<(), StoreError> {
    let call = Call::GetElsewhere;
    let reply = session.read(&call).await;
    if reply == Reply::Elsewhere(vec![]) {
        return Ok(());
    }
    let event = Event::Exchanged {
        by: Actor::Host,
        call,
        reply,
    };
    session.append(event, Durability::Process).await
}

/// Whether users would see a release change under them: another route may send
/// them to an arm that has no traffic of the one that moves.
async fn unseen(session: &Session, call: &Call) -> Result<(), HostError> {
    let Call::SetVersion { arm, .. } = call else {
        return Ok(());
    };
    let elsewhere = session.target.elsewhere().await?;
    match Elsewhere::seen(&elsewhere, arm).next() {
        None => Ok(()),
        Some(route) => Err(HostError::new(
            crate::model::ErrorKind::Conflict,
            "still-served",
            format!("{route}, so its release is not replaced"),
        )),
    }
}

/// How often to look after a strategy that computes.
const WATCH: std::time::Duration = std::time::Duration::from_millis(250);

/// Waits until a strategy must stop although it makes no call: neither a person nor
/// the deadline nor the lease waits for its next one. In real time, because a
/// strategy computes in real time, whatever clock the rollout has.
async fn watch(shared: &Shared) -> Interrupt {
    let mut looks = tokio::time::interval(WATCH);
    looks.tick().await;
    loop {
        looks.tick().await;
        // Whoever performs a call has the session; nothing is cut off in there.
        match shared.session.lock().await.needs_attention().await {
            Ok(false) => {}
            Ok(true) => return Interrupt::Attention,
            Err(interrupt) => return interrupt,
        }
    }
}

/// The target as far as its load balancer knows it, with the releases that the
/// header remembers.
fn from_traffic(header: &Header, traffic: &Traffic, health: &[ArmHealth]) -> Observed {
    let arms = traffic.weights.0.iter().map(|w| {
        let health = health.iter().find(|h| h.arm == w.arm);
        let release = match &header.stable {
            Some(old) if w.arm == header.arm(Role::Stable) => old.clone(),
            _ => Release {
                version: String::new(),
                source: crate::model::Source::Urls(vec![]),
            },
        };
        ObservedArm {
            name: w.arm.clone(),
            release,
            weight: w.weight,
            healthy: health.map_or(0, |h| h.healthy),
            total: health.map_or(0, |h| h.total),
            tasks: None,
            deployment: crate::model::Deployment::Steady,
            spoiled: 0,
        }
    });
    Observed {
        arms: arms.collect(),
        sticky: traffic.sticky,
        address: traffic.address.clone(),
    }
}

/// Whether this process has no credentials that the target accepts.
fn is_locked_out(error: &HostError) -> bool {
    matches!(error.code.as_str(), "no-credentials" | "bad-credentials")
}

fn abandoned() -> HostError {
    HostError::new(
        crate::model::ErrorKind::Conflict,
        "abandoned",
        "the process died before this write left, and the rollout goes elsewhere now",
    )
    .retryable()
}
