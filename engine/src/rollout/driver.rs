//! The driver: takes a rollout from where its journal stands to its end, a
//! pause, or the next long wait.
//!
//! Starting, resuming after a crash and waking from a wait are the same
//! function, [`Driver::drive`]: load the journal, claim the lease, ask
//! [`recovery::next_move`], do it, write it down, ask again.

use std::sync::Arc;

use super::recovery::{self, Move};
use super::session::{Checks, Interrupt, READ_AGE_MAX_MS, Session, Shared};
use super::{Options, Ran, Resolve, RolloutError, Run, Standing};
use crate::clock::Clock;
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::journal::{Actor, Call, Entry, Event, Header, Reply, Work};
use crate::model::target::TargetSpec;
use crate::model::{End, ErrorKind, Goal, Hold, HostError, Role, Weights};
use crate::store::{Claim, Durability, Lease, Owner, Store, StoreError};
use crate::target::Target;

/// What is needed to move any rollout of one store on: where its entries go, whom its
/// calls reach, and what the time is.
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
        let lease = self.claim_new(&header).await?;
        self.first_entry(&lease, &header).await?;
        Ok(())
    }

    /// Writes down how a rollout begins; the answer is its journal so far and what
    /// that adds up to.
    pub(super) async fn first_entry(
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

    /// Claims the target of a rollout, with every route that moves with its own.
    pub(super) async fn claim(&self, header: &Header) -> Result<Lease, StoreError> {
        let also = header.target.also().iter().map(|also| also.route.clone());
        let also: Vec<String> = also.collect();
        let claim = Claim {
            target: &header.identity,
            also: &also,
            rollout: &header.rollout,
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
            Err(error) if recovery::target_is_gone(&header, &error) => {
                return self.end_without_target(&header, &entries, &error).await;
            }
            Err(error) => return Err(error.into()),
        };
        let lease = self.claim(&header).await?;
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

    /// The target of a rollout; of a change of a stack, one that is still there. A stack
    /// that is being changed, or cannot be read, may have users that are not seen now.
    async fn target_of(&self, header: &Header) -> Result<Arc<dyn Target>, HostError> {
        let target = self.resolve.target(&header.target).await?;
        if let Work::StackChange { stack, .. } = &header.work
            && let Err(error) = target.traffic().await
            && recovery::target_is_gone(header, &error)
        {
            // By its ARN a stack is described for long after it was deleted. One that is not
            // known by it is seen with the credentials of another account.
            let arn = match &header.target {
                TargetSpec::Aws(spec) => spec.find.stack.as_deref(),
                _ => None,
            };
            let arn = arn.filter(|arn| arn.starts_with("arn:"));
            match (target.stack(arn.unwrap_or(stack)).await, arn) {
                (Ok(Some(stack)), _) if stack.at_work.is_none() => return Err(error),
                (Ok(None), None) => return Err(error),
                (Ok(None), Some(arn)) => {
                    return Err(HostError::new(
                        ErrorKind::Denied,
                        "another-account",
                        format!(
                            "{error}; nor is there the stack {arn}, which would be described even if it was deleted: these may be the credentials of another account\n\nhint: see `aws sts get-caller-identity`, and use the profile or the role of that account"
                        ),
                    ));
                }
                _ => {}
            }
        }
        Ok(target)
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
                let live = session.target.observe().await?.traffic();
                let together = live.apart().next().is_none();
                // What was told is taken over, and nothing that came after.
                let untold = match &session.status.hold {
                    Some(Hold::ForeignChange { found, .. }) => {
                        live.weights != *found && live.weights != session.status.weights
                    }
                    _ => false,
                };
                let event = match together {
                    true if untold => Event::Held {
                        hold: Hold::ForeignChange {
                            expected: session.status.weights.clone(),
                            found: live.weights,
                            place: None,
                        },
                        signal: Some(signal),
                    },
                    true => Event::Continued {
                        actor,
                        adopted: Some(live.weights),
                        signal: Some(signal),
                    },
                    false => Event::Held {
                        hold: Hold::Stuck {
                            reason: format!(
                                "the routes of this target have different weights ({}), so there are none that could be taken over: bring them together by hand and resume, or abort",
                                live.shares()
                            ),
                        },
                        signal: Some(signal),
                    },
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
            Move::Undo { by, reason } => {
                if self.prepare(session).await? {
                    let event = Event::Decided {
                        goal: Goal::Promote,
                        by,
                        reason,
                        signal: None,
                    };
                    session.append(event, Durability::Power).await?;
                }
            }
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
    pub(super) async fn or_hold(
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

    /// One write by a person.
    async fn verb(&self, session: &mut Session, weights: Weights) -> Result<(), Interrupt> {
        let call = Call::SetWeights { weights };
        let way_back = call
            .weights_after(&Weights::default())
            .is_some_and(|w| w.share(session.header.arm(Role::Stable)) >= 100.0);
        let checks = if way_back {
            Checks::WayBack
        } else {
            Checks::NoGuardrails
        };
        let asked = self.clock.now();
        let fit = async {
            match way_back {
                true => Ok(()),
                false => session.target.fit().await,
            }
        };
        let (fit, (live, health)) = tokio::join!(fit, session.read_before(checks));
        // Who gives it up now does not find that it went through.
        if session.is_commanded().await? {
            return Err(Interrupt::Attention);
        }
        if let Err(error) = fit {
            let (end, reason) = (End::Refused, error.message);
            return Ok(session
                .append(Event::Ended { end, reason }, Durability::Power)
                .await?);
        }
        let fresh = self.clock.now().saturating_sub(asked) <= READ_AGE_MAX_MS;
        let mut reply = match live {
            // What took long is the health, which nobody waits for twice.
            _ if !fresh && way_back && health.is_err() => {
                let looked = self.clock.now();
                match session.target.glance().await {
                    Ok(live) => {
                        let live = (live, looked);
                        session
                            .write_over(Actor::Host, call.clone(), checks, live, Some(health))
                            .await?
                    }
                    Err(error) => session.refuse(Actor::Host, call.clone(), error).await?,
                }
            }
            // The other checks took long, or were tried again.
            _ if !fresh => session.write(Actor::Host, call.clone(), checks).await?,
            Ok(live) => {
                let live = (live, asked);
                let over =
                    session.write_over(Actor::Host, call.clone(), checks, live, Some(health));
                over.await?
            }
            Err(error) => session.refuse(Actor::Host, call.clone(), error).await?,
        };
        self.tell_of_health(session);
        if reply == Reply::Done && self.outwait(session).await? && !session.is_commanded().await? {
            reply = session.write(Actor::Host, call.clone(), checks).await?;
        }
        if session.is_commanded().await? {
            return Err(Interrupt::Attention);
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
