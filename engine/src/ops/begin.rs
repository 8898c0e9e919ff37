//! Begins rollouts: reads, resolves and checks everything that one needs, and writes
//! its first entry.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::advice::{Advice, Ask, Input};
use super::app::App;
use super::error::{Context as _, Error, Result};
use super::find::last_rollout;
use super::gone;
use super::news::Note;
use super::pin::PinRequest;
use super::plugin::{self, Loaded};
use super::private;
use super::request::{RolloutFile, TargetRequest, wrong_file};
use crate::journal::{FORMAT, Header, Pin, Work};
use crate::model::aws::{AwsSpec, Found};
use crate::model::image::ImageReference;
use crate::model::limits::{Caps, Guardrails};
use crate::model::problem::{Located, Problem};
use crate::model::target::TargetSpec;
use crate::model::{
    Arm, ArmScaling, DemoFault, Elsewhere, End, Observed, Phase, Promotion, Release, Role, Running,
    Source, Traffic, Way, Weights,
};
use crate::rollout::roles::{arms, capacity, promotion};
use crate::rollout::{Options, RolloutError};
use crate::spec::Spec;
use crate::store::{Page, StoreError};
use crate::strategy::{Description, Plugin};
use crate::target::Target;
use crate::target::aws::{TaskChange, Wanted, release_of_task_definition};
use crate::target::tls::certificates;

/// Requests per second of the demo's load.
const DEMO_RPS: u32 = 100;

/// The rollout to begin.
#[derive(Debug, Clone, Default)]
pub struct BeginRequest {
    /// Its target and its rollout file.
    pub target: TargetRequest,
    /// Whether it is the demo, whatever rollout file is there.
    pub demo: bool,
    /// The strategy: a file, or its name in `plugins.toml`; that of the rollout file
    /// if none is named.
    pub plugin: Option<PathBuf>,
    /// Parameters of the strategy, `KEY=VALUE`.
    pub set: Vec<String>,
    /// The image that the candidate shall run, `REPOSITORY:TAG`.
    pub image: Option<String>,
    /// The task definition that the candidate shall run, `FAMILY:REVISION`.
    pub task_definition: Option<String>,
    /// Fault of the demo's new version.
    pub demo_fault: Option<DemoFault>,
    /// Requests per second of the demo's load.
    pub rate: Option<u32>,
    /// Names of the demo's arms.
    pub names: Option<[String; 2]>,
    /// The arm that serves users today, if weights and names do not tell.
    pub stable: Option<String>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// A rollout that could begin.
pub struct Ready {
    /// Its first entry.
    pub header: Header,
    /// Its strategy.
    pub plugin: Arc<Plugin>,
    /// Bytes of the plugin.
    bytes: Vec<u8>,
    /// The target as it is.
    pub live: Observed,
    /// Whether the balancer is part of this process.
    pub embedded: bool,
    /// What changes in the task definitions of the arms, on AWS.
    pub changes: Vec<TaskChange>,
}

/// Reads, resolves and checks everything that a rollout needs; changes nothing.
///
/// # Errors
/// Usage, if the request or the file is wrong; busy, if the target is not free, or
/// not in a state in which a rollout may begin; rejected, if the plugin may not run.
pub async fn make_ready(app: &App, request: &BeginRequest) -> Result<Ready> {
    let id_part = new_id_part();
    let mut spec = match asked_for(app, request, &id_part) {
        Ok(spec) => spec,
        Err(error) if error.problems.is_empty() => return Err(error),
        Err(error) => return Err(and_parameters(app, request, error).await),
    };
    let strategy = strategy(app, request, &spec).await?;
    let (target, target_spec, embedded) = app.ports.start(&spec.target).await?;
    is_free(app, target.as_ref()).await?;
    has_one_balancer(&target_spec)?;
    if let Some(candidate) = candidate(app, request, &spec.target).await? {
        spec.candidate = Some(candidate);
    }
    let mut live = look(target.as_ref(), &spec).await?;
    let mut arms = who_is_who(&spec, &live, request.stable.as_deref())?;
    let promotion =
        promotion(spec.candidate.as_ref(), spec.promotion, &live, &arms).map_err(Error::usage)?;
    have_services(&target_spec, spec.candidate.as_ref(), &arms, promotion)?;
    let mut changes = vec![];
    let mut target_spec = target_spec;
    if let TargetSpec::Aws(found) = &mut target_spec {
        let pinned = pin(app, found, &mut spec, &arms, promotion).await?;
        // What the arms run is called by the container that was chosen.
        if pinned != **found {
            live = app.ports.on_aws(&pinned).await?.observe().await?;
            arms = who_is_who(&spec, &live, request.stable.as_deref())?;
            **found = pinned;
        }
        let target = app.ports.on_aws(found).await?;
        changes = target.task_changes(wanted(&spec, &arms, promotion)).await?;
    }
    let running = running(app, &target_spec, &live).await?;
    let repeats = repeats(&spec, &live, &arms, promotion);
    let mut stable = served(&live, &arms);
    if !repeats.is_empty() {
        stable = what_the_name_meant(app, &running, &arms, &repeats, stable);
    }
    let arrives = Arrival {
        candidate: spec.candidate.as_ref(),
        repeats: &repeats,
        promotion,
    };
    seen_by_nobody(app, target.as_ref(), arrives, &live, &arms).await?;
    if let (None, TargetSpec::Aws(_)) = (&spec.candidate, &target_spec) {
        say_what_it_is_about(app, target.identity(), &live, &arms).await?;
    }
    let header = Header {
        rollout: format!("{}-{id_part}", strategy.pin.name),
        file: file_of(request),
        stable,
        running,
        repeats,
        scaling: scaling(app, target.as_ref()).await,
        ..Outline {
            target: target.as_ref(),
            pinned: target_spec,
            live: &live,
            arms,
            promotion,
        }
        .header(app, spec, (strategy.pin, strategy.loaded.policy.caps))
    };
    Ok(Ready {
        header,
        plugin: strategy.loaded.plugin,
        bytes: strategy.loaded.bytes,
        live,
        embedded,
        changes,
    })
}

/// What a rollout is about, as it was read from its target.
struct Outline<'a> {
    target: &'a dyn Target,
    pinned: TargetSpec,
    live: &'a Observed,
    arms: Vec<Arm>,
    promotion: Promotion,
}

impl Outline<'_> {
    /// The first entry of a rollout, without what is read for one that shall begin.
    fn header(self, app: &App, spec: Spec, (pin, caps): (Pin, Caps)) -> Header {
        Header {
            format: FORMAT,
            rollout: pin.name.clone(),
            created: app.clock.now(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            file: None,
            target: self.pinned,
            identity: self.target.identity().to_owned(),
            sample_period_ms: self.target.sample_period_ms(),
            baseline: self.live.weights(),
            stable: served(self.live, &self.arms),
            running: vec![],
            candidate: spec.candidate,
            digest: None,
            repeats: vec![],
            promotion: self.promotion,
            capacity: capacity(self.live, &self.arms),
            scaling: vec![],
            arms: self.arms,
            guardrails: spec.guardrails,
            probes: spec.probes,
            queries: spec.queries,
            caps,
            work: Work::Strategy(pin),
        }
    }
}

/// What the stable arm runs.
fn served(live: &Observed, arms: &[Arm]) -> Option<Release> {
    let stable = arms.iter().find(|a| a.role == Role::Stable)?;
    Some(live.arm(&stable.name)?.release.clone())
}

/// The rollout file that a rollout is begun with: none for the demo.
fn file_of(request: &BeginRequest) -> Option<String> {
    match request.demo {
        true => None,
        false => request.target.place(),
    }
}

/// The spec of the file, or of the demo. A balancer in this process keeps its state
/// in a file of its own.
fn asked_for(app: &App, request: &BeginRequest, id_part: &str) -> Result<Spec> {
    if let Some(image) = &request.image
        && let Err(why) = ImageReference::parse(image)
    {
        let why = format!("{image:?} is not REPOSITORY:TAG: {why}");
        return Err(Error::argument(Input::Image, why));
    }
    let file = match request.demo {
        true => None,
        false => request.target.described()?,
    };
    let folder = app.state_dir.join("embedded");
    let place = folder.join(format!("{id_part}.json")).display().to_string();
    let spec = match file {
        Some(mut spec) => {
            secrets_are_there(request, &spec)?;
            for (input, given) in [
                (Input::DemoFault, request.demo_fault.is_some()),
                (Input::DemoRate, request.rate.is_some()),
                (Input::DemoNames, request.names.is_some()),
            ] {
                if given {
                    return Err(Error::argument(
                        input,
                        "is for the demo that is set up where no target is named; here a target is named, by the request or by the rollout file",
                    ));
                }
            }
            // A resumed rollout finds its balancer's state there.
            if let TargetSpec::Embedded { state, .. } = &mut spec.target {
                *state = Some(place);
            }
            spec
        }
        None => Spec::demo(
            request.demo_fault.unwrap_or_default(),
            request.rate.unwrap_or(DEMO_RPS),
            request.names.clone(),
            Some(place),
        ),
    };
    private::folder(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(spec)
}

/// A strategy that may run, and what its journal says of it.
pub(super) struct Chosen {
    pub(super) loaded: Loaded,
    pin: Pin,
}

async fn strategy(app: &App, request: &BeginRequest, spec: &Spec) -> Result<Chosen> {
    let judged = judged(app, request, spec, plugin::Purpose::Rollout).await?;
    let chosen = judged.chosen()?;
    if let Value::Object(parameters) = &chosen.pin.parameters {
        no_credentials(parameters)?;
    }
    Ok(chosen)
}

/// A strategy that may run, and what it says of its parameters.
pub(super) struct Judged {
    pub(super) loaded: Loaded,
    pub(super) description: Description,
    /// The parameters, or all that is wrong with them.
    pub(super) accepted: Result<plugin::Accepted, Vec<Located>>,
}

impl Judged {
    /// The strategy with its parameters, if it takes them.
    pub(super) fn chosen(self) -> Result<Chosen> {
        let Self {
            loaded,
            description,
            accepted,
        } = self;
        let (parameters, steps) =
            accepted.map_err(|problems| plugin::not_accepted(&description, problems))?;
        let pin = Pin {
            sha256: loaded.plugin.sha256.clone(),
            name: description.name,
            version: description.version,
            source: loaded.source.clone(),
            world: loaded.plugin.world.clone(),
            parameters: Value::Object(parameters),
            seed: format!("{:032x}", rand::random::<u128>()),
            steps,
        };
        Ok(Chosen { loaded, pin })
    }
}

/// Loads the strategy of a request, and asks it about its parameters.
pub(super) async fn judged(
    app: &App,
    request: &BeginRequest,
    spec: &Spec,
    purpose: plugin::Purpose,
) -> Result<Judged> {
    let named = request.plugin.as_deref();
    let loaded = plugin::load(app, &request.pins, named, spec, purpose).await?;
    let description = loaded.plugin.describe().await?;
    let file = &spec.strategy.parameters;
    let accepted = plugin::judged(&request.set, file, &loaded.plugin, &description).await?;
    let accepted = accepted.and_then(|(parameters, steps)| {
        let all = Value::Object(parameters.clone());
        let problems = plugin::queries::check(&description, &all, &spec.queries);
        match problems.is_empty() {
            true => Ok((parameters, steps)),
            false => Err(problems),
        }
    });
    Ok(Judged {
        accepted: accepted.map_err(|problems| located(request, problems)),
        loaded,
        description,
    })
}

/// Problems of a request, each with its place in the rollout file. Parameters that the
/// request gives by itself are in none.
pub(super) fn located(request: &BeginRequest, problems: Vec<Problem>) -> Vec<Located> {
    let file = match request.demo {
        true => None,
        false => RolloutFile::open(request.target.file.as_deref()).unwrap_or_default(),
    };
    let given = |problem: &Problem| {
        let mut keys = request.set.iter().filter_map(|set| set.split('=').next());
        keys.any(|key| problem.is_within(&format!("{}.{key}", plugin::PARAMETERS)))
    };
    let Some(file) = file else {
        return problems.into_iter().map(Located::from).collect();
    };
    let (given, in_file): (Vec<_>, Vec<_>) = problems.into_iter().partition(given);
    let mut all = file.locate(in_file);
    all.extend(given.into_iter().map(Located::from));
    all
}

/// The error of a rollout file, with what is wrong with the strategy's parameters too: all
/// problems of a file are told at once.
async fn and_parameters(app: &App, request: &BeginRequest, error: Error) -> Error {
    let Ok(Some(file)) = RolloutFile::open(request.target.file.as_deref()) else {
        return error;
    };
    let Some(spec) = file.spec.as_ref().filter(|_| may_ask(&file.problems)) else {
        return error;
    };
    let purpose = plugin::Purpose::Check;
    let judged = Box::pin(judged(app, request, spec, purpose)).await;
    match judged.map(|judged| judged.accepted) {
        Ok(Err(more)) => {
            let all = file.problems.into_iter().chain(more).collect();
            wrong_file(&file.path, all)
        }
        // Whether that plugin may run is another question, after this one.
        _ => error,
    }
}

/// Whether a strategy may be asked although its file has problems: where they leave open
/// which one it is and what it may do, it is not even compiled, and it gets no parameters
/// with a credential.
pub(super) fn may_ask(problems: &[Located]) -> bool {
    problems.iter().all(|Located { problem, .. }| {
        !problem.is_within("policy") && !problem.is_within("strategy") && !problem.path.is_empty()
    })
}

/// Fails if another rollout has the target. A change of its stack whose process is
/// dead is ended first.
async fn is_free(app: &App, target: &dyn Target) -> Result<()> {
    let Some(busy) = app.store.occupant(target.identity()).await? else {
        return Ok(());
    };
    // The process may have died between its claim and its first entry.
    if app.store.load(&busy.rollout, 0).await?.is_empty()
        || app.driver(Options::default()).end_dead_change(&busy).await
    {
        return Ok(());
    }
    Err(busy_with(app, &busy.rollout).await)
}

/// Whether a rollout could begin on a target.
pub(super) struct Prospect {
    /// All reasons for which none could.
    pub(super) hindrances: Vec<Error>,
    /// What a rollout of the strategy would be, and its target as it is, if nothing does.
    pub(super) begun: Option<(Header, Observed)>,
}

impl Prospect {
    fn hindered(hindrances: Vec<Error>) -> Self {
        Self {
            hindrances,
            begun: None,
        }
    }
}

/// All reasons for which a rollout could not begin on a target on AWS as it is now. It only
/// reads.
pub(super) async fn prospect(
    app: &App,
    request: &BeginRequest,
    spec: &Spec,
    (found, strategy): (&AwsSpec, Option<&Chosen>),
) -> Result<Prospect> {
    let target = app.ports.on_aws(found).await?;
    let (target, pinned) = (target.as_ref(), TargetSpec::Aws(Box::new(found.clone())));
    let mut spec = spec.clone();
    if let Some(candidate) = candidate(app, request, &pinned).await? {
        spec.candidate = Some(candidate);
    }
    let live = target.observe().await?;
    let mut all = vec![];
    let alarm = target.tripped(&spec.guardrails.alarms, None).await;
    let alarm = alarm.map_err(Error::from).and_then(no_alarm);
    let fit = target.fit().await.map_err(Error::from);
    let together = are_together(&live.traffic());
    let balancer = has_one_balancer(&pinned);
    all.extend(
        [alarm, fit, together, balancer]
            .into_iter()
            .filter_map(Result::err),
    );
    let arms = match who_is_who(&spec, &live, request.stable.as_deref()) {
        Ok(arms) => arms,
        Err(error) => {
            all.push(error);
            return Ok(Prospect::hindered(all));
        }
    };
    let promotion = match promotion(spec.candidate.as_ref(), spec.promotion, &live, &arms) {
        Ok(promotion) => promotion,
        Err(error) => {
            all.push(Error::usage(error));
            return Ok(Prospect::hindered(all));
        }
    };
    let new = spec.candidate.as_ref();
    all.extend(have_services(&pinned, new, &arms, promotion).err());
    let repeats = repeats(&spec, &live, &arms, promotion);
    let arrives = Arrival {
        candidate: new,
        repeats: &repeats,
        promotion,
    };
    let seen = seen_by_nobody(app, target, arrives, &live, &arms).await;
    all.extend(seen.err());
    if !all.is_empty() {
        return Ok(Prospect::hindered(all));
    }
    let outline = Outline {
        target,
        pinned,
        live: &live,
        arms,
        promotion,
    };
    let header = strategy.map(|chosen| {
        let caps = chosen.loaded.policy.caps;
        outline.header(app, spec, (chosen.pin.clone(), caps))
    });
    Ok(Prospect {
        hindrances: all,
        begun: header.map(|header| (header, live)),
    })
}

/// Fails if an alarm is on.
fn no_alarm(tripped: Option<impl Display>) -> Result<()> {
    match tripped {
        None => Ok(()),
        Some(tripped) => Err(Error::busy(format!(
            "a rollout cannot begin while an alarm is on: {tripped}"
        ))),
    }
}

/// Reads the target, and fails if a rollout may not begin on it.
async fn look(target: &dyn Target, spec: &Spec) -> Result<Observed> {
    no_alarm(target.tripped(&spec.guardrails.alarms, None).await?)?;
    let live = target
        .observe()
        .await
        .context("failed to read the target")?;
    target.fit().await?;
    are_together(&live.traffic())?;
    Ok(live)
}

/// Refuses to judge a candidate whose users partly come by another load balancer than that
/// of the target's route: nobody would count them.
fn has_one_balancer(target: &TargetSpec) -> Result<()> {
    let found = match target {
        TargetSpec::Aws(spec) => spec.found.as_ref(),
        _ => None,
    };
    let strays = |found: &Found| {
        let mut also = found.also.iter();
        also.find(|also| also.load_balancer != found.load_balancer)
            .cloned()
    };
    let Some(also) = found.and_then(strays) else {
        return Ok(());
    };
    Err(Error::usage(format!(
        "{} ({}) sends requests to the same arms by another load balancer, and the metrics of this one do not have them: a candidate would get users whom nobody counts",
        also.place, also.route
    ))
    .give(Input::Only, "leaves that route as it is")
    .ask(Ask::MoveTraffic, "moves all of them by hand"))
}

/// Refuses to begin where routes that shall move together have different weights: no single
/// share would say what the candidate gets.
pub(super) fn are_together(traffic: &Traffic) -> Result<()> {
    if traffic.apart().next().is_none() {
        return Ok(());
    }
    let weights = traffic.weights.0.iter();
    let weights: Vec<String> = weights.map(|w| format!("{}={}", w.arm, w.weight)).collect();
    Err(Error::busy(format!(
        "the routes of this target have different weights, so they cannot move together: {}",
        traffic.shares()
    ))
    .ask(
        Ask::SetWeights(weights.join(" ")),
        "with the same target gives all of them the weights of the first",
    )
    .give(Input::Only, "moves the route that is named alone"))
}

/// What a rollout wants to run, for its target on AWS.
fn wanted<'a>(spec: &'a Spec, arms: &'a [Arm], promotion: Promotion) -> Wanted<'a> {
    let arm = |role| {
        let arm = arms.iter().find(|a| a.role == role);
        arm.map_or("", |a| a.name.as_str())
    };
    Wanted {
        stable: arm(Role::Stable),
        candidate: arm(Role::Candidate),
        release: spec.candidate.as_ref(),
        promotion,
    }
}

/// The target with the container that is the version, and with what a new task
/// definition changes.
async fn pin(
    app: &App,
    found: &AwsSpec,
    spec: &mut Spec,
    arms: &[Arm],
    promotion: Promotion,
) -> Result<AwsSpec> {
    let target = app.ports.on_aws(found).await?;
    let last = match last_rollout(app, target.identity()).await? {
        Some(id) => app.store.header(&id).await?,
        None => None,
    };
    // A rollout that has put the same task definition there knows what was there before.
    let before = match (last.map(|header| header.target), &spec.candidate) {
        (Some(TargetSpec::Aws(last)), Some(Release { source, .. })) => last
            .changes
            .filter(|changes| *source == Source::TaskDefinition(changes.to.clone()))
            .map(|changes| changes.of),
        _ => None,
    };
    let pinned = target
        .pinned(found, wanted(spec, arms, promotion), before.as_deref())
        .await?;
    if let (Some(candidate), Some(changes)) = (&mut spec.candidate, &pinned.changes) {
        candidate.version.clone_from(&changes.version);
    }
    Ok(pinned)
}

/// The arms that auto scaling changes. A rollout goes on without knowing it, because it
/// works out before each raise how many tasks are needed.
pub(super) async fn scaling(app: &App, target: &dyn Target) -> Vec<ArmScaling> {
    match target.scaling().await {
        Ok(scaling) => scaling,
        Err(error) => {
            app.note(format!(
                "whether auto scaling changes the number of tasks could not be read, so it is not held back during the rollout, which counts the tasks before each raise: {error}"
            ));
            vec![]
        }
    }
}

/// The arms with their roles and the versions that the strategy will first see.
fn who_is_who(spec: &Spec, live: &Observed, stable: Option<&str>) -> Result<Vec<Arm>> {
    let weights = live.weights();
    let all_on_one = live.arms.iter().any(|a| weights.share(&a.name) >= 100.0);
    let on_aws = matches!(spec.target, TargetSpec::Aws(_));
    if on_aws && stable.is_none() && !live.naming().has_an_order() && !all_on_one {
        return Err(Error::usage(format!(
            "both arms have traffic and the names {} do not tell which one is stable",
            live.names().join(" and ")
        ))
        .name_it(Input::Stable));
    }
    let mut arms = arms(live, stable).map_err(Error::usage)?;
    let Some(new) = &spec.candidate else {
        return Ok(arms);
    };
    for arm in arms.iter_mut().filter(|a| a.role == Role::Candidate) {
        let running = live.arm(&arm.name).map(|a| &a.release);
        if running.is_none_or(|r| !new.is(r)) && weights.weight(&arm.name) > 0 {
            return Err(Error::busy(format!(
                "{} has traffic, so it cannot be replaced by {}",
                arm.name, new.version
            ))
            .ask(Ask::Rollback, "takes the traffic back first"));
        }
        arm.version.clone_from(&new.version);
    }
    Ok(arms)
}

/// Begins a rollout, and notes what a person should know of it.
///
/// # Errors
/// As with [`make_ready`]; and busy, if something else has taken the target meanwhile.
pub async fn begin_rollout(app: &App, request: &BeginRequest, options: Options) -> Result<Ready> {
    // One of them may have the target.
    if let Ok(open) = app.store.open(None).await {
        gone::end_gone(app, &open).await;
    }
    let ready = make_ready(app, request).await?;
    for note in notes(&ready) {
        app.note(note);
    }
    begin_ready(app, &ready, options).await?;
    Ok(ready)
}

/// Begins a rollout that is ready. The plugin's bytes are kept first, so that any
/// process can go on with it.
async fn begin_ready(app: &App, ready: &Ready, options: Options) -> Result<()> {
    let now = app.clock.now();
    app.store
        .put(&ready.plugin.sha256, &ready.bytes, now)
        .await?;
    begin(app, options, ready.header.clone()).await?;
    if let Err(error) = app.store.sweep(app.clock.now()).await {
        app.note(format!(
            "old plugins could not be swept out of the store: {error}"
        ));
    }
    Ok(())
}

/// What a person should know before a rollout begins.
fn notes(ready: &Ready) -> Vec<Note> {
    let changed = |change: &TaskChange| {
        let differences = change.differences.iter().map(ToString::to_string);
        let differences: Vec<String> = differences.collect();
        format!("{change}; {}", differences.join(", "))
    };
    let changes = ready.changes.iter().filter(|c| !c.differences.is_empty());
    let mut notes: Vec<Note> = changes.map(|change| changed(change).into()).collect();
    let also = ready.header.target.also().iter();
    let also: Vec<&str> = also.map(|also| also.place.as_str()).collect();
    if !also.is_empty() {
        let all = format!(
            "moves too, as they share the same groups: {}",
            also.join(", ")
        );
        notes.push(Note::from(all).advise(Advice::give(Input::Only, "leaves them alone")));
    }
    if ready.live.sticky {
        notes.push("clients stick to their arm here, so shares move slower than weights".into());
    }
    let mut versions = ready.live.arms.iter().map(|a| a.release.version.as_str());
    let first = versions.next().unwrap_or_default();
    let arm = ready.header.arm(Role::Candidate);
    let runs = ready.live.arm(arm).map(|arm| &arm.release);
    if let Some(Release { source, .. }) = &ready.header.candidate
        && let Source::TaskDefinition(arn) = source
        && runs.is_some_and(|runs| runs.source == *source)
    {
        let name = arn.rsplit('/').next().unwrap_or(arn);
        let nothing = format!(
            "{arm} runs the task definition {name} already, so nothing new is started there: its tasks are judged as they are, also if the name of their image means another one by now"
        );
        let advice = Advice::give(Input::Image, "with that name starts them anew");
        notes.push(Note::from(nothing).advise(advice));
    }
    let serves = &ready.header.stable;
    if let (Some(new), Some(old)) = (&ready.header.candidate, serves)
        && ready.header.repeats.is_empty()
        && new.is(old)
    {
        notes.push(
            format!(
                "{} runs {} already, so users see no difference whatever becomes of this rollout",
                ready.header.arm(Role::Stable),
                new.version
            )
            .into(),
        );
    }
    if ready.header.candidate.is_none() && versions.all(|version| version == first) {
        let both = format!(
            "both arms run {first} already; a [candidate] in the rollout file puts a new version in"
        );
        notes.push(Note::from(both).advise(Advice::give(Input::Image, "does it too")));
    }
    notes
}

/// Refuses a release on AWS for an arm without a service that could run it.
fn have_services(
    target: &TargetSpec,
    new: Option<&Release>,
    arms: &[Arm],
    promotion: Promotion,
) -> Result<()> {
    let (TargetSpec::Aws(spec), Some(new)) = (target, new) else {
        return Ok(());
    };
    let Some(found) = &spec.found else {
        return Ok(());
    };
    let gets_it = |arm: &&Arm| arm.role == Role::Candidate || promotion == Promotion::Copy;
    let is_bare = |arm: &&Arm| found.arm(&arm.name).is_some_and(|a| a.service.is_none());
    match arms.iter().filter(gets_it).find(is_bare) {
        None => Ok(()),
        Some(Arm { name, .. }) => Err(Error::usage(format!(
            "no ECS service is behind the target group of {name}, so nothing there can run {}",
            new.version
        ))
        .name_it(Input::ServiceOf(name.clone()))),
    }
}

/// The arms that run an image of the candidate's very name, and are given it anew. An
/// image that is named by its digest is always the same.
fn repeats(spec: &Spec, live: &Observed, arms: &[Arm], promotion: Promotion) -> Vec<String> {
    let Some(new) = &spec.candidate else {
        return vec![];
    };
    let Source::Image(image) = &new.source else {
        return vec![];
    };
    if ImageReference::parse(image).is_ok_and(|i| i.digest.is_some()) {
        return vec![];
    }
    let given = arms.iter().filter(|arm| match arm.role {
        // What has users is not replaced under them.
        Role::Candidate => live.weights().weight(&arm.name) == 0,
        Role::Stable => promotion == Promotion::Copy,
    });
    let same = given.filter(|arm| live.arm(&arm.name).is_some_and(|a| new.is(&a.release)));
    same.map(|arm| arm.name.clone()).collect()
}

/// What the arms run, with the digests of their images: what a tag means can change during
/// the rollout, and before somebody undoes it. Only targets on AWS have images.
pub(super) async fn running(app: &App, spec: &TargetSpec, live: &Observed) -> Result<Vec<Running>> {
    let TargetSpec::Aws(_) = spec else {
        return Ok(vec![]);
    };
    // By the container that is the version.
    let target = app.ports.reach(spec).await?;
    let mut all = vec![];
    for arm in &live.arms {
        if matches!(arm.release.source, Source::TaskDefinition(_)) {
            all.push(crate::target::running(target.as_ref(), arm).await);
        }
    }
    Ok(all)
}

/// Says which images the arms run whose name is the candidate's, and what the stable arm
/// must get on the way back: its image by the digest, because the name may mean another
/// one by then.
fn what_the_name_meant(
    app: &App,
    running: &[Running],
    arms: &[Arm],
    repeats: &[String],
    mut stable: Option<Release>,
) -> Option<Release> {
    for arm in arms.iter().filter(|arm| repeats.contains(&arm.name)) {
        let (name, image) = (&arm.name, &arm.version);
        let seen = running.iter().find(|seen| seen.arm == *name);
        let known = match seen.map(|seen| (&seen.digests[..], &seen.unread)) {
            Some((_, Some(error))) => format!("and as which digest could not be read ({error})"),
            Some((all @ [_, ..], None)) => format!("as {}", all.join(" and ")),
            _ => "and its tasks do not say as which digest".to_owned(),
        };
        let anew = match arm.role {
            Role::Candidate => "so its tasks are started anew",
            Role::Stable => "so its tasks are started anew at the promotion",
        };
        app.note(format!(
            "{name} runs {image} already, {known}; the name may mean another image now, {anew}"
        ));
        if arm.role == Role::Candidate {
            continue;
        }
        let release = stable.as_ref().or_else(|| seen.map(|seen| &seen.release));
        let digest = seen.and_then(Running::digest);
        match release.zip(digest).and_then(|(r, d)| r.by_digest(d)) {
            Some(pinned) => stable = Some(pinned),
            _ => app.note(format!(
                "the image that {name} runs is known by its name alone, so no way back from the promotion can bring it back; push a new version under a new tag to have one"
            )),
        }
    }
    stable
}

/// What arrives in the arms.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    candidate: Option<&'a Release>,
    repeats: &'a [String],
    promotion: Promotion,
}

/// Refuses to put a release into an arm to which another route sends users, whatever
/// its weight on the target's route.
async fn seen_by_nobody(
    app: &App,
    target: &dyn Target,
    arrives: Arrival<'_>,
    live: &Observed,
    arms: &[Arm],
) -> Result<()> {
    let elsewhere = target
        .elsewhere()
        .await
        .context("failed to read what other listeners and rules send to the arms")?;
    for arm in arms {
        let running = live.arm(&arm.name).map(|a| &a.release);
        let new = arrives.candidate;
        let replaced = match arm.role {
            Role::Candidate if arrives.repeats.contains(&arm.name) => true,
            Role::Candidate => new.is_some_and(|new| running.is_none_or(|r| !new.is(r))),
            Role::Stable => arrives.promotion.copies(),
        };
        if !replaced {
            continue;
        }
        if let Some(route) = Elsewhere::seen(&elsewhere, &arm.name).next() {
            let (when, advice) = match arm.role {
                Role::Candidate => (
                    "its users would get the new version at once",
                    Advice::give(
                        Input::TestListener,
                        "names it, if that listener is for tests alone",
                    ),
                ),
                Role::Stable => (
                    "a promotion by copy would replace the version of its users",
                    Advice::words("or use promotion = \"swap\", which does not replace it"),
                ),
            };
            let first = format!("bring that route to the other arm first ({})", route.route);
            return Err(Error::busy(format!("{route}: {when}"))
                .hint(first)
                .advise(advice));
        }
        for route in elsewhere
            .iter()
            .filter(|e| e.arm == arm.name && e.way == Way::Unsaid)
        {
            let note = Note::from(format!("{route}; its users get the new version at once"));
            app.note(note.advise(Advice::give(
                Input::TestListener,
                "names it, if it is for tests alone",
            )));
        }
    }
    Ok(())
}

/// Says which version a rollout is about to which no release was given, and that it is tried
/// once more if that one was taken back.
async fn say_what_it_is_about(
    app: &App,
    identity: &str,
    live: &Observed,
    arms: &[Arm],
) -> Result<()> {
    let candidate = arms.iter().find(|arm| arm.role == Role::Candidate);
    let Some(arm) = candidate.and_then(|arm| live.arm(&arm.name)) else {
        return Ok(());
    };
    let page = Page::newest(Some(identity), 1).of_strategies();
    let last = app.store.history(&page).await?.into_iter().next();
    let again = match last.filter(|last| last.end == Some(End::RolledBack)) {
        Some(last) => format!(
            "; the last rollout here, {}, was rolled back: {}",
            last.rollout, last.note
        ),
        None => String::new(),
    };
    app.note(format!(
        "no image was named, so this is about what {} runs already, {}{again}",
        arm.name, arm.release.version
    ));
    Ok(())
}

/// The release that the request names for the candidate.
async fn candidate(
    app: &App,
    request: &BeginRequest,
    target: &TargetSpec,
) -> Result<Option<Release>> {
    if request.image.is_none() && request.task_definition.is_none() {
        return Ok(None);
    }
    let TargetSpec::Aws(spec) = target else {
        return Err(
            Error::argument(Input::Release, "need a target on AWS").name_it(Input::LoadBalancer)
        );
    };
    if let Some(image) = &request.image {
        if is_mutable(image) {
            app.note(format!(
                "{image} may name another image later, even between the judgement and the promotion; use a tag that never moves, or a digest"
            ));
        }
        return Ok(Some(Release {
            version: image.clone(),
            source: Source::Image(image.clone()),
        }));
    }
    let clients = app.ports.clients_of(spec).await?;
    let name = request.task_definition.as_deref().unwrap_or_default();
    let container = spec.container.as_deref();
    Ok(Some(
        release_of_task_definition(&clients, name, container).await?,
    ))
}

/// Whether an image's tag usually moves: no tag, or `latest`.
fn is_mutable(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Refuses parameters with a credential, because they go into the journal.
fn no_credentials(parameters: &Map<String, Value>) -> Result<()> {
    let mut plain = Value::Object(parameters.clone());
    without_nulls(&mut plain);
    let table = toml::Table::try_from(&plain).context("failed to look through the parameters")?;
    match crate::spec::credentials::in_table(&table).first() {
        Some(path) => Err(Error::usage(format!(
            "strategy.parameters.{path} has a credential in it, which would go into the journal and exports; a strategy cannot use one"
        ))),
        None => Ok(()),
    }
}

/// Removes nulls, which TOML does not have.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(without_nulls);
        }
        _ => {}
    }
}

/// Fails if a secret that the file names, or the certificate of its authority, cannot be
/// read.
fn secrets_are_there(request: &BeginRequest, spec: &Spec) -> Result<()> {
    let problems = missing_secrets(spec);
    if problems.is_empty() {
        return Ok(());
    }
    let title = "the rollout file names what cannot be read:";
    Err(Error::problems(title, located(request, problems)))
}

/// The secrets that a file names and that cannot be read, and the certificate of its
/// authority.
pub(super) fn missing_secrets(spec: &Spec) -> Vec<Problem> {
    let read = |(path, text): (String, &str)| {
        let read = crate::target::secret::fill(text, str::to_owned);
        Some(Problem::new(path, read.err()?.to_string()))
    };
    let mut problems: Vec<Problem> = spec.references().filter_map(read).collect();
    if let TargetSpec::Aws(aws) = &spec.target
        && let Some(file) = &aws.probe_ca
        && let Err(error) = certificates(Path::new(file))
    {
        problems.push(Problem::new("target.aws.probe-ca", error.to_string()));
    }
    problems
}

/// The first entry of a rollout without a strategy: no candidate, no capacity, and
/// the destination must be healthy at once.
pub(super) fn by_hand(
    app: &App,
    (spec, target): (TargetSpec, &dyn Target),
    name: impl Display,
    arms: Vec<Arm>,
    baseline: Weights,
    work: Work,
) -> Header {
    Header {
        format: FORMAT,
        rollout: format!("{name}-{}", new_id_part()),
        created: app.clock.now(),
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        file: None,
        identity: target.identity().to_owned(),
        target: spec,
        sample_period_ms: target.sample_period_ms(),
        arms,
        baseline,
        capacity: None,
        scaling: vec![],
        stable: None,
        running: vec![],
        candidate: None,
        digest: None,
        repeats: vec![],
        promotion: Promotion::Swap,
        guardrails: Guardrails {
            healthy_timeout_ms: 0,
            ..Guardrails::default()
        },
        probes: vec![],
        queries: vec![],
        caps: <_>::default(),
        work,
    }
}

/// Begins a rollout, or says what has its target.
pub async fn begin(app: &App, options: Options, header: Header) -> Result<()> {
    let refused = match &header.work {
        Work::Strategy(_) => format!("no rollout was begun on {}", header.identity),
        _ => format!("nothing was done on {}", header.identity),
    };
    match app.driver(options).begin(header).await {
        Err(RolloutError::Store(StoreError::Busy(busy))) => {
            let error = busy_with(app, &busy.rollout).await;
            Err(error.context(refused))
        }
        result => Ok(result?),
    }
}

/// The error that a rollout has the target.
pub async fn busy_with(app: &App, rollout: &str) -> Error {
    let Some(header) = header_of_a_claim(app, rollout).await else {
        return Error::busy(format!(
            "the target is busy: another process has just taken it ({rollout})"
        ))
        .hint("try again in a moment");
    };
    let undoes = matches!(header.work, Work::Undo { .. });
    if matches!(header.work, Work::StackChange { .. }) {
        // One that this process has just parked is nobody's once it has left.
        let busy = app.living_owner(&header).await.unwrap_or_default();
        if busy.is_none_or(|busy| busy.driver() == Some(&app.owner)) {
            return Error::busy(format!(
                "the target is busy: its stack is being changed ({rollout}), and the process that watched that is gone"
            ))
            .ask(
                Ask::Resume(rollout.to_owned()),
                "watches the stack until CloudFormation is done",
            )
            .ask(Ask::Rollback, "works meanwhile");
        }
        return Error::busy(format!(
            "the target is busy: another process changes its stack ({rollout})"
        ))
        .ask(Ask::Rollback, "works meanwhile")
        .hint("everything else must wait");
    }
    let standing = of_whom(app, &header).await;
    let error = Error::busy(format!(
        "the target is busy with rollout {rollout}{}",
        match standing {
            Occupant::Driven => "",
            Occupant::Nobodys => ", which no process drives",
            Occupant::Paused => ", which is paused until a person decides",
        }
    ));
    // Whoever undoes it once more wants it to go on; to abort it would take the traffic
    // back to the version that is undone.
    let error = match standing {
        Occupant::Driven if !undoes => error,
        _ => error.ask(Ask::Resume(rollout.to_owned()), "goes on with it"),
    };
    error
        .ask(Ask::StatusOf(rollout.to_owned()), "shows it")
        .ask(Ask::Abort(rollout.to_owned()), "takes its traffic back")
}

/// Who sees to a rollout that has a target.
#[derive(Clone, Copy)]
enum Occupant {
    /// A living process, or one that will wake it.
    Driven,
    /// Nobody, though it would move on.
    Nobodys,
    /// A person, for whom it waits.
    Paused,
}

async fn of_whom(app: &App, header: &Header) -> Occupant {
    let open = app.store.open(Some(&header.identity)).await;
    let mut open = open.unwrap_or_default().into_iter();
    match open.find(|o| o.summary.rollout == header.rollout) {
        Some(one) if matches!(one.summary.phase, Phase::Paused | Phase::Diverged) => {
            Occupant::Paused
        }
        Some(one) if !app.is_driven(&header.rollout, &one.busy) => Occupant::Nobodys,
        // It has ended meanwhile, or cannot be read: nothing is known of it.
        _ => Occupant::Driven,
    }
}

/// What a rollout that has a target is, waiting a moment for it: a process claims a target
/// before it writes down what for.
async fn header_of_a_claim(app: &App, rollout: &str) -> Option<Header> {
    let last = app.clock.now() + 2_000;
    loop {
        match app.store.header(rollout).await {
            Ok(None) if app.clock.now() < last => {
                app.clock.sleep_until(app.clock.now() + 50).await;
            }
            read => return read.ok().flatten(),
        }
    }
}

/// An id that is short, can be read aloud, and is unlikely to repeat: 8 letters and
/// digits.
#[must_use]
pub fn new_id_part() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    (0..8)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_move_are_known() {
        for image in [
            "app",
            "app:latest",
            "r.example:5000/app",
            "r.example:5000/a/app:latest",
        ] {
            assert!(is_mutable(image), "{image}");
        }
        for image in ["app:v1", "r.example:5000/app:v1", "app@sha256:00"] {
            assert!(!is_mutable(image), "{image}");
        }
    }
}
