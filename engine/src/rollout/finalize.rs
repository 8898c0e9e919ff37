//! The way to an end: a promotion, or the way back. Step by step, from what is live.

use super::WRITES_MAX;
use super::driver::Driver;
use super::look::{identify, look_elsewhere, unseen};
use super::recovery::{self, Step};
use super::session::{Checks, Interrupt, Session};
use crate::journal::{Actor, Call, Event, Reply};
use crate::model::{Decider, End, Goal, Hold, Millis, Observed, Role};
use crate::store::Durability;

/// A way that is being gone.
struct Way {
    goal: Goal,
    /// How its writes are checked.
    checks: Checks,
    /// How long a target that does not answer is asked, ms.
    patience: Millis,
    /// When that is over, Unix ms; a write that succeeds begins it anew.
    give_up: Millis,
    /// Writes that failed, one after the other.
    failures: u32,
    /// Until when an arm may become healthy, Unix ms; none if no arm is waited for.
    waited_until: Option<Millis>,
    /// Why the number of tasks, or auto scaling, could not be set, if so.
    unscaled: Option<String>,
    /// Whether the number of tasks could not be set.
    untasked: bool,
    /// Whether auto scaling could not be told to do what it did before.
    scaling_lost: bool,
    /// How often tasks were set on this way.
    resized: u32,
}

impl Driver {
    /// Walks to the goal, step by step, from what is live.
    pub(super) async fn finalize(
        &self,
        session: &mut Session,
        goal: Goal,
    ) -> Result<(), Interrupt> {
        let mut way = self.way_to(session, goal);
        let mut first = true;
        loop {
            session.keep_lease().await?;
            let live = self.look_on_the_way(session, &way).await?;
            session.saw(&live.traffic());
            // Tasks may have started since the strategy last raised its traffic, and a person
            // may promote what was never looked at.
            let candidate = session.header.arm(Role::Candidate).to_owned();
            if std::mem::take(&mut first)
                && goal == Goal::Promote
                && session.look_at_the_image(&candidate).await?.is_none()
                && session.status.running(&candidate).is_none()
                && let Some(arm) = live.arm(&candidate)
            {
                identify(session, arm).await?;
            }
            let step = self.next_step(session, &way, &live);
            if !matches!(step, Step::Await { .. }) {
                way.waited_until = None;
            }
            match step {
                Step::Done if self.outwait(session).await? => continue,
                Step::Identify { arm } => match live.arm(&arm) {
                    Some(arm) => {
                        identify(session, arm).await?;
                    }
                    None => return Err(stuck(format!("there is no arm {arm} any more"))),
                },
                Step::Done => {
                    if goal == Goal::Promote
                        && let Some(arm) = serves(session, &live)
                    {
                        session.await_what_was_judged(&arm).await?;
                    }
                    return arrive(session, way, &live).await;
                }
                Step::Await { arm, what } => {
                    self.await_arm(session, &mut way, &arm, &what).await?;
                }
                Step::Bake { until } => self.bake(session, until).await?,
                Step::Failed(reason) if goal == Goal::Promote => {
                    let event = Event::Decided {
                        goal: Goal::RollBack,
                        by: Decider::Promotion,
                        reason,
                        signal: None,
                    };
                    return Ok(session.append(event, Durability::Power).await?);
                }
                Step::Failed(reason) | Step::Stand(reason) => return Err(stuck(reason)),
                Step::Do(call) => self.go(session, &mut way, call, &live).await?,
            }
            if goal == Goal::Promote && session.needs_attention().await? {
                return Err(Interrupt::Attention);
            }
        }
    }

    fn way_to(&self, session: &Session, goal: Goal) -> Way {
        let decision = session.status.decision.as_ref();
        let by_strategy = decision.is_some_and(|d| d.by == Decider::Strategy);
        let patience = match goal {
            // A target that does not answer is no reason to give up on users.
            Goal::RollBack => self.patience(session),
            Goal::Promote => 0,
        };
        Way {
            goal,
            checks: match goal {
                Goal::RollBack => Checks::WayBack,
                Goal::Promote if by_strategy => Checks::All,
                Goal::Promote => Checks::NoGuardrails,
            },
            patience,
            give_up: self.clock.now().saturating_add(patience),
            failures: 0,
            waited_until: None,
            unscaled: None,
            untasked: false,
            scaling_lost: false,
            resized: 0,
        }
    }

    async fn look_on_the_way(
        &self,
        session: &mut Session,
        way: &Way,
    ) -> Result<Observed, Interrupt> {
        if way.goal == Goal::RollBack && session.status.given.is_none() {
            return self.glance(session, way.patience).await;
        }
        self.observe(session, way.patience).await
    }

    /// What the plan says, but for tasks that are not worth it.
    fn next_step(&self, session: &Session, way: &Way, live: &Observed) -> Step {
        let (header, status) = (&session.header, &session.status);
        let mut step = recovery::finalize(way.goal, header, status, live, self.clock.now());
        if matches!(step, Step::Do(Call::SetScaling { .. })) && way.scaling_lost {
            step = recovery::settle_tasks(way.goal, header, live);
        }
        match step {
            // The traffic is where it shall be; a task too many harms nobody.
            Step::Do(Call::SetTasks { .. }) if way.untasked => Step::Done,
            // Nor does it help to set a number that something else sets too.
            Step::Do(Call::SetTasks { .. })
                if status.moves >= WRITES_MAX || way.resized >= WRITES_MAX =>
            {
                Step::Done
            }
            step => step,
        }
    }

    /// Waits for an arm that the way needs, as long as the guardrail allows.
    async fn await_arm(
        &self,
        session: &Session,
        way: &mut Way,
        arm: &str,
        what: &str,
    ) -> Result<(), Interrupt> {
        if way.goal == Goal::RollBack && way.waited_until.is_none() {
            self.say(session, &format!("the way back waits for {arm}: {what}"));
        }
        let Some(seconds) = self.out_of_patience(session, &mut way.waited_until).await else {
            return Ok(());
        };
        let goal = match way.goal {
            Goal::Promote => "the promotion",
            Goal::RollBack => "the way back",
        };
        Err(stuck(format!(
            "{goal} needs {arm}: after {seconds} s {what}"
        )))
    }

    /// Lets the time pass; only signals, guards and the image of what serves matter meanwhile.
    async fn bake(&self, session: &mut Session, until: Millis) -> Result<(), Interrupt> {
        let candidate = session.header.arm(Role::Candidate).to_owned();
        let mut looked = self.clock.now();
        while self.clock.now() < until && !session.needs_attention().await? {
            if self.clock.now().saturating_sub(looked) >= self.options.guard_poll_ms {
                looked = self.clock.now();
                // If it cannot be read this time, it is once the bake is over.
                session.look_at_the_image(&candidate).await?;
                if session.another_image(&candidate).is_some() {
                    return Ok(());
                }
            }
            let look_again = self.clock.now() + session.poll_ms();
            self.clock.sleep_until(until.min(look_again)).await;
        }
        Ok(())
    }

    /// One write of the way. If it fails, there is time for another look, or the way
    /// ends here.
    async fn go(
        &self,
        session: &mut Session,
        way: &mut Way,
        call: Call,
        live: &Observed,
    ) -> Result<(), Interrupt> {
        if session.status.moves >= WRITES_MAX && !call.sizes() {
            return Err(stuck(format!(
                "{} writes have not brought the traffic where it belongs, and {call} would be one more: something else writes to this target, or undoes what is written",
                session.status.moves
            )));
        }
        // The way back restores what users had, and asks nobody.
        if way.goal == Goal::Promote
            && let Err(error) = unseen(session, &call).await
        {
            return Err(stuck(error.to_string()));
        }
        let patient = self.clock.now() < way.give_up;
        match self
            .write_on_the_way(session, way, call.clone(), live)
            .await
        {
            Ok(Reply::Failed(error)) if call.sizes() => {
                match &call {
                    Call::SetScaling { .. } => way.scaling_lost = true,
                    _ => way.untasked = true,
                }
                let why = format!(" ({call} failed: {error})");
                way.unscaled.get_or_insert_default().push_str(&why);
                Ok(())
            }
            Ok(_) if call.sizes() => {
                way.resized += 1;
                Ok(())
            }
            Ok(Reply::Failed(error)) => {
                way.failures += 1;
                let why = format!("{call} failed: {error}");
                let again = error.retryable && way.failures < self.options.attempts;
                if !again && !patient {
                    return Err(stuck(why));
                }
                self.try_again(session, way.failures, &why).await
            }
            // It made progress, so its time begins anew.
            Ok(_) => {
                way.failures = 0;
                way.give_up = self.clock.now().saturating_add(way.patience);
                Ok(())
            }
            // Written or not, nobody can tell yet: look again.
            Err(Interrupt::Held(hold)) if patient => {
                way.failures += 1;
                self.try_again(session, way.failures, &hold.to_string())
                    .await
            }
            Err(interrupt) => Err(interrupt),
        }
    }

    async fn write_on_the_way(
        &self,
        session: &mut Session,
        way: &Way,
        call: Call,
        live: &Observed,
    ) -> Result<Reply, Interrupt> {
        match way.goal {
            // It was looked at a moment ago, and users wait.
            Goal::RollBack => {
                let (before, health) = (live.traffic(), Some(Ok(live.health())));
                session
                    .write_over(Actor::Host, call, way.checks, before, health)
                    .await
            }
            Goal::Promote => session.write(Actor::Host, call, way.checks).await,
        }
    }
}

/// The arm that serves at the end of a promotion, if it must run what was judged: the
/// candidate, or the stable arm once it was given the new release.
fn serves(session: &Session, live: &Observed) -> Option<String> {
    let candidate = session.header.arm(Role::Candidate);
    let weights = live.weights();
    let arm = match weights.share(candidate) > 0.0 {
        true => candidate,
        false => {
            session.status.given.as_ref()?;
            session.header.arm(Role::Stable)
        }
    };
    Some(arm.to_owned())
}

/// Writes down where the traffic was read, and that the rollout has ended.
async fn arrive(session: &mut Session, way: Way, live: &Observed) -> Result<(), Interrupt> {
    let evidence = Event::Exchanged {
        by: Actor::Host,
        call: Call::GetWeights,
        reply: Reply::Weights(live.weights()),
    };
    session.append(evidence, Durability::Process).await?;
    look_elsewhere(session).await?;
    if way.goal == Goal::Promote {
        // Who undoes it later sees whether it is still what serves.
        let weights = live.weights();
        let serving = live.arms.iter().find(|arm| weights.share(&arm.name) > 0.0);
        if let Some(arm) = serving {
            identify(session, arm).await?;
        }
    }
    let end = match way.goal {
        Goal::Promote => End::Promoted,
        Goal::RollBack => End::RolledBack,
    };
    let decision = session.status.decision.as_ref();
    let mut reason = decision.map_or_else(String::new, |d| d.reason.clone());
    reason.push_str(way.unscaled.as_deref().unwrap_or(""));
    if way.goal == Goal::Promote
        && let Some(by_name) = recovery::by_name_alone(&session.header, &session.status)
    {
        reason.extend([" (", by_name.as_str(), ")"]);
    }
    let ended = Event::Ended { end, reason };
    Ok(session.append(ended, Durability::Power).await?)
}

fn stuck(reason: String) -> Interrupt {
    Interrupt::Held(Hold::Stuck { reason })
}
