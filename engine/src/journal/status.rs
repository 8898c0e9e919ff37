//! Status: what a journal says about its rollout. A pure fold over entries.

use super::exchanges::{Exchange, Question, Reader, Told, header};
use super::replay::Mismatch;
use super::{Actor, Call, Entry, Event, Header, Reply, Work};
use crate::model::{
    ArmScaling, Decider, Elsewhere, End, Finding, Goal, Hold, Millis, Outcome, Phase, Release,
    Role, Running, Wake, Weights,
};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The rollout's id.
    pub rollout: String,
    /// The strategy's name, or the verb of a person.
    pub title: String,
    /// Which part of it is under way.
    pub phase: Phase,
    /// Weights that this rollout last wrote or took over.
    pub weights: Weights,
    /// Progress in percent, as the strategy last said.
    pub percent: u32,
    /// When it first said that much, Unix ms.
    pub percent_at: Millis,
    /// Since when it has gone on without a wait for a person (Unix ms), and the progress that
    /// it had then, percent.
    pub going_since: (Millis, u32),
    /// Where it stands and why, in the strategy's words. None once a signal has ended what
    /// these were about.
    pub note: String,
    /// What the strategy last found in the metrics, if it says.
    pub finding: Option<Finding>,
    /// An open wait.
    pub waiting: Option<Waiting>,
    /// Why it is paused.
    pub hold: Option<Hold>,
    /// What is decided, once it is.
    pub decision: Option<Decision>,
    /// How it ended and why.
    pub end: Option<(End, String)>,
    /// The difference, if it diverged.
    pub mismatch: Option<Mismatch>,
    /// When it began, Unix ms.
    pub created: Millis,
    /// When the last entry was made, Unix ms.
    pub updated: Millis,
    /// Since when the candidate has had traffic without a break, Unix ms.
    pub exposed_since: Option<Millis>,
    /// The share from which the strategy has taken the candidate back without a verdict,
    /// until that share is given again.
    pub retreat: Option<Retreat>,
    /// When the weights last changed, Unix ms.
    pub moved: Millis,
    /// Each share of the candidate, in percent, that was higher than all before it.
    pub climbed: Vec<f64>,
    /// Whether the candidate arm was given its release.
    pub released: bool,
    /// What this rollout last asked the candidate arm to run, if it ever did.
    pub tried: Option<Release>,
    /// What this rollout last asked the stable arm to run, if it ever did.
    pub given: Option<Given>,
    /// What the arms were last seen to run. An arm that was asked to run something else
    /// since is not in here.
    pub running: Vec<Running>,
    /// The digest of the image that is on trial: the one that all tasks of the candidate
    /// were seen to run before they got more traffic. None if not all of them said so then.
    pub judged: Option<String>,
    /// Digests of all images that the candidate was seen to run since it got its release,
    /// each once.
    pub tried_as: Vec<String>,
    /// Whether this rollout has given the candidate more traffic.
    pub raised: bool,
    /// What auto scaling did with arms of which that was not known when the rollout began,
    /// before it was told anything.
    pub scaled_since: Vec<ArmScaling>,
    /// What auto scaling was told to do with arms, the last of each at the end. What it
    /// refused is not in here, and what may have reached it is.
    pub scaling: Vec<ArmScaling>,
    /// Whether auto scaling could not be told something.
    pub unscalable: bool,
    /// Number of writes of traffic and releases that reached the target since the end was
    /// decided.
    pub moves: u32,
    /// What a person was told who asked for the promotion all the same.
    pub insisted: Option<Insisted>,
    /// When it was last found out what has become of a write that another process had
    /// left without an answer, Unix ms. Such a write can still take effect for a while
    /// after that.
    pub recovered: Option<Millis>,
    /// A write without an answer.
    pub in_doubt: Option<InDoubt>,
    /// Ids of the signals that were obeyed.
    pub consumed: Vec<String>,
    /// What the strategy returned.
    pub finished: Option<Outcome>,
    /// Why the strategy failed.
    pub failed: Option<String>,
    /// What other listeners and rules sent to the arms at the end.
    pub elsewhere: Vec<Elsewhere>,
    /// Why it could not be read what other listeners and rules sent.
    pub elsewhere_unread: Option<String>,
    /// Number of entries of its journal.
    pub entries: u32,
    /// What came of the last wish to take all traffic to one arm while a stack
    /// was being changed.
    pub taken_back: Option<TakenBack>,
    /// Calls that the strategy has made.
    pub calls: u32,
    /// About how many bytes of the journal count towards its limit.
    pub bytes: u64,
    /// Whether all entries count towards the journal's limit, or only answers; from
    /// [`crate::model::limits::Caps::all_entries`].
    all_entries: bool,
    /// Whether the deadline has made it stand still, which happens only once.
    pub held_at_deadline: bool,
    reader: Reader,
    candidate: String,
    names: Vec<String>,
    /// Whether the strategy has made its first call.
    pub strategy_called: bool,
}

/// A person wants the promotion for which the rollout stands still. What comes after that
/// was not told, and is another reason to stand still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insisted {
    /// Why it stood still, each time that a person insisted, a line each.
    pub told: String,
}

impl Insisted {
    /// Whether this reason, or this digest of an image, was told.
    #[must_use]
    pub fn on(&self, reason: &str) -> bool {
        self.told.contains(reason)
    }
}

/// The strategy takes traffic back before it knows whether it has to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retreat {
    /// The share that the candidate had, percent.
    pub from: f64,
    /// When it was taken back, Unix ms.
    pub at: Millis,
}

/// An open wait of the strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its deadline, Unix ms.
    pub until: Millis,
    /// Names of the signals that end it early.
    pub signals: Vec<String>,
}

impl Waiting {
    /// Whether a signal of that name ends it.
    #[must_use]
    pub fn wants(&self, signal: &str) -> bool {
        self.signals.iter().any(|s| s == signal)
    }
}

/// The decision about the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where the traffic goes.
    pub goal: Goal,
    /// Who decided it.
    pub by: Decider,
    /// Why it was decided.
    pub reason: String,
}

/// A person's wish to take all traffic to one arm while a stack was being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// The arm.
    pub to: String,
    /// Why it could not be done; `None` if it was done and read back.
    pub refused: Option<String>,
}

/// A release that the stable arm was asked to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The release.
    pub release: Release,
    /// Whether the target is known to have taken it.
    pub taken: bool,
}

/// A write whose answer is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct InDoubt {
    /// `seq` of the intent.
    pub seq: u32,
    /// When it was asked, Unix ms.
    pub at: Millis,
    /// Who made the call.
    pub by: Actor,
    /// The call.
    pub call: Call,
    /// Weights just before.
    pub before: Weights,
}

impl Status {
    /// The status of a rollout that has just begun.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let mut status = Self {
            rollout: header.rollout.clone(),
            title: header.title().to_owned(),
            phase: Phase::Pending,
            weights: header.baseline.clone(),
            percent: 0,
            percent_at: header.created,
            going_since: (header.created, 0),
            note: String::new(),
            finding: None,
            waiting: None,
            hold: None,
            decision: None,
            end: None,
            mismatch: None,
            created: header.created,
            updated: header.created,
            exposed_since: None,
            retreat: None,
            moved: header.created,
            climbed: vec![],
            released: false,
            tried: None,
            given: None,
            running: header.running.clone(),
            judged: header.digest.clone(),
            tried_as: vec![],
            raised: false,
            scaled_since: vec![],
            scaling: vec![],
            unscalable: false,
            moves: 0,
            insisted: None,
            recovered: None,
            taken_back: None,
            in_doubt: None,
            consumed: vec![],
            elsewhere: vec![],
            elsewhere_unread: None,
            finished: None,
            failed: None,
            entries: 0,
            calls: 0,
            bytes: 0,
            all_entries: header.caps.all_entries,
            held_at_deadline: false,
            reader: Reader::default(),
            candidate: header.arm(Role::Candidate).to_owned(),
            names: header.names(),
            strategy_called: !matches!(header.work, Work::Strategy(_)),
        };
        status.moved_to(header.baseline.clone(), header.created);
        status
    }

    /// The status that `entries` add up to; `None` if they do not begin with a header.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Option<Self> {
        let mut status = Self::new(header(entries)?);
        for entry in entries {
            status.apply(entry);
        }
        Some(status)
    }

    /// The arm that a person had all traffic taken to while a stack was being changed,
    /// if that was done.
    #[must_use]
    pub fn obeyed_wish(&self) -> Option<&str> {
        let wish = self.taken_back.as_ref()?;
        wish.refused.is_none().then_some(wish.to.as_str())
    }

    /// The digest of the image that is on trial from now on, if this look at the candidate is
    /// the first that tells: once its share was raised a later one may be of other tasks.
    #[must_use]
    pub fn on_trial<'a>(&self, seen: &'a Running) -> Option<&'a str> {
        let first = seen.arm == self.candidate && self.judged.is_none() && !self.raised;
        let told = seen.digest().filter(|_| first)?;
        self.tried_as.iter().all(|d| d == told).then_some(told)
    }

    /// What an arm was last seen to run.
    #[must_use]
    pub fn running(&self, arm: &str) -> Option<&Running> {
        self.running.iter().find(|seen| seen.arm == arm)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Adds one entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.entries = entry.seq + 1;
        self.updated = entry.at;
        self.bytes += match &entry.event {
            event if self.all_entries => event.size(),
            Event::Exchanged { reply, .. } => reply.size(),
            _ => 0,
        };
        let mut reader = std::mem::take(&mut self.reader);
        reader.read(entry, |exchange| self.fold(&exchange));
        self.reader = reader;
        self.phase = self.phase_now();
    }

    fn fold(&mut self, exchange: &Exchange<'_>) {
        let at = exchange.at;
        match exchange.told {
            Told::Asked(question) => self.asked(&question),
            Told::Answered {
                question,
                reply,
                recovered,
            } if question.in_two => {
                if recovered {
                    self.recovered = Some(at);
                }
                self.answered(at, question.call, reply);
            }
            Told::Answered {
                question, reply, ..
            } => self.exchanged(&question, reply),
            Told::Other(event) => self.happened(at, event),
        }
    }

    /// A wait begins, or a write is about to be sent.
    fn asked(&mut self, question: &Question<'_>) {
        self.called(question.by);
        match question.call {
            Call::Wait { signals, .. } => {
                self.waiting = question.deadline.map(|until| Waiting {
                    until,
                    signals: signals.clone(),
                });
                return;
            }
            Call::SetVersion { arm, release } => {
                self.running.retain(|seen| seen.arm != *arm);
                if *arm == self.candidate {
                    self.tried_as.clear();
                    self.tried = Some(release.clone());
                } else {
                    self.given = Some(Given {
                        release: release.clone(),
                        taken: false,
                    });
                }
            }
            Call::SetScaling { arm, scaling } => {
                self.scaling.push(ArmScaling {
                    arm: arm.clone(),
                    scaling: *scaling,
                });
            }
            _ => {}
        }
        self.in_doubt = Some(InDoubt {
            seq: question.seq,
            at: question.at,
            by: question.by,
            call: question.call.clone(),
            before: question.before.unwrap_or(&self.weights).clone(),
        });
    }

    /// A wait is over, or the answer to a write is known.
    fn answered(&mut self, at: Millis, call: &Call, reply: &Reply) {
        if reply.reached_the_target() && !call.sizes() {
            self.moves = self.moves.saturating_add(1);
        }
        if let Reply::Woke(wake) = reply {
            if self.waiting.take().is_some_and(|w| !w.signals.is_empty()) {
                self.going_since = (at, self.percent);
            }
            if let Wake::Signal(signal) = wake {
                self.consumed.push(signal.id.clone());
                // What it waited for has come; the strategy says next what it does with it.
                self.note.clear();
            }
            return;
        }
        let by = self.in_doubt.take().map(|write| write.by);
        if *reply != Reply::Done {
            if let Call::SetScaling { arm, .. } = call {
                self.unscalable = true;
                let refused = matches!(reply, Reply::Failed(error) if !error.retryable);
                let told = self.scaling.iter().rposition(|told| told.arm == *arm);
                if let Some(told) = told.filter(|_| refused) {
                    self.scaling.remove(told);
                }
            }
            return;
        }
        if let Some(weights) = call.weights_after(&self.weights) {
            let before = self.weights.share(&self.candidate);
            self.moved_to(weights, at);
            if by == Some(Actor::Strategy) {
                self.retreat_from(before, at);
            }
        }
        if let Call::SetVersion { arm, .. } = call {
            if *arm == self.candidate {
                self.released = true;
            } else if let Some(given) = &mut self.given {
                given.taken = true;
            }
        }
    }

    /// A read, a line for people, or a call that was refused.
    fn exchanged(&mut self, question: &Question<'_>, reply: &Reply) {
        self.called(question.by);
        match question.call {
            Call::Progress { percent, note } => {
                if self.percent != *percent {
                    self.percent_at = self.updated;
                }
                self.percent = *percent;
                self.note.clone_from(note);
            }
            Call::GetElsewhere => match reply {
                Reply::Elsewhere(all) => {
                    self.elsewhere.clone_from(all);
                    self.elsewhere_unread = None;
                }
                Reply::Failed(error) => self.elsewhere_unread = Some(error.to_string()),
                _ => {}
            },
            Call::GetScaling => {
                if let Reply::Scaling(new) = reply {
                    self.scaled_since.extend(new.iter().cloned());
                }
            }
            Call::Report { finding } => self.finding = Some((**finding).clone()),
            Call::GetRelease { .. } => {
                if let Reply::Release(seen) = reply {
                    self.saw(seen);
                }
            }
            _ => {}
        }
    }

    /// What an arm runs was read.
    fn saw(&mut self, seen: &Running) {
        if seen.arm == self.candidate {
            if self.on_trial(seen).is_some() {
                self.judged = seen.digest().map(ToOwned::to_owned);
            }
            let known = self.tried_as.clone();
            let new = seen.digests.iter().filter(|d| !known.contains(d));
            self.tried_as.extend(new.cloned());
        }
        self.running.retain(|known| known.arm != seen.arm);
        self.running.push(seen.clone());
    }

    fn happened(&mut self, at: Millis, event: &Event) {
        self.consumed.extend(event.signal().map(ToOwned::to_owned));
        match event {
            Event::Finished(outcome) => self.finished = Some(outcome.clone()),
            Event::Failed { reason } => self.failed = Some(reason.clone()),
            Event::Held { hold, .. } => {
                self.hold = Some(hold.clone());
                self.held_at_deadline |= *hold == Hold::Deadline;
            }
            Event::Continued { adopted, .. } => {
                self.going_since = (at, self.percent);
                self.hold = None;
                self.mismatch = None;
                self.failed = None;
                if let Some(weights) = adopted {
                    // What was asked for before that does not hold any more.
                    self.taken_back = None;
                    // Where a person has it stand, it begins anew.
                    self.retreat = None;
                    self.moved_to(weights.clone(), at);
                }
            }
            Event::Decided {
                goal,
                by,
                reason,
                signal,
            } => {
                let held = self.hold.take();
                let before = self.insisted.take();
                self.insisted = match (held, signal, goal) {
                    (Some(Hold::Stuck { reason }), Some(_), Goal::Promote) => Some(Insisted {
                        told: match before {
                            Some(Insisted { told }) => format!("{told}\n{reason}"),
                            None => reason,
                        },
                    }),
                    _ => None,
                };
                self.moves = 0;
                self.mismatch = None;
                self.waiting = None;
                self.decision = Some(Decision {
                    goal: *goal,
                    by: by.clone(),
                    reason: reason.clone(),
                });
            }
            Event::TookBack { to, refused, .. } => {
                self.taken_back = Some(TakenBack {
                    to: to.clone(),
                    refused: refused.clone(),
                });
            }
            Event::Diverged(mismatch) => self.mismatch = Some(mismatch.clone()),
            Event::Ended { end, reason } => {
                self.hold = None;
                self.waiting = None;
                self.end = Some((*end, reason.clone()));
            }
            Event::Started(_)
            | Event::Ignored { .. }
            | Event::Asked { .. }
            | Event::Answered { .. }
            | Event::Exchanged { .. } => {}
        }
    }

    fn called(&mut self, by: Actor) {
        if by == Actor::Strategy {
            self.strategy_called = true;
            self.calls += 1;
        }
    }

    fn moved_to(&mut self, weights: Weights, at: Millis) {
        // A strategy may name the arms in any order; they are kept in the target's.
        let weights = weights.ordered_as(&self.names).unwrap_or(weights);
        self.raised |= weights.share(&self.candidate) > self.weights.share(&self.candidate);
        let share = weights.share(&self.candidate);
        if share > self.climbed.last().copied().unwrap_or_default() {
            self.climbed.push(share);
        }
        if weights.weight(&self.candidate) == 0 {
            self.exposed_since = None;
        } else if self.exposed_since.is_none() {
            self.exposed_since = Some(at);
        }
        self.moved = at;
        self.weights = weights;
    }

    /// Notes whether the strategy's write that has just moved the traffic was a retreat from
    /// the share `before` it, percent, or ended one.
    fn retreat_from(&mut self, before: f64, at: Millis) {
        let share = self.weights.share(&self.candidate);
        self.retreat = match self.retreat {
            Some(retreat) if share < retreat.from => Some(retreat),
            None if share < before && self.decision.is_none() => Some(Retreat { from: before, at }),
            _ => None,
        };
    }

    fn phase_now(&self) -> Phase {
        if let Some((end, _)) = &self.end {
            return match end {
                End::Promoted | End::Done => Phase::Succeeded,
                End::RolledBack | End::Refused => Phase::RolledBack,
                End::RollbackFailed => Phase::RollbackFailed,
            };
        }
        if self.hold.is_some() {
            return Phase::Paused;
        }
        if let Some(decision) = &self.decision {
            return match decision.goal {
                Goal::Promote => Phase::Promoting,
                Goal::RollBack => Phase::RollingBack,
            };
        }
        if self.mismatch.is_some() {
            return Phase::Diverged;
        }
        if !self.strategy_called {
            return Phase::Preparing;
        }
        if self.retreat.is_some() {
            Phase::Retreated
        } else if self.weights.share(&self.candidate) >= 100.0 {
            Phase::Baking
        } else {
            Phase::Progressing
        }
    }
}
