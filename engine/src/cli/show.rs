//! Verbs that only look: `status`, `get`, `list`, `history`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::{Global, picture, render, traffic, watch};
use crate::journal::status::Status;
use crate::journal::{Header, Work};
use crate::model::{ErrorKind, Role};
use crate::ops::Error;
use crate::ops::app::App;

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

/// Show everything about one rollout
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The rollout [default: the newest]
    #[arg(allow_hyphen_values = true)]
    rollout: Option<String>,
}

/// List rollouts, newest first
#[derive(Debug, Args)]
pub struct ListArgs {
    /// At most so many
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Single verbs too: set-weights, switch, rollback
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

pub(super) async fn status(
    app: &App,
    global: &Global,
    args: StatusArgs,
) -> crate::ops::Result<Exit> {
    // Without a flag or a file, what is under way is what people mean.
    let elsewhere = global.target().named()?.is_some();
    let named = match args.rollout {
        None if !elsewhere => app.rollout_in_sight().await?.map(|h| h.rollout),
        named => named,
    };
    let (identity, live, rollout) = match named {
        Some(id) => {
            let (header, ..) = app.journal(&id).await?;
            let live = match app.ports.reach(&header.target).await {
                Ok(target) => watch::look(target.as_ref(), app.clock.now())
                    .await
                    .ok()
                    .map(|seen| (seen, target)),
                Err(_) => None,
            };
            (header.identity, live, Some(id))
        }
        None => {
            let (identity, live) = match traffic::target(app, global).await {
                Ok((spec, target)) => {
                    let now = app.clock.now();
                    let live = match watch::look(target.as_ref(), now).await {
                        // What was remembered may be gone in part: find it again.
                        Err(e) if e.kind == ErrorKind::NotFound => {
                            let (target, ..) = app.ports.start(&spec).await?;
                            (watch::look(target.as_ref(), now).await?, target)
                        }
                        live => (live?, target),
                    };
                    (live.1.identity().to_owned(), Some(live))
                }
                // What was last known of it is better than nothing.
                Err(error) => match app.store.list(None, 1).await?.first() {
                    Some(last) if !elsewhere => (last.header.identity.clone(), None),
                    _ => return Err(error),
                },
            };
            let last = last_rollout(app, &identity).await?;
            (identity, live, last)
        }
    };
    let beside = match &live {
        Some((_, target)) if !args.watch => Some(tokio::join!(target.elsewhere(), target.fit())),
        _ => None,
    };
    if args.watch
        && let Some(id) = &rollout
    {
        return match watch::follow(app, global, id).await? {
            watch::Followed::Left(exit) => Ok(exit),
            watch::Followed::Abandoned => {
                eprintln!("no process drives rollout {id}; `engine resume {id}` goes on with it");
                Ok(Exit::Paused)
            }
        };
    }
    let known = match &rollout {
        Some(id) => Some(app.journal(id).await?),
        None => None,
    };
    let driven = match &known {
        Some((header, status, _)) if !status.is_over() => {
            Some(app.living_owner(header).await?.is_some())
        }
        _ => None,
    };
    if global.json {
        let target = live.as_ref().map(|((observed, samples, window), _)| {
            let rates: serde_json::Map<String, serde_json::Value> = observed
                .arms
                .iter()
                .map(|a| {
                    (
                        a.name.clone(),
                        json!(render::rates(samples, &a.name, *window)),
                    )
                })
                .collect();
            let mut target = json!({
                "identity": identity, "address": observed.address, "sticky": observed.sticky,
                "arms": observed.arms, "rates": rates,
            });
            if let Some((elsewhere, fit)) = &beside {
                match elsewhere {
                    Ok(routes) => target["elsewhere"] = json!(routes),
                    Err(error) => target["elsewhereUnread"] = json!(error.message),
                }
                if let Err(error) = fit {
                    target["unfit"] = json!(error.message);
                }
            }
            target
        });
        let status = known.as_ref().map(|(_, status, _)| status);
        out!(
            "{}",
            json!({"target": target, "rollout": status, "driven": driven})
        );
        return Ok(Exit::Done);
    }
    if let Some(((observed, samples, window), _)) = &live {
        out!("{}", observed.address);
        for line in render::arm_lines(observed, samples, *window, render::BAR) {
            out!("{line}");
        }
        if observed.sticky {
            out!("  clients stick to their arm, so shares move slower than weights");
        }
        if let Some((elsewhere, fit)) = &beside {
            match elsewhere {
                Ok(routes) => {
                    for route in routes {
                        out!("  {route}");
                    }
                }
                Err(error) => {
                    out!(
                        "  what other listeners and rules send to the arms could not be read: {error}"
                    );
                }
            }
            if let Err(error) = fit {
                out!("  {error}");
            }
        }
    } else {
        out!("{identity}: not reachable");
    }
    match &known {
        Some((header, status, _)) if status.is_over() => {
            out!(
                "last rollout {}: {}",
                status.rollout,
                render::verdict(header, status)
            );
        }
        Some((header, status, _)) => {
            for line in render::head(status, app.clock.now()) {
                out!("{line}");
            }
            if status.hold.is_some() || status.mismatch.is_some() {
                out!("{}", render::verdict(header, status));
            } else if driven == Some(false) {
                out!(
                    "  no process drives it: `engine resume {0}` goes on, `engine abort {0}` takes it back",
                    status.rollout
                );
            }
        }
        None => out!("no rollout"),
    }
    Ok(Exit::Done)
}

/// The rollout that is named, or the newest one, of the target that a flag names.
async fn newest_unless(
    app: &App,
    global: &Global,
    named: Option<String>,
) -> crate::ops::Result<String> {
    if named.is_none()
        && let Some(identity) = global.target().identity(app).await?
    {
        let listed = app.store.list(Some(&identity), 1).await?;
        return listed
            .into_iter()
            .next()
            .map(|l| l.header.rollout)
            .ok_or_else(|| Error::usage(format!("there are no rollouts on {identity} yet")));
    }
    match (named, app.store.list(None, 1).await?.first()) {
        (Some(id), _) => Ok(id),
        (None, Some(newest)) => Ok(newest.header.rollout.clone()),
        (None, None) => Err(Error::usage("there are no rollouts yet")),
    }
}

/// The rollout that occupies a target, or the last one that did.
async fn last_rollout(app: &App, identity: &str) -> crate::ops::Result<Option<String>> {
    if let Some(busy) = app.store.occupant(identity).await?
        && let Ok((header, ..)) = app.journal(&busy.rollout).await
        && !matches!(header.work, Work::StackChange { .. })
    {
        return Ok(Some(busy.rollout));
    }
    let listed = app.store.list(Some(identity), u32::MAX).await?;
    let last = listed
        .into_iter()
        .find(|l| matches!(l.header.work, Work::Strategy(_)));
    Ok(last.map(|l| l.header.rollout))
}

pub(super) async fn get(app: &App, global: &Global, args: GetArgs) -> crate::ops::Result<Exit> {
    let id = newest_unless(app, global, args.rollout).await?;
    let (header, status, _) = app.journal(&id).await?;
    if global.json {
        out!(
            "{}",
            json!({"header": header.without_secrets(), "status": status})
        );
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
        // A single verb does not ask what runs where.
        let version = if arm.version.is_empty() { "" } else { ", " };
        out!("arm        {} ({role}{version}{})", arm.name, arm.version);
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
        Work::StackChange {
            stack,
            change,
            actor,
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
    if !status.note.is_empty() {
        out!("note       {} % {}", status.percent, status.note);
    }
    if let Some(finding) = &status.finding {
        out!("last look  {finding}");
    }
    if let Some(decision) = &status.decision {
        out!("decided    by {}: {}", decision.by, decision.reason);
    }
    if status.is_over() || status.hold.is_some() || status.mismatch.is_some() {
        out!("{}", render::verdict(&header, &status));
    }
    Ok(Exit::Done)
}

pub(super) async fn list(app: &App, global: &Global, args: ListArgs) -> crate::ops::Result<Exit> {
    let identity = global.target().identity(app).await?;
    let listed = app.store.list(identity.as_deref(), 10_000).await?;
    let mut wanted: Vec<Header> = listed
        .into_iter()
        .map(|l| l.header)
        .filter(|h| args.all || matches!(h.work, Work::Strategy(_)))
        .take(args.limit as usize)
        .collect();
    // What has not ended is shown, however much came after it.
    for header in app.store.unfinished().await? {
        let ours = identity.as_ref().is_none_or(|i| *i == header.identity);
        if ours && !wanted.iter().any(|h| h.rollout == header.rollout) {
            wanted.push(header);
        }
    }
    let mut rows = vec![];
    for header in wanted {
        let entries = app.store.load(&header.rollout, 0).await?;
        if let Some(status) = Status::of(&entries) {
            rows.push((header, status));
        }
    }
    if global.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(header, status)| {
                json!({"rollout": status.rollout, "target": header.identity,
                "phase": status.phase, "created": status.created, "updated": status.updated,
                "end": json!(status)["end"]})
            })
            .collect();
        out!("{}", json!(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        eprintln!("no rollouts yet; `engine run plugins/canary.wasm` begins one");
    }
    if !rows.is_empty() {
        out!(
            "{:<20}  {:<22}  {:<15}  {:<22}  WHY",
            "BEGAN",
            "ROLLOUT",
            "PHASE",
            "TARGET"
        );
    }
    for (header, status) in &rows {
        let note = match &status.end {
            Some((_, reason)) => reason.clone(),
            None => status
                .hold
                .as_ref()
                .map_or_else(|| status.note.clone(), ToString::to_string),
        };
        let phase = format!("{:<15}", status.phase.to_string());
        out!(
            "{}  {:<22}  {}  {:<22}  {note}",
            render::date(status.created),
            status.rollout,
            render::phase_style(status.phase).apply_to(phase),
            render::short_identity(&header.identity),
        );
    }
    Ok(Exit::Done)
}

pub(super) async fn history(
    app: &App,
    global: &Global,
    args: HistoryArgs,
) -> crate::ops::Result<Exit> {
    let id = newest_unless(app, global, args.rollout).await?;
    let (_, _, entries) = app.journal(&id).await?;
    if let Some(path) = &args.plot {
        picture::draw_rollout(&entries, path)?;
    }
    if global.json {
        out!("{}", serde_json::to_string(&entries)?);
        return Ok(Exit::Done);
    }
    if args.plot.is_some() {
        return Ok(Exit::Done);
    }
    for entry in &entries {
        out!("{}", render::history_line(entry));
    }
    Ok(Exit::Done)
}
