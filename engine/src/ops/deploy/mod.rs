//! `deploy` and `delete`: create, update and delete stacks without moving the
//! traffic.
//!
//! A change of a stack that has a target is a rollout of its own
//! ([`crate::journal::Work::StackChange`]): [`held`] keeps its journal, obeys
//! commands and restores the traffic. [`checks`] says what a change may do, and
//! [`parameters`] collects the template and its parameters.

mod checks;
mod held;
mod parameters;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::advice::Input;
use super::app::App;
use super::begin::new_id_part;
use super::error::{Error, Result};
use super::request::TargetRequest;
use crate::journal::StackVerb;
use crate::model::aws::{Access, Find, looked_for};
use crate::model::target::TargetSpec;
use crate::model::{HostError, Observed, Weights};
use crate::target::aws::client::Clients;
use crate::target::aws::stack::{
    self, Change, ChangeSet, Events, Proposal, Proposed, Stack, StackEvent,
};
use crate::target::{LEAVE_WITHIN_MS, Target as _, leaving_within};
use checks::{NamedBy, leaves_the_traffic, missing, refuse_unready, same_kind};
use held::{Held, Taken};
use parameters::{given, not_taken, template};

pub use super::template::Template;
pub use parameters::{STACK_VARIABLE, TEMPLATE_VARIABLE, VARIABLES, variables};

/// Interval between two reads of a stack, ms.
const POLL_MS: u64 = 2_000;
/// Longest time from the acceptance of an operation to its first sign, ms.
const BEGUN_WITHIN_MS: u64 = 300_000;
/// See [`LEAVE_WITHIN_MS`].
const LEAVE_WITHIN: Duration = Duration::from_millis(LEAVE_WITHIN_MS);
/// How often CloudFormation is told to delete a stack, if its answers are lost.
const TELLS_MAX: u32 = 3;
/// Failed reads of a stack in a row after which it is left unwatched.
const FAILURES_MAX: u32 = 30;

/// The stack to create or update.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// The account, the region and the stack.
    pub target: TargetRequest,
    /// The template of the engine.
    pub kind: Template,
    /// A template to use instead of the one in the engine.
    pub template: Option<PathBuf>,
    /// Parameters, `NAME=VALUE`.
    pub parameters: Vec<String>,
    /// JSON or TOML file with parameters.
    pub file_of_parameters: Option<PathBuf>,
    /// ARN of the role that CloudFormation uses.
    pub stack_role: Option<String>,
    /// Let the stack write other weights than the live ones.
    pub accept_weights: bool,
    /// Let the stack write another action than the live one, and take tasks from
    /// arms that serve.
    pub accept: bool,
    /// Let the stack replace or remove what serves live traffic.
    pub accept_replacement: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// What happens meanwhile, for a front end that shows more than sentences.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// These changes are about to be made.
    Changes {
        /// The stack's name.
        stack: &'a str,
        /// Its region.
        region: &'a str,
        /// Whether the stack is new.
        create: bool,
        /// The changes; at least one.
        changes: &'a [Change],
    },
    /// CloudFormation reports an event.
    Event(&'a StackEvent),
}

/// Receives what happens meanwhile, and says whether to go on.
pub trait Watcher: Send + Sync {
    /// Something happened.
    fn see(&self, seen: Seen<'_>);
    /// How often a person has asked this process to stop so far. Before the stack is
    /// changed, once is enough; after that the process stays to restore the traffic,
    /// unless it is asked again.
    fn stops(&self) -> u32;
}

/// The result of a deployment.
#[derive(Debug)]
pub struct Deployed {
    /// The stack's name.
    pub name: String,
    /// The stack as it is now; `None` if it does not exist.
    pub stack: Option<Stack>,
    /// The changes that were, or would be, made.
    pub changes: Vec<Change>,
    /// How it ended.
    pub result: Deployment,
    /// Where the traffic is, if the stack has a target.
    pub weights: Option<Weights>,
    /// The rollout that a person must resume, if this process left while CloudFormation
    /// was at it.
    pub left: Option<String>,
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// The stack was as wanted already.
    NoChanges,
    /// The changes were only shown.
    DryRun,
    /// The stack is changed.
    Done,
    /// A person stopped it before the stack was told anything.
    Stopped,
    /// A person stopped this process; CloudFormation goes on.
    Left,
}

/// Creates or updates a stack and waits for it. The traffic stays where it is.
pub async fn deploy(app: &App, args: &DeployRequest, watcher: &dyn Watcher) -> Result<Deployed> {
    let environment = &app.surroundings.stack;
    let (access, named) = place(app, &args.target).await?;
    let (name, named_by) =
        named.unwrap_or_else(|| (args.kind.stack().to_owned(), NamedBy::Default));
    let (template, own) = template(args, environment)?;
    let clients = app.ports.clients(&access).await;
    let declared = stack::declared(&clients, &template).await?;
    let mut given = given(args)?;
    if let Some(unknown) = given.keys().find(|k| !declared.contains_key(*k)) {
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        return Err(Error::usage(format!(
            "the template has no parameter {unknown}; it has {}",
            known.join(", ")
        )));
    }
    let before = stack::look(&clients, &name).await?;
    let before = before.filter(|s| !s.is_empty());
    refuse_unready(&name, before.as_ref())?;
    let named = (name.as_str(), &named_by);
    same_kind(args, named, (own, &declared), before.as_ref())?;
    if before.is_none() {
        for (variable, parameter) in VARIABLES {
            let value = environment.get(variable);
            if let Some(value) = value.filter(|_| declared.contains_key(parameter)) {
                given
                    .entry(parameter.to_owned())
                    .or_insert_with(|| value.clone());
            }
        }
    }
    let mut held = match &before {
        Some(stack) => {
            let taken = Taken {
                access: &access,
                stack: &name,
                id: &stack.id,
                change: StackVerb::Deploy,
                unknown_is_fine: args.accept_weights || args.accept,
                accepts: args.accept_weights,
                whole: !args.accept && !args.accept_weights,
            };
            Held::take(app, taken).await?
        }
        None => None,
    };
    if held.is_some() && !args.dry_run {
        clear_up(app, &clients, &name).await;
    }
    let work = Work {
        app,
        clients: &clients,
        args,
        name: &name,
        template: &template,
        declared: &declared,
        given: &given,
        before: before.as_ref(),
        watcher,
    };
    let done = work.update(held.as_mut()).await;
    let (weights, left) = match held {
        Some(held) => given_back(app, args, held, &done).await?,
        None => (None, None),
    };
    let (stack, changes, result) = done?;
    Ok(Deployed {
        name,
        stack,
        changes,
        result,
        weights,
        left,
    })
}

/// Ends the hold on the target: the traffic goes back to where it was, unless
/// CloudFormation is left alone with the stack. Returns where the traffic is, and the
/// rollout that a person must resume.
async fn given_back(
    app: &App,
    args: &DeployRequest,
    mut held: Held,
    done: &Result<Update>,
) -> Result<(Option<Weights>, Option<String>)> {
    if matches!(done, Ok((.., Deployment::Left))) {
        return Ok((Some(held.weights().clone()), Some(held.leave().await?)));
    }
    if let Err(error) = done
        && !held.stack_rests().await
    {
        return Err(held.left_at_work(error).await);
    }
    // A failed update goes back to its former parameters, which nobody has accepted.
    let moved = held.settle(app, args.accept_weights && done.is_ok()).await;
    let weights = held.weights().clone();
    let ended = held.end(done.as_ref().map(|(_, _, how)| how.words()), &moved);
    let ended = ended.await;
    match (done, moved) {
        // Where the users are comes first.
        (Err(why), Err(error)) => {
            let mut error = error.context(why.message.replace("\n\n", "; "));
            error.advice.extend(why.advice.iter().cloned());
            return Err(error);
        }
        (Ok(_), moved) => {
            moved?;
            ended?;
        }
        (Err(_), Ok(())) => {}
    }
    Ok((Some(weights), None))
}

impl Deployment {
    /// The result in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoChanges => "no changes",
            Self::DryRun => "dry run: nothing was changed",
            Self::Done => "done",
            Self::Stopped => "stopped: nothing was changed",
            Self::Left => "left: CloudFormation goes on by itself",
        }
    }
}

/// What a stack is told: each parameter with its value, or with none if it keeps its own.
type Parameters = BTreeMap<String, Option<String>>;

/// The stack as it is now, what was changed, and how it ended.
type Update = (Option<Stack>, Vec<Change>, Deployment);

/// One update of a stack.
struct Work<'a> {
    app: &'a App,
    clients: &'a Clients,
    args: &'a DeployRequest,
    name: &'a str,
    template: &'a str,
    declared: &'a BTreeMap<String, bool>,
    given: &'a BTreeMap<String, String>,
    before: Option<&'a Stack>,
    watcher: &'a dyn Watcher,
}

impl Work<'_> {
    async fn update(&self, mut held: Option<&mut Held>) -> Result<Update> {
        let live = match &held {
            Some(held) => {
                if !self.args.accept {
                    held.target.fit().await?;
                }
                Some(held.target.observe().await?)
            }
            None => None,
        };
        let had = self.before.map(|s| s.parameters.clone());
        let had = had.unwrap_or_default();
        let proposal = self.propose(live.as_ref(), &had, held.as_deref_mut());
        let Some((set, parameters, token)) = proposal.await? else {
            return Ok((self.before.cloned(), vec![], Deployment::Stopped));
        };
        if !set.changes.is_empty() {
            self.watcher.see(Seen::Changes {
                stack: self.name,
                region: &self.clients.region,
                create: self.before.is_none(),
                changes: &set.changes,
            });
        }
        let done = |stack: Option<Stack>, result| (stack, set.changes.clone(), result);
        if set.changes.is_empty() {
            return Ok(done(self.before.cloned(), Deployment::NoChanges));
        }
        let mut checked = match (&held, &live) {
            (Some(held), Some(live)) => self.checked(held, live, &had, &set).await,
            _ => Ok(()),
        };
        let mut events = None;
        if checked.is_ok() && !self.args.dry_run && self.watcher.stops() == 0 {
            events = Some(Events::from_now(self.clients, &set.stack_id).await?);
            if let Some(held) = &mut held {
                let made_for = live.as_ref().map(Observed::weights);
                checked = held.ready(self.app, made_for.as_ref()).await;
            }
        }
        // Asked last: what came before takes seconds where AWS is slow.
        let stopped = self.watcher.stops() > 0;
        let Some(events) = events.filter(|_| checked.is_ok() && !stopped) else {
            stack::discard(self.clients, &set.id, &set.stack_id).await?;
            if self.before.is_none() {
                clear_away(self.app, self.clients, &set.stack_id, &token).await?;
            }
            checked?;
            let how = match stopped {
                true => Deployment::Stopped,
                false => Deployment::DryRun,
            };
            return Ok(done(self.before.cloned(), how));
        };
        if let Some(held) = &mut held {
            // A parameter that is not given keeps its value.
            let of = |(name, value): (&String, &Option<String>)| {
                let value = value.as_ref().or_else(|| had.get(name))?;
                Some((name.clone(), value.clone()))
            };
            held.tell(&parameters.iter().filter_map(of).collect(), &set);
            if let Some(note) = live.as_ref().and_then(|live| held.may_overwrite(live)) {
                self.app.note(note);
            }
        }
        // CloudFormation does not check the lease: a late request would change the stack
        // while another process has its target.
        let told = leaving_within(LEAVE_WITHIN, stack::execute(self.clients, &set, &token));
        if let Err(error) = told.await {
            stack::was_executed(self.clients, &set, error).await?;
        }
        let operation = (set.stack_id.as_str(), events);
        Ok(
            match follow(self.app, self.clients, operation, self.watcher, held).await? {
                Some(after) => done(Some(after), Deployment::Done),
                None => done(self.before.cloned(), Deployment::Left),
            },
        )
    }

    /// The change set, with the parameters that it was made of and its token; `None` if a
    /// person stopped this process.
    ///
    /// CloudFormation writes what it is told a while later, whatever the listener says by
    /// then. So it is told the live weights only where that takes nobody away from where a
    /// way back goes; otherwise it keeps those that it has, and writes none, unless it
    /// writes the listener anyway.
    async fn propose(
        &self,
        live: Option<&Observed>,
        had: &BTreeMap<String, String>,
        mut held: Option<&mut Held>,
    ) -> Result<Option<(ChangeSet, Parameters, String)>> {
        let known = live.map(stack::beliefs).unwrap_or_default();
        let mut told = known.clone();
        if let (Some(live), Some(held)) = (live, &held)
            && !self.args.accept
            && !self.args.accept_weights
            && !held.is_home(self.app, live).await
        {
            told.retain(|name, _| !stack::moves_traffic(name) || !had.contains_key(name));
        }
        let mut noted = false;
        loop {
            let parameters = stack::parameters(self.declared, self.given, &told, had);
            missing(self.declared, &parameters)?;
            if self.before.is_some() && !std::mem::replace(&mut noted, true) {
                let environment = &self.app.surroundings.stack;
                let place = (self.args.kind, self.name);
                for note in not_taken(place, environment, &parameters, had) {
                    self.app.note(note);
                }
            }
            let token = format!("engine-{}", new_id_part());
            let proposal = Proposal {
                stack: self.name,
                template: self.template,
                create: self.before.is_none(),
                parameters: &parameters,
                token: &token,
                role: self.args.stack_role.as_deref(),
            };
            let Some(set) = self.proposed(&proposal, held.as_deref_mut()).await? else {
                return Ok(None);
            };
            let writes = set.changes.iter().any(Change::rewrites_a_route);
            if told == known || !writes {
                return Ok(Some((set, parameters, token)));
            }
            stack::discard(self.clients, &set.id, &set.stack_id).await?;
            told.clone_from(&known);
        }
    }

    /// Whether the change leaves the live traffic alone, as far as the person has not
    /// accepted that it does not.
    async fn checked(
        &self,
        held: &Held,
        live: &Observed,
        had: &BTreeMap<String, String>,
        set: &ChangeSet,
    ) -> Result<()> {
        leaves_the_traffic(self.args, self.declared, self.given, live, had, set)?;
        match self.args.accept {
            true => Ok(()),
            false => self.keeps_what_serves(held, live, set).await,
        }
    }

    /// The change set, once CloudFormation has computed it; `None` if a person stopped
    /// this process. Keeps the lease meanwhile.
    async fn proposed(
        &self,
        proposal: &Proposal<'_>,
        mut held: Option<&mut Held>,
    ) -> Result<Option<ChangeSet>> {
        let proposed = stack::propose(self.clients, proposal).await?;
        loop {
            match stack::worked_out(self.clients, &proposed).await {
                Ok(Some(set)) => return Ok(Some(set)),
                Ok(None) => {}
                Err(error) => {
                    self.drop_proposal(&proposed, proposal.token).await;
                    return Err(error.into());
                }
            }
            let clock = &self.app.clock;
            clock.sleep_until(clock.now() + POLL_MS).await;
            let kept = match &mut held {
                Some(held) => held.attend(self.app).await,
                None => Ok(()),
            };
            if kept.is_err() || self.watcher.stops() > 0 {
                let _ = stack::discard(self.clients, &proposed.id, &proposed.stack_id).await;
                self.drop_proposal(&proposed, proposal.token).await;
                kept?;
                return Ok(None);
            }
        }
    }

    /// Clears away what a change set that came to nothing has made.
    async fn drop_proposal(&self, proposed: &Proposed, token: &str) {
        if self.before.is_none() {
            let _ = clear_away(self.app, self.clients, &proposed.stack_id, token).await;
        }
    }

    /// Checks that the change keeps the live actions of listeners and rules, and the
    /// tasks of arms that have users.
    async fn keeps_what_serves(&self, held: &Held, live: &Observed, set: &ChangeSet) -> Result<()> {
        for change in set.changes.iter().filter(|c| c.rewrites_a_route()) {
            let target = &held.target;
            let id = change.physical_id.as_str();
            let ours = target.found().routes().any(|route| route == id);
            // For the target's routes the template must say what is live. For others it may
            // say something new, but must keep what it does not mention.
            let (action, told) = match (ours, id) {
                (false, "") => (target.action().await?, &change.after),
                (true, _) => (target.action_of(id).await?, &change.after),
                (false, _) => (target.action_of(id).await?, &change.before),
            };
            let weights = !ours || !self.args.accept_weights;
            let lost = match told {
                Some(told) => action.lost(told, weights),
                None if action.only_forwards() => None,
                None => Some("CloudFormation does not say what it would be".to_owned()),
            };
            if let Some(lost) = lost {
                let lost = if ours {
                    lost
                } else {
                    format!("it was changed outside the stack: {lost}")
                };
                return Err(Error::busy(format!(
                    "the change would rewrite the action of {}, and the template does not carry all of it: {lost}",
                    change.logical_id
                ))
                .hint("make the template say what is live first")
                .give(Input::AcceptChange, "lets the stack overwrite it"));
            }
        }
        for (arm, known) in live.arms.iter().zip(&held.target.found().arms) {
            let service = known.service.as_ref();
            let changed = set.changes.iter().find(|c| {
                c.kind == "AWS::ECS::Service"
                    && service.is_some_and(|s| {
                        c.physical_id == s.name || c.physical_id.ends_with(&format!("/{}", s.name))
                    })
            });
            let Some(change) = changed else {
                continue;
            };
            let takes = match (change.tasks(), arm.tasks) {
                (Some(wanted), Some(has)) => wanted < u64::from(has),
                _ => false,
            };
            if takes && let Err(error) = held.target.unserved(&arm.name).await {
                return Err(Error::busy(format!(
                    "the change would take tasks from {}: it has {}, and would have {}; {error}",
                    change.logical_id,
                    arm.tasks.unwrap_or_default(),
                    change.tasks().unwrap_or_default()
                ))
                .give(Input::AcceptChange, "does it all the same"));
            }
        }
        Ok(())
    }
}

/// Deletes the change sets that a process which was killed has left with this stack. Its
/// target is held, so no other process of this store is at it; and they do no harm, so that
/// one which cannot be deleted stays.
async fn clear_up(app: &App, clients: &Clients, stack: &str) {
    let Ok(left) = stack::left_behind(clients, stack).await else {
        return;
    };
    for set in left {
        if stack::discard(clients, &set, stack).await.is_ok() {
            let name = set.split('/').nth(1).unwrap_or(&set);
            app.note(format!(
                "deleted the change set {name}, which a deployment that broke off had left"
            ));
        }
    }
}

/// Deletes the empty stack that a change set of ours alone has made, and waits, so that
/// the next command finds nothing of it. What somebody else has made of it stays.
async fn clear_away(
    app: &App,
    clients: &Clients,
    stack_id: &str,
    token: &str,
) -> Result<(), HostError> {
    let found = stack::look(clients, stack_id).await?;
    if !found.is_some_and(|stack| stack.is_empty()) {
        return Ok(());
    }
    stack::delete(clients, stack_id, token).await?;
    for _ in 0..FAILURES_MAX {
        match stack::look(clients, stack_id).await? {
            Some(stack) if stack.is_moving() => {}
            _ => return Ok(()),
        }
        app.clock.sleep_until(app.clock.now() + POLL_MS).await;
    }
    Ok(())
}

/// A stack that is about to be deleted.
#[derive(Debug, Clone)]
pub struct Doomed {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    access: Access,
    id: String,
}

/// Finds the stack that would be deleted; changes nothing.
pub async fn doomed(app: &App, target: &TargetRequest) -> Result<Doomed> {
    let (access, named) = place(app, target).await?;
    let (name, _) = named.ok_or_else(|| Error::usage("no stack is named").name_it(Input::Stack))?;
    let clients = app.ports.clients(&access).await;
    let Some(stack) = stack::look(&clients, &name).await? else {
        let like = stack::like(&clients, &name).await;
        let error = Error::usage(format!("there is no stack {name} in {}", clients.region));
        return Err(match like.is_empty() {
            true => error,
            false => error.hint(format!("did you mean {}?", like.join(" or "))),
        });
    };
    Ok(Doomed {
        name,
        region: clients.region.clone(),
        access,
        id: stack.id,
    })
}

/// What a deletion came to.
#[derive(Debug)]
pub enum Deleted {
    /// The stack is gone; its last state.
    Gone(Stack),
    /// A person stopped it before CloudFormation was told anything.
    Stopped,
    /// A person stopped this process; CloudFormation goes on. With the rollout that a
    /// person can resume, if the stack has a target.
    Left(Option<String>),
}

/// Deletes a stack with all its resources and waits until it is gone.
pub async fn delete(app: &App, doomed: &Doomed, watcher: &dyn Watcher) -> Result<Deleted> {
    let clients = app.ports.clients(&doomed.access).await;
    let taken = Taken {
        access: &doomed.access,
        stack: &doomed.name,
        id: &doomed.id,
        change: StackVerb::Delete,
        // A stack whose target cannot be found can still be deleted.
        unknown_is_fine: true,
        accepts: true,
        whole: false,
    };
    let mut held = Held::take(app, taken).await?;
    let deleted = async {
        let events = Events::from_now(&clients, &doomed.id).await?;
        let token = format!("engine-{}", new_id_part());
        if !tell_to_delete(app, &clients, doomed, &token, held.as_mut(), watcher).await? {
            return Ok(Deleted::Stopped);
        }
        let operation = (doomed.id.as_str(), events);
        let after = follow(app, &clients, operation, watcher, held.as_mut()).await?;
        Ok(after.map_or(Deleted::Left(None), Deleted::Gone))
    };
    let deleted = deleted.await;
    let Some(held) = held else {
        return deleted;
    };
    let done = match &deleted {
        Ok(Deleted::Left(_)) => return Ok(Deleted::Left(Some(held.leave().await?))),
        Ok(Deleted::Stopped) => Ok(Deployment::Stopped.words()),
        Ok(Deleted::Gone(_)) => Ok(Deployment::Done.words()),
        Err(error) if !held.stack_rests().await => return Err(held.left_at_work(error).await),
        Err(error) => Err(error),
    };
    let ended = held.end(done, &Ok(())).await;
    if deleted.is_ok() {
        ended?;
    }
    deleted
}

/// Tells CloudFormation to delete a stack. An answer that was lost is made up for by
/// looking at the stack, and by telling it once more with the same token, which does
/// nothing twice. False if a person stopped it before.
async fn tell_to_delete(
    app: &App,
    clients: &Clients,
    doomed: &Doomed,
    token: &str,
    mut held: Option<&mut Held>,
    watcher: &dyn Watcher,
) -> Result<bool> {
    for attempt in 1.. {
        if let Some(held) = &mut held {
            held.ready(app, None).await?;
        }
        if watcher.stops() > 0 && attempt == 1 {
            return Ok(false);
        }
        if let Some(held) = &mut held {
            held.tell_to_delete();
        }
        let told = stack::delete(clients, &doomed.id, token);
        match leaving_within(LEAVE_WITHIN, told).await {
            Err(error) if error.retryable && attempt < TELLS_MAX => {
                let now = stack::look(clients, &doomed.id).await;
                if matches!(now, Ok(None)) || now.is_ok_and(|s| s.is_some_and(|s| s.is_moving())) {
                    break;
                }
            }
            told => return Ok(told.map(|()| true)?),
        }
    }
    Ok(true)
}

/// The account, and the stack with who named it: the request, else the rollout file, else
/// the environment.
async fn place(app: &App, target: &TargetRequest) -> Result<(Access, Option<(String, NamedBy)>)> {
    let file = match target.named()?.map(|spec| spec.target) {
        Some(TargetSpec::Aws(spec)) => Some(spec),
        _ => None,
    };
    let of_file = file.as_ref().map(|f| f.access.clone()).unwrap_or_default();
    let by_request = target.aws.stack.clone();
    let by_file = || Some((file?.find.stack?, NamedBy::File(target.shown_path())));
    let by_variable = || {
        let name = app.surroundings.stack.get(STACK_VARIABLE)?;
        Some((name.clone(), NamedBy::Variable(STACK_VARIABLE)))
    };
    let named = by_request.map(|name| (name, NamedBy::Request));
    let named = named.or_else(by_file).or_else(by_variable);
    let access = target.aws.access(of_file);
    let find = Find {
        stack: named.as_ref().map(|(name, _)| name.clone()),
        ..Find::default()
    };
    // The ARN of a stack says its region itself, as that of a listener does.
    let access = app.ports.access_of(&looked_for(access, find)).await?;
    Ok((access, named))
}

/// Reports what happens until the operation is over, and returns the stack then;
/// `None` if a person stopped this process meanwhile.
async fn follow(
    app: &App,
    clients: &Clients,
    (stack_id, mut events): (&str, Events),
    watcher: &dyn Watcher,
    mut held: Option<&mut Held>,
) -> Result<Option<Stack>> {
    let mut causes: Vec<StackEvent> = vec![];
    let mut begun = false;
    let give_up = app.clock.now() + BEGUN_WITHIN_MS;
    let mut failures = 0;
    let mut asked_to_stop = false;
    loop {
        let look = app.clock.now() + POLL_MS;
        while app.clock.now() < look {
            let poll = held.as_ref().map_or(POLL_MS, |held| held.poll_ms());
            let next = app.clock.now() + poll;
            app.clock.sleep_until(next.min(look)).await;
            if let Some(held) = &mut held {
                held.attend(app).await?;
            }
        }
        match watcher.stops() {
            0 => {}
            1 if asked_to_stop => {}
            1 => {
                asked_to_stop = true;
                app.progress("CloudFormation goes on by itself, and may move the traffic; this process stays to see the traffic where it belongs (once more to leave)");
            }
            _ => return Ok(None),
        }
        let look = async {
            Ok((
                stack::look(clients, stack_id).await?,
                events.news(clients).await?,
            ))
        };
        let (now, news) = match look.await {
            Ok(seen) => seen,
            Err::<_, HostError>(error) if error.retryable && failures < FAILURES_MAX => {
                failures += 1;
                continue;
            }
            Err(error) => {
                return Err(Error::from(error).context(format!(
                    "the operation on {stack_id} goes on, and its end is not waited for"
                )));
            }
        };
        failures = 0;
        for event in news {
            begun |= event.is_of_stack();
            // The event comes twice: when the creation begins, and when it has an id.
            if event.is_repeated() {
                continue;
            }
            watcher.see(Seen::Event(&event));
            if event.is_cause() {
                causes.push(event);
            }
        }
        match now {
            // CloudFormation may still show the status before the operation.
            Some(_) if !begun && app.clock.now() < give_up => {}
            Some(stack) if !begun => {
                return Err(Error::busy(format!(
                    "CloudFormation has accepted the operation on {stack_id} and has not begun it within {} s; the stack is {}",
                    BEGUN_WITHIN_MS / 1_000,
                    stack.status
                )));
            }
            Some(stack) if stack.is_moving() || stack.is_empty() => {}
            Some(stack) if stack.is_well() => return Ok(Some(stack)),
            Some(stack) => {
                let why = causes.first().map_or_else(
                    || stack.reason.clone().unwrap_or_default(),
                    |e| {
                        let reason = e.reason.as_deref().unwrap_or("no reason given");
                        format!("{} ({}): {reason}", e.logical_id, e.kind)
                    },
                );
                return Err(Error::internal(format!(
                    "the stack is {}: {why}",
                    stack.status
                )));
            }
            None => {
                return Err(Error::internal(format!(
                    "the stack {stack_id} does not exist any more"
                )));
            }
        }
    }
}
