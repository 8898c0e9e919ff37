//! A change of a stack as a rollout of its own: CloudFormation does the work, and
//! the code here keeps the traffic where people left it.
//!
//! The process that changes the stack holds a [`Changing`]: it occupies the target,
//! obeys commands and restores the traffic. Every write goes through the session, as
//! in any other rollout: intent, write, read back, answer. If that process dies,
//! [`Driver::drive`] goes on from the journal with the same functions, and ends by
//! reading where the traffic is.

use std::sync::Arc;

use super::doubt::abandoned;
use super::driver::Driver;
use super::look::{from_traffic, is_locked_out};
use super::recovery::{self, Move, Settled};
use super::session::{Checks, Interrupt, Leave, Session};
use super::{RolloutError, Standing, WRITES_MAX};
use crate::journal::status::{InDoubt, Status};
use crate::journal::summary::Summary;
use crate::journal::{Actor, Call, Entry, Event, FOREIGN_CHANGE, Header, Reply, Work};
use crate::model::{End, ErrorKind, HostError, Role, Traffic, Weights};
use crate::store::{self, Busy, Durability, Lease, StoreError};
use crate::target::{StackNow, Target};

/// Interval between two reads of a stack that no other process watches, ms.
const LOOK_AGAIN_MS: crate::model::Millis = 10_000;
/// Most commands that are obeyed between two reads of a stack; the others wait for
/// the next one.
const COMMANDS_MAX: u32 = 16;

/// A command that came during a change, and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// All traffic is on that arm; it was read back.
    TookBack {
        /// Who asked.
        actor: String,
        /// The arm.
        to: String,
    },
    /// The traffic could not be taken there.
    Refused {
        /// Who asked.
        actor: String,
        /// The arm.
        to: String,
        /// Why.
        why: String,
    },
    /// Something moved it away from the arm that a person had it taken to; it is there
    /// again, and was read back.
    TookAgain {
        /// The arm.
        to: String,
        /// Where the traffic was, in words.
        from: String,
    },
    /// The stack moved the traffic away from where people left it; it is there again,
    /// and was read back.
    HeldThere {
        /// Where it is, in words.
        at: String,
        /// Where the stack had moved it, in words.
        from: String,
    },
    /// Somebody else moved the traffic there, in words, and it stays there.
    LeftThere(String),
    /// The traffic was brought back as often as this may be done, and something has
    /// moved it there again, in words. It stays there until the stack is done.
    GaveUp(String),
    /// What became of a write is not known yet: the next look settles it.
    InDoubt(String),
}

/// What [`Changing::give_back`] found and did.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenBack {
    /// The traffic was where people left it.
    AsBefore,
    /// The change had moved it; it was restored and read back.
    Back {
        /// Where it was, in words.
        from: String,
        /// Where it is.
        now: Traffic,
    },
    /// It stays where it was found.
    Elsewhere {
        /// Where that is.
        now: Traffic,
        /// Where it was before the change.
        belonged: Weights,
        /// Whether somebody else has certainly moved it. Otherwise it is back on the
        /// stable arm, and a person or the stack may have done that.
        foreign: bool,
    },
    /// The change had moved it, and it could not be brought back.
    Refused {
        /// Where it was, in words.
        from: String,
        /// Where it is, in words.
        now: String,
        /// Why.
        why: String,
    },
}

/// A change of a stack that this process makes.
pub struct Changing {
    driver: Driver,
    session: Session,
    /// How often the traffic was brought back while the stack changed.
    taken_again: u32,
    /// Whether the platform was, or is about to be, told to change the stack.
    told: bool,
    /// The weights that the stack was asked to write, if it was asked for any.
    asked: Option<Weights>,
    /// The routes whose actions the stack was asked to write, once that is known.
    rewrites: Option<Vec<String>>,
    /// Where the traffic stays although it does not belong there, in words: it was said.
    left: Option<String>,
}

impl Driver {
    /// Begins a change of a stack: occupies the target, reads its weights as the
    /// header's baseline, and writes the first entry.
    ///
    /// # Errors
    /// Another rollout or process has the target, or it cannot be read.
    pub async fn begin_change(
        &self,
        mut header: Header,
        target: Arc<dyn Target>,
    ) -> Result<Changing, RolloutError> {
        let lease = self.claim_new(&header).await?;
        // From here on the lease keeps other rollouts from moving it.
        header.baseline = match target.traffic().await {
            Ok(traffic) => traffic.weights,
            Err(error) => {
                self.store.release(&lease).await?;
                return Err(error.into());
            }
        };
        // If no name says it, the arm with all traffic is the stable one.
        if header.arm(Role::Stable).is_empty() {
            let all = &header.baseline;
            for arm in &mut header.arms {
                if all.share(&arm.name) >= 100.0 {
                    arm.role = Role::Stable;
                }
            }
        }
        let (status, entries) = self.first_entry(&lease, &header).await?;
        let ports = (self.store.clone(), target, self.clock.clone());
        let session = Session::new(
            Arc::new(header),
            status,
            entries,
            ports,
            lease,
            self.options,
        );
        Ok(Changing {
            driver: self.clone(),
            session,
            taken_again: 0,
            told: false,
            asked: None,
            rewrites: None,
            left: None,
        })
    }

    /// As [`Driver::claim`], for a rollout that begins. A change of a stack whose
    /// process is dead is ended first.
    pub(super) async fn claim_new(&self, header: &Header) -> Result<Lease, StoreError> {
        match self.claim(header).await {
            Err(StoreError::Busy(busy)) if self.end_dead_change(&busy).await => {
                self.claim(header).await
            }
            result => result,
        }
    }

    /// Ends a change of a stack whose process is dead. False if the occupant is
    /// something else, or could not be ended.
    pub async fn end_dead_change(&self, busy: &Busy) -> bool {
        let driven = store::is_driven(self.store.as_ref(), busy, self.clock.now());
        if driven || !self.is_change(&busy.rollout).await {
            return false;
        }
        let ended = Box::pin(self.drive(&busy.rollout)).await;
        match ended {
            Ok(Standing::Over(_, reason)) => {
                self.resolve.notice(&busy.rollout, &reason);
                true
            }
            _ => false,
        }
    }

    /// Whether that rollout is a change of a stack.
    pub async fn is_change(&self, rollout: &str) -> bool {
        let header = self.store.header(rollout).await.unwrap_or_default();
        header.is_some_and(|header| matches!(header.work, Work::StackChange { .. }))
    }

    /// Ends a change of a stack that has deleted the load balancer.
    pub(super) async fn end_without_target(
        &self,
        header: &Header,
        entries: &[Entry],
        error: &HostError,
    ) -> Result<Standing, RolloutError> {
        let reason = format!(
            "{}; its load balancer does not exist any more: {error}",
            interrupted(header)
        );
        self.end_as(header, entries, (End::Done, reason)).await
    }

    /// Ends a rollout of a local balancer that is gone for good, without a look at its
    /// target, which is not there. The caller knows that by [`recovery::is_gone`].
    ///
    /// # Errors
    /// Another process has it, or the store fails; then it is as before.
    pub async fn end_gone(
        &self,
        header: &Header,
        entries: &[Entry],
    ) -> Result<Standing, RolloutError> {
        let limit = std::time::Duration::from_millis(header.guardrails.deadline_ms);
        let reason = format!(
            "its load balancer ended with the process that drove it, nobody went on with it within its deadline of {}, and so there is no traffic to take back",
            humantime::format_duration(limit)
        );
        self.end_as(header, entries, (End::Refused, reason)).await
    }

    /// Ends a rollout that no process drives, and whose local balancer ended with the one that
    /// did, because a person gave it up (`asked`). Nothing is said of traffic, which nobody
    /// has.
    ///
    /// # Errors
    /// As [`Driver::end_gone`].
    pub async fn end_unserved(
        &self,
        header: &Header,
        entries: &[Entry],
        asked: &str,
    ) -> Result<Standing, RolloutError> {
        let reason = format!(
            "{asked}; its load balancer had ended with the process that drove it, so nobody was served and there was no traffic to take back"
        );
        self.end_as(header, entries, (End::Refused, reason)).await
    }

    /// Ends a rollout whose target cannot be asked.
    async fn end_as(
        &self,
        header: &Header,
        entries: &[Entry],
        (end, reason): (End, String),
    ) -> Result<Standing, RolloutError> {
        let lease = self.claim(header).await?;
        let known = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let newer = self.store.load(&header.rollout, known).await?;
        let last = newer.last().or(entries.last());
        let entry = Entry {
            seq: last.map_or(0, |e| e.seq + 1),
            at: self.clock.now().max(last.map_or(0, |e| e.at)),
            epoch: lease.epoch,
            event: Event::Ended {
                end,
                reason: reason.clone(),
            },
        };
        let mut whole = entries.to_vec();
        whole.extend(newer);
        whole.push(entry.clone());
        if let Some(summary) = Summary::of_journal(&whole) {
            self.store
                .append(&lease, vec![entry], &summary, Durability::Power)
                .await?;
        }
        self.store.release(&lease).await?;
        Ok(Standing::Over(end, reason))
    }

    /// Takes all traffic to one arm because a person says so, by the rules of the way
    /// back: whatever others wrote, and only to a healthy arm.
    pub(super) async fn take_back(
        &self,
        session: &mut Session,
        to: String,
        actor: String,
        signal: String,
    ) -> Result<(), Interrupt> {
        let call = Call::SwitchColor { color: to.clone() };
        let mut attempt = 1;
        let refused = loop {
            if to.is_empty() {
                break Some("neither a name nor the traffic says which arm is stable; name it with `engine rollback --to ARM`".to_owned());
            }
            let written = session
                .write(Actor::Host, call.clone(), Checks::WayBack)
                .await;
            self.tell_of_health(session);
            match written {
                // The write stays in doubt, and the next read decides.
                Err(Interrupt::Held(hold)) => break Some(hold.to_string()),
                Err(interrupt) => return Err(interrupt),
                Ok(Reply::Failed(error))
                    if error.retryable
                        && error.kind != ErrorKind::Unhealthy
                        && attempt < self.options.attempts =>
                {
                    let why = format!("{call} failed: {error}");
                    self.try_again(session, attempt, &why).await?;
                    attempt += 1;
                }
                Ok(Reply::Failed(error)) => break Some(error.to_string()),
                Ok(_) => break None,
            }
        };
        let event = Event::TookBack {
            to,
            actor,
            refused,
            signal,
        };
        Ok(session.append(event, Durability::Power).await?)
    }

    /// Finds out whether a write without an answer happened. If not, it is sent again,
    /// unless a person wants the traffic elsewhere by now.
    pub(super) async fn settle_change(
        &self,
        session: &mut Session,
        write: &InDoubt,
    ) -> Result<(), Interrupt> {
        let unwanted = !session.pending().await?.is_empty();
        let mut attempt = 1;
        let (settled, live) = loop {
            match session.look_at(write).await {
                Ok(found) => break found,
                Err(error) if is_locked_out(&error) => return Err(Interrupt::Locked(error)),
                Err(error) if error.retryable && attempt < self.options.attempts => {
                    let why = format!("the target could not be read: {error}");
                    self.try_again(session, attempt, &why).await?;
                    attempt += 1;
                }
                // A person wants the traffic elsewhere, whether or not it happened.
                Err(_) if unwanted => break (Settled::Reissue, Weights::default().into()),
                Err(error) => {
                    return Err(Interrupt::Held(crate::model::Hold::Stuck {
                        reason: format!("{} could not be read back: {error}", write.call),
                    }));
                }
            }
        };
        let reply = match settled {
            Settled::Happened => Reply::Done,
            Settled::Reissue if unwanted => Reply::Failed(abandoned()),
            Settled::Reissue => match session.still_healthy(write).await? {
                Leave::Granted => return session.issue(write).await.map(|_| ()),
                Leave::Refused(error) => Reply::Failed(error),
            },
            Settled::Conflict => Reply::Failed(HostError::new(
                ErrorKind::Conflict,
                FOREIGN_CHANGE,
                format!(
                    "{} was sent when the target had {}, and now it has {live}: another writer has changed it",
                    write.call, write.before
                ),
            )),
        };
        let event = Event::Answered {
            by: write.by,
            of: write.seq,
            reply: reply.bounded(),
            recovered: true,
        };
        Ok(session.append(event, Durability::Power).await?)
    }

    /// The last part of a change of a stack whose process is dead: waits until
    /// CloudFormation is done, takes the traffic back once more if a person did and the
    /// stack has moved it since, and reads where it is.
    pub(super) async fn read_back(&self, session: &mut Session) -> Result<(), Interrupt> {
        let header = session.header.clone();
        let mut moved_again = false;
        loop {
            let stack = self.until_the_stack_rests(session).await?;
            let target = session.target.clone();
            // Only the load balancer is read, because a way back may wait for this.
            let read = || async {
                let traffic = target.traffic().await?;
                Ok(from_traffic(&header, &traffic, Some(&[])))
            };
            let live = self.patiently(session, 0, read).await?;
            let live = live.traffic();
            session.saw(&live);
            if self.outwait(session).await? {
                continue;
            }
            if let Some(call) = undoes(session, stack.as_ref(), &live)
                && !moved_again
            {
                moved_again = true;
                session.write(Actor::Host, call, Checks::WayBack).await?;
                continue;
            }
            let evidence = Event::Exchanged {
                by: Actor::Host,
                call: Call::GetWeights,
                reply: Reply::Weights(live.weights.clone()),
            };
            session.append(evidence, Durability::Process).await?;
            let (end, reason) = interrupted_end(&session.header, &session.status, &live);
            return Ok(session
                .append(Event::Ended { end, reason }, Durability::Power)
                .await?);
        }
    }
}

impl Driver {
    /// The stack once the platform is done with it; the rollout is parked until then.
    /// Where that cannot be known, it is held.
    async fn until_the_stack_rests(
        &self,
        session: &mut Session,
    ) -> Result<Option<StackNow>, Interrupt> {
        let header = session.header.clone();
        let Work::StackChange { stack, .. } = &header.work else {
            return Ok(None);
        };
        let mut attempt = 1;
        loop {
            match session.target.stack(stack).await {
                Ok(Some(StackNow {
                    at_work: Some(status),
                    ..
                })) => {
                    self.say(session, &format!("the stack {stack} is {status}"));
                    let until = self.clock.now() + LOOK_AGAIN_MS;
                    return Err(Interrupt::Parked { until });
                }
                Ok(now) => return Ok(now),
                Err(error) if is_locked_out(&error) => return Err(Interrupt::Locked(error)),
                Err(error) if error.retryable && attempt < self.options.attempts => {
                    let why = format!("the stack {stack} could not be read: {error}");
                    self.try_again(session, attempt, &why).await?;
                    attempt += 1;
                }
                Err(error) => {
                    return Err(Interrupt::Held(crate::model::Hold::Stuck {
                        reason: format!("the stack {stack} could not be read: {error}"),
                    }));
                }
            }
        }
    }
}

/// The routes that do not have these weights, and what they have; the target's own comes
/// without its name, and one that does something else by now without weights.
fn strayed<'a>(
    live: &'a Traffic,
    belongs: &'a Weights,
) -> impl Iterator<Item = (Option<&'a str>, Option<&'a Weights>)> + 'a {
    let own = (live.weights != *belongs).then_some((None, Some(&live.weights)));
    let others = live.apart_from(belongs).map(|other| {
        let weights = other.amiss.is_none().then_some(&other.weights);
        (Some(other.route.as_str()), weights)
    });
    own.into_iter().chain(others)
}

/// What brings the traffic back where people left it, if it was the stack that moved it.
fn undoes(session: &Session, stack: Option<&StackNow>, live: &Traffic) -> Option<Call> {
    let Work::StackChange { accepts, .. } = session.header.work else {
        return None;
    };
    let known = stack.is_some_and(|stack| stack.believes.is_some());
    let disowned = |belongs: &Weights| {
        strayed(live, belongs).any(|(route, weights)| match (route, weights) {
            (_, None) => true,
            // Of a route of which nothing is known but the target it belongs to.
            (Some(_), _) if !known => true,
            (_, Some(weights)) => stack.is_some_and(|stack| stack.disowns(weights)),
        })
    };
    // Nobody has accepted the weights that a failed change goes back to.
    let well = stack.is_some_and(|stack| stack.well);
    let accepted = accepts && well;
    let belongs = &session.status.weights;
    let by_a_person = |(_, weights): (_, Option<&Weights>)| {
        weights.is_some_and(|live| may_be_a_way_back(&session.header, belongs, live))
    };
    match session.status.obeyed_wish() {
        Some(to) if !live.all_on(to) && !disowned(&live.weights.all_to(to)) => {
            Some(Call::SwitchColor {
                color: to.to_owned(),
            })
        }
        // A stack that came to a good end had no weights of before to go back to, so whoever
        // took the candidate's share away was a person.
        None if well && gives_more(&session.header, belongs, &live.weights) => None,
        None if strayed(live, belongs).next().is_some()
            && known
            && !disowned(belongs)
            && !accepted
            && !strayed(live, belongs).any(by_a_person) =>
        {
            Some(Call::SetWeights {
                weights: belongs.clone(),
            })
        }
        _ => None,
    }
}

/// Whether a person may have taken the traffic back: all of it is on the stable arm,
/// which served before too. The stack can have written that as well, but nobody is
/// given an arm again that a person may have taken them from.
fn may_be_a_way_back(header: &Header, belongs: &Weights, live: &Weights) -> bool {
    let stable = header.arm(Role::Stable);
    !stable.is_empty() && live.share(stable) >= 100.0 && belongs.share(stable) > 0.0
}

/// Whether the candidate has more in the one than in the other, where it is known which arm
/// that is.
fn gives_more(header: &Header, one: &Weights, other: &Weights) -> bool {
    let candidate = header.arm(Role::Candidate);
    !header.arm(Role::Stable).is_empty() && one.share(candidate) > other.share(candidate)
}

fn interrupted(header: &Header) -> String {
    match &header.work {
        Work::StackChange { stack, change, .. } => {
            format!("the {change} of the stack {stack} was interrupted")
        }
        _ => "it was interrupted".to_owned(),
    }
}

/// The end of a change of a stack whose process is dead, with `live` just read.
fn interrupted_end(header: &Header, status: &Status, live: &Traffic) -> (End, String) {
    let what = interrupted(header);
    let now = live.shares();
    match &status.taken_back {
        Some(wish) if live.all_on(&wish.to) => (
            End::RolledBack,
            format!("all traffic was taken to {}; {what}", wish.to),
        ),
        Some(wish) => {
            let why = wish.refused.as_deref();
            (
                End::RollbackFailed,
                format!(
                    "{}; the traffic is at {now}; {what}",
                    why.map_or_else(
                        || format!(
                            "the traffic was taken to {}, and something else moved it again",
                            wish.to
                        ),
                        |why| format!("the traffic could not be taken to {}: {why}", wish.to)
                    )
                ),
            )
        }
        None if strayed(live, &status.weights).next().is_none() => (
            End::Done,
            format!("{what}; the traffic is where it was left: {now}"),
        ),
        None => (
            End::Refused,
            format!(
                "{what}; the traffic is at {now} and was at {}: the stack or somebody else moved it",
                status.weights.shares()
            ),
        ),
    }
}

impl Changing {
    /// Its id.
    #[must_use]
    pub fn rollout(&self) -> &str {
        &self.session.header.rollout
    }

    /// The weights that people want.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.session.status.weights
    }

    /// Renews the lease, settles a write in doubt and obeys commands, because a
    /// rollback must not wait for a stack. Must be called every few seconds.
    ///
    /// # Errors
    /// The store failed, or another process has taken over.
    pub async fn attend(&mut self) -> Result<Vec<Heard>, RolloutError> {
        let mut heard = vec![];
        match self.obey(&mut heard).await {
            Ok(()) | Err(Interrupt::Attention | Interrupt::Parked { .. }) => {}
            Err(Interrupt::Store(error)) => {
                let session = &mut self.session;
                return Err(self.driver.overtaken(session, error.into()).await);
            }
            Err(Interrupt::Locked(error)) => heard.push(Heard::InDoubt(error.to_string())),
            Err(Interrupt::Held(hold)) => heard.push(Heard::InDoubt(hold.to_string())),
            Err(Interrupt::Diverged(_) | Interrupt::Limit(_)) => {}
        }
        Ok(heard)
    }

    /// Proves right now that the target is still this change's: to be called just before
    /// the platform is told to do something that cannot be taken back.
    ///
    /// # Errors
    /// Another process has taken over, or the store failed.
    pub async fn prove(&mut self) -> Result<(), RolloutError> {
        match self.session.renew().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.driver.overtaken(&mut self.session, error.into()).await),
        }
    }

    /// Notes that the platform is told now, with the weights that it is asked to write,
    /// if it is asked for any. From here on the stack can have moved the traffic.
    pub fn tell(&mut self, asked: Option<Weights>) {
        self.told = true;
        self.asked = asked;
    }

    /// Notes which routes the platform is about to be asked to write. What they have
    /// afterwards may be the stack's, whatever its parameters say.
    pub fn rewrites(&mut self, routes: Vec<String>) {
        self.rewrites = Some(routes);
    }

    /// Whether the platform was told.
    #[must_use]
    pub fn was_told(&self) -> bool {
        self.told
    }

    /// Whether a person took the traffic back while the stack changed.
    #[must_use]
    pub fn was_taken_back(&self) -> bool {
        self.session.status.taken_back.is_some()
    }

    /// Leaves the change as it is, for a process that goes on with it.
    ///
    /// # Errors
    /// The store failed, or another process has taken over.
    pub async fn leave(self) -> Result<(), RolloutError> {
        let lease = self.session.lease();
        Ok(self.driver.store.park(lease, None).await?)
    }

    async fn obey(&mut self, heard: &mut Vec<Heard>) -> Result<(), Interrupt> {
        let (driver, session) = (&self.driver, &mut self.session);
        session.keep_lease().await?;
        for _ in 0..COMMANDS_MAX {
            let signals = session.pending().await?;
            let now = driver.clock.now();
            match recovery::next_move(&session.header, &session.status, &signals, None, now) {
                Move::Record(event) => session.append(event, Durability::Power).await?,
                Move::Settle(write) => driver.settle_change(session, &write).await?,
                Move::TakeBack { to, actor, signal } => {
                    driver
                        .take_back(session, to.clone(), actor.clone(), signal)
                        .await?;
                    self.left = None;
                    let wish = session.status.taken_back.clone();
                    heard.push(match wish.and_then(|wish| wish.refused) {
                        None => Heard::TookBack { actor, to },
                        Some(why) => Heard::Refused { actor, to, why },
                    });
                }
                _ => break,
            }
        }
        self.hold_the_traffic(heard).await
    }

    /// Where people left the traffic, or took it meanwhile, it stays until the platform
    /// is done: the stack may write its own weights at any time until then, and it can
    /// be hours.
    async fn hold_the_traffic(&mut self, heard: &mut Vec<Heard>) -> Result<(), Interrupt> {
        let session = &mut self.session;
        let Work::StackChange { stack, accepts, .. } = &session.header.work else {
            return Ok(());
        };
        let wish = session.status.obeyed_wish().map(ToOwned::to_owned);
        let holds = wish.is_some() || self.told && !accepts;
        if session.status.in_doubt.is_some() || self.taken_again > WRITES_MAX || !holds {
            return Ok(());
        }
        let live = match session.target.traffic().await {
            Ok(traffic) => traffic,
            Err(error) => {
                heard.push(Heard::InDoubt(error.to_string()));
                return Ok(());
            }
        };
        let belongs = session.status.weights.clone();
        let there = match &wish {
            Some(to) => live.all_on(to),
            None => strayed(&live, &belongs).next().is_none(),
        };
        if there || self.left.as_ref() == Some(&live.shares()) {
            return Ok(());
        }
        // Without knowing the stack, only what a person has asked for is held.
        let owner = match session.target.stack(stack).await {
            Ok(Some(stack)) if stack.believes.is_some() => {
                Some(self.foreign(Some(&stack), &live, &belongs))
            }
            _ => None,
        };
        let foreign = owner == Some(true);
        if foreign || wish.is_none() && self.may_be_taken_back(&live, &belongs) {
            heard.push(Heard::LeftThere(live.shares()));
            self.leave_there(&live).await?;
            return Ok(());
        }
        let session = &mut self.session;
        if wish.is_none() && owner.is_none() {
            return Ok(());
        }
        self.taken_again += 1;
        if self.taken_again > WRITES_MAX {
            heard.push(Heard::GaveUp(live.shares()));
            return Ok(());
        }
        let (call, done) = match wish {
            Some(to) => (
                Call::SwitchColor { color: to.clone() },
                Heard::TookAgain {
                    to,
                    from: live.shares(),
                },
            ),
            None => (
                Call::SetWeights {
                    weights: belongs.clone(),
                },
                Heard::HeldThere {
                    at: belongs.shares(),
                    from: live.shares(),
                },
            ),
        };
        let reply = session.write(Actor::Host, call, Checks::WayBack).await?;
        self.driver.tell_of_health(session);
        heard.push(match reply {
            Reply::Failed(error) => Heard::InDoubt(error.to_string()),
            _ => done,
        });
        Ok(())
    }

    /// Whether these live weights are neither what the stack's parameters say nor what
    /// it was asked to write: somebody else has written them.
    fn disowned(&self, stack: &StackNow, live: &Weights) -> bool {
        let asked_for = |asked: &Weights| {
            asked
                .0
                .iter()
                .all(|w| asked.share(&w.arm) == live.share(&w.arm))
        };
        stack.disowns(live) && !self.asked.as_ref().is_some_and(asked_for)
    }

    /// Whether somebody else than the stack has moved a route away from where the traffic
    /// belongs. One that other routes were moved away from before is not the stack's
    /// either: nobody knows where it belongs.
    fn foreign(&self, stack: Option<&StackNow>, live: &Traffic, belongs: &Weights) -> bool {
        // A stack that writes no route writes none when it goes back either.
        if self.rewrites.as_ref().is_some_and(Vec::is_empty) {
            return strayed(live, belongs).next().is_some();
        }
        let rewrites = self.rewrites.as_deref().unwrap_or_default();
        let adopted =
            self.session.status.obeyed_wish().is_none() && *belongs != self.session.header.baseline;
        strayed(live, belongs).any(|(route, weights)| match (route, weights) {
            (_, None) => true,
            (None, Some(weights)) => stack.is_some_and(|stack| self.disowned(stack, weights)),
            (Some(route), Some(weights)) => {
                let is_written = rewrites.iter().any(|written| written == route);
                let known = stack.filter(|stack| stack.believes.is_some());
                let disowned = known.is_none_or(|stack| self.disowned(stack, weights));
                adopted || !is_written && disowned
            }
        })
    }

    /// Whether a person may have taken the traffic of a route back.
    fn may_be_taken_back(&self, live: &Traffic, belongs: &Weights) -> bool {
        strayed(live, belongs).any(|(_, weights)| {
            weights.is_some_and(|live| may_be_a_way_back(&self.session.header, belongs, live))
        })
    }

    /// Lets the traffic stay where it is.
    async fn leave_there(&mut self, live: &Traffic) -> Result<(), Interrupt> {
        self.left = Some(live.shares());
        if live.weights == self.session.status.weights {
            return Ok(());
        }
        adopt(&mut self.session, live.weights.clone()).await
    }

    /// Restores the traffic, if the change has moved it. With `action`, the rest of the
    /// route's action is restored too, as it was written down before, unless a person
    /// has moved the traffic meanwhile.
    ///
    /// # Errors
    /// The traffic could not be read, the store failed, or another process has taken
    /// over.
    pub async fn give_back(
        &mut self,
        action: Option<&serde_json::Value>,
    ) -> Result<GivenBack, RolloutError> {
        match self.try_give_back(action).await {
            Ok(given) => Ok(given),
            Err(Interrupt::Store(error)) => {
                let session = &mut self.session;
                Err(self.driver.overtaken(session, error.into()).await)
            }
            Err(Interrupt::Locked(error)) => Err(error.into()),
            Err(Interrupt::Held(hold)) => {
                Err(HostError::new(ErrorKind::Unavailable, "unread", hold.to_string()).into())
            }
            Err(_) => Ok(GivenBack::AsBefore),
        }
    }

    async fn try_give_back(
        &mut self,
        action: Option<&serde_json::Value>,
    ) -> Result<GivenBack, Interrupt> {
        let session = &mut self.session;
        if let Some(write) = session.status.in_doubt.clone() {
            self.driver.settle_change(session, &write).await?;
        }
        let belongs = session.status.weights.clone();
        // The action contains the weights of the beginning.
        let whole = action.filter(|_| belongs == session.header.baseline);
        let locked = Interrupt::Locked;
        let does = match whole {
            Some(action) => session.target.does(action).await.map_err(locked)?,
            None => true,
        };
        let (seen, from) = match session.target.traffic().await {
            Ok(live) if strayed(&live, &belongs).next().is_none() && does => {
                return Ok(GivenBack::AsBefore);
            }
            Ok(live) => {
                let from = live.shares();
                (live, from)
            }
            // The route does not forward to these arms any more.
            Err(error) if !error.retryable && whole.is_some() => {
                (belongs.none().into(), error.to_string())
            }
            Err(error) => return Err(Interrupt::Locked(error)),
        };
        let Work::StackChange { stack, .. } = &session.header.work else {
            return Ok(GivenBack::AsBefore);
        };
        let stack = session.target.stack(stack).await.map_err(locked)?;
        let foreign = self.foreign(stack.as_ref(), &seen, &belongs);
        if foreign || self.may_be_taken_back(&seen, &belongs) {
            self.leave_there(&seen).await?;
            return Ok(GivenBack::Elsewhere {
                now: seen,
                belonged: belongs,
                foreign,
            });
        }
        let session = &mut self.session;
        let call = match whole.filter(|_| !does) {
            Some(action) => Call::Restore {
                weights: belongs.clone(),
                action: action.clone(),
            },
            None => Call::SetWeights { weights: belongs },
        };
        let (_, health) = session.asks_for_health().beside(async { Ok(()) }).await;
        let seen = (seen, session.clock.now());
        let reply = session
            .write_over(Actor::Host, call, Checks::WayBack, seen, Some(health))
            .await?;
        self.driver.tell_of_health(session);
        let now = session.target.traffic().await;
        Ok(match (reply, now) {
            (Reply::Failed(error), now) => GivenBack::Refused {
                from,
                now: now.map_or_else(|e| e.to_string(), |t| t.shares()),
                why: error.to_string(),
            },
            (_, Ok(now)) => GivenBack::Back { from, now },
            (_, Err(error)) => return Err(Interrupt::Locked(error)),
        })
    }

    /// Accepts the weights that the change has set, because a person has permitted
    /// that; returns what every route has.
    ///
    /// # Errors
    /// They cannot be read, or the store failed.
    pub async fn accept(&mut self, actor: &str) -> Result<Traffic, RolloutError> {
        let live = self.session.target.traffic().await?;
        if live.weights != self.session.status.weights {
            let event = Event::Continued {
                actor: actor.to_owned(),
                adopted: Some(live.weights.clone()),
                signal: None,
            };
            self.session.append(event, Durability::Power).await?;
        }
        Ok(live)
    }

    /// Writes the end and the weights that were read, and leaves the target. With a
    /// write in doubt the rollout does not end: the process that takes it over settles
    /// the write first.
    ///
    /// # Errors
    /// The store failed, or another process has taken over.
    pub async fn end(mut self, end: End, reason: String) -> Result<(), RolloutError> {
        let session = &mut self.session;
        let in_doubt = session.status.in_doubt.is_some();
        if !in_doubt {
            let call = Call::GetWeights;
            let live = session.target.traffic().await;
            let reason = match &live {
                Ok(now) => format!("{reason}; the traffic is at {}", now.shares()),
                Err(_) => reason,
            };
            let reply = live.map_or_else(Reply::Failed, |live| Reply::Weights(live.weights));
            let reply = reply.bounded();
            let evidence = Event::Exchanged {
                by: Actor::Host,
                call,
                reply,
            };
            session.append(evidence, Durability::Process).await?;
            session
                .append(Event::Ended { end, reason }, Durability::Power)
                .await?;
        }
        let store = &self.driver.store;
        let lease = session.lease();
        if in_doubt {
            store.park(lease, None).await?;
        } else {
            store.release(lease).await?;
        }
        Ok(())
    }
}

/// Takes the live weights over as those that belong there.
async fn adopt(session: &mut Session, live: Weights) -> Result<(), Interrupt> {
    let event = Event::Continued {
        actor: "somebody else".to_owned(),
        adopted: Some(live),
        signal: None,
    };
    Ok(session.append(event, Durability::Power).await?)
}
