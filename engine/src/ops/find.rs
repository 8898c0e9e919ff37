//! Which rollout is meant: by its name, by its target, or the one under way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::advice::{Advice, Ask, Input};
use super::app::{App, STACK_VARIABLE};
use super::error::{Error, Result};
use super::gone;
use super::news::Note;
use super::request::TargetRequest;
use crate::journal::status::Status;
use crate::journal::{Entry, Header, Work, header};
use crate::model::aws::{AwsSpec, account_of, region_of};
use crate::model::target::{ADMIN_DEFAULT, LocalSpec, TargetSpec};
use crate::store::{self, Busy, Lease, Open, Owner, Page, is_part};
use crate::target::Target;
use crate::target::aws::client::configured_region;

/// Most unfinished rollouts without a driver whose targets are read to find the one
/// that is meant.
const IN_SIGHT_MAX: usize = 20;

/// Most unfinished rollouts whose first entries are read to see with which file they began.
const LED_MAX: usize = 100;

/// The least part of an id that stands for all of it, characters: fewer are a slip.
const PART_LEAST: usize = 4;

/// Most rollouts that an answer to an ambiguous part of an id names.
const CANDIDATES_MAX: u32 = 8;

/// What a rollout that nobody names is wanted for, and so how certain it must be that it is
/// the one that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To take its traffic back: nothing may stand in the way of that.
    WayBack,
    /// To let it stand still: no traffic moves, so AWS is not asked whose credentials these are.
    Standstill,
    /// To let it go on.
    GoOn,
}

impl App {
    /// The rollout that is named, or the one on the target that the request names,
    /// or the one that is under way.
    pub async fn meant(
        &self,
        request: &TargetRequest,
        id: Option<&str>,
        purpose: Purpose,
    ) -> Result<(Header, Status)> {
        if id.is_none() {
            self.say_what_was_not_read(request);
        }
        let id = self.meant_id(request, id, purpose).await?;
        self.reached(&id).await
    }

    /// What only needs a target goes on with a rollout file that is wrong elsewhere.
    pub(super) fn say_what_was_not_read(&self, request: &TargetRequest) {
        if let Some(unread) = request.not_read() {
            self.note(unread);
        }
    }

    /// The id of it: no journal is read for it.
    pub(super) async fn meant_id(
        &self,
        request: &TargetRequest,
        id: Option<&str>,
        purpose: Purpose,
    ) -> Result<String> {
        if let Some(id) = id {
            return self.id_of(id).await;
        }
        let identity = request.identity(self).await?;
        let named = match request.named() {
            // A file that cannot be read must not stand in the way of a way back.
            Err(_) if purpose == Purpose::WayBack => None,
            named => named?.map(|spec| spec.target),
        };
        let id = match (identity, &named) {
            (Some(identity), _) => self.on_target(&identity).await?,
            (None, Some(target)) => return self.of_the_file(request, target, purpose).await,
            (None, None) => self.unfinished().await?,
        };
        match self.is_elsewhere(&id, named.as_ref(), purpose).await? {
            Some(why) => Err(Error::usage(format!(
                "rollout {id} {why}; name it if it is meant"
            ))),
            None => Ok(id),
        }
    }

    /// The id that a person has named: in full, or by so much of its beginning, of its end, or of
    /// what is after a `-`, as no other rollout has. What fits none is the answer too, for whoever
    /// looks for it to say.
    ///
    /// # Errors
    /// Usage: several rollouts fit.
    pub(super) async fn id_of(&self, named: &str) -> Result<String> {
        // A list on a terminal has this in place of what it left out.
        let part = named.trim_start_matches('…');
        let id = named.to_owned();
        // A journal that cannot be read is there, and nothing that fails here may stand in
        // the way of a way back.
        if !matches!(self.store.header(named).await, Ok(None)) || part.chars().count() < PART_LEAST
        {
            return Ok(id);
        }
        // Whoever stops a rollout in a hurry means one that is under way.
        let open = self.store.open(None).await.unwrap_or_default();
        let ids = open.into_iter().map(|open| open.summary.rollout);
        let mut fitting = ids.filter(|id| is_part(part, id));
        if let (Some(one), None) = (fitting.next(), fitting.next()) {
            self.progress(format!(
                "{named} is {one}, the only one under way that fits"
            ));
            return Ok(one);
        }
        let page = Page::newest(None, CANDIDATES_MAX + 1).of_part(part);
        let fitting = self.store.history(&page).await.unwrap_or_default();
        match &fitting[..] {
            [] => Ok(id),
            [one] => {
                self.progress(format!("{named} is {}", one.rollout));
                Ok(one.rollout.clone())
            }
            several => {
                let shown = usize::try_from(CANDIDATES_MAX).unwrap_or(usize::MAX);
                let lines = several
                    .iter()
                    .take(shown)
                    .map(|row| format!("  {} on {}: {}", row.rollout, row.target, row.phase));
                let mut lines: Vec<String> = lines.collect();
                if several.len() > shown {
                    lines.push("  and older ones".to_owned());
                }
                Err(Error::usage(format!(
                    "{part:?} fits several rollouts; name one of them:\n{}",
                    lines.join("\n")
                )))
            }
        }
    }

    /// The unfinished rollout on the target of the rollout file. One that is somewhere else
    /// is not meant, however alone it is.
    async fn of_the_file(
        &self,
        request: &TargetRequest,
        target: &TargetSpec,
        purpose: Purpose,
    ) -> Result<String> {
        let open = self.open_rollouts().await?;
        let place = request.place();
        let (mut here, mut elsewhere, mut reasons) = (vec![], vec![], String::new());
        for one in open {
            let id = &one.summary.rollout;
            let header = self.store.header(id).await?;
            if !header.is_some_and(|header| is_of(&header, target, place.as_deref())) {
                elsewhere.push(one);
                continue;
            }
            match self.is_elsewhere(id, Some(target), purpose).await? {
                Some(why) => {
                    reasons = format!("{reasons}: {id} {why}");
                    elsewhere.push(one);
                }
                None => here.push(one),
            }
        }
        if here.is_empty() && !elsewhere.is_empty() {
            return Err(Error::usage(format!(
                "no rollout is under way on the target of the rollout file{reasons}; name one that is on another:\n{}",
                listed(&elsewhere)
            )));
        }
        the_only_one(&here)
    }

    /// The unfinished rollout that was begun with the rollout file of a request and has
    /// another target than the file says, because flags named it then and none does now: it
    /// is this file's rollout all the same. None if one is under way where the file says.
    ///
    /// # Errors
    /// There are several.
    pub(super) async fn led_elsewhere(&self, request: &TargetRequest) -> Result<Option<String>> {
        let named = request.named().ok().flatten().map(|spec| spec.target);
        let (Some(place), Some(named), false) = (request.place(), named, request.names_a_target())
        else {
            return Ok(None);
        };
        let mut led = vec![];
        let open = self.store.open(None).await.unwrap_or_default();
        for one in open.into_iter().take(LED_MAX) {
            let header = self.store.header(&one.summary.rollout).await;
            let Ok(Some(header)) = header else { continue };
            if !matches!(header.work, Work::Strategy(_)) {
                continue;
            }
            if is_same(&header, &named) {
                return Ok(None);
            }
            if header.file.as_deref() == Some(&place) {
                led.push(one);
            }
        }
        match &led[..] {
            [] => Ok(None),
            led => the_only_one(led).map(Some),
        }
    }

    /// Why a rollout on AWS is in another region or account than what a request, the rollout
    /// file and the surroundings mean; none if it is there. A stack, say, has the same name in
    /// many regions and accounts. Where nothing names a target, what the rollout itself took
    /// from its surroundings counts.
    ///
    /// # Errors
    /// It cannot be told.
    async fn is_elsewhere(
        &self,
        id: &str,
        named: Option<&TargetSpec>,
        purpose: Purpose,
    ) -> Result<Option<String>> {
        if purpose == Purpose::WayBack {
            return Ok(None);
        }
        let header = self.store.header(id).await?;
        let Some(TargetSpec::Aws(pinned)) = header.map(|header| header.target) else {
            return Ok(None);
        };
        let Some(route) = pinned.found.as_ref().map(|found| found.route.as_str()) else {
            return Ok(None);
        };
        let described = match named {
            Some(TargetSpec::Aws(spec)) => Some(&**spec),
            _ => None,
        };
        let sought = AwsSpec {
            found: None,
            ..described.unwrap_or(&pinned).clone()
        };
        let region = match described {
            Some(_) => Some(self.ports.clients_of(&sought).await?.region),
            None if sought.region_of_arns()?.is_some() => None,
            None => configured_region(&sought.access, &self.surroundings.network.aws).await,
        };
        if let Some((here, there)) = region.as_deref().zip(region_of(route))
            && here != there
        {
            return Ok(Some(format!(
                "is in {there}, and {here} is what is meant here (by an argument, the rollout file, AWS_REGION or the profile)"
            )));
        }
        if purpose == Purpose::Standstill {
            return Ok(None);
        }
        let account = match sought.account_named() {
            Some(account) => account.to_owned(),
            None => {
                let as_here = AwsSpec {
                    access: sought.access.clone(),
                    ..(*pinned).clone()
                };
                match self.account_of_reader(&as_here).await {
                    Ok(account) => account,
                    Err(error) => {
                        return Err(error
                            .context(format!(
                                "whether rollout {id} is the one that is meant cannot be told, because it cannot be seen whether these credentials are of its account"
                            ))
                            .hint(format!("name {id} if it is the one")));
                    }
                }
            }
        };
        let there = account_of(route).unwrap_or_default();
        Ok((account != there).then(|| {
            format!("is in the account {there}, and the credentials here are of {account} (see AWS_PROFILE)")
        }))
    }

    /// The account whose credentials are used for a target. Whoever can read its load balancer
    /// is in its account, because no other one sees it.
    async fn account_of_reader(&self, spec: &AwsSpec) -> Result<String> {
        let target = self.ports.on_aws(spec).await?;
        if let (Ok(_), Some(account)) = (target.glance().await, account_of(target.identity())) {
            return Ok(account.to_owned());
        }
        let caller = self.ports.clients_of(spec).await?.caller().await?;
        let account = account_of(&caller.arn).map(ToOwned::to_owned);
        account.ok_or_else(|| Error::internal(format!("AWS says that {} calls", caller.arn)))
    }

    /// How a rollout stands.
    pub async fn reached(&self, id: &str) -> Result<(Header, Status)> {
        let (header, status, _) = self.journal(id).await?;
        Ok((header, status))
    }

    /// The target that the request, the rollout file, a live rollout or the default
    /// names.
    pub async fn target(&self, request: &TargetRequest) -> Result<(TargetSpec, Arc<dyn Target>)> {
        self.say_what_was_not_read(request);
        let mut assumed = false;
        let spec = match request.named()? {
            Some(spec) => spec.target,
            None => {
                if let Some(stack) = self.surroundings.stack.get(STACK_VARIABLE) {
                    let note = Note::from(format!(
                        "{STACK_VARIABLE}={stack} of the environment names a stack for what makes, changes or deletes one only"
                    ));
                    let input = Input::StackNamed(stack.clone());
                    self.note(note.advise(Advice::give(input, "names it here")));
                }
                let in_sight = self.rollout_in_sight().await?;
                assumed = in_sight.is_none();
                in_sight.map_or(
                    TargetSpec::Local {
                        admin: ADMIN_DEFAULT,
                    },
                    |header| header.target,
                )
            }
        };
        if let TargetSpec::Aws(aws) = &spec {
            let target = self.ports.on_aws(aws).await?;
            let found = target.found();
            // Who moves routes occupies those, and no others that come later.
            let pinned = TargetSpec::Aws(Box::new(AwsSpec {
                found: Some(found.clone()),
                ..(**aws).clone()
            }));
            return Ok((pinned, target));
        }
        match self.ports.reach(&spec).await {
            Ok(target) => Ok((spec, target)),
            Err(error) => {
                let silent = Error::from(error);
                let told = gone::with_what_is_left(self, &spec, silent.clone()).await;
                Err(match assumed && told == silent {
                    true => nothing_named(silent),
                    false => told,
                })
            }
        }
    }

    /// A rollout with its status and its journal.
    pub async fn journal(&self, id: &str) -> Result<(Header, Status, Vec<Entry>)> {
        let entries = self.store.load(id, 0).await?;
        match (header(&entries).cloned(), Status::of(&entries)) {
            (Some(header), Some(status)) => Ok((header, status, entries)),
            _ => {
                Err(Error::usage(format!("there is no rollout {id:?}"))
                    .ask(Ask::List, "shows them"))
            }
        }
    }

    /// The unfinished rollout on a target.
    pub async fn on_target(&self, identity: &str) -> Result<String> {
        match self.store.open(Some(identity)).await?.into_iter().next() {
            Some(open) => Ok(open.summary.rollout),
            None => Err(
                Error::usage(format!("no rollout is under way on {identity}"))
                    .ask(Ask::List, "shows all of them"),
            ),
        }
    }

    /// The unfinished rollout, if there is one alone.
    pub async fn unfinished(&self) -> Result<String> {
        the_only_one(&self.open_rollouts().await?)
    }

    /// The rollouts that have not ended, newest first.
    pub async fn open_rollouts(&self) -> Result<Vec<Open>> {
        Ok(self.store.open(None).await?)
    }

    /// The newest unfinished rollout whose target answers; else the newest one
    /// that at least has a living driver.
    pub async fn rollout_in_sight(&self) -> Result<Option<Header>> {
        for (nth, open) in self.open_rollouts().await?.iter().enumerate() {
            let driven = self.lives(&open.busy);
            if !driven && nth >= IN_SIGHT_MAX {
                continue;
            }
            let Some(header) = self.store.header(&open.summary.rollout).await? else {
                continue;
            };
            if driven || self.ports.reach(&header.target).await.is_ok() {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Gives up the lease of a suspended rollout, so that any process may drive it;
    /// the rollout goes on occupying its target.
    pub async fn let_go(&self, rollout: &str) -> Result<()> {
        let (header, ..) = self.journal(rollout).await?;
        match self.store.occupant(&header.identity).await? {
            Some(busy) if busy.driver() == Some(&self.owner) => {
                let lease = Lease {
                    target: header.identity,
                    rollout: busy.rollout,
                    epoch: busy.epoch,
                };
                Ok(self.store.park(&lease, None).await?)
            }
            _ => Ok(()),
        }
    }

    /// The lease of a rollout, if a living process drives it.
    pub async fn living_owner(&self, header: &Header) -> Result<Option<Busy>> {
        let busy = self.store.occupant(&header.identity).await?;
        Ok(busy.filter(|busy| self.is_driven(&header.rollout, busy)))
    }

    /// Whether that is a living process that drives the rollout.
    pub fn is_driven(&self, rollout: &str, busy: &Busy) -> bool {
        busy.rollout == rollout && self.lives(busy)
    }

    /// The ids of those rollouts that a living process drives, or will wake. Each process is
    /// looked for once, however many it drives.
    pub fn driven<'a>(&self, open: &'a [Open]) -> HashSet<&'a str> {
        let now = self.clock.now();
        let mut dead: HashMap<&Owner, bool> = HashMap::new();
        let driven = open.iter().filter(|open| {
            store::is_driven_unless(&open.busy, now, |owner| {
                let look = || self.store.is_dead(owner);
                *dead.entry(owner).or_insert_with(look)
            })
        });
        driven.map(|open| open.busy.rollout.as_str()).collect()
    }

    /// Whether a living process drives the rollout that occupies a target, or will wake it.
    fn lives(&self, busy: &Busy) -> bool {
        store::is_driven(self.store.as_ref(), busy, self.clock.now())
    }
}

/// The error where nothing names a target, and no balancer answers where one is by default.
fn nothing_named(silent: Error) -> Error {
    let message = format!(
        "nothing names a target: there is no rollout.toml here, no rollout is under way whose target answers, and no local balancer answers at {ADMIN_DEFAULT}"
    );
    Error { message, ..silent }
        .name_it(Input::TargetOrFile)
        .ask(Ask::Init, "writes a rollout file")
}

/// The rollout that occupies a target, or the last one that did.
pub(super) async fn last_rollout(app: &App, identity: &str) -> Result<Option<String>> {
    if let Some(busy) = app.store.occupant(identity).await?
        && app.journal(&busy.rollout).await.is_ok()
    {
        return Ok(Some(busy.rollout));
    }
    let page = Page::newest(Some(identity), 20).of_strategies();
    for row in app.store.history(&page).await? {
        // A journal that cannot be read is skipped.
        if let Ok(Some(_)) = app.store.header(&row.rollout).await {
            return Ok(Some(row.rollout));
        }
    }
    Ok(None)
}

/// The newest rollout on the target that is described, as far as can be said without asking
/// it; looked for among the newest hundred.
pub(super) async fn last_described(app: &App, described: &TargetSpec) -> Option<Header> {
    let page = Page::newest(None, 100).of_strategies();
    for row in app.store.history(&page).await.ok()? {
        if let Ok(Some(header)) = app.store.header(&row.rollout).await
            && is_same(&header, described)
        {
            return Some(header);
        }
    }
    None
}

/// The rollout that is meant where nobody names one. Of several none is: whichever was
/// taken, it might be the one with the users that nobody thought of.
fn the_only_one(open: &[Open]) -> Result<String> {
    match open {
        [] => Err(Error::usage("no rollout is under way; name one").ask(Ask::List, "shows them")),
        [one] => Ok(one.summary.rollout.clone()),
        several => Err(Error::usage(format!(
            "several rollouts are under way; name one of them:\n{}",
            listed(several)
        ))),
    }
}

fn listed(open: &[Open]) -> String {
    let lines = open
        .iter()
        .map(|o| format!("  {} on {}", o.summary.rollout, o.summary.target));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a rollout is the one of a rollout file: it was begun with that file, or its target
/// is the one that the file describes.
fn is_of(header: &Header, described: &TargetSpec, file: Option<&str>) -> bool {
    let begun_with = header.file.as_deref();
    begun_with.is_some() && begun_with == file || is_same(header, described)
}

/// Whether a rollout's target is the one that a file describes, as far as can be said without
/// asking it.
fn is_same(header: &Header, described: &TargetSpec) -> bool {
    match (&header.target, described) {
        (TargetSpec::Aws(pinned), TargetSpec::Aws(described)) => is_same_on_aws(pinned, described),
        // On a free port each balancer is one of its own.
        (TargetSpec::Embedded { local: pinned, .. }, TargetSpec::Embedded { local, .. })
            if local.admin.port() == 0 =>
        {
            header.file.is_none() && is_same_but_for_ports(pinned, local)
        }
        (pinned, described) => {
            let named = described.admin().filter(|admin| admin.port() != 0);
            named.is_some() && pinned.admin() == named
        }
    }
}

fn is_same_on_aws(pinned: &AwsSpec, described: &AwsSpec) -> bool {
    let found = pinned.found.as_ref();
    // The ARN of a route says all; what refines the target is said of the same one.
    if let Some(route) = described.find.route() {
        let mut routes = found.iter().flat_map(|found| found.routes());
        return routes.any(|known| known == route) || pinned.find.route() == Some(route);
    }
    let (one, other) = (&pinned.access, &described.access);
    let as_somebody = one.profile == other.profile && one.role == other.role;
    // Where no region is described the surroundings name one.
    let route = found.map(|found| found.route.as_str());
    let region = route.and_then(region_of).or(one.region.as_deref());
    let regions = region.zip(other.region.as_deref());
    pinned.find.route().is_none()
        && pinned.find.stack == described.find.stack
        && as_somebody
        && regions.is_none_or(|(one, other)| one == other)
}

/// Whether two local balancers are set up alike, but for ports that were free for the choice.
fn is_same_but_for_ports(pinned: &LocalSpec, described: &LocalSpec) -> bool {
    let mut as_chosen = described.clone();
    as_chosen.admin.set_port(pinned.admin.port());
    if described.listen.port() == 0 {
        as_chosen.listen.set_port(pinned.listen.port());
    }
    as_chosen == *pinned
}
