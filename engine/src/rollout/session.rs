//! A session: one attempt of one process to move a rollout on.
//!
//! [`Session::perform`] does the main thing: it answers a call from the journal if the
//! journal has the answer; otherwise it checks the call, journals the intent, acts, reads
//! back, and journals the answer.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

pub use super::calls::{Calls, Interrupted};
use super::health::{AskForHealth, OVERLOOKED_MS};
use super::roles::{capacity_now, scaled, scaling_for_a_raise, scaling_told_before};
use super::{Options, guardrails, recovery};
use crate::clock::Clock;
use crate::journal::replay::{Cursor, Mismatch, Step};
use crate::journal::status::{InDoubt, Status};
use crate::journal::summary::Summary;
use crate::journal::{
    Actor, Call, Entry, Event, FOREIGN_CHANGE, Header, Reply, WRITE_IGNORED, Work,
};
use crate::model::query::Count;
use crate::model::{
    ArmHealth, ArmScaling, Capacity, Command, ErrorKind, Hold, HostError, Images, MetricsQuery,
    Millis, Observed, Point, Role, Running, Scaling, Signal, Traffic, Wake, Weights, counted,
};
use crate::store::{Durability, Lease, Store, StoreError};
use crate::target::{Order, Target};

/// Why a call did not return to the strategy.
#[derive(Debug)]
pub enum Interrupt {
    /// The wait is long: the rollout leaves memory and wakes at `until`.
    Parked {
        /// When it wakes (Unix ms).
        until: Millis,
    },
    /// A person's command or the deadline is due; the driver decides.
    Attention,
    /// On replay the strategy made another call than the journal has.
    Diverged(Box<Mismatch>),
    /// The rollout must stand still.
    Held(Hold),
    /// The strategy broke a limit of the host.
    Limit(String),
    /// This process may not reach the target; another one may.
    Locked(HostError),
    /// The store failed, or the lease is gone.
    Store(StoreError),
}

impl From<StoreError> for Interrupt {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// Whether a write may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leave {
    /// It may be sent now.
    Granted,
    /// It may not be sent, for this reason.
    Refused(HostError),
}

/// How a write is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// For foreign changes, guardrails, health and the lease.
    All,
    /// For all but guardrails, because a person decided.
    NoGuardrails,
    /// For health and the lease only, because nothing else may block the way back.
    WayBack,
}

/// One attempt of one process to move a rollout on: what it knows of the rollout, and the
/// ports through which it acts.
pub struct Session {
    pub(super) header: Arc<Header>,
    pub(super) status: Status,
    pub(super) target: Arc<dyn Target>,
    pub(super) clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    lease: Lease,
    renewed: Millis,
    options: Options,
    cursor: Cursor,
    /// The journal as it was loaded, until the strategy first runs.
    unread: Option<Vec<Entry>>,
    logical_now: Millis,
    signals: Vec<Signal>,
    signals_after: u64,
    guarded: Millis,
    /// When auto scaling was last looked at, Unix ms.
    met_scaling: Millis,
    /// Since when the guards (alarms and deployments) cannot be read, Unix ms.
    blind_since: Option<Millis>,
    /// The alarm or the failed deployment because of which the rollout must go back.
    pub(super) tripped: Option<String>,
    pub(super) interrupt: Option<Interrupt>,
    /// The write that was sent last, as long as its answer is not in the journal.
    pub(super) sent: Option<InDoubt>,
    /// When weights were last read (Unix ms), and the shares in words.
    seen: Option<(Millis, String)>,
    /// Whether the routes had different weights before the write that was sent last.
    uneven: bool,
    /// Whether routes came along to which this rollout has written nothing yet.
    pub(super) unproven: bool,
    /// What auto scaling was told by the write that was sent last.
    scaled: Option<(u32, Scaling)>,
    /// When a way back last went without the health of the arms (Unix ms), and why.
    overlooked: Option<(Millis, HostError)>,
    /// Whether whoever watches was not told of that yet.
    pub(super) untold: bool,
}

/// How old what a write is based on may be, ms: it is read while other checks are made, and
/// those may take long.
pub(super) const READ_AGE_MAX_MS: Millis = 1_000;

/// How often the traffic is read anew before a write, if each answer is too old once it comes.
const LOOKS_MAX: u32 = 3;

/// How often auto scaling that is new is looked for while users are on the candidate.
const SCALING_POLL_MS: Millis = 60_000;

/// How long after the lease was last renewed a write may be sent. The process that takes
/// the lease over counts on it: [`Target::late_write_ms`] includes this time.
const LEAVE_WITHIN: std::time::Duration =
    std::time::Duration::from_millis(crate::target::LEAVE_WITHIN_MS);

impl Session {
    pub(super) fn new(
        header: Arc<Header>,
        status: Status,
        entries: Vec<Entry>,
        ports: (Arc<dyn Store>, Arc<dyn Target>, Arc<dyn Clock>),
        lease: Lease,
        options: Options,
    ) -> Self {
        let (store, target, clock) = ports;
        Self {
            logical_now: header.created,
            cursor: Cursor::default(),
            unread: Some(entries),
            renewed: clock.now(),
            header,
            status,
            target,
            clock,
            store,
            lease,
            options,
            signals: vec![],
            signals_after: 0,
            guarded: 0,
            met_scaling: 0,
            blind_since: None,
            tripped: None,
            interrupt: None,
            sent: None,
            seen: None,
            uneven: false,
            unproven: false,
            scaled: None,
            overlooked: None,
            untold: false,
        }
    }

    /// Remembers where the traffic was seen.
    pub(super) fn saw(&mut self, traffic: &Traffic) {
        self.seen = Some((self.clock.now(), traffic.shares()));
    }

    /// Where the traffic was last seen, in words for the person who must act now.
    pub(super) fn last_seen(&self) -> String {
        match &self.seen {
            Some((at, shares)) => {
                let ago = self.clock.now().saturating_sub(*at).div_ceil(1_000);
                format!("{ago} s ago the traffic was at {shares}")
            }
            None => "where the traffic is could not be read".to_owned(),
        }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How long to wait between two reads of a target that is to become ready, ms: longer
    /// where samples are long, as on AWS, which limits the rate of calls.
    pub(super) fn poll_ms(&self) -> Millis {
        Millis::from(self.header.sample_period_ms / 20).clamp(250, 5_000)
    }

    /// Goes back to the strategy's first call.
    pub(super) async fn rewind(&mut self) -> Result<(), StoreError> {
        let entries = match self.unread.take() {
            Some(entries) => entries,
            None => self.store.load(&self.header.rollout, 0).await?,
        };
        self.cursor = Cursor::new(entries);
        self.logical_now = self.header.created;
        Ok(())
    }

    pub(super) fn left_over(&self) -> Option<Mismatch> {
        self.cursor.left_over()
    }

    /// Appends one entry and applies it to the status.
    pub(super) async fn append(
        &mut self,
        event: Event,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let entry = Entry {
            seq: self.status.entries,
            at: self.clock.now().max(self.status.updated),
            epoch: self.lease.epoch,
            event,
        };
        // If the store fails, this session ends, so its status may be ahead of the journal.
        self.status.apply(&entry);
        let summary = Summary::of(&self.header, &self.status);
        self.store
            .append(&self.lease, vec![entry], &summary, durability)
            .await
    }

    /// Signals that were not obeyed yet, in the order in which they were sent.
    pub(super) async fn pending(&mut self) -> Result<Vec<Signal>, StoreError> {
        for (number, _, signal) in self
            .store
            .signals(Some(&self.header.rollout), self.signals_after)
            .await?
        {
            self.signals_after = number;
            self.signals.push(signal);
        }
        let consumed = &self.status.consumed;
        self.signals.retain(|s| !consumed.contains(&s.id));
        Ok(self.signals.clone())
    }

    /// Prolongs the lease when a third of it is gone.
    pub(super) async fn keep_lease(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if now.saturating_sub(self.renewed) > self.options.lease_ttl_ms / 3 {
            self.renew().await?;
        }
        Ok(())
    }

    /// Prolongs the lease; fails if it belongs to another process by now.
    pub(super) async fn renew(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.store
            .renew(&self.lease, now + self.options.lease_ttl_ms)
            .await?;
        self.renewed = now;
        Ok(())
    }

    fn going_back(&self) -> bool {
        let decided = self.status.decision.as_ref();
        decided.is_some_and(|d| d.goal == crate::model::Goal::RollBack)
    }

    /// Whether the target has alarms or deployments to watch. On the way back they are not
    /// watched, because it must need nothing but the load balancer.
    fn is_guarded(&self) -> bool {
        if self.going_back() {
            return false;
        }
        let guards = !self.header.guardrails.alarms.is_empty() || self.header.capacity.is_some();
        guards && matches!(self.header.work, Work::Strategy(_))
    }

    /// Reads the guards if they were not read for [`Options::guard_poll_ms`].
    async fn check_guards(&mut self) -> Result<(), Interrupt> {
        let now = self.clock.now();
        let due = now.saturating_sub(self.guarded) >= self.options.guard_poll_ms;
        if !self.is_guarded() || self.tripped.is_some() || !due {
            return Ok(());
        }
        self.guarded = now;
        // Until the strategy runs, the preparation watches the candidate's deployment.
        let arm = self.header.arm(Role::Candidate);
        let arm = self.status.strategy_called.then_some(arm);
        let alarms = &self.header.guardrails.alarms;
        match self.target.tripped(alarms, arm).await {
            Ok(tripped) => {
                self.blind_since = None;
                self.tripped = tripped;
                let status = &self.status;
                let quiet = status.in_doubt.is_none() && status.decision.is_none();
                if quiet && status.strategy_called {
                    self.check_foreign().await?;
                    self.hold_new_scaling().await?;
                }
                Ok(())
            }
            Err(error) => {
                let patience = self.header.guardrails.healthy_timeout_ms;
                let since = *self.blind_since.get_or_insert(now);
                if error.retryable && now.saturating_sub(since) < patience {
                    return Ok(());
                }
                Err(Interrupt::Held(Hold::Stuck {
                    reason: format!("the alarms and deployments could not be read: {error}"),
                }))
            }
        }
    }

    /// Whether a person, the deadline or a guard wants the driver's attention.
    pub(super) async fn needs_attention(&mut self) -> Result<bool, Interrupt> {
        self.keep_lease().await?;
        self.check_guards().await?;
        let now = self.clock.now();
        let commanded = recovery::first_command(&self.pending().await?).is_some();
        let due = recovery::deadline_is_due(&self.header, &self.status, now);
        Ok(commanded || due || self.tripped.is_some() && !self.going_back())
    }

    /// Whether a person wants something else of the driver.
    pub(super) async fn is_commanded(&mut self) -> Result<bool, StoreError> {
        Ok(recovery::first_command(&self.pending().await?).is_some())
    }

    /// Whether all of it goes back to the stable arm: by a decision, or because a person asked
    /// for nothing else.
    pub(super) fn goes_back(&self) -> bool {
        self.going_back() || self.header.work.goes_back()
    }

    async fn attention(&mut self) -> Result<(), Interrupt> {
        if self.needs_attention().await? {
            return Err(Interrupt::Attention);
        }
        Ok(())
    }

    /// One call of the strategy; `refused` says why it cannot be performed.
    pub(super) async fn perform(
        &mut self,
        call: Call,
        refused: Option<HostError>,
    ) -> Result<Reply, Interrupt> {
        match self.cursor.next(&call) {
            Step::Recorded { reply, at } => {
                self.logical_now = at;
                return Ok(reply);
            }
            Step::Mismatch(mismatch) => return Err(Interrupt::Diverged(Box::new(mismatch))),
            Step::Open { seq, deadline } => {
                let Call::Wait { signals, .. } = &call else {
                    // The driver finds out about writes in doubt before it runs the strategy.
                    return Err(Interrupt::Attention);
                };
                let deadline = deadline.unwrap_or_else(|| self.clock.now());
                return self.wait(seq, deadline, signals).await;
            }
            Step::Fresh => {}
        }
        self.check_caps()?;
        self.attention().await?;
        match refused {
            Some(error) => {
                let reply = self.refuse(Actor::Strategy, call, error).await?;
                self.answered(reply)
            }
            None => self.ask(call).await,
        }
    }

    /// A call that the journal does not know yet.
    async fn ask(&mut self, call: Call) -> Result<Reply, Interrupt> {
        let by = Actor::Strategy;
        if let Call::Wait { seconds, signals } = &call {
            let deadline = self.clock.now() + u64::from(*seconds) * 1_000;
            let seq = self.status.entries;
            let event = Event::Asked {
                by,
                call: call.clone(),
                before: None,
                deadline: Some(deadline),
            };
            let parks = self.parks(deadline);
            self.append(event, durability(parks)).await?;
            return self.wait(seq, deadline, signals).await;
        }
        if call.is_write() {
            let reply = self.write(by, call, Checks::All).await?;
            return self.answered(reply);
        }
        if matches!(call, Call::GetMetrics { .. }) {
            self.check_foreign().await?;
        }
        let reply = self.read(&call).await;
        let shown = call.is_aside();
        let event = Event::Exchanged {
            by,
            call,
            reply: reply.clone(),
        };
        self.append(event, durability(shown)).await?;
        self.answered(reply)
    }

    /// A strategy that polls too often, or for too much, must not fill the disk.
    fn check_caps(&self) -> Result<(), Interrupt> {
        let (calls, bytes) = (self.status.calls, self.status.bytes);
        match self.header.caps.used_up(calls, bytes) {
            Some(why) => Err(Interrupt::Limit(why)),
            None => Ok(()),
        }
    }

    /// Ends a call that was not in the journal. With `chaos_evict` the rollout leaves memory
    /// here.
    fn answered(&mut self, reply: Reply) -> Result<Reply, Interrupt> {
        if self.options.chaos_evict {
            return Err(Interrupt::Parked {
                until: self.clock.now(),
            });
        }
        self.logical_now = self.status.updated;
        Ok(reply)
    }

    fn parks(&self, deadline: Millis) -> bool {
        self.options.chaos_evict
            || deadline.saturating_sub(self.clock.now()) > self.options.park_after_ms
    }

    async fn wait(
        &mut self,
        of: u32,
        deadline: Millis,
        names: &[String],
    ) -> Result<Reply, Interrupt> {
        loop {
            self.attention().await?;
            let now = self.clock.now();
            let pending = self.pending().await?;
            let mut for_waits = pending
                .into_iter()
                .filter(|s| Command::of(s) == Some(Command::Promote) || names.contains(&s.name));
            // A command that came too late for an earlier wait must not end this one.
            let signal = loop {
                match for_waits.next() {
                    Some(signal) if signal.until.is_some_and(|until| until != deadline) => {
                        let event = Event::Ignored {
                            signal: signal.id,
                            name: signal.name,
                        };
                        self.append(event, Durability::Process).await?;
                    }
                    other => break other,
                }
            };
            let wake = match signal {
                Some(signal) => Some(Wake::Signal(signal)),
                None if now >= deadline => Some(Wake::Timer),
                None => None,
            };
            if let Some(wake) = wake {
                let reply = Reply::Woke(wake);
                let event = Event::Answered {
                    by: Actor::Strategy,
                    of,
                    reply: reply.clone(),
                    recovered: false,
                };
                self.append(event, Durability::Process).await?;
                return self.answered(reply);
            }
            let limit = self.header.guardrails.deadline_ms;
            let due = self.header.created.saturating_add(limit);
            let mut until = if due > now {
                deadline.min(due)
            } else {
                deadline
            };
            if self.is_guarded() {
                until = until.min(now + self.options.guard_poll_ms);
            }
            if self.parks(deadline) && self.blind_since.is_none() {
                return Err(Interrupt::Parked { until });
            }
            let poll = now.saturating_add(self.options.signal_poll_ms);
            self.clock.sleep_until(until.min(poll)).await;
        }
    }

    /// Holds if somebody else has set the weights: samples of another share say nothing about
    /// this step.
    async fn check_foreign(&self) -> Result<(), Interrupt> {
        match self.target.traffic().await {
            Ok(live) => match self.foreign(&live) {
                Some(hold) => Err(Interrupt::Held(hold)),
                None => Ok(()),
            },
            // If the weights cannot be read, samples cannot be read either, and the strategy
            // gets that error as its answer.
            _ => Ok(()),
        }
    }

    /// What somebody else has changed: the weights of the target's route, or of one that
    /// moves with it.
    fn foreign(&self, live: &Traffic) -> Option<Hold> {
        let expected = self.status.weights.clone();
        if live.weights != expected {
            return Some(Hold::ForeignChange {
                expected,
                found: live.weights.clone(),
                place: None,
            });
        }
        let other = live.apart_from(&expected).next()?;
        Some(recovery::changed_there(other, &expected, |other| {
            format!(
                "{other}; this rollout left {expected} there, and its users are not where the other routes send theirs: bring it back to that and resume, or abort"
            )
        }))
    }

    /// A call that changes nothing.
    pub(super) async fn read(&mut self, call: &Call) -> Reply {
        let result = match call {
            Call::GetWeights => self
                .target
                .traffic()
                .await
                .map(|t| Reply::Weights(t.weights)),
            Call::GetHealth => self.target.health().await.map(Reply::Health),
            Call::GetMetrics { query } => self.target.samples(query).await.map(Reply::Samples),
            Call::Query { name, since } => self.query(name, *since).await,
            Call::Probe { name } => self.probe(name).await,
            Call::GetElsewhere => self.target.elsewhere().await.map(Reply::Elsewhere),
            _ => Ok(Reply::Done),
        };
        result.unwrap_or_else(Reply::Failed).bounded()
    }

    async fn query(&self, name: &str, since: Millis) -> Result<Reply, HostError> {
        if let Some(count) = Count::of_query(name)
            && let Some(points) = self.counted(count, since).await?
        {
            return Ok(Reply::Points(points));
        }
        let query = self.header.queries.iter().find(|q| q.name == name);
        let query = query.ok_or_else(|| {
            let known: Vec<&str> = self
                .header
                .queries
                .iter()
                .map(|q| q.name.as_str())
                .collect();
            no_such("query", name, &known)
        })?;
        self.target.query(query, since).await.map(Reply::Points)
    }

    async fn counted(&self, count: Count, since: Millis) -> Result<Option<Vec<Point>>, HostError> {
        if count != Count::ClientErrors {
            return self.target.counted(count, since).await;
        }
        let query = MetricsQuery {
            since,
            ..MetricsQuery::default()
        };
        let samples = self.target.samples(&query).await?.into_iter();
        let points = samples.map(|sample| Point {
            arm: sample.arm,
            at: sample.start,
            value: sample.client_errors.into(),
        });
        Ok(Some(points.collect()))
    }

    /// Tries a probe as often as it says, a second apart.
    async fn probe(&self, name: &str) -> Result<Reply, HostError> {
        let probe = self.header.probes.iter().find(|p| p.name == name);
        let probe = probe.ok_or_else(|| {
            let known: Vec<&str> = self.header.probes.iter().map(|p| p.name.as_str()).collect();
            no_such("probe", name, &known)
        })?;
        let arm = self.header.arm(Role::Candidate);
        let mut attempt = 1;
        loop {
            let report = self.target.probe(arm, probe).await?;
            if report.ok || attempt >= probe.attempts {
                return Ok(Reply::Probed(report));
            }
            attempt += 1;
            self.clock.sleep_until(self.clock.now() + 1_000).await;
        }
    }

    /// Checks a write, sends it, reads it back and returns the answer. A refusal is an answer
    /// too, and is journaled.
    pub(super) async fn write(
        &mut self,
        by: Actor,
        call: Call,
        checks: Checks,
    ) -> Result<Reply, Interrupt> {
        let moves = call.moves_traffic();
        let looked = self.clock.now();
        let (traffic, health) = if moves {
            let (traffic, health) = self.read_before(checks).await;
            (traffic, Some(health))
        } else {
            (self.target.traffic().await, None)
        };
        match traffic {
            Ok(live) => {
                self.write_over(by, call, checks, (live, looked), health)
                    .await
            }
            Err(error) => self.refuse(by, call, error).await,
        }
    }

    /// What a write of weights is based on: the traffic, and the health of the arms, because
    /// it gives traffic to one, which must be healthy.
    pub(super) async fn read_before(
        &self,
        checks: Checks,
    ) -> (
        Result<Traffic, HostError>,
        Result<Vec<ArmHealth>, HostError>,
    ) {
        match checks {
            Checks::WayBack => self.asks_for_health().beside(self.target.glance()).await,
            _ => tokio::join!(self.target.traffic(), self.target.health()),
        }
    }

    /// How a way back asks for the health of the arms.
    pub(super) fn asks_for_health(&self) -> AskForHealth {
        let since = |(at, _): &(Millis, _)| self.clock.now().saturating_sub(*at);
        AskForHealth {
            target: self.target.clone(),
            clock: self.clock.clone(),
            retry_ms: self.options.retry_ms,
            in_vain: self
                .overlooked
                .as_ref()
                .is_some_and(|seen| since(seen) < OVERLOOKED_MS),
        }
    }

    /// Writes down that a way back goes on although nobody can read the health of the arms,
    /// unless it was written down a moment ago.
    pub(super) async fn overlook_health(&mut self, error: &HostError) -> Result<(), StoreError> {
        if self.asks_for_health().in_vain {
            return Ok(());
        }
        self.overlooked = Some((self.clock.now(), error.clone()));
        self.untold = true;
        let event = Event::Exchanged {
            by: Actor::Host,
            call: Call::GetHealth,
            reply: Reply::Failed(error.clone()).bounded(),
        };
        self.append(event, Durability::Process).await
    }

    /// Why the way back went without the health of the arms, if it did.
    pub(super) fn went_without_health(&self) -> Option<&HostError> {
        self.overlooked.as_ref().map(|(_, error)| error)
    }

    /// Performs a write over the traffic that was read at that time, Unix ms, and the `health`
    /// that was read beside it.
    pub(super) async fn write_over(
        &mut self,
        by: Actor,
        call: Call,
        checks: Checks,
        (live, looked): (Traffic, Millis),
        health: Option<Result<Vec<ArmHealth>, HostError>>,
    ) -> Result<Reply, Interrupt> {
        self.saw(&live);
        self.uneven = live.apart().next().is_some();
        let before = live.weights.clone();
        if let Some(wanted) = call.weights_after(&before) {
            let wanted = match check_names(&call, &wanted, &before) {
                Ok(wanted) => wanted,
                Err(error) => return self.refuse(by, call, error).await,
            };
            // A person's one write brings routes together that are apart.
            let by_hand = matches!(self.header.work, Work::Verb { .. });
            // A person who moves traffic by hand, to the stable arm or away from it, has not
            // said that whatever somebody else did meanwhile is to be written over.
            let overrules = checks == Checks::WayBack && (!by_hand || self.goes_back());
            if !overrules
                && let Some(hold) = self.foreign(&live)
                && !(by_hand && before == self.status.weights)
            {
                return Err(Interrupt::Held(hold));
            }
            if checks == Checks::All
                && let Err(error) =
                    guardrails::check(&self.header, &self.status, &wanted, self.clock.now())
            {
                return self.refuse(by, call, error).await;
            }
            // `restore` also writes the rest of the action, which may differ.
            let whole = matches!(call, Call::Restore { .. });
            let is_so = wanted == before && live.apart_from(&wanted).next().is_none();
            let proven = checks != Checks::WayBack
                || !self.unproven && recovery::is_back(&self.header, &self.status, &before);
            if is_so && before == self.status.weights && !whole && proven {
                let event = Event::Exchanged {
                    by,
                    call,
                    reply: Reply::Done,
                };
                self.append(event, Durability::Process).await?;
                return Ok(Reply::Done);
            }
            // Where routes are apart, an arm gains on some that does not on others.
            let nothing = before.none();
            let gains_over = if self.uneven { &nothing } else { &before };
            let candidate = self.header.arm(Role::Candidate).to_owned();
            let gains = wanted.share(&candidate) > gains_over.share(&candidate);
            // Nobody is left on what harms them because a read hangs. Who is given the
            // candidate again needs it to be well; where a person names an arm, that is home.
            let named = matches!(call, Call::SwitchColor { .. });
            let goes_home = checks == Checks::WayBack && (named || !gains);
            match health {
                Some(Err(error)) if goes_home => self.overlook_health(&error).await?,
                health => {
                    let change = (gains_over, &wanted);
                    if let Leave::Refused(error) =
                        self.await_healthy(change, checks, health).await?
                    {
                        return self.refuse(by, call, error).await;
                    }
                }
            }
            // Once the tasks for it run: those that were started for this raise count too.
            if checks != Checks::WayBack && gains {
                self.await_what_was_judged(&candidate).await?;
            }
            // What gives the candidate nothing raises nothing, whatever it is over.
            let may_raise = wanted.share(&candidate) > 0.0;
            if !overrules
                && may_raise
                && let Err(error) = self.is_still(&live, looked).await?
            {
                return self.refuse(by, call, error).await;
            }
        }
        self.send(by, call, before).await
    }

    /// Whether the traffic is still as it was read at that time, Unix ms: until its tasks run
    /// and say what they run, minutes may pass in which nobody looked, and who took users back
    /// meanwhile is not overruled. Read once more only if that look is old. An error if it
    /// cannot be read soon enough to write over it.
    ///
    /// # Errors
    /// Somebody else has changed it.
    pub(super) async fn is_still(
        &self,
        seen: &Traffic,
        mut looked: Millis,
    ) -> Result<Result<(), HostError>, Interrupt> {
        for _ in 0..LOOKS_MAX {
            if self.clock.now().saturating_sub(looked) <= READ_AGE_MAX_MS {
                return Ok(Ok(()));
            }
            looked = self.clock.now();
            match self.target.traffic().await {
                Ok(live) => match recovery::changed_since(seen, &live) {
                    Some(hold) => return Err(Interrupt::Held(hold)),
                    None => continue,
                },
                Err(error) => return Ok(Err(error)),
            }
        }
        match self.clock.now().saturating_sub(looked) <= READ_AGE_MAX_MS {
            true => Ok(Ok(())),
            false => Ok(Err(HostError::new(
                ErrorKind::Unavailable,
                "slow-reads",
                format!(
                    "the load balancer takes longer than {} s to say where the traffic is, so nobody knows what a write would be over",
                    READ_AGE_MAX_MS / 1_000
                ),
            )
            .retryable())),
        }
    }

    /// Looks which image the tasks of an arm run whose release was read, and writes down what
    /// is new: tasks that started later may have got another one. Returns why it could not be
    /// read this time, if so.
    pub(super) async fn look_at_the_image(
        &mut self,
        arm: &str,
    ) -> Result<Option<HostError>, StoreError> {
        let Some(known) = self.status.running(arm).cloned() else {
            return Ok(None);
        };
        let images = match self.target.digests(arm).await {
            Ok(images) => images,
            Err(error) => return Ok(Some(error)),
        };
        if images == Images::default() {
            return Ok(None);
        }
        let seen = Running {
            digests: images.digests,
            silent: images.silent,
            unread: None,
            ..known.clone()
        };
        if seen != known || self.status.on_trial(&seen).is_some() {
            self.write_down(seen).await?;
        }
        Ok(None)
    }

    /// Writes down what an arm was seen to run.
    pub(super) async fn write_down(&mut self, seen: Running) -> Result<(), StoreError> {
        let event = Event::Exchanged {
            by: Actor::Host,
            call: Call::GetRelease {
                arm: seen.arm.clone(),
            },
            reply: Reply::Release(Box::new(seen)).bounded(),
        };
        self.append(event, Durability::Process).await
    }

    /// Why an arm does not run the image that was judged, if so.
    pub(super) fn another_image(&self, arm: &str) -> Option<String> {
        recovery::another_image(&self.header, &self.status, arm)
    }

    /// Returns once all tasks of an arm say that they run the image that was judged, as far
    /// as that is known; those that do not say it yet get the time that an arm has to become
    /// healthy.
    ///
    /// # Errors
    /// Holds if some run another image, or do not say it in that time.
    pub(super) async fn await_what_was_judged(&mut self, arm: &str) -> Result<(), Interrupt> {
        let stuck = |reason| Err(Interrupt::Held(Hold::Stuck { reason }));
        let patience = self.header.guardrails.healthy_timeout_ms;
        let give_up = self.clock.now().saturating_add(patience);
        loop {
            let unread = self.look_at_the_image(arm).await?;
            if let Some(reason) = self.another_image(arm) {
                return stuck(reason);
            }
            if self.status.judged.is_none() {
                return Ok(());
            }
            let lasts = unread.as_ref().is_some_and(|error| !error.retryable);
            let unsure = match unread {
                Some(error) => Some(recovery::unread_image(arm, error)),
                None => recovery::unsure_image(&self.status, arm),
            };
            let insisted = self.status.insisted.as_ref();
            let was_told = |why: &String| insisted.is_some_and(|known| known.on(why));
            let Some(reason) = unsure.filter(|why| !was_told(why)) else {
                return Ok(());
            };
            if lasts || self.clock.now() >= give_up {
                return stuck(reason);
            }
            self.attention().await?;
            let look_again = self.clock.now() + self.poll_ms();
            self.clock.sleep_until(look_again).await;
        }
    }

    /// Lets auto scaling take no task that the rollout needs: of the stable arm, for the way
    /// back, none, and of the candidate none below its share. If it cannot be told, the
    /// rollout goes on, and counts the tasks again before the next raise.
    async fn hold_scaling(
        &mut self,
        capacity: Capacity,
        (before, wanted): (&Weights, &Weights),
    ) -> Result<(), Interrupt> {
        for held in scaling_for_a_raise(&self.header, &self.status, capacity, wanted) {
            let ArmScaling { arm, scaling } = held;
            let call = Call::SetScaling { arm, scaling };
            self.send(Actor::Host, call, before.clone()).await?;
        }
        Ok(())
    }

    /// While users are on the candidate, tells auto scaling that was set up since the last
    /// raise what a raise would have told it.
    pub(super) async fn hold_new_scaling(&mut self) -> Result<(), Interrupt> {
        let now = self.clock.now();
        let weights = self.status.weights.clone();
        let Some(capacity) = self.header.capacity else {
            return Ok(());
        };
        if now.saturating_sub(self.met_scaling) < SCALING_POLL_MS
            || weights.weight(self.header.arm(Role::Candidate)) == 0
        {
            return Ok(());
        }
        self.meet_scaling().await?;
        self.hold_scaling(capacity, (&weights, &weights)).await
    }

    /// Writes down which arms are scaled of which that was not known: somebody may have set
    /// it up since the rollout began, or it could not be read then. What cannot be read is
    /// left out, as at the beginning.
    async fn meet_scaling(&mut self) -> Result<(), Interrupt> {
        if self.status.unscalable {
            return Ok(());
        }
        self.met_scaling = self.clock.now();
        let mut new = self.target.scaling().await.unwrap_or_default();
        new.retain(|one| scaled(&self.header, &self.status).all(|known| known.arm != one.arm));
        if new.is_empty() {
            return Ok(());
        }
        let event = Event::Exchanged {
            by: Actor::Host,
            call: Call::GetScaling,
            reply: Reply::Scaling(new),
        };
        // What it did must be known before it is told anything else.
        Ok(self.append(event, Durability::Power).await?)
    }

    /// Gives the arms that gain traffic the tasks for it. No arm ever loses a task here.
    async fn make_room(
        &mut self,
        live: &Observed,
        capacity: Capacity,
        (before, wanted): (&Weights, &Weights),
    ) -> Result<Leave, Interrupt> {
        let candidate = self.header.arm(Role::Candidate);
        if wanted.share(candidate) > before.share(candidate) {
            self.meet_scaling().await?;
        }
        self.hold_scaling(capacity, (before, wanted)).await?;
        for arm in &live.arms {
            let tasks = capacity.for_share(wanted.share(&arm.name));
            let gains = wanted.share(&arm.name) > before.share(&arm.name);
            if !gains || arm.tasks.is_none_or(|has| has >= tasks) {
                continue;
            }
            let arm = arm.name.clone();
            let call = Call::SetTasks { arm, tasks };
            if let Reply::Failed(error) = self.send(Actor::Host, call, before.clone()).await? {
                return Ok(Leave::Refused(error));
            }
        }
        Ok(Leave::Granted)
    }

    /// Journals the intent of a write, sends it and journals the answer.
    async fn send(&mut self, by: Actor, call: Call, before: Weights) -> Result<Reply, Interrupt> {
        let seq = self.status.entries;
        let event = Event::Asked {
            by,
            call: call.clone(),
            before: Some(before.clone()),
            deadline: None,
        };
        // The append checks the epoch, so a process that lost the lease stops
        // before its write.
        self.append(event, Durability::Power).await?;
        self.issue(&InDoubt {
            seq,
            at: self.clock.now(),
            by,
            call,
            before,
        })
        .await
    }

    /// Sends a write whose intent is durable, reads back, and answers it.
    pub(super) async fn issue(&mut self, write: &InDoubt) -> Result<Reply, Interrupt> {
        let mut attempt = 1;
        let mut accepted = 0;
        let mut sent = Ok(());
        let reply = loop {
            // A write that was accepted may need a moment until it is seen.
            if accepted != 1 {
                // Another process may have taken over since the last try.
                self.renew().await?;
                self.sent = Some(write.clone());
                sent = crate::target::leaving_within(LEAVE_WITHIN, self.deliver(write)).await;
            }
            if sent.is_ok() {
                accepted += 1;
            }
            // Whatever the target answered, only what is read back counts.
            match self.look_at(write).await {
                Ok((recovery::Settled::Happened, _)) => break Reply::Done,
                // Routes that were apart before are not yet where nobody has written them.
                Ok((recovery::Settled::Conflict, live)) if !self.uneven => {
                    break Reply::Failed(conflict(write, &live));
                }
                // The target refused it and would do so again.
                Ok(_) if sent.as_ref().is_err_and(|e| !e.retryable) => {
                    break sent.map_or_else(Reply::Failed, |()| Reply::Done);
                }
                Ok(_) if attempt < self.options.attempts && accepted < 3 => {}
                Ok((_, live)) => {
                    break Reply::Failed(sent.err().unwrap_or_else(|| ignored(&live)));
                }
                Err(_) if attempt < self.options.attempts => {}
                // No traffic depends on it, so the rollout does not stand still for it.
                Err(error) if matches!(write.call, Call::SetScaling { .. }) => {
                    break Reply::Failed(error);
                }
                // What the write did is not known: its intent stays without an answer until
                // it can be read.
                Err(error) => {
                    return Err(Interrupt::Held(Hold::Stuck {
                        reason: format!("{} could not be read back: {error}", write.call),
                    }));
                }
            }
            let pause = self.options.retry_ms << (attempt - 1).min(6);
            attempt += 1;
            self.clock.sleep_until(self.clock.now() + pause).await;
        };
        let reply = match reply {
            Reply::Failed(error) => {
                Reply::Failed(Box::pin(self.brought_together(write, error)).await?)
            }
            reply => reply,
        };
        let reply = reply.bounded();
        let event = Event::Answered {
            by: write.by,
            of: write.seq,
            reply: reply.clone(),
            recovered: false,
        };
        self.append(event, Durability::Power).await?;
        self.sent = None;
        self.unproven &= !(reply == Reply::Done && write.call.moves_traffic());
        Ok(reply)
    }

    /// Before the failure of a write is its answer: takes the routes back that it has moved
    /// if it was a raise, under the intent of the write, which says where they were. So no
    /// answer leaves users on the candidate by one route of several. The error says what was
    /// done. On the way back nothing is taken back.
    ///
    /// # Errors
    /// They could not be taken back, or the write had taken traffic from the candidate:
    /// then the rollout stands still, and its intent stays without an answer.
    pub(super) async fn brought_together(
        &mut self,
        write: &InDoubt,
        error: HostError,
    ) -> Result<HostError, Interrupt> {
        let Some(wanted) = write.call.weights_after(&write.before) else {
            return Ok(error);
        };
        if self.header.target.also().is_empty() || self.going_back() {
            return Ok(error);
        }
        let by_hand = matches!(self.header.work, Work::Verb { .. });
        let raises = recovery::raises(&self.header, write);
        let stuck = |why: String| Interrupt::Held(Hold::Stuck { reason: why });
        let mut attempt = 1;
        let mut failed = String::new();
        loop {
            let seen = match self.target.traffic().await {
                Ok(live) => {
                    let moved = moved(&live, &wanted, &write.before);
                    if self.uneven || by_hand && !raises {
                        let message = format!("{}; now the traffic is at {live}", error.message);
                        return Ok(HostError { message, ..error });
                    }
                    if !moved {
                        let message = match attempt {
                            1 => return Ok(error),
                            _ => format!(
                                "{}; the routes that had moved were taken back",
                                error.message
                            ),
                        };
                        return Ok(HostError { message, ..error });
                    }
                    if !raises {
                        return Err(stuck(format!(
                            "{} was done on some routes only: {}; the traffic is at {live}",
                            write.call, error.message
                        )));
                    }
                    format!("the traffic is at {live}")
                }
                Err(unread) => unread.to_string(),
            };
            if attempt > self.options.attempts {
                return Err(stuck(format!(
                    "{} failed: {}; the routes that had moved could not be taken back{failed}: {seen}",
                    write.call, error.message
                )));
            }
            self.renew().await?;
            let back = crate::target::Step {
                only_from: Some(&wanted),
                ..crate::target::Step::back_to(&write.before)
            };
            let sent = crate::target::leaving_within(LEAVE_WITHIN, self.target.set_all(back));
            failed = sent
                .await
                .map_or_else(|e| format!(" ({e})"), |()| String::new());
            let pause = self.options.retry_ms << (attempt - 1).min(6);
            attempt += 1;
            self.clock.sleep_until(self.clock.now() + pause).await;
        }
    }

    async fn deliver(&mut self, write: &InDoubt) -> Result<(), HostError> {
        match &write.call {
            Call::SetVersion { arm, release } => self.target.set_version(arm, release).await,
            Call::SetTasks { arm, tasks } => self.target.set_tasks(arm, *tasks).await,
            Call::SetScaling { arm, scaling } => {
                let live = self.target.scaling().await?;
                let Some(live) = live.into_iter().find(|live| live.arm == *arm) else {
                    return Err(HostError::new(
                        ErrorKind::NotFound,
                        "not-scaled",
                        format!(
                            "auto scaling does not change {arm} any more: somebody has taken that away"
                        ),
                    ));
                };
                let told = scaling_told_before(&self.header, &self.status, arm);
                let scaling = scaling.over(told, live.scaling);
                self.scaled = Some((write.seq, scaling));
                match scaling == live.scaling {
                    true => Ok(()),
                    false => self.target.set_scaling(arm, &scaling).await,
                }
            }
            Call::Restore { action, weights } => {
                self.target.restore(action).await?;
                // The action is that of the target's own route; the others have weights alone.
                match self.header.target.also() {
                    [] => Ok(()),
                    _ => self.target.set_weights(weights).await,
                }
            }
            call => match call.weights_after(&write.before) {
                Some(weights) => {
                    let ordered = check_shape(&weights, &write.before)?;
                    let raises = recovery::raises(&self.header, write) && !self.going_back();
                    let order = match raises {
                        true => Order::Raise,
                        false => Order::Back,
                    };
                    let step = crate::target::Step {
                        order,
                        ..crate::target::Step::back_to(&ordered)
                    };
                    self.target.set_all(step).await
                }
                None => Ok(()),
            },
        }
    }

    /// Reads back what a write was about, and the weights.
    pub(super) async fn look_at(
        &self,
        write: &InDoubt,
    ) -> Result<(recovery::Settled, Traffic), HostError> {
        if let Call::Restore { action, .. } = &write.call {
            if self.target.does(action).await? {
                let live = self.target.traffic().await?;
                return Ok((recovery::settle_traffic(write, &live), live));
            }
            return match self.target.traffic().await {
                // The weights may be right while the rest of the action is not.
                Ok(live) if live.weights == write.before => Ok((recovery::Settled::Reissue, live)),
                Ok(live) => Ok((recovery::Settled::Conflict, live)),
                // The action does not forward to these arms any more, so it is written again.
                Err(error) if !error.retryable && error.kind == ErrorKind::Conflict => {
                    Ok((recovery::Settled::Reissue, write.before.clone().into()))
                }
                Err(error) => Err(error),
            };
        }
        if let Call::SetScaling { arm, scaling } = &write.call {
            let now = self.target.scaling().await?;
            let sent = self.scaled.filter(|(seq, _)| *seq == write.seq);
            let wanted = sent.map_or(*scaling, |(_, scaling)| scaling);
            let is_so = now.iter().any(|a| a.arm == *arm && a.scaling == wanted);
            let settled = match is_so {
                true => recovery::Settled::Happened,
                false => recovery::Settled::Reissue,
            };
            return Ok((settled, write.before.clone().into()));
        }
        if write.call.weights_after(&write.before).is_some() {
            let live = match self.target.traffic().await {
                // What takes users back is settled also where a third group came between.
                Err(error)
                    if error.kind == ErrorKind::Conflict
                        && !recovery::raises(&self.header, write) =>
                {
                    self.target.glance().await?
                }
                live => live?,
            };
            return Ok((recovery::settle_traffic(write, &live), live));
        }
        let live = self.target.observe().await?;
        Ok((recovery::settle(write, &live), live.traffic()))
    }

    /// Whether a write in doubt may still be sent: the arm that gains traffic may have become
    /// unhealthy meanwhile, or its tasks may run another image.
    pub(super) async fn still_healthy(&mut self, write: &InDoubt) -> Result<Leave, Interrupt> {
        let Some(wanted) = write.call.weights_after(&write.before) else {
            return Ok(Leave::Granted);
        };
        let change = (&write.before, &wanted);
        let leave = self.await_healthy(change, Checks::All, None).await?;
        let candidate = self.header.arm(Role::Candidate).to_owned();
        let gains = wanted.share(&candidate) > write.before.share(&candidate);
        if leave != Leave::Granted || !gains {
            return Ok(leave);
        }
        match self.await_what_was_judged(&candidate).await {
            Ok(()) => Ok(leave),
            // Of several routes some may have moved, and are taken back.
            Err(Interrupt::Held(Hold::Stuck { reason })) => Ok(Leave::Refused(HostError::new(
                ErrorKind::Conflict,
                "another-image",
                reason,
            ))),
            Err(interrupt) => Err(interrupt),
        }
    }

    pub(super) async fn refuse(
        &mut self,
        by: Actor,
        call: Call,
        e: HostError,
    ) -> Result<Reply, Interrupt> {
        let reply = Reply::Failed(e).bounded();
        let event = Event::Exchanged {
            by,
            call,
            reply: reply.clone(),
        };
        self.append(event, Durability::Process).await?;
        Ok(reply)
    }

    /// Waits until every arm that gains traffic has healthy backends: one, or as many as the
    /// traffic needs where that is known. It is worked out anew at each look, because the
    /// service may be scaled while its tasks start. On the way back one is enough: to wait for
    /// more would leave users on the candidate. `seen` is the health that was read just now.
    async fn await_healthy(
        &mut self,
        (before, wanted): (&Weights, &Weights),
        checks: Checks,
        mut seen: Option<Result<Vec<ArmHealth>, HostError>>,
    ) -> Result<Leave, Interrupt> {
        let patience = self.header.guardrails.healthy_timeout_ms;
        let give_up = self.clock.now().saturating_add(patience);
        let counts = self.header.capacity.is_some() && checks != Checks::WayBack;
        let gains = |arm: &str| wanted.share(arm) > before.share(arm);
        loop {
            let look = match seen.take() {
                Some(health) if !counts => health.map(|health| (health, None)),
                _ if !counts => self.target.health().await.map(|health| (health, None)),
                _ => match self.target.observe().await {
                    Ok(live) => Ok((
                        live.health(),
                        capacity_now(&self.header, &live).zip(Some(live)),
                    )),
                    // It will say the same until somebody changes something.
                    Err(error) if !error.retryable => return Ok(Leave::Refused(error)),
                    Err(error) => Err(error),
                },
            };
            let sick = match look {
                Ok((arms, room)) => {
                    if let Some((capacity, live)) = &room
                        && let Leave::Refused(error) =
                            self.make_room(live, *capacity, (before, wanted)).await?
                    {
                        return Ok(Leave::Refused(error));
                    }
                    let needed = |arm: &str| {
                        room.as_ref()
                            .map_or(1, |(capacity, _)| capacity.for_share(wanted.share(arm)))
                    };
                    arms.iter()
                        .find(|a| gains(&a.arm) && a.healthy < needed(&a.arm))
                        .map(|a| too_few(a, needed(&a.arm)))
                }
                Err(error) => Some(error),
            };
            // While the guards cannot be read, the candidate must not get more traffic.
            let blind = checks != Checks::WayBack && self.blind_since.is_some();
            let Some(error) = sick.or_else(|| blind.then(unguarded)) else {
                return Ok(Leave::Granted);
            };
            if self.clock.now() >= give_up {
                return Ok(Leave::Refused(error));
            }
            self.attention().await?;
            let look_again = self.clock.now() + self.poll_ms();
            self.clock.sleep_until(look_again).await;
        }
    }
}

fn too_few(arm: &ArmHealth, needed: u32) -> HostError {
    let why = arm.health_reason.as_ref();
    let message = match arm.healthy {
        0 => format!(
            "{} has {} and none is healthy, so it gets no traffic; {}",
            arm.arm,
            counted(arm.total, "backend"),
            why.map_or("see its health check", String::as_str)
        ),
        some => format!(
            "{} has {} and needs {needed} for its share, so it gets no more traffic{}",
            arm.arm,
            counted(some, "healthy backend"),
            why.map_or_else(String::new, |why| format!("; {why}"))
        ),
    };
    HostError::new(ErrorKind::Unhealthy, "no-healthy-target", message).retryable()
}

fn unguarded() -> HostError {
    HostError::new(
        ErrorKind::Unavailable,
        "unguarded",
        "the alarms cannot be read, so they could not stop a candidate that gets more traffic",
    )
    .retryable()
}

fn durability(power: bool) -> Durability {
    if power {
        Durability::Power
    } else {
        Durability::Process
    }
}

fn no_such(what: &str, name: &str, known: &[&str]) -> HostError {
    let known = if known.is_empty() {
        "it defines none".to_owned()
    } else {
        format!("it defines {}", known.join(", "))
    };
    HostError::new(
        ErrorKind::NotFound,
        "not-found",
        format!("the rollout file has no {what} {name:?}; {known}"),
    )
}

fn check_shape(weights: &Weights, like: &Weights) -> Result<Weights, HostError> {
    let names: Vec<String> = like.0.iter().map(|w| w.arm.clone()).collect();
    weights
        .ordered_as(&names)
        .map_err(|m| HostError::new(ErrorKind::Invalid, "invalid-weights", m))
}

fn check_names(call: &Call, wanted: &Weights, live: &Weights) -> Result<Weights, HostError> {
    let names: Vec<&str> = live.0.iter().map(|w| w.arm.as_str()).collect();
    if let Call::SwitchColor { color } = call
        && !names.contains(&color.as_str())
    {
        return Err(HostError::new(
            ErrorKind::Invalid,
            "no-such-color",
            format!(
                "there is no colour {color:?}; there are {}",
                names.join(" and ")
            ),
        ));
    }
    check_shape(wanted, live)
}

/// Whether any route has the weights of a write and not those before it.
fn moved(live: &Traffic, wanted: &Weights, before: &Weights) -> bool {
    let own = live.weights.shares_like(wanted) && !live.weights.shares_like(before);
    let mut others = live.others.iter().filter(|other| other.amiss.is_none());
    own || others.any(|other| other.has(wanted) && !other.has(before))
}

fn conflict(write: &InDoubt, live: &Traffic) -> HostError {
    HostError::new(
        ErrorKind::Conflict,
        FOREIGN_CHANGE,
        format!(
            "{} was asked when the weights were {}, and now the target has {}: somebody else writes to it",
            write.call, write.before, live
        ),
    )
}

fn ignored(live: &Traffic) -> HostError {
    HostError::new(
        ErrorKind::Unavailable,
        WRITE_IGNORED,
        format!("the target accepted the write and still has {live} when read back"),
    )
    .retryable()
}

/// A session as a strategy uses it: the host's side of its calls.
pub(super) struct Shared {
    pub(super) session: Mutex<Session>,
    now: std::sync::atomic::AtomicU64,
    probes: Vec<String>,
}

impl Shared {
    async fn call(&self, call: Call, refused: Option<HostError>) -> Result<Reply, Interrupted> {
        let mut session = self.session.lock().await;
        let result = session.perform(call, refused).await;
        self.now
            .store(session.logical_now, std::sync::atomic::Ordering::Relaxed);
        result.map_err(|interrupt| {
            session.interrupt = Some(interrupt);
            Interrupted
        })
    }

    /// Takes over the session's time after a rewind.
    pub(super) fn rewound(&self, session: &Session) {
        self.now
            .store(session.logical_now, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn new(session: Session) -> Self {
        Self {
            now: session.logical_now.into(),
            probes: session
                .header
                .probes
                .iter()
                .map(|p| p.name.clone())
                .collect(),
            session: Mutex::new(session),
        }
    }
}

#[async_trait]
impl Calls for Shared {
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted> {
        self.call(call, None).await
    }

    async fn refuse(&self, call: Call, why: HostError) -> Result<Reply, Interrupted> {
        self.call(call, Some(why)).await
    }

    fn now(&self) -> Millis {
        self.now.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn probes(&self) -> Vec<String> {
        self.probes.clone()
    }
}
