//! Recovery: what to do next, from the journal's status and the live target.
//! Pure. The same functions serve a rollout that runs, one that was killed and one
//! that a person aborts.

use std::fmt::Display;

use super::roles::{capacity_now, scaling_to_put_back};
use crate::journal::status::{InDoubt, Status};
use crate::journal::{Call, Event, Header, Work};
use crate::model::target::TargetSpec;
use crate::model::{
    ArmScaling, Command, Decider, Deployment, ErrorKind, Goal, Hold, HostError, Millis, Observed,
    ObservedArm, OtherRoute, Promotion, Release, Role, Running, Signal, Source, Traffic, Verdict,
    Weights,
};

/// The next move of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Nothing: the rollout is over.
    Over,
    /// Write this entry, and decide again.
    Record(Event),
    /// Write that a person resumes and accepts the live weights, and decide again.
    Adopt {
        /// Who resumes.
        actor: String,
        /// The signal.
        signal: String,
    },
    /// A write has no answer: find out, by reading, whether it happened.
    Settle(InDoubt),
    /// Take the traffic there.
    Finalize(Goal),
    /// Run the strategy.
    Strategy,
    /// Put the former release into the arm without traffic, and decide that it takes over.
    Undo {
        /// Who decides it.
        by: Decider,
        /// Why.
        reason: String,
    },
    /// Do the one write of a verb.
    Verb {
        /// The weights to set.
        weights: Weights,
    },
    /// The process that changed a stack is dead: read where the traffic is, and end if
    /// it is where it was left.
    ReadBack,
    /// A person wants all traffic on one arm while a stack is being changed.
    TakeBack {
        /// The arm.
        to: String,
        /// Who asked.
        actor: String,
        /// The signal.
        signal: String,
    },
    /// Wait for a person.
    Rest,
}

/// Decides the next move. `signals` are those without an effect so far, `tripped` says
/// why the rollout must go back whatever its strategy decides.
#[must_use]
pub fn next_move(
    header: &Header,
    status: &Status,
    signals: &[Signal],
    tripped: Option<&str>,
    now: Millis,
) -> Move {
    if status.is_over() {
        return Move::Over;
    }
    if let Work::StackChange { .. } = &header.work {
        return next_of_change(header, status, signals);
    }
    if let Some((command, signal)) = first_command(signals) {
        return obey(status, &command, signal);
    }
    if status.hold.is_some() || status.mismatch.is_some() {
        return Move::Rest;
    }
    if let Some(reason) = tripped
        && matches!(header.work, Work::Strategy(_))
        && status.decision.as_ref().map(|d| d.goal) != Some(Goal::RollBack)
    {
        return Move::Record(Event::Decided {
            goal: Goal::RollBack,
            by: Decider::Guard,
            reason: reason.to_owned(),
            signal: None,
        });
    }
    if let Some(in_doubt) = &status.in_doubt {
        return Move::Settle(in_doubt.clone());
    }
    if let Some(decision) = &status.decision {
        return Move::Finalize(decision.goal);
    }
    match &header.work {
        Work::Verb { actor, .. } if header.work.goes_back() => Move::Record(Event::Decided {
            goal: Goal::RollBack,
            by: Decider::Person(actor.clone()),
            reason: format!("asked by {actor}"),
            signal: None,
        }),
        Work::Verb { weights, .. } => Move::Verb {
            weights: weights.clone(),
        },
        Work::Undo { of, actor } => Move::Undo {
            by: Decider::Person(actor.clone()),
            reason: format!("{actor} undoes {of}"),
        },
        _ => next_of_strategy(header, status, now),
    }
}

/// The same where nothing is decided: the deadline, then what came of the strategy.
fn next_of_strategy(header: &Header, status: &Status, now: Millis) -> Move {
    let rails = &header.guardrails;
    if deadline_is_due(header, status, now) {
        let limit = humantime::format_duration(std::time::Duration::from_millis(rails.deadline_ms));
        let reason = if status.note.is_empty() {
            format!("no verdict within {limit}")
        } else {
            format!("no verdict within {limit}; it stood at: {}", status.note)
        };
        return Move::Record(decide_or_hold(
            rails.on_deadline.goal(),
            Decider::Deadline,
            reason,
            |_| Hold::Deadline,
        ));
    }
    if let Some(reason) = &status.failed {
        return Move::Record(decide_or_hold(
            rails.on_plugin_error.goal(),
            Decider::OnPluginError,
            format!("the strategy failed: {reason}"),
            |_| Hold::StrategyError {
                reason: reason.clone(),
            },
        ));
    }
    match &status.finished {
        Some(outcome) => Move::Record(decide_or_hold(
            match outcome.verdict {
                Verdict::Promoted => Some(Goal::Promote),
                Verdict::RolledBack => Some(Goal::RollBack),
                Verdict::Inconclusive => None,
            },
            Decider::Strategy,
            outcome.reason.clone(),
            |reason| Hold::Inconclusive { reason },
        )),
        None => Move::Strategy,
    }
}

/// The same for a change of a stack. CloudFormation cannot be paused or promoted, so
/// people can only say where the traffic shall be.
fn next_of_change(header: &Header, status: &Status, signals: &[Signal]) -> Move {
    let commands = signals.iter().find_map(|s| Some((Command::of(s)?, s)));
    if let Some((command, signal)) = commands {
        let to = match command {
            Command::TakeBack { to } => Some(to),
            Command::Abort { .. } => Some(header.arm(Role::Stable).to_owned()),
            _ => None,
        };
        return match (to, &status.in_doubt) {
            (Some(_), Some(write)) => Move::Settle(write.clone()),
            (Some(to), None) => Move::TakeBack {
                to,
                actor: signal.actor.clone(),
                signal: signal.id.clone(),
            },
            (None, _) if command_lets_go(signal) && status.hold.is_some() => {
                Move::Record(Event::Continued {
                    actor: signal.actor.clone(),
                    adopted: None,
                    signal: Some(signal.id.clone()),
                })
            }
            (None, _) => Move::Record(Event::Ignored {
                signal: signal.id.clone(),
                name: signal.name.clone(),
            }),
        };
    }
    if status.hold.is_some() {
        return Move::Rest;
    }
    match &status.in_doubt {
        Some(write) => Move::Settle(write.clone()),
        None => Move::ReadBack,
    }
}

/// Whether the load balancer of a change of a stack went with its stack.
#[must_use]
pub fn target_is_gone(header: &Header, error: &HostError) -> bool {
    matches!(header.work, Work::StackChange { .. }) && error.kind == ErrorKind::NotFound
}

fn command_lets_go(signal: &Signal) -> bool {
    matches!(Command::of(signal), Some(Command::Resume { .. }))
}

/// The first of these signals that is a command to the driver.
#[must_use]
pub fn first_command(signals: &[Signal]) -> Option<(Command, &Signal)> {
    signals.iter().find_map(|signal| {
        let command = Command::of(signal).filter(Command::is_for_the_driver)?;
        Some((command, signal))
    })
}

/// Whether the deadline has passed and has had no effect yet.
#[must_use]
pub fn deadline_is_due(header: &Header, status: &Status, now: Millis) -> bool {
    status.decision.is_none()
        && !status.held_at_deadline
        && matches!(header.work, Work::Strategy(_))
        && now >= header.created.saturating_add(header.guardrails.deadline_ms)
}

/// Whether a rollout that no process drives, and whose local balancer does not answer, is
/// over for good. Before its deadline it is not: whoever goes on with it starts the balancer
/// again. After it that would only take its traffic back, of which there is none.
#[must_use]
pub fn is_gone(header: &Header, status: &Status, now: Millis) -> bool {
    matches!(header.target, TargetSpec::Embedded { .. })
        && status.end.is_none()
        && deadline_is_due(header, status, now)
        && header.guardrails.on_deadline.goal() == Some(Goal::RollBack)
}

fn decide_or_hold(
    goal: Option<Goal>,
    by: Decider,
    reason: String,
    hold: impl FnOnce(String) -> Hold,
) -> Event {
    match goal {
        Some(goal) => Event::Decided {
            goal,
            by,
            reason,
            signal: None,
        },
        None => Event::Held {
            hold: hold(reason),
            signal: None,
        },
    }
}

/// What a command does in this state. Abort always wins. A command that does not
/// apply now is recorded as ignored, so that it has no effect later.
fn obey(status: &Status, command: &Command, signal: &Signal) -> Move {
    let id = Some(signal.id.clone());
    let decided = status.decision.as_ref().map(|d| d.goal);
    let stands = status.hold.is_some() || status.mismatch.is_some();
    let said = |what: &str| {
        if signal.payload.is_empty() {
            format!("{what} by {}", signal.actor)
        } else {
            format!("{what} by {}: {}", signal.actor, signal.payload)
        }
    };
    match command {
        Command::Abort { .. } if decided != Some(Goal::RollBack) => Move::Record(Event::Decided {
            goal: Goal::RollBack,
            by: Decider::Person(signal.actor.clone()),
            reason: said("aborted"),
            signal: id,
        }),
        Command::PromoteFull { .. }
            if decided.is_none() || stands && decided == Some(Goal::Promote) =>
        {
            Move::Record(Event::Decided {
                goal: Goal::Promote,
                by: Decider::Person(signal.actor.clone()),
                reason: said("promoted in full"),
                signal: id,
            })
        }
        Command::Pause if decided.is_none() && !stands => Move::Record(Event::Held {
            hold: Hold::Asked {
                actor: signal.actor.clone(),
            },
            signal: id,
        }),
        Command::Resume { adopt: true } if stands => Move::Adopt {
            actor: signal.actor.clone(),
            signal: signal.id.clone(),
        },
        Command::Resume { adopt: false } if stands => Move::Record(Event::Continued {
            actor: signal.actor.clone(),
            adopted: None,
            signal: id,
        }),
        _ => Move::Record(Event::Ignored {
            signal: signal.id.clone(),
            name: signal.name.clone(),
        }),
    }
}

/// Whether a write without an answer happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The target is as the write wanted it.
    Happened,
    /// The target is as before: the same write again is safe.
    Reissue,
    /// The target is neither: another writer has changed it.
    Conflict,
}

/// Compares the live target with the write and with what was there before.
#[must_use]
pub fn settle(write: &InDoubt, live: &Observed) -> Settled {
    let happened = match &write.call {
        Call::SetVersion { arm, release } => live.arm(arm).is_some_and(|a| release.is(&a.release)),
        // Where users are, more tasks than were asked for are not taken away again.
        Call::SetTasks { arm, tasks } => live.arm(arm).is_some_and(|a| {
            a.tasks == Some(*tasks) || a.weight > 0 && a.tasks.is_some_and(|has| has > *tasks)
        }),
        // What auto scaling does is not seen here, and telling it again is safe.
        Call::SetScaling { .. } => false,
        _ => return settle_traffic(write, &live.traffic()),
    };
    if happened {
        Settled::Happened
    } else {
        Settled::Reissue
    }
}

/// The same for a write that only moves traffic. Where several routes move together it has
/// happened once it has on all of them, and may be sent again while each is as it was or as
/// it shall be.
#[must_use]
pub fn settle_traffic(write: &InDoubt, live: &Traffic) -> Settled {
    let found = &live.weights;
    let names: Vec<String> = found.0.iter().map(|w| w.arm.clone()).collect();
    let wanted = write
        .call
        .weights_after(&write.before)
        .and_then(|w| w.ordered_as(&names).ok());
    let is_there = wanted.as_ref() == Some(found);
    let wanted = wanted.unwrap_or_default();
    if is_there && live.others.iter().all(|other| other.has(&wanted)) {
        return Settled::Happened;
    }
    let known = |other: &OtherRoute| other.has(&wanted) || other.has(&write.before);
    match (is_there || *found == write.before) && live.others.iter().all(known) {
        true => Settled::Reissue,
        false => Settled::Conflict,
    }
}

/// Whether a write gives the candidate more than it had.
#[must_use]
pub fn raises(header: &Header, write: &InDoubt) -> bool {
    let candidate = header.arm(Role::Candidate);
    let after = write.call.weights_after(&write.before);
    after.is_some_and(|after| after.share(candidate) > write.before.share(candidate))
}

/// How long after it was asked a raise of which nobody knows is sent again by itself, ms.
const SENT_AGAIN_WITHIN_MS: Millis = 60_000;

/// Why a write that has no trace at the target is not sent again by itself, if so: it is a
/// raise, and so much time has passed that it may have had its effect and been taken back
/// since by somebody who saw what it did to users.
#[must_use]
pub fn maybe_taken_back(header: &Header, write: &InDoubt, now: Millis) -> Option<String> {
    let since = now.saturating_sub(write.at);
    (since > SENT_AGAIN_WITHIN_MS && raises(header, write)).then(|| {
        format!(
            "{} was sent {} ago, the process died before it had an answer, and the traffic is as it was before: either it never arrived, or somebody has taken it back since, so it is not sent again by itself",
            write.call,
            crate::journal::narrate::span(since)
        )
    })
}

/// One step towards a goal.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The goal is reached.
    Done,
    /// The arm must become healthy and steady before the next step.
    Await {
        /// The arm's name.
        arm: String,
        /// What is missing.
        what: String,
    },
    /// The new version has all traffic, and the old one keeps its tasks until then.
    Bake {
        /// Unix ms.
        until: Millis,
    },
    /// Which image an arm runs must be read before the next step.
    Identify {
        /// The arm's name.
        arm: String,
    },
    /// This write comes next.
    Do(Call),
    /// The goal cannot be reached, because the platform gave up.
    Failed(String),
    /// No write that is allowed leads to the goal: a person must act.
    Stand(String),
}

/// The next step of the preparation: the candidate arm gets its release, and
/// must be steady and healthy before the strategy begins.
#[must_use]
pub fn prepare(header: &Header, status: &Status, live: &Observed) -> Step {
    let name = header.arm(Role::Candidate);
    let Some(arm) = live.arm(name) else {
        return Step::Done;
    };
    let again = header.repeats(name) && !status.released;
    let wanted = candidate_release(header, status);
    if let Some(release) = wanted
        && (again || !release.is(&arm.release))
    {
        if !status.released {
            return Step::Do(Call::SetVersion {
                arm: name.to_owned(),
                release: release.clone(),
            });
        }
        return went_back(arm, &release.version);
    }
    if let (Some(release), Deployment::Failed(_), false) =
        (wanted, &arm.deployment, status.released)
    {
        // The failure is of an earlier rollout, and this one may try it once more.
        return Step::Do(Call::SetVersion {
            arm: name.to_owned(),
            release: release.clone(),
        });
    }
    if arm.tasks == Some(0) {
        return Step::Do(Call::SetTasks {
            arm: name.to_owned(),
            tasks: 1,
        });
    }
    steady_or(live, name, Step::Done)
}

/// What the candidate shall run: what it was last asked to, if it was.
fn candidate_release<'a>(header: &'a Header, status: &'a Status) -> Option<&'a Release> {
    status.tried.as_ref().or(header.candidate.as_ref())
}

/// The step after the preparation, once it was read what the candidate runs: its image must
/// be one, and the one that it must be if that is known beforehand.
#[must_use]
pub fn judge(header: &Header, status: &Status, seen: &Running) -> Step {
    let arm = &seen.arm;
    let all = seen.digests.join(" and ");
    let Some(wanted) = &header.digest else {
        return match seen.digests.len() {
            0 | 1 => Step::Done,
            _ => Step::Failed(format!(
                "the tasks of {arm} run different images ({all}): the name {} was pushed again while they started, so it is not clear what would be judged",
                seen.release.version
            )),
        };
    };
    let as_wanted = seen.digests.iter().all(|digest| digest == wanted);
    if as_wanted && seen.silent == 0 {
        return Step::Done;
    }
    match header.candidate.as_ref().and_then(|c| c.by_digest(wanted)) {
        Some(release) if candidate_release(header, status) != Some(&release) => {
            Step::Do(Call::SetVersion {
                arm: arm.clone(),
                release,
            })
        }
        // What was started by the digest needs to say nothing.
        _ if as_wanted => Step::Done,
        _ => Step::Failed(format!(
            "{arm} runs {all}, and {} was {wanted} when it served: the name means another image now, and the former one could not be started by its digest",
            seen.release.version
        )),
    }
}

/// Why an arm does not run what was judged, if that is so: its tasks that started later got
/// another image. The stable arm shall run it once it was given the new release. Where it is
/// not known what was judged, only two images of the candidate tell.
#[must_use]
pub fn another_image(header: &Header, status: &Status, arm: &str) -> Option<String> {
    let seen = status.running(arm)?;
    let name = &seen.release.version;
    let then = match arm == header.arm(Role::Candidate) {
        true => "it gets no more traffic and is not promoted",
        false => "the promotion is not done",
    };
    let insisted = status.insisted.as_ref();
    let is_new = |digest: &String| insisted.is_none_or(|known| !known.on(digest));
    let Some(judged) = &status.judged else {
        let all = &status.tried_as;
        let several = arm == header.arm(Role::Candidate) && all.len() > 1;
        return (several && all.iter().any(is_new)).then(|| {
            format!(
                "tasks of {arm} were seen to run different images ({}): the name {name} was pushed again, so it is not clear what was judged, and {then}",
                all.join(" and ")
            )
        });
    };
    let other = seen.digests.iter().filter(|d| *d != judged && is_new(d));
    let other: Vec<&str> = other.map(String::as_str).collect();
    (!other.is_empty()).then(|| {
        format!(
            "tasks of {arm} run {}, and {judged} is what was judged: the name {name} was pushed again, so {then}",
            other.join(" and "),
        )
    })
}

/// That it could not be read which image an arm runs.
pub fn unread_image(arm: &str, error: impl Display) -> String {
    format!("which image the tasks of {arm} run could not be read: {error}")
}

/// Why it is not certain that an arm runs what was judged, although that is known: not all
/// of its tasks say what they run, and their image has a name that can mean another one.
#[must_use]
pub fn unsure_image(status: &Status, arm: &str) -> Option<String> {
    let judged = status.judged.as_deref()?;
    let seen = status.running(arm)?;
    let which = match &seen.unread {
        _ if seen.is_by_digest() => return None,
        Some(error) => unread_image(arm, error),
        None if seen.silent > 0 => {
            format!(
                "not all tasks of {arm} say which image they run ({} do not)",
                seen.silent
            )
        }
        None => return None,
    };
    Some(format!(
        "{which}; {judged} is what was judged, and the name {} may mean another one by now",
        seen.release.version
    ))
}

/// Why the candidate can be promoted by the name of its image alone, if that is so: then
/// nobody knows whether all of its tasks run what was judged.
#[must_use]
pub fn by_name_alone(header: &Header, status: &Status) -> Option<String> {
    let seen = status.running(header.arm(Role::Candidate))?;
    let named = matches!(seen.release.source, Source::TaskDefinition(_)) && !seen.is_by_digest();
    (named && status.judged.is_none()).then(|| {
        let why = match &seen.unread {
            Some(error) => format!("the digest of its image could not be read: {error}"),
            None => {
                "not all of its tasks said which image they run before they got traffic".to_owned()
            }
        };
        format!(
            "{} was promoted by the name {} alone, because {why}",
            seen.arm, seen.release.version
        )
    })
}

/// `step`, which gives an arm the traffic, if the arm runs the image `wanted`. If its name
/// means another image by now, it is given the image by the digest first; a promotion is
/// `strict` and does so as well where not all tasks say what they run.
fn if_it_is(
    (status, arm, wanted): (&Status, &ObservedArm, Option<&str>),
    named: &Release,
    step: Step,
    strict: bool,
) -> Step {
    let (Some(wanted), Step::Do(Call::SetWeights { .. })) = (wanted, &step) else {
        return step;
    };
    let Some(seen) = status.running(&arm.name) else {
        return Step::Identify {
            arm: arm.name.clone(),
        };
    };
    let as_wanted = seen.digests.iter().all(|digest| digest == wanted);
    if as_wanted && !(strict && seen.is_unsure()) {
        return step;
    }
    let given = status.given.as_ref().map(|given| &given.release);
    match named.by_digest(wanted) {
        Some(release) if given != Some(&release) => Step::Do(Call::SetVersion {
            arm: arm.name.clone(),
            release,
        }),
        // What was started by the digest needs to say nothing.
        _ if as_wanted => step,
        _ => Step::Stand(format!(
            "{} runs {} as {}, and {wanted} is what it must run: the name means another image by now, and the one that is wanted could not be started by its digest",
            arm.name,
            arm.release.version,
            seen.digests.join(" and ")
        )),
    }
}

/// The next step towards the goal, from what is live. Doing it and asking again ends
/// at [`Step::Done`], wherever a crash came.
#[must_use]
pub fn finalize(
    goal: Goal,
    header: &Header,
    status: &Status,
    live: &Observed,
    now: Millis,
) -> Step {
    match move_traffic(goal, header, status, live, now) {
        Step::Done => match scaling_to_put_back(header, status, &live.weights()) {
            // Before tasks are taken, or auto scaling would add them again.
            Some(ArmScaling { arm, scaling }) => Step::Do(Call::SetScaling { arm, scaling }),
            None => settle_tasks(goal, header, live),
        },
        step => step,
    }
}

fn move_traffic(
    goal: Goal,
    header: &Header,
    status: &Status,
    live: &Observed,
    now: Millis,
) -> Step {
    let (stable, candidate) = (header.arm(Role::Stable), header.arm(Role::Candidate));
    if goal == Goal::RollBack {
        return match (header.promotion, &header.stable) {
            // A promotion by copy may have replaced the stable release already.
            (promotion, Some(old)) if promotion.copies() => {
                way_back_from_a_copy(header, status, live, old)
            }
            _ => back_to(header, status, live),
        };
    }
    let was_told = |why: &String| status.insisted.as_ref().is_some_and(|known| known.on(why));
    // All of them at once: who insists must have been told each.
    let release = foreign_release(header, status, live).filter(|why| !was_told(why));
    let reasons: Vec<String> = release
        .into_iter()
        .chain(another_image(header, status, candidate))
        .collect();
    if !reasons.is_empty() {
        return Step::Stand(reasons.join("; "));
    }
    let bake = || {
        let until = status.moved.saturating_add(header.guardrails.final_bake_ms);
        (now < until).then_some(Step::Bake { until })
    };
    let bake_on_the_candidate = |next: &dyn Fn() -> Step| match all_to(live, candidate) {
        Step::Done => bake().unwrap_or_else(next),
        step => step,
    };
    if header.promotion == Promotion::Swap {
        return bake_on_the_candidate(&|| Step::Done);
    }
    let release = |arm: &str| live.arm(arm).map(|a| a.release.clone());
    let new = release(candidate).map(|new| for_the_stable_arm(header, &new));
    let judged = status.judged.as_deref();
    // Given by its digest, because its name means another image by now.
    let pinned = judged
        .zip(new.as_ref())
        .and_then(|(judged, new)| new.by_digest(judged));
    let is_there =
        |new: &Release, old: &Release| new.is(old) || pinned.as_ref().is_some_and(|p| p.is(old));
    // A release of the same name is given once, and then the name says nothing any more.
    let again = header.repeats(stable) && !status.given.as_ref().is_some_and(|given| given.taken);
    match (release(stable), new) {
        (Some(old), Some(new)) if again || !is_there(&new, &old) => bake_on_the_candidate(&|| {
            // The stable arm has no traffic now, so it can be replaced.
            if status.given.as_ref().is_some_and(|given| given.taken)
                && let Some(arm) = live.arm(stable)
            {
                return went_back(arm, &new.version);
            }
            Step::Do(Call::SetVersion {
                arm: stable.to_owned(),
                release: new.clone(),
            })
        }),
        _ if live.traffic().all_on(stable) => Step::Done,
        (_, new) => {
            let step = steady_or(live, stable, all_to(live, stable));
            match (live.arm(stable), new) {
                (Some(arm), Some(new)) if status.given.is_some() => {
                    if_it_is((status, arm, judged), &new, step, true)
                }
                _ => step,
            }
        }
    }
}

/// Whether all traffic is certainly on the stable arm where it was read there: a single read
/// may be older than the last write, so it must agree with what this rollout has written.
/// A verb of a person knows of no earlier write, so it must have written itself.
#[must_use]
pub fn is_back(header: &Header, status: &Status, live: &Weights) -> bool {
    let by_hand = matches!(header.work, Work::Verb { .. });
    status.weights.shares_like(live) && (!by_hand || status.moves > 0)
}

/// What somebody else has changed between two looks at the traffic, if anything.
pub fn changed_since(seen: &Traffic, live: &Traffic) -> Option<Hold> {
    if live.weights != seen.weights {
        return Some(Hold::ForeignChange {
            expected: seen.weights.clone(),
            found: live.weights.clone(),
            place: None,
        });
    }
    let was = |place: &str| seen.others.iter().find(|other| other.place == place);
    let (other, was) = live.others.iter().find_map(|other| {
        let was = was(&other.place)?;
        let same = other.weights == was.weights && other.amiss.is_some() == was.amiss.is_some();
        (!same).then_some((other, was))
    })?;
    Some(changed_there(other, &was.weights, |other| {
        format!("{other}, which it did not do a moment ago: somebody else writes to it")
    }))
}

/// What somebody else has done to another route that had these weights; `stuck` says it where
/// they are no weights of the two arms any more.
pub(super) fn changed_there(
    other: &OtherRoute,
    expected: &Weights,
    stuck: impl FnOnce(&OtherRoute) -> String,
) -> Hold {
    match &other.amiss {
        None => Hold::ForeignChange {
            expected: expected.clone(),
            found: other.weights.clone(),
            place: Some(other.place.clone()),
        },
        Some(_) => Hold::Stuck {
            reason: stuck(other),
        },
    }
}

/// All traffic back to the stable arm, which is done only when it is certain.
fn back_to(header: &Header, status: &Status, live: &Observed) -> Step {
    let stable = header.arm(Role::Stable);
    let is_home = live.traffic().all_on(stable) && is_back(header, status, &live.weights());
    // Nobody has to come back, so nobody needs it to be healthy first.
    if is_home && !status.raised && matches!(header.work, Work::Strategy(_)) {
        return Step::Done;
    }
    match all_to(live, stable) {
        Step::Done if !is_back(header, status, &live.weights()) => Step::Do(Call::SetWeights {
            weights: live.weights().all_to(stable),
        }),
        step => step,
    }
}

/// All traffic to one arm that can carry it. It counts as done only while it can.
fn all_to(live: &Observed, arm: &str) -> Step {
    let traffic = live.traffic();
    let step = if traffic.all_on(arm) {
        Step::Done
    } else {
        Step::Do(Call::SetWeights {
            weights: traffic.weights.all_to(arm),
        })
    };
    healthy_or(live, arm, step)
}

/// The way back if this rollout may have given the stable arm the new release. A
/// release that another writer put there stays, because its owner wants users there.
fn way_back_from_a_copy(header: &Header, status: &Status, live: &Observed, old: &Release) -> Step {
    let (stable, candidate) = (header.arm(Role::Stable), header.arm(Role::Candidate));
    let (Some(given), Some(arm)) = (&status.given, live.arm(stable)) else {
        return back_to(header, status, live);
    };
    let restore = Call::SetVersion {
        arm: stable.to_owned(),
        release: old.clone(),
    };
    let was = header.digest_of(Role::Stable);
    let pinned = was.and_then(|was| old.by_digest(was));
    let is_old = |release: &Release| {
        old.is(release) || pinned.as_ref().is_some_and(|pinned| pinned.is(release))
    };
    if is_old(&arm.release) {
        return match &arm.deployment {
            // Its tasks may still run the new release.
            Deployment::Moving(what) => Step::Await {
                arm: stable.to_owned(),
                what: what.clone(),
            },
            _ => if_it_is(
                (status, arm, was),
                old,
                back_to(header, status, live),
                false,
            ),
        };
    }
    if !is_old(&given.release) {
        return if given.release.is(&arm.release) {
            match all_to(live, candidate) {
                Step::Done => Step::Do(restore),
                step => step,
            }
        } else {
            back_to(header, status, live)
        };
    }
    // The arm was given the old release again, and does not run it.
    let new = live.arm(candidate);
    let new = new.map(|a| for_the_stable_arm(header, &a.release));
    match new.is_some_and(|new| new.is(&arm.release)) {
        true if !given.taken => match all_to(live, candidate) {
            Step::Done => Step::Do(restore),
            step => step,
        },
        true => Step::Stand(format!(
            "{stable} was given {} back and runs {} again, as {candidate} does: no arm runs another release",
            old.version, arm.release.version
        )),
        false => all_to(live, stable),
    }
}

/// A release that another writer put into an arm meanwhile. Nobody has judged it, so
/// it is not promoted, and a promotion does not replace it.
fn foreign_release(header: &Header, status: &Status, live: &Observed) -> Option<String> {
    let name = header.arm(Role::Candidate);
    let running = &live.arm(name)?.release;
    let judged = header.arms.iter().find(|a| a.name == name)?;
    let same = match candidate_release(header, status) {
        Some(release) => release.is(running),
        None => judged.version == running.version,
    };
    if !same {
        return Some(format!(
            "{name} runs {} and this rollout has judged {}: somebody else deployed to it, so it is not promoted",
            running.version, judged.version
        ));
    }
    let old = header.stable.as_ref()?;
    let stable = live.arm(header.arm(Role::Stable))?;
    let touches = header.promotion.copies() && status.given.is_none();
    let there = for_the_stable_arm(header, running).is(&stable.release);
    (touches && !old.is(&stable.release) && !there).then(|| {
        format!(
            "{} runs {} and had {} when this rollout began: somebody else deployed to it, and the promotion would replace that",
            stable.name, stable.release.version, old.version
        )
    })
}

/// What a promotion by copy gives to the stable arm, if the candidate runs `new`. A task
/// definition has a size, roles, variables and logs too, and those of what serves stay:
/// only what the new version changed goes there.
fn for_the_stable_arm(header: &Header, new: &Release) -> Release {
    let Source::TaskDefinition(arn) = &new.source else {
        return new.clone();
    };
    if header.promotion == Promotion::CopyWhole {
        return new.clone();
    }
    let changes = match &header.target {
        TargetSpec::Aws(spec) => spec.changes.as_ref().filter(|c| c.to == *arn),
        _ => None,
    };
    match changes {
        Some(changes) => Release {
            version: changes.version.clone(),
            source: Source::Changes(Box::new(changes.clone())),
        },
        None => Release {
            version: new.version.clone(),
            source: Source::Image(new.version.clone()),
        },
    }
}

/// An arm that was given a release and runs another one now.
fn went_back(arm: &ObservedArm, wanted: &str) -> Step {
    let why = match &arm.deployment {
        Deployment::Steady => String::new(),
        Deployment::Moving(why) | Deployment::Failed(why) => format!(": {why}"),
    };
    Step::Failed(format!(
        "{} went back from {wanted} to {} by itself{why}",
        arm.name, arm.release.version
    ))
}

/// Once the traffic has reached its end, the arm that has it gets the tasks that it lacks:
/// it may have lost some while it had little traffic, and the traffic may have grown. Then
/// the arm without any gives up the tasks that it only had to carry traffic.
#[must_use]
pub fn settle_tasks(goal: Goal, header: &Header, live: &Observed) -> Step {
    let Some(capacity) = capacity_now(header, live) else {
        return Step::Done;
    };
    let (serving, idle) = match (goal, header.promotion) {
        (Goal::Promote, Promotion::Swap) => (Role::Candidate, Role::Stable),
        (Goal::Promote, Promotion::Copy | Promotion::CopyWhole) | (Goal::RollBack, _) => {
            (Role::Stable, Role::Candidate)
        }
    };
    let tasks = |role| live.arm(header.arm(role)).and_then(|a| a.tasks);
    let set = |role, tasks| {
        Step::Do(Call::SetTasks {
            arm: header.arm(role).to_owned(),
            tasks,
        })
    };
    match (tasks(serving), tasks(idle)) {
        (Some(has), _) if has < capacity.full => set(serving, capacity.full),
        (_, Some(has)) if has > capacity.idle => set(idle, capacity.idle),
        _ => Step::Done,
    }
}

fn healthy_or(live: &Observed, arm: &str, step: Step) -> Step {
    match live.arm(arm) {
        Some(a) if a.healthy == 0 => Step::Await {
            arm: arm.to_owned(),
            what: with_reason(none_is_healthy(a.total), a),
        },
        _ => step,
    }
}

fn none_is_healthy(total: u32) -> String {
    match total {
        0 => "it has no backend".to_owned(),
        1 => "its one backend is not healthy".to_owned(),
        _ => format!("none of its {total} backends is healthy"),
    }
}

/// What is waited for, with what the load balancer says of the backends.
fn with_reason(what: String, arm: &ObservedArm) -> String {
    match &arm.health_reason {
        Some(why) => format!("{what} ({why})"),
        None => what,
    }
}

fn steady_or(live: &Observed, arm: &str, step: Step) -> Step {
    let Some(live_arm) = live.arm(arm) else {
        return healthy_or(live, arm, step);
    };
    match &live_arm.deployment {
        Deployment::Moving(what) => Step::Await {
            arm: arm.to_owned(),
            what: with_reason(what.clone(), live_arm),
        },
        Deployment::Failed(why) => Step::Failed(with_reason(format!("{arm}: {why}"), live_arm)),
        Deployment::Steady => healthy_or(live, arm, step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DemoFault, Release, Source};
    use crate::rollout::fixture::header;

    fn live(weights: [u32; 2], versions: [&str; 2], healthy: [u32; 2]) -> Observed {
        let arm = |index: usize, name: &str| ObservedArm {
            name: name.to_owned(),
            release: Release {
                version: versions[index].to_owned(),
                source: Source::Demo(DemoFault::default()),
            },
            weight: weights[index],
            healthy: healthy[index],
            total: 1,
            health_reason: None,
            tasks: None,
            deployment: Deployment::Steady,
            since: None,
            spoiled: 0,
            unanswered: 0,
            sent_again: 0,
        };
        Observed {
            arms: vec![arm(0, "stable"), arm(1, "canary")],
            sticky: false,
            address: String::new(),
            others: vec![],
        }
    }

    fn finish(goal: Goal, header: &Header, live: &Observed) -> Step {
        finalize(goal, header, &Status::new(header), live, header.created)
    }

    fn set(stable: u32, canary: u32) -> Step {
        Step::Do(Call::SetWeights {
            weights: Weights::of([("stable", stable), ("canary", canary)]),
        })
    }

    #[test]
    fn promotion_by_copy_goes_over_the_candidate_and_back() {
        let mut header = header();
        header.promotion = Promotion::Copy;
        let step = |w, v, h| finish(Goal::Promote, &header, &live(w, v, h));
        assert_eq!(step([50, 50], ["v1", "v2"], [1, 1]), set(0, 100));
        let Step::Do(Call::SetVersion { arm, release }) = step([0, 100], ["v1", "v2"], [1, 1])
        else {
            panic!("the stable arm gets the new release");
        };
        assert_eq!((arm.as_str(), release.version.as_str()), ("stable", "v2"));
        assert!(matches!(
            step([0, 100], ["v2", "v2"], [0, 1]),
            Step::Await { .. }
        ));
        assert_eq!(step([0, 100], ["v2", "v2"], [1, 1]), set(100, 0));
        assert_eq!(step([100, 0], ["v2", "v2"], [1, 1]), Step::Done);
    }

    #[test]
    fn the_old_version_stays_through_the_bake_and_then_gives_up_its_tasks() {
        let mut header = header();
        header.guardrails.final_bake_ms = 60_000;
        header.capacity = Some(crate::model::Capacity { full: 3, idle: 1 });
        let status = Status::new(&header);
        let mut done = live([0, 100], ["v1", "v2"], [3, 3]);
        done.arms[0].tasks = Some(3);
        let at = |now| finalize(Goal::Promote, &header, &status, &done, now);
        let until = header.created + 60_000;
        assert_eq!(at(until - 1), Step::Bake { until });
        let give_up = Step::Do(Call::SetTasks {
            arm: "stable".to_owned(),
            tasks: 1,
        });
        assert_eq!(at(until), give_up);
        done.arms[0].tasks = Some(1);
        assert_eq!(
            finalize(Goal::Promote, &header, &status, &done, until),
            Step::Done
        );
    }

    #[test]
    fn a_release_that_the_platform_took_back_is_a_failure() {
        let mut header = header();
        header.candidate = Some(Release {
            version: "v3".to_owned(),
            source: Source::Image("v3".to_owned()),
        });
        let mut status = Status::new(&header);
        let mut now = live([100, 0], ["v1", "v2"], [1, 1]);
        assert!(matches!(prepare(&header, &status, &now), Step::Do(_)));
        status.released = true;
        now.arms[1].deployment = Deployment::Failed("no such image".to_owned());
        let Step::Failed(why) = prepare(&header, &status, &now) else {
            panic!("it was given v3 and runs v2");
        };
        assert!(
            why.contains("went back from v3 to v2") && why.contains("no such image"),
            "{why}"
        );
        now.arms[1].release.version = "v3".to_owned();
        now.arms[1].deployment = Deployment::Moving("0 of 1 tasks run".to_owned());
        assert!(matches!(
            prepare(&header, &status, &now),
            Step::Await { .. }
        ));
    }

    #[test]
    fn an_abort_during_a_copy_brings_the_old_release_back() {
        let mut header = header();
        header.promotion = Promotion::Copy;
        header.stable = Some(Release {
            version: "v1".to_owned(),
            source: Source::Demo(DemoFault::default()),
        });
        let mut status = Status::new(&header);
        status.given = Some(crate::journal::status::Given {
            release: Release {
                version: "v2".to_owned(),
                source: Source::Demo(DemoFault::default()),
            },
            taken: true,
        });
        let step = |w, v| {
            let live = live(w, v, [1, 1]);
            finalize(Goal::RollBack, &header, &status, &live, header.created)
        };
        // The replaced stable arm has the traffic already, so it must lose it first.
        assert_eq!(step([100, 0], ["v2", "v2"]), set(0, 100));
        let Step::Do(Call::SetVersion { arm, release }) = step([0, 100], ["v2", "v2"]) else {
            panic!("the stable arm gets its old release");
        };
        assert_eq!((arm.as_str(), release.version.as_str()), ("stable", "v1"));
        assert_eq!(step([0, 100], ["v1", "v2"]), set(100, 0));
        assert_eq!(step([100, 0], ["v1", "v2"]), Step::Done);
    }

    #[test]
    fn an_image_of_the_same_name_is_given_to_both_arms_and_taken_back_by_its_digest() {
        let image = |name: &str| Release {
            version: name.to_owned(),
            source: Source::Image(name.to_owned()),
        };
        let mut header = header();
        header.promotion = Promotion::Copy;
        header.stable = Some(image("app@sha256:1"));
        header.candidate = Some(image("app:v1"));
        header.repeats = vec!["stable".to_owned(), "canary".to_owned()];
        header.arms[1].version = "app:v1".to_owned();
        let mut status = Status::new(&header);
        let same = |w| live(w, ["app:v1", "app:v1"], [1, 1]);
        let given = |step: Step| match step {
            Step::Do(Call::SetVersion { arm, release }) => (arm, release.version),
            other => panic!("{other:?}"),
        };
        let of = |arm: &str, version: &str| (arm.to_owned(), version.to_owned());
        let first = prepare(&header, &status, &same([100, 0]));
        assert_eq!(given(first), of("canary", "app:v1"));
        status.released = true;
        assert_eq!(prepare(&header, &status, &same([100, 0])), Step::Done);

        let now = header.created;
        let promote = |status: &Status, w| finalize(Goal::Promote, &header, status, &same(w), now);
        assert_eq!(promote(&status, [50, 50]), set(0, 100));
        assert_eq!(given(promote(&status, [0, 100])), of("stable", "app:v1"));
        status.given = Some(crate::journal::status::Given {
            release: image("app:v1"),
            taken: true,
        });
        assert_eq!(promote(&status, [0, 100]), set(100, 0));
        assert_eq!(promote(&status, [100, 0]), Step::Done);

        // Its own old tasks are gone, so the name brings nothing back.
        let back =
            |status: &Status, live: &Observed| finalize(Goal::RollBack, &header, status, live, now);
        assert_eq!(back(&status, &same([100, 0])), set(0, 100));
        let restore = back(&status, &same([0, 100]));
        assert_eq!(given(restore), of("stable", "app@sha256:1"));
        status.given = Some(crate::journal::status::Given {
            release: image("app@sha256:1"),
            taken: true,
        });
        let restored = live([0, 100], ["app@sha256:1", "app:v1"], [1, 1]);
        assert_eq!(back(&status, &restored), set(100, 0));
    }

    /// The header of an ordinary rollout of app:v2 by copy, whose stable arm ran app:v1 as
    /// `sha256:1`.
    fn with_digests() -> Header {
        let image = |name: &str| Release {
            version: name.to_owned(),
            source: Source::Image(name.to_owned()),
        };
        let mut header = header();
        header.promotion = Promotion::Copy;
        header.stable = Some(image("app:v1"));
        header.candidate = Some(image("app:v2"));
        header.running = vec![seen("stable", "app:v1", &["sha256:1"])];
        header
    }

    fn seen(arm: &str, version: &str, digests: &[&str]) -> Running {
        Running {
            arm: arm.to_owned(),
            release: Release {
                version: version.to_owned(),
                source: Source::Image(version.to_owned()),
            },
            digests: digests.iter().map(|d| (*d).to_owned()).collect(),
            silent: 0,
            unread: None,
        }
    }

    #[test]
    fn the_way_back_from_a_copy_goes_home_with_the_image_that_served() {
        let header = with_digests();
        let mut status = Status::new(&header);
        let given = |version: &str| {
            Some(crate::journal::status::Given {
                release: Release {
                    version: version.to_owned(),
                    source: Source::Image(version.to_owned()),
                },
                taken: true,
            })
        };
        let back = |status: &Status, versions: [&str; 2]| {
            let live = live([0, 100], versions, [1, 1]);
            finalize(Goal::RollBack, &header, status, &live, header.created)
        };
        let put = |step: Step| match step {
            Step::Do(Call::SetVersion { release, .. }) => release.version,
            other => panic!("{other:?}"),
        };
        status.running.clear();
        status.given = given("app:v2");
        assert_eq!(put(back(&status, ["app:v2", "app:v2"])), "app:v1");
        status.given = given("app:v1");
        let home = ["app:v1", "app:v2"];
        let look = Step::Identify {
            arm: "stable".to_owned(),
        };
        assert_eq!(back(&status, home), look);
        // It is the one, or nobody can tell.
        for digests in [&["sha256:1"][..], &[]] {
            status.running = vec![seen("stable", "app:v1", digests)];
            assert_eq!(back(&status, home), set(100, 0));
        }
        // The name means another image now.
        status.running = vec![seen("stable", "app:v1", &["sha256:9"])];
        assert_eq!(put(back(&status, home)), "app@sha256:1");
        status.given = given("app@sha256:1");
        let pinned = ["app@sha256:1", "app:v2"];
        status.running = vec![seen("stable", "app@sha256:1", &["sha256:1"])];
        assert_eq!(back(&status, pinned), set(100, 0));
        // ECS could not start that, and has put something else there again.
        status.running = vec![seen("stable", "app:v1", &["sha256:9"])];
        assert!(matches!(back(&status, home), Step::Stand(_)));
        assert!(matches!(
            back(&status, ["app:v2", "app:v2"]),
            Step::Stand(_)
        ));
    }

    /// A load balancer may answer with what it had before the last write.
    #[test]
    fn one_read_against_the_journal_is_no_way_back() {
        let at_home = live([100, 0], ["v1", "v2"], [1, 1]);
        for promotion in [Promotion::Copy, Promotion::Swap] {
            let mut header = header();
            header.promotion = promotion;
            let back = |status: &Status| {
                finalize(Goal::RollBack, &header, status, &at_home, header.created)
            };
            let mut status = Status::new(&header);
            assert_eq!(back(&status), Step::Done, "it never left");
            status.weights = Weights::of([("stable", 50), ("canary", 50)]);
            assert_eq!(back(&status), set(100, 0));
            status.weights = Weights::of([("stable", 100), ("canary", 0)]);
            assert_eq!(back(&status), Step::Done, "it was written");
        }
        // A verb has read where the traffic is when it began, and nothing else.
        let mut header = header();
        header.work = Work::Verb {
            verb: "rollback".to_owned(),
            actor: "ada".to_owned(),
            weights: Weights::of([("stable", 100), ("canary", 0)]),
        };
        let mut status = Status::new(&header);
        let back = |status: &Status| finalize(Goal::RollBack, &header, status, &at_home, 0);
        assert_eq!(back(&status), set(100, 0));
        status.moves = 1;
        assert_eq!(back(&status), Step::Done);
    }

    #[test]
    fn who_insists_was_told_what() {
        use crate::journal::status::Insisted;
        let (header, mut status) = copied();
        status.given = None;
        let foreign = live([50, 50], ["app:v1", "app:v9"], [1, 1]);
        let go_on = |status: &Status| finalize(Goal::Promote, &header, status, &foreign, 0);
        let Step::Stand(told) = go_on(&status) else {
            panic!("somebody else deployed");
        };
        let insists = |told: &str| {
            Some(Insisted {
                told: told.to_owned(),
            })
        };
        status.insisted = insists("the canary was not healthy");
        assert!(matches!(go_on(&status), Step::Stand(_)));
        status.insisted = insists(&told);
        assert!(!matches!(go_on(&status), Step::Stand(_)));
        // An image that was seen, before or after, was not told with that.
        status.running = vec![seen("canary", "app:v2", &["sha256:2", "sha256:9"])];
        let Step::Stand(image) = go_on(&status) else {
            panic!("the name was pushed again");
        };
        // Who stands still for two reasons says both.
        status.insisted = None;
        let Step::Stand(both) = go_on(&status) else {
            panic!("somebody else deployed");
        };
        assert!(both.contains(&told) && both.contains(&image), "{both}");
        status.insisted = insists(&image);
        assert_eq!(another_image(&header, &status, "canary"), None);
        assert!(matches!(go_on(&status), Step::Stand(_)));
        status.insisted = insists(&both);
        assert!(!matches!(go_on(&status), Step::Stand(_)));
        status.running = vec![seen("canary", "app:v2", &["sha256:2", "sha256:8"])];
        assert!(another_image(&header, &status, "canary").is_some());
    }

    /// The stable arm got the new release by its name.
    fn copied() -> (Header, Status) {
        let header = with_digests();
        let mut status = Status::new(&header);
        status.judged = Some("sha256:2".to_owned());
        status.given = Some(crate::journal::status::Given {
            release: header.candidate.clone().expect("there"),
            taken: true,
        });
        (header, status)
    }

    #[test]
    fn tasks_that_say_nothing_are_not_taken_for_what_was_judged() {
        let (header, mut status) = copied();
        let now = live([0, 100], ["app:v2", "app:v2"], [1, 1]);
        let go_on = |status: &Status| finalize(Goal::Promote, &header, status, &now, 0);
        let told = |digests: &[&str], silent: u32, unread: Option<&str>| Running {
            silent,
            unread: unread.map(ToOwned::to_owned),
            ..seen("stable", "app:v2", digests)
        };
        let by_digest = Release {
            version: "app@sha256:2".to_owned(),
            source: Source::Image("app@sha256:2".to_owned()),
        };
        for (running, is_it) in [
            (told(&["sha256:2"], 0, None), true),
            (told(&["sha256:2"], 1, None), false),
            (told(&[], 2, None), false),
            (told(&[], 0, Some("denied")), false),
            (told(&["sha256:3"], 0, None), false),
        ] {
            status.running = vec![running.clone()];
            let step = match is_it {
                true => set(100, 0),
                false => Step::Do(Call::SetVersion {
                    arm: "stable".to_owned(),
                    release: by_digest.clone(),
                }),
            };
            assert_eq!(go_on(&status), step, "{running}");
        }
        // What was started by the digest needs to say nothing.
        status.given.as_mut().expect("given").release = by_digest;
        let pinned = live([0, 100], ["app@sha256:2", "app:v2"], [1, 1]);
        status.running = vec![told(&[], 2, None)];
        assert_eq!(
            finalize(Goal::Promote, &header, &status, &pinned, 0),
            set(100, 0)
        );
        // Nor does an undo take them for the image that it must bring back.
        let mut header = with_digests();
        header.digest = Some("sha256:2".to_owned());
        let mut status = Status::new(&header);
        let mute = Running {
            silent: 1,
            ..seen("canary", "app:v2", &["sha256:2"])
        };
        let Step::Do(Call::SetVersion { release, .. }) = judge(&header, &status, &mute) else {
            panic!("it is given by its digest");
        };
        status.tried = Some(release);
        assert_eq!(judge(&header, &status, &mute), Step::Done);
    }

    #[test]
    fn what_serves_at_the_end_must_be_what_was_judged() {
        let (header, mut status) = copied();
        status.running = vec![
            seen("stable", "app:v2", &["sha256:2", "sha256:3"]),
            seen("canary", "app:v2", &["sha256:2"]),
        ];
        let of = |status: &Status, arm| another_image(&header, status, arm);
        assert_eq!(of(&status, "canary"), None);
        let why = of(&status, "stable").expect("another");
        assert!(why.contains("tasks of stable run sha256:3"), "{why}");
        assert!(why.contains("the promotion is not done"), "{why}");
        // Where it is not known what was judged, what the stable arm ran says nothing.
        status.judged = None;
        status.tried_as = vec!["sha256:2".to_owned()];
        assert_eq!(of(&status, "stable"), None);
        assert_eq!(of(&status, "canary"), None);
        status.tried_as.push("sha256:3".to_owned());
        assert!(of(&status, "canary").is_some());
    }

    #[test]
    fn a_candidate_runs_one_image_and_the_one_that_it_must_run() {
        let mut header = with_digests();
        let mut status = Status::new(&header);
        let one = seen("canary", "app:v2", &["sha256:2"]);
        let two = seen("canary", "app:v2", &["sha256:2", "sha256:3"]);
        assert_eq!(judge(&header, &status, &one), Step::Done);
        assert!(matches!(judge(&header, &status, &two), Step::Failed(_)));
        // One that is told beforehand is given by its digest, once.
        header.digest = Some("sha256:3".to_owned());
        let Step::Do(Call::SetVersion { arm, release }) = judge(&header, &status, &one) else {
            panic!("it is given");
        };
        assert_eq!(
            (arm.as_str(), release.version.as_str()),
            ("canary", "app@sha256:3")
        );
        status.tried = Some(release);
        assert!(matches!(judge(&header, &status, &one), Step::Failed(_)));
        // After a crash the preparation knows what was tried last.
        status.released = true;
        let now = live([100, 0], ["app:v1", "app@sha256:3"], [1, 1]);
        assert_eq!(prepare(&header, &status, &now), Step::Done);
    }

    #[test]
    fn rollback_waits_for_a_healthy_stable_arm() {
        let header = header();
        let step = |h| finish(Goal::RollBack, &header, &live([75, 25], ["v1", "v2"], h));
        assert_eq!(step([1, 0]), set(100, 0));
        assert!(matches!(step([0, 1]), Step::Await { .. }));
    }

    #[test]
    fn a_write_in_doubt_is_settled_by_what_is_live() {
        let doubt = InDoubt {
            seq: 4,
            at: 0,
            by: crate::journal::Actor::Strategy,
            call: Call::SetWeights {
                weights: Weights::of([("stable", 75), ("canary", 25)]),
            },
            before: Weights::of([("stable", 95), ("canary", 5)]),
        };
        let now = |w| settle(&doubt, &live(w, ["v1", "v2"], [1, 1]));
        assert_eq!(now([75, 25]), Settled::Happened);
        assert_eq!(now([95, 5]), Settled::Reissue);
        assert_eq!(now([50, 50]), Settled::Conflict);
    }

    #[test]
    fn a_write_to_several_routes_has_happened_once_it_has_on_all_of_them() {
        let header = header();
        let before = Weights::of([("stable", 95), ("canary", 5)]);
        let doubt = |canary: u32| InDoubt {
            seq: 4,
            at: 0,
            by: crate::journal::Actor::Strategy,
            call: Call::SetWeights {
                weights: Weights::of([("stable", 100 - canary), ("canary", canary)]),
            },
            before: before.clone(),
        };
        let other = |canary: u32, amiss: Option<&str>| OtherRoute {
            route: "b".to_owned(),
            place: "HTTPS:443".to_owned(),
            weights: Weights::of([("stable", 100 - canary), ("canary", canary)]),
            amiss: amiss.map(ToOwned::to_owned),
        };
        let now = |own: u32, others: Vec<OtherRoute>| Traffic {
            others,
            ..live([100 - own, own], ["v1", "v2"], [1, 1]).traffic()
        };
        let raise = doubt(25);
        assert!(raises(&header, &raise) && !raises(&header, &doubt(0)));
        for (own, other_has, settled) in [
            (25, other(25, None), Settled::Happened),
            (25, other(5, None), Settled::Reissue),
            (5, other(25, None), Settled::Reissue),
            (5, other(5, None), Settled::Reissue),
            (25, other(60, None), Settled::Conflict),
            (60, other(25, None), Settled::Conflict),
            (25, other(25, Some("it forwards to x")), Settled::Conflict),
        ] {
            let live = now(own, vec![other_has]);
            assert_eq!(settle_traffic(&raise, &live), settled, "{live:?}");
        }
        // A route that is gone has no users who would have to go back.
        let mut gone = other(0, Some("it does not exist any more"));
        gone.weights = Weights::of([("stable", 0), ("canary", 0)]);
        let back = doubt(0);
        let settled = |others| settle_traffic(&back, &now(0, others));
        assert_eq!(settled(vec![gone.clone()]), Settled::Happened);
        // What could not be read is not known to be back.
        gone.weights = Weights::default();
        assert_eq!(settled(vec![gone]), Settled::Conflict);
        let strays = other(50, Some("it forwards to x"));
        assert_eq!(settled(vec![strays]), Settled::Conflict);
    }

    #[test]
    fn no_way_ends_before_every_route_is_there() {
        let header = header();
        let mut live = live([100, 0], ["v1", "v2"], [1, 1]);
        live.others.push(OtherRoute {
            route: "b".to_owned(),
            place: "HTTPS:443".to_owned(),
            weights: Weights::of([("stable", 95), ("canary", 5)]),
            amiss: None,
        });
        assert_eq!(finish(Goal::RollBack, &header, &live), set(100, 0));
        live.others[0].weights = Weights::of([("stable", 1), ("canary", 0)]);
        assert_eq!(finish(Goal::RollBack, &header, &live), Step::Done);
        live.others[0].weights = Weights::of([("stable", 0), ("canary", 1)]);
        live.arms[0].weight = 0;
        live.arms[1].weight = 100;
        assert!(matches!(
            finish(Goal::RollBack, &header, &live),
            Step::Do(_)
        ));
    }

    #[test]
    fn tasks_that_somebody_added_are_not_taken_from_users() {
        let doubt = InDoubt {
            seq: 4,
            at: 0,
            by: crate::journal::Actor::Host,
            call: Call::SetTasks {
                arm: "canary".to_owned(),
                tasks: 4,
            },
            before: Weights::of([("stable", 50), ("canary", 50)]),
        };
        let now = |canary: u32, tasks: u32| {
            let mut live = live([100 - canary, canary], ["v1", "v2"], [1, 1]);
            live.arms[1].tasks = Some(tasks);
            settle(&doubt, &live)
        };
        assert_eq!(now(50, 4), Settled::Happened);
        assert_eq!(now(50, 7), Settled::Happened);
        assert_eq!(now(50, 2), Settled::Reissue);
        assert_eq!(now(0, 7), Settled::Reissue);
    }

    #[test]
    fn abort_wins_in_every_state_and_odd_commands_are_ignored() {
        let header = header();
        let signal = |name: &str| Signal {
            id: format!("{name}-1"),
            name: name.to_owned(),
            actor: "ada".to_owned(),
            payload: String::new(),
            until: None,
        };
        let mut status = Status::new(&header);
        let holds = [
            None,
            Some(Hold::Deadline),
            Some(Hold::Asked {
                actor: "bob".to_owned(),
            }),
        ];
        for hold in holds {
            status.hold = hold;
            let next = next_move(
                &header,
                &status,
                &[signal("pause"), signal("abort")],
                None,
                0,
            );
            let expected = if status.hold.is_some() { "pause-1" } else { "" };
            match next {
                Move::Record(Event::Ignored { signal, .. }) => assert_eq!(signal, expected),
                Move::Record(Event::Held { .. }) => assert_eq!(expected, ""),
                other => panic!("{other:?}"),
            }
            assert!(matches!(
                next_move(&header, &status, &[signal("abort")], None, 0),
                Move::Record(Event::Decided {
                    goal: Goal::RollBack,
                    ..
                })
            ));
        }
    }
}
