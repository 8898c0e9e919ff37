//! The way to an end: a promotion, or the way back. Step by step, from what is live.

use std::sync::Arc;

use super::WRITES_MAX;
use super::driver::Driver;
use super::look::{identify, look_elsewhere, unseen, without_health};
use super::recovery::{self, Step};
use super::session::{Checks, Interrupt, Session};
use crate::journal::{Actor, Call, Event, Reply, Work};
use crate::model::{Decider, Deployment, Elsewhere, End, Goal, Hold, Millis, Observed, Role};
use crate::store::Durability;
use crate::target::Target;

/// How long the target of a verb counts as found just now, ms: a verb that is gone on with
/// later looks for the routes that came since.
const FOUND_JUST_NOW_MS: Millis = 60_000;

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
    /// Whether the stable arm was given tasks on this way.
    started: bool,
    /// Of tasks that it was given: why they may not run the image that served, if so.
    doubt: Option<String>,
    /// Why it is not known how many tasks there are, if the traffic is home and it is not.
    unseen: Option<String>,
    /// The routes that came during the rollout, once they were looked for.
    came: Option<Came>,
}

/// Routes that a rollout was not pinned to, and that have users on its candidate.
#[derive(Default)]
struct Came {
    /// The target as it is pinned, while these routes go back with the others.
    pinned: Option<Arc<dyn Target>>,
    /// What people call them.
    places: String,
    /// What became of them, for the reason of the end.
    fate: String,
}

impl Came {
    fn note(&mut self, fate: &str) {
        let separator = if self.fate.is_empty() { "" } else { "; " };
        self.fate.extend([separator, fate]);
    }

    /// Goes on without them.
    fn leave(&mut self, session: &mut Session, why: &Hold) -> bool {
        let Some(pinned) = self.pinned.take() else {
            return false;
        };
        session.target = pinned;
        session.unproven = false;
        let fate = format!(
            "{} came during the rollout and could not be taken back: {why}",
            self.places
        );
        self.note(&fate);
        true
    }
}

impl Way {
    /// Whether an error is one of routes that came during the rollout, which are left then:
    /// they must not keep the others from their end.
    fn leaves<T>(&mut self, session: &mut Session, result: &Result<T, Interrupt>) -> bool {
        match (result, &mut self.came) {
            (Err(Interrupt::Held(hold)), Some(came)) => came.leave(session, hold),
            _ => false,
        }
    }

    /// How long a target that does not answer is asked, ms: not for routes that came during
    /// the rollout, because the others are back.
    fn patience_now(&self) -> Millis {
        match self.is_with_others() {
            true => 0,
            false => self.patience,
        }
    }

    /// Whether routes that came during the rollout are on their way back.
    fn is_with_others(&self) -> bool {
        self.came.as_ref().is_some_and(|came| came.pinned.is_some())
    }
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
            let live = self.look_on_the_way(session, &mut way).await;
            if way.leaves(session, &live) {
                continue;
            }
            let live = live?;
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
                // Then it looks once more.
                Step::Done if self.outwait(session).await? => {}
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
                    write_down(session, &live).await?;
                    if goal == Goal::Promote && session.needs_attention().await? {
                        return Err(Interrupt::Attention);
                    }
                    if goal == Goal::RollBack && self.take_along(session, &mut way).await? {
                        continue;
                    }
                    if goal == Goal::RollBack && way.started {
                        way.doubt = self.doubt_what_was_started(session).await?;
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
                Step::Do(call) => {
                    let done = self.go(session, &mut way, call, &live).await;
                    if !way.leaves(session, &done) {
                        done?;
                    }
                }
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
            started: false,
            doubt: None,
            unseen: None,
            came: None,
        }
    }

    /// Once all routes that the rollout is pinned to are back: looks for those that came
    /// since and have users on the candidate, so that they go back too. True if there are
    /// some. What cannot be read or moved is left to the reason of the end.
    async fn take_along(&self, session: &mut Session, way: &mut Way) -> Result<bool, Interrupt> {
        let header = session.header.clone();
        let stable = header.arm(Role::Stable);
        // Its target was found a moment ago, and what was left out then is an error there.
        let age = self.clock.now().saturating_sub(header.created);
        if matches!(header.work, Work::Verb { .. }) && age < FOUND_JUST_NOW_MS {
            return Ok(false);
        }
        if let Some(came) = &mut way.came {
            if came.pinned.is_some() {
                let fate = format!("{} came during the rollout and went back too", came.places);
                came.note(&fate);
            }
            return Ok(false);
        }
        let came = way.came.insert(Came::default());
        let left = Elsewhere::left_behind(&session.status.elsewhere, stable);
        let left: Vec<&str> = left.map(|route| route.route.as_str()).collect();
        // Where that could not be read, whatever shares users between the two groups may
        // have been left.
        let unread = session.status.elsewhere_unread.is_some();
        if left.is_empty() && !unread {
            return Ok(false);
        }
        let mut along = vec![];
        let found = async {
            for also in self.resolve.newcomers(&header.target, stable).await? {
                if !unread && !left.contains(&also.route.as_str()) {
                    continue;
                }
                // Another rollout has it, and its users are on its way.
                match self.store.occupant(&also.route).await {
                    Ok(Some(busy)) if busy.rollout != header.rollout => {
                        came.note(&format!("{} is moved by {}", also.place, busy.rollout));
                    }
                    _ => along.push(also),
                }
            }
            match along.is_empty() {
                true => Ok(None),
                false => self
                    .resolve
                    .target(&header.target.with(&along))
                    .await
                    .map(Some),
            }
        };
        let target = match found.await {
            Ok(Some(target)) => target,
            Ok(None) => return Ok(false),
            Err(error) => {
                came.note(&format!(
                    "routes that came during the rollout could not be read: {error}"
                ));
                return Ok(false);
            }
        };
        let places: Vec<&str> = along.iter().map(|also| also.place.as_str()).collect();
        came.places = places.join(" and ");
        came.pinned = Some(std::mem::replace(&mut session.target, target));
        session.unproven = true;
        let said = format!("takes {} back too, where users came later", came.places);
        self.say(session, &said);
        Ok(true)
    }

    async fn look_on_the_way(
        &self,
        session: &mut Session,
        way: &mut Way,
    ) -> Result<Observed, Interrupt> {
        if way.goal == Goal::RollBack && session.status.given.is_none() {
            let live = self.glance(session, way.patience_now()).await?;
            return self.with_tasks(session, way, live).await;
        }
        self.observe(session, way.patience_now()).await
    }

    /// Adds what a glance could not read although the traffic is home: how many tasks there
    /// are. It tries a few times, because the candidate would keep for ever what it was given.
    async fn with_tasks(
        &self,
        session: &mut Session,
        way: &mut Way,
        live: Observed,
    ) -> Result<Observed, Interrupt> {
        let header = &session.header;
        let home = live.traffic().all_on(header.arm(Role::Stable));
        if !home || header.capacity.is_none() {
            return Ok(live);
        }
        if live.arms.iter().any(|arm| arm.tasks.is_some()) {
            way.unseen = None;
            return Ok(live);
        }
        if way.unseen.is_some() {
            return Ok(live);
        }
        for attempt in 1..self.options.attempts.max(2) {
            self.pause(self.options.pause_after(attempt)).await;
            session.keep_lease().await?;
            match session.target.observe().await {
                Ok(all) => {
                    way.unseen = None;
                    return Ok(all);
                }
                Err(error) => {
                    way.unseen = Some(error.to_string());
                    if !error.retryable {
                        break;
                    }
                }
            }
        }
        Ok(live)
    }

    /// What the plan says, but for tasks that are not worth it.
    fn next_step(&self, session: &Session, way: &Way, live: &Observed) -> Step {
        let (header, status) = (&session.header, &session.status);
        // What a read says of routes to which nothing was written is no proof.
        let stable = header.arm(Role::Stable);
        if session.unproven && live.traffic().all_on(stable) {
            return Step::Do(Call::SetWeights {
                weights: live.weights().all_to(stable),
            });
        }
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

    /// The traffic is back, and the stable arm was given tasks that it lacked: why they may
    /// not run the image that served when the rollout began, if so. Its name may mean another
    /// one by now, and no release is replaced under users, so a person is told. Tasks that
    /// start have the time that an arm has to become healthy to say what they run.
    async fn doubt_what_was_started(
        &self,
        session: &mut Session,
    ) -> Result<Option<String>, Interrupt> {
        let header = session.header.clone();
        let stable = header.arm(Role::Stable);
        let ran = header.running.iter().find(|seen| seen.arm == stable);
        let (Some(ran), Some(was)) = (ran, header.digest_of(Role::Stable)) else {
            return Ok(None);
        };
        if ran.is_by_digest() {
            return Ok(None);
        }
        let name = &ran.release.version;
        let patience = header.guardrails.healthy_timeout_ms;
        let give_up = self.clock.now().saturating_add(patience);
        loop {
            session.keep_lease().await?;
            let target = session.target.clone();
            let read = tokio::join!(target.observe(), target.digests(stable));
            let unsure = match read {
                (Ok(live), Ok(images)) => {
                    let arm = live.arm(stable);
                    // Somebody else has deployed to it, who knows what it is.
                    let Some(arm) = arm.filter(|arm| ran.release.is(&arm.release)) else {
                        return Ok(None);
                    };
                    let others = images.digests.iter().filter(|digest| *digest != was);
                    let others: Vec<&str> = others.map(String::as_str).collect();
                    if !others.is_empty() {
                        let former = ran.release.by_digest(was).map(|by| by.version);
                        return Ok(Some(format!(
                            "tasks of {stable} that were started for its traffic run {}, and {was} is what it ran when the rollout began: the name {name} was pushed again, and nobody has judged that image; deploy {} to {stable} to have the former one",
                            others.join(" and "),
                            former.as_deref().unwrap_or(was),
                        )));
                    }
                    if arm.deployment == Deployment::Steady && images.silent == 0 {
                        return Ok(None);
                    }
                    format!("not all tasks of {stable} said which image they run")
                }
                (Err(error), _) | (_, Err(error)) => {
                    let why = recovery::unread_image(stable, &error);
                    if !error.retryable {
                        return Ok(Some(why));
                    }
                    why
                }
            };
            if self.clock.now() >= give_up {
                return Ok(Some(format!(
                    "{unsure}; {was} is what served when the rollout began, and the name {name} may mean another one by now"
                )));
            }
            self.pause(session.poll_ms()).await;
        }
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
                session.hold_new_scaling().await?;
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
        let patient = self.clock.now() < way.give_up && !way.is_with_others();
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
                let stable = session.header.arm(Role::Stable);
                way.started |= matches!(&call, Call::SetTasks { arm, .. } if arm == stable);
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
                let before = (live.traffic(), self.clock.now());
                let health = Some(Ok(live.health()));
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

/// Writes down where the traffic was read, and what other routes send.
async fn write_down(session: &mut Session, live: &Observed) -> Result<(), Interrupt> {
    let evidence = Event::Exchanged {
        by: Actor::Host,
        call: Call::GetWeights,
        reply: Reply::Weights(live.weights()),
    };
    session.append(evidence, Durability::Process).await?;
    Ok(look_elsewhere(session).await?)
}

/// Writes down that the rollout has ended.
async fn arrive(session: &mut Session, way: Way, live: &Observed) -> Result<(), Interrupt> {
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
    if let (Some(why), Some(capacity)) = (&way.unseen, &session.header.capacity) {
        let (candidate, had) = (session.header.arm(Role::Candidate), capacity.idle);
        let noted = format!(
            " (how many tasks {candidate} has could not be read, so it may keep more than the {had} that it had before: {why})"
        );
        reason.push_str(&noted);
    }
    if way.goal == Goal::RollBack
        && let Some(error) = session.went_without_health()
    {
        reason.extend([" (", &without_health(error), ")"]);
    }
    if let Some(doubt) = &way.doubt {
        reason.extend([" (", doubt.as_str(), ")"]);
    }
    if let Some(came) = way.came.as_ref().filter(|came| !came.fate.is_empty()) {
        reason.extend([" (", came.fate.as_str(), ")"]);
    }
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
