//! The target of a stack that is being changed: no rollout can begin there, commands
//! are obeyed, and every write of its traffic is journaled.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{POLL_MS, Result};
use crate::journal::{Header, StackVerb, Work};
use crate::model::aws::{Access, AwsSpec, Find, looked_for};
use crate::model::target::TargetSpec;
use crate::model::{End, ErrorKind, HostError, Millis, Naming, Observed, Weights};
use crate::ops::Error;
use crate::ops::advice::{Advice, Ask, Input};
use crate::ops::app::App;
use crate::ops::begin::{busy_with, by_hand};
use crate::ops::home::home_known;
use crate::ops::news::Note;
use crate::rollout::change::{Changing, GivenBack, Heard};
use crate::rollout::roles::roles;
use crate::rollout::{Options, RolloutError};
use crate::store::StoreError;
use crate::target::Target as _;
use crate::target::aws::AwsTarget;
use crate::target::aws::stack::{self, Change, ChangeSet};

/// How old the last look at the traffic may be when CloudFormation is told, ms.
const LOOK_AGE_MAX_MS: Millis = 1_000;
/// How often it is looked at once more, if each answer is too old once it comes.
const LOOKS_MAX: u32 = 3;

/// Which stack is changed, and how.
pub(super) struct Taken<'a> {
    pub(super) access: &'a Access,
    pub(super) stack: &'a str,
    /// Its ARN: no stack of that name in another account is this one.
    pub(super) id: &'a str,
    pub(super) change: StackVerb,
    /// Whether to go on if the target cannot be found.
    pub(super) unknown_is_fine: bool,
    /// The stack may move the traffic.
    pub(super) accepts: bool,
    /// Remember the whole action of the route, to give it back.
    pub(super) whole: bool,
}

/// A change of a stack that this process makes, with the target that it occupies.
pub(super) struct Held {
    changing: Changing,
    pub(super) target: Arc<AwsTarget>,
    what: String,
    /// The whole action of the route before the change, as JSON.
    action: Option<serde_json::Value>,
    /// What the change set does to the route, if it does anything.
    route: Option<Change>,
    stack: String,
}

/// The target with the routes that have the weights of its own one now: these stay where
/// they are. What the others have is not known by one set of weights, so they are left to
/// whoever set it, and a person is told.
async fn together(app: &App, spec: &AwsSpec, target: Arc<AwsTarget>) -> Result<Arc<AwsTarget>> {
    let mut found = target.found().clone();
    if found.also.is_empty() && found.unmoved.is_empty() {
        return Ok(target);
    }
    let live = target.traffic().await?;
    let apart: Vec<String> = live
        .apart()
        .map(ToString::to_string)
        .chain(found.unmoved.iter().map(|unmoved| {
            format!(
                "{} shares its requests with a third target group",
                unmoved.place
            )
        }))
        .collect();
    if apart.is_empty() {
        return Ok(target);
    }
    app.note(format!(
        "{}: nobody looks after that while the stack changes, because only routes that have the weights of the target's own one are ({})",
        apart.join("; "),
        live.weights.shares()
    ));
    let stays = |route: &str| live.apart().all(|other| other.route != route);
    found.also.retain(|also| stays(&also.route));
    found.unmoved.clear();
    let found = Some(found);
    let pinned = AwsSpec {
        found,
        ..spec.clone()
    };
    Ok(app.ports.on_aws(&pinned).await?)
}

impl Held {
    /// Occupies the stack's target. `None` if no target can be found and the change may
    /// go on without one.
    pub(super) async fn take(app: &App, taken: Taken<'_>) -> Result<Option<Self>> {
        let find = Find {
            stack: Some(taken.stack.to_owned()),
            ..Find::default()
        };
        let spec = looked_for(taken.access.clone(), find);
        refuse_with_a_rollout_on(app, &taken).await?;
        let target = match app.ports.find_on_aws(&spec).await {
            Ok(target) => together(app, &spec, target).await?,
            Err(error)
                if error.code == "no-listener"
                    || taken.unknown_is_fine && cannot_be_understood(&error) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let error = Error::from(error).context(
                    "the live weights cannot be read, so the stack could not be told to keep them",
                );
                return Err(error.give(Input::AcceptWeights, "does it all the same"));
            }
        };
        let header = header(app, &taken, &spec, &target);
        let driver = app.driver(Options::default());
        let begun = driver.begin_change(header, target.clone()).await;
        let changing = match begun {
            Ok(changing) => changing,
            Err(RolloutError::Store(StoreError::Busy(busy))) => {
                return Err(busy_with(app, &busy.rollout).await);
            }
            Err(error) => return Err(error.into()),
        };
        let mut held = Self {
            changing,
            target,
            what: format!("{} of the stack {}", taken.change, taken.stack),
            action: None,
            route: None,
            stack: taken.stack.to_owned(),
        };
        if taken.whole {
            let action = held.target.action().await;
            match action.and_then(|action| action.written()) {
                Ok(action) => held.action = Some(action),
                Err(error) => {
                    let error = Error::from(error);
                    held.end(Err(&error), &Ok(())).await?;
                    return Err(error);
                }
            }
        }
        Ok(Some(held))
    }

    /// The weights that people want.
    pub(super) fn weights(&self) -> &Weights {
        self.changing.weights()
    }

    /// Keeps the lease, and takes the traffic back if a person asks for it, because that
    /// must not wait for a stack.
    pub(super) async fn attend(&mut self, app: &App) -> Result<()> {
        for heard in self.changing.attend().await? {
            app.progress(match heard {
                Heard::TookBack { actor, to } => format!("  {actor} took the traffic to {to}"),
                Heard::Refused { actor, to, why } => {
                    format!("  {actor} asked for all traffic on {to}, which was refused: {why}")
                }
                Heard::TookAgain { to, from } => {
                    format!("  the stack moved the traffic to {from}; it is at {to} again")
                }
                Heard::HeldThere { at, from } => {
                    format!("  the stack moved the traffic to {from}; it is back at {at}")
                }
                Heard::LeftThere(now) => format!(
                    "  the traffic was moved to {now}, and it is not certain that the stack did that: it stays there"
                ),
                Heard::GaveUp(now) => format!(
                    "  something moved the traffic to {now} again and again; it stays there until the stack is done"
                ),
                Heard::InDoubt(why) => format!("  {why}; looks again soon"),
            });
        }
        Ok(())
    }

    /// Must be called right before CloudFormation is asked to change the stack: obeys
    /// commands, proves the lease, and checks that the traffic is where it was when the
    /// change set was made. That comes last and is not older than a second: nobody else
    /// knows that the stack is about to write.
    pub(super) async fn ready(&mut self, app: &App, made_for: Option<&Weights>) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            self.attend(app).await?;
            self.changing.prove().await?;
            let Some(made_for) = made_for else {
                return Ok(());
            };
            let asked = app.clock.now();
            let now = self.target.traffic().await?;
            if now.weights != *made_for || now.apart().next().is_some() {
                return Err(Error::busy(format!(
                    "another writer moved the traffic meanwhile: it was {}, and is {}",
                    made_for.shares(),
                    now.shares()
                )));
            }
            if app.clock.now().saturating_sub(asked) <= LOOK_AGE_MAX_MS {
                return Ok(());
            }
        }
        Err(Error::busy(format!(
            "the load balancer takes longer than {} s to say where the traffic is, so nobody knows over what the stack would write",
            LOOK_AGE_MAX_MS / 1_000
        ))
        .hint("try again in a moment"))
    }

    /// Whether all traffic is where a way back would go: what the stack writes of that undoes
    /// none.
    pub(super) async fn is_home(&self, app: &App, live: &Observed) -> bool {
        let live = live.traffic();
        let home = home_known(app, self.target.identity(), &live).await;
        home.is_some_and(|home| live.all_on(&home))
    }

    /// What a person must know of a stack that is about to write shares to a route: what
    /// somebody does there in the same moment is written over, and nobody sees it.
    pub(super) fn may_overwrite(&self, live: &Observed) -> Option<String> {
        let weights = live.weights();
        let several = weights.0.iter().filter(|w| w.weight > 0).count() > 1;
        let route = self.route.as_ref().filter(|_| several)?;
        Some(format!(
            "the stack writes {} to {} now, because it changes something else there: a rollback that another folder makes within these seconds would be undone by that; here it is obeyed",
            weights.shares(),
            route.logical_id
        ))
    }

    /// How often to look after the traffic, ms: more often where the stack writes weights, so
    /// that what somebody does before that is seen.
    pub(super) fn poll_ms(&self) -> u64 {
        match self.route {
            Some(_) => 500,
            None => POLL_MS,
        }
    }

    /// Notes that CloudFormation is told now to execute that change set, which was made
    /// with these parameters.
    pub(super) fn tell(&mut self, parameters: &BTreeMap<String, String>, set: &ChangeSet) {
        let arms = self.target.found().arms.iter().map(|arm| arm.name.as_str());
        self.changing.tell(stack::believed(parameters, arms));
        let changes = set.changes.iter().filter(|c| c.rewrites_a_route());
        let written: Vec<&Change> = changes.collect();
        let routes = written.iter().map(|c| c.physical_id.clone());
        self.changing.rewrites(routes.collect());
        let route = self.target.identity();
        let own = written.into_iter().find(|c| c.physical_id == route);
        self.route = own.cloned();
    }

    /// Notes that CloudFormation is told now to delete the stack.
    pub(super) fn tell_to_delete(&mut self) {
        self.changing.tell(None);
    }

    /// Whether CloudFormation is certainly not at work on the stack: it was never told,
    /// or it is done.
    pub(super) async fn stack_rests(&self) -> bool {
        if !self.changing.was_told() {
            return true;
        }
        let now = self.target.stack(&self.stack).await;
        now.is_ok_and(|stack| stack.is_none_or(|stack| stack.at_work.is_none()))
    }

    /// Leaves the change to whoever goes on with it, because CloudFormation does and
    /// this process cannot. Returns the error that says so.
    pub(super) async fn left_at_work(self, error: &Error) -> Error {
        let rollout = self.changing.rollout().to_owned();
        let error = error.clone();
        match self.changing.leave().await {
            Ok(()) => error
                .context("CloudFormation may be changing the stack, and nobody watches it now")
                .ask(
                    Ask::Resume(rollout),
                    "watches it, and takes the traffic back if the stack moves it",
                ),
            Err(lost) => Error::from(lost).context(error.message),
        }
    }

    /// Whether the live action of the route is what the stack can have made of it: the
    /// change set, or the rollback to what was before. What else is there, somebody has
    /// put there.
    async fn is_of_the_stack(&self) -> bool {
        let Some(route) = &self.route else {
            return false;
        };
        let Ok(live) = self.target.action().await else {
            return true;
        };
        let made = |told: &Option<serde_json::Value>| match told {
            Some(told) => live.lost(told, false).is_none(),
            None => live.only_forwards(),
        };
        made(&route.after) || made(&route.before)
    }

    /// Accepts or restores the traffic once the stack is done. A command that came
    /// meanwhile takes precedence over weights that were accepted before.
    pub(super) async fn settle(&mut self, app: &App, accepts: bool) -> Result<()> {
        self.attend(app).await?;
        if !self.changing.was_told() {
            return Ok(());
        }
        if accepts && !self.changing.was_taken_back() {
            let live = self.changing.accept(&app.actor).await?;
            for other in live.apart() {
                app.note(other.to_string());
            }
            return Ok(());
        }
        self.mend(app).await
    }

    /// Leaves the stack to CloudFormation, and returns the rollout that a person can
    /// resume.
    pub(super) async fn leave(self) -> Result<String> {
        let rollout = self.changing.rollout().to_owned();
        self.changing.leave().await?;
        Ok(rollout)
    }

    /// Restores the traffic, if the stack has moved it: a failed update goes back to its
    /// former parameters. The rest of the action is restored too, if it was kept.
    async fn mend(&mut self, app: &App) -> Result<()> {
        let belongs = self.weights().shares();
        let mut action = self.action.take();
        if let Some(before) = &action
            && self.target.does(before).await.is_ok_and(|does| !does)
            && !self.is_of_the_stack().await
        {
            app.note("somebody changed the action of the listener or rule while the stack changed: it stays, and only its weights are looked after");
            action = None;
        }
        match self.changing.give_back(action.as_ref()).await {
            Ok(GivenBack::AsBefore) => Ok(()),
            Ok(GivenBack::Back { from, now }) => {
                app.note(format!(
                    "the stack moved the traffic to {from}; it is back at {}",
                    now.shares()
                ));
                let note = Note::from("versions may have gone back too");
                app.note(note.advise(Advice::ask(Ask::Status, "shows them")));
                Ok(())
            }
            Ok(GivenBack::Elsewhere { now, belonged, .. }) if now.apart().next().is_some() => {
                Err(Error::rollback(format!(
                    "while the stack changed, some of the routes were moved, and it is not certain that the stack did that: they stay where they are, and the traffic is at {} (it was {})",
                    now.shares(),
                    belonged.shares()
                ))
                .ask(Ask::MoveTraffic, "brings them together")
                .ask(Ask::TakeBack, "takes all traffic of all of them to one arm"))
            }
            Ok(GivenBack::Elsewhere {
                now, foreign: true, ..
            }) => {
                app.note(format!(
                    "somebody moved the traffic to {} while the stack changed, and not the stack did: it stays there",
                    now.shares()
                ));
                Ok(())
            }
            Ok(GivenBack::Elsewhere { now, belonged, .. }) => {
                app.note(format!(
                    "the traffic went back to {} while the stack changed; a person or the stack did that, so it stays there (it was {} before)",
                    now.shares(),
                    belonged.shares()
                ));
                Ok(())
            }
            Ok(GivenBack::Refused { from, now, why }) => Err(Error::rollback(format!(
                "the stack moved the traffic to {from}, and it could not be brought back to {belongs}: {why}; it is at {now}"
            ))
            .ask(Ask::MoveTraffic, "moves it")),
            Err(RolloutError::Target(error)) => Err(Error::from(error).context(format!(
                "where the traffic is now could not be read; it was {belongs}"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes how the change ended, and leaves the target.
    pub(super) async fn end(
        self,
        done: std::result::Result<&str, &Error>,
        traffic: &Result<()>,
    ) -> Result<()> {
        let short = |error: &Error| {
            let whole = error.to_string();
            let first = whole.split("\n\n").next();
            first.unwrap_or_default().to_owned()
        };
        let what = &self.what;
        let (end, reason) = match (done, traffic) {
            (_, Err(error)) => (End::RollbackFailed, format!("{what}: {}", short(error))),
            (Err(error), Ok(())) => (End::Refused, format!("{what}: {}", short(error))),
            (Ok(words), Ok(())) => (End::Done, format!("{what}: {words}")),
        };
        Ok(self.changing.end(end, reason).await?)
    }
}

/// Whether the answers of AWS were read and are not those of a target. What could not
/// be read may well be a target with users.
fn cannot_be_understood(error: &HostError) -> bool {
    let read = matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound);
    read && !error.retryable
}

/// Whether two regions are one as far as is said: one that is left out comes from the
/// surroundings.
fn may_be_one(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Whatever can be read of a stack: a rollout that goes by its name is under way there.
async fn refuse_with_a_rollout_on(app: &App, taken: &Taken<'_>) -> Result<()> {
    for open in app.open_rollouts().await? {
        let header = app.store.header(&open.summary.rollout).await;
        let Ok(Some(header)) = header else { continue };
        let TargetSpec::Aws(spec) = &header.target else {
            continue;
        };
        let same = spec.find.stack.as_deref() == Some(taken.stack)
            && may_be_one(
                spec.access.region.as_deref(),
                taken.access.region.as_deref(),
            )
            && !matches!(header.work, Work::StackChange { .. });
        if same {
            return Err(busy_with(app, &header.rollout).await);
        }
    }
    Ok(())
}

fn header(app: &App, taken: &Taken<'_>, spec: &AwsSpec, target: &AwsTarget) -> Header {
    let found = target.found();
    let pinned = AwsSpec {
        found: Some(found.clone()),
        find: Find {
            stack: Some(taken.id.to_owned()),
            ..spec.find.clone()
        },
        ..spec.clone()
    };
    let names: Vec<String> = found.arms.iter().map(|a| a.name.clone()).collect();
    let naming = Naming::of(names.iter().map(String::as_str));
    by_hand(
        app,
        (TargetSpec::Aws(Box::new(pinned)), target),
        taken.change,
        roles(&names, naming.stable().unwrap_or_default()),
        // The weights are read under the lease.
        Weights::default(),
        Work::StackChange {
            stack: taken.stack.to_owned(),
            change: taken.change,
            actor: app.actor.clone(),
            accepts: taken.accepts,
        },
    )
}
