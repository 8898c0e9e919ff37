//! Verbs that only read: `status`, `get`, `list`, `history`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::watch::{self, How};
use super::{Global, advice, print, render, table};
use crate::journal::verdict::verdict;
use crate::journal::{Work, exchanges, narrate};
use crate::model::{Millis, Role};
use crate::ops::app::App;
use crate::ops::history::{self, HistoryRequest, ListRequest};
use crate::ops::status::{self, Known, Live, Overview};
use crate::rollout::Standing;
use crate::view;

/// Show where the traffic goes, and the rollout that moves it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine status
  engine status -w                     until the rollout ends or pauses
  engine status --json | jq .target.arms")]
pub struct StatusArgs {
    /// A rollout [default: the one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Go on watching; the exit code is the rollout's
    #[arg(long, short)]
    watch: bool,
}

/// Wait until a rollout ends or pauses; the exit code is the rollout's
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine wait canary-x7k2m9qa
  engine wait --timeout 30m && echo promoted

Exit codes are those of `engine run`; 5 when the time is over and it still goes on.")]
pub struct WaitArgs {
    /// The rollout [default: the one on the target]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Wait no longer than that, such as 90s or 30m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Show everything about one rollout
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The rollout [default: the newest]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
}

/// List rollouts, newest first
///
/// A terminal shows as much as fits into a line; a pipe, a file and --json have all of it.
/// Wherever a rollout is named, four letters or more from the beginning or end of its id will
/// do, if no other one has them: x7k2 or m9qa for canary-x7k2m9qa.
/// A rollout is undriven if it has not ended and its process has: `engine resume ID` goes on
/// with it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine list
  engine list --all --stack my-stack
  engine list --json | jq -r '.[] | select(.end == null) | .rollout'")]
pub struct ListArgs {
    /// At most so many rollouts
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Also list single verbs: set-weights, switch, rollback
    #[arg(long, short)]
    all: bool,
}

/// Show the journal of a rollout: every call, every answer
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  engine history                          every call of the newest rollout
  engine history ID --plot rollout.svg    a picture of it
  engine history ID --json | jq '.[].event.call.finding // empty'")]
pub struct HistoryArgs {
    /// The rollout [default: the newest]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
    /// Draw it into this file instead: traffic, errors, p99 and evidence
    #[arg(long, value_name = "FILE.svg|png")]
    plot: Option<PathBuf>,
}

pub(super) async fn wait(app: &App, global: &Global, args: WaitArgs) -> crate::ops::Result<Exit> {
    let (target, named) = (global.target(), args.rollout.as_deref());
    let id = status::subject(app, &target, named)
        .await?
        .ok_or_else(|| crate::ops::Error::usage("there is no rollout to wait for"))?;
    let watched = follow(app, global, &id, named);
    let Some(time) = args.timeout else {
        return watched.await;
    };
    match tokio::time::timeout(time, watched).await {
        Ok(exit) => exit,
        Err(_) => {
            eprintln!(
                "rollout {id} still goes on after {}; nothing was changed",
                humantime::format_duration(time)
            );
            Ok(Exit::Paused)
        }
    }
}

/// Follows a rollout to where it stops. Of one that is over and after which the traffic was
/// moved once more, its end is not how things are: what is now is shown, as `status` does.
async fn follow(
    app: &App,
    global: &Global,
    id: &str,
    named: Option<&str>,
) -> crate::ops::Result<Exit> {
    let (_, status) = app.reached(id).await?;
    if status.is_over() {
        let overview = status::overview(app, &global.target(), named).await?;
        if let Some(known) = overview
            .rollout
            .as_ref()
            .filter(|_| overview.has_moved_on())
        {
            let standing = Standing::settled(&known.status);
            let exit = standing.as_ref().map_or(Exit::Done, Exit::from);
            // Whoever names a rollout asks how that one ended.
            let undone = named.is_none() && exit == Exit::Done && overview.is_undone();
            let exit = if undone { Exit::RolledBack } else { exit };
            // Nobody knows how it is where the target does not say so.
            let exit = match silent(&overview) {
                Some(silent) if exit == Exit::Done => silent,
                _ => exit,
            };
            if global.json {
                json!(view::rollout::Driven {
                    status: (&known.status).into(),
                    exit: exit as u8,
                    moved_since: true,
                    requests: None,
                });
            } else {
                show(app, &overview);
            }
            return Ok(exit);
        }
    } else if !std::io::stderr().is_terminal() {
        // Nothing may happen for a while, and a log shall say what is waited for.
        eprintln!("{}", render::standing(&status, app.clock.now()));
    }
    watch::watch(app, global, id, How::Follow).await
}

pub(super) async fn status(
    app: &App,
    global: &Global,
    args: StatusArgs,
) -> crate::ops::Result<Exit> {
    let (target, id) = (global.target(), args.rollout.as_deref());
    if args.watch
        && let Some(subject) = status::subject(app, &target, id).await?
    {
        return follow(app, global, &subject, id).await;
    }
    let overview = status::overview(app, &target, id).await?;
    let exit = silent(&overview).unwrap_or(Exit::Done);
    match global.json {
        true => json!(view::traffic::Standing::from(&overview)),
        false => show(app, &overview),
    }
    Ok(exit)
}

/// The exit code of a target that does not answer, unless it has ended as it was to or is
/// there no more.
fn silent(overview: &Overview) -> Option<Exit> {
    let silent = overview.silent.as_ref();
    let unreachable = |error: &&crate::ops::Error| error.kind == crate::ops::Kind::Unreachable;
    let silent = silent
        .filter(unreachable)
        .filter(|_| !overview.has_ended_with_its_process());
    silent.map(|error| Exit::from(error.kind))
}

/// Where the traffic is, and its rollout.
fn show(app: &App, overview: &Overview) {
    match &overview.live {
        Some(live) => show_live(live, overview.moved_at(), app.clock.now()),
        None => show_silent(overview),
    }
    match &overview.rollout {
        Some(known) => {
            if let Some(live) = &overview.live {
                show_digests(known, live);
            }
            match known.status.is_over() {
                true => show_last(known, overview),
                false => show_known(known, overview.live.is_none(), app.clock.now()),
            }
        }
        None => out!("no rollout"),
    }
}

/// That a target does not answer, and why: what is said besides is of the past.
fn show_silent(overview: &Overview) {
    let identity = &overview.identity;
    if overview.has_ended_with_its_process() {
        out!("{identity}: the balancer was part of the rollout's process and has ended with it");
        return;
    }
    match &overview.silent {
        Some(error) => out!("{identity} does not answer: {}", advice::text(error)),
        None => out!("{identity} does not answer"),
    }
    if let Some(known) = &overview.rollout {
        let status = &known.status;
        let (date, shares) = (
            render::date(status.updated),
            render::shares(&status.weights),
        );
        match overview.since {
            // Where the traffic is now, that one knows.
            Some(_) => out!(
                "\nfrom its journal, which ends {date}: it set {shares}, and the traffic was moved since, as is said below"
            ),
            None => out!("\nfrom its journal, which ends {date}: it last set {shares}"),
        }
    }
}

fn show_live(live: &Live, moved: Option<Millis>, now: Millis) {
    out!("{}", live.seen.observed.address);
    for line in render::arm_lines(&live.seen, None, print::width()) {
        out!("{line}");
    }
    for line in render::measured_when(&live.seen, moved, now) {
        out!("{line}");
    }
    if live.seen.observed.sticky {
        out!("  clients stick to their arm, so shares move slower than weights");
    }
    for other in &live.seen.observed.others {
        out!("  moves with it: {other}");
    }
    match &live.elsewhere {
        Ok(routes) => {
            for route in routes {
                out!("  {route}");
            }
        }
        Err(error) => {
            out!("  what other listeners and rules send to the arms could not be read: {error}");
        }
    }
    if let Err(error) = &live.fit {
        out!("  {error}");
    }
}

/// Which images the arms run, as the journal last saw it; not where an arm has got another
/// release since.
fn show_digests(known: &Known, live: &Live) {
    for arm in &live.seen.observed.arms {
        let seen = known.status.running(&arm.name);
        let seen = seen.filter(|seen| seen.release.is(&arm.release) && !seen.digests.is_empty());
        if let Some(seen) = seen {
            out!("  {seen}, as rollout {} saw it", known.status.rollout);
        }
    }
}

/// A rollout that has ended, and what has become of the traffic since.
fn show_last(known: &Known, overview: &Overview) {
    let (header, status) = (&known.header, &known.status);
    let last = format!("last rollout {}", status.rollout);
    if !overview.has_moved_on() {
        out!("{last}: {}", verdict(header, status));
        return;
    }
    if let Some((end, reason)) = &status.end {
        out!(
            "{last} ended {}: {end}: {reason}",
            render::date(status.updated)
        );
    }
    match &overview.since {
        Some(verb) => out!(
            "since then {} ({}): {}: {}",
            verb.title,
            verb.rollout,
            verb.phase,
            verb.note
        ),
        None => out!("since then the traffic was moved, and not by a verb that is known here"),
    }
}

fn show_known(known: &Known, is_silent: bool, now: Millis) {
    let (header, status) = (&known.header, &known.status);
    let waits = status.hold.is_some() || status.mismatch.is_some();
    let lines = match known.driven == Some(false) && !waits {
        true => render::undriven(header, status, is_silent, now, print::width()),
        false => render::head(header, status, now, print::width()),
    };
    for line in lines {
        out!("{line}");
    }
    if waits {
        out!("{}", verdict(header, status));
    }
}

pub(super) async fn get(app: &App, global: &Global, args: GetArgs) -> crate::ops::Result<Exit> {
    let (header, status) = history::get(app, &global.target(), args.rollout.as_deref()).await?;
    if global.json {
        json!(view::rollout::Rollout::of(&header, &status));
        return Ok(Exit::Done);
    }
    out!("rollout    {}", header.rollout);
    out!(
        "phase      {}",
        render::phase_style(status.phase).apply_to(status.phase)
    );
    out!("target     {}", header.identity);
    for arm in &header.arms {
        let role = match arm.role {
            Role::Stable => "stable",
            Role::Candidate => "candidate",
        };
        // The journal of a single verb does not say what the arms run.
        let version = if arm.version.is_empty() { "" } else { ", " };
        out!("arm        {} ({role}{version}{})", arm.name, arm.version);
    }
    for seen in status
        .running
        .iter()
        .filter(|seen| !seen.digests.is_empty())
    {
        out!("digest     {seen}");
    }
    match &header.work {
        Work::Strategy(pin) => {
            out!("strategy   {} {} ({})", pin.name, pin.version, pin.source);
            out!("sha256     {}", pin.sha256);
            out!("contract   {}", pin.world);
            out!("parameters {}", pin.parameters);
        }
        Work::Verb {
            verb,
            actor,
            weights,
        } => out!("verb       {verb} {weights}, by {actor}"),
        Work::Undo { of, actor } => out!("verb       undo {of}, by {actor}"),
        Work::StackChange {
            stack,
            change,
            actor,
            ..
        } => out!("verb       {change} of the stack {stack}, by {actor}"),
    }
    out!(
        "weights    {} (at first {})",
        status.weights,
        header.baseline
    );
    out!("began      {}", render::date(header.created));
    out!(
        "last entry {} (#{})",
        render::date(status.updated),
        status.entries - 1
    );
    // What it last waited for says nothing once something is decided.
    if !status.note.is_empty() && status.decision.is_none() && !status.is_over() {
        out!("note       {} % {}", status.percent, status.note);
    }
    if let Some(finding) = &status.finding {
        out!("last look  {finding}");
    }
    if let Some(decision) = &status.decision {
        out!("decided    by {}: {}", decision.by, decision.reason);
    }
    if status.is_over() || status.hold.is_some() || status.mismatch.is_some() {
        out!("{}", verdict(&header, &status));
    }
    Ok(Exit::Done)
}

pub(super) async fn list(app: &App, global: &Global, args: ListArgs) -> crate::ops::Result<Exit> {
    let request = ListRequest {
        target: global.target(),
        limit: args.limit,
        all: args.all,
    };
    let rows = history::list(app, &request).await?;
    if global.json {
        json!(view::rollout::List::of(&rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        eprintln!("no rollouts yet; `engine run` begins one, `engine demo` one without services");
    }
    if !rows.is_empty() {
        for line in table::lines(&rows, print::width()) {
            out!("{line}");
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn history(
    app: &App,
    global: &Global,
    args: HistoryArgs,
) -> crate::ops::Result<Exit> {
    let drawn = args.plot.is_some();
    let request = HistoryRequest {
        target: global.target(),
        rollout: args.rollout,
        plot: args.plot,
    };
    let entries = history::history(app, &request).await?;
    if global.json {
        json!(view::rollout::History(entries));
        return Ok(Exit::Done);
    }
    if drawn {
        return Ok(Exit::Done);
    }
    for exchange in exchanges(&entries) {
        out!("{}", narrate::history(&exchange));
    }
    Ok(Exit::Done)
}
