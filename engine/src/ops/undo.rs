//! `undo`: the release that served before a promotion comes back, as a rollout of its own:
//! into the arm without traffic, healthy, and all traffic there at once.

use std::sync::Arc;

use super::advice::{Advice, Ask};
use super::app::App;
use super::begin::{are_together, begin, by_hand, running, scaling};
use super::error::{Context as _, Error, Result};
use super::home::all_on;
use super::news::Note;
use super::request::TargetRequest;
use super::way_back::{newest_promotion, way_back};
use crate::journal::{Header, Work};
use crate::model::limits::Guardrails;
use crate::model::target::TargetSpec;
use crate::model::{
    End, Observed, ObservedArm, Promotion, Release, Role, Running, Source, Weights,
};
use crate::rollout::Options;
use crate::rollout::roles::{capacity, roles};
use crate::target::Target;

/// What became of the wish to undo a promotion.
#[derive(Debug, Clone)]
pub enum Undoing {
    /// A rollout has begun that brings the release back; the caller drives it.
    Begun(Box<Header>),
    /// The release has all traffic already.
    Already {
        /// The rollout whose promotion was meant.
        of: String,
        /// The arm that has all traffic.
        arm: String,
        /// The version that it runs.
        version: String,
        /// The weights, as they were read.
        weights: Weights,
    },
}

/// Begins to undo a promotion: the one that is named, or the last one on the target.
///
/// # Errors
/// Usage, if there is no such promotion or its release cannot be started again; busy, if
/// the traffic is split, somebody else has deployed since, or something has the target.
pub async fn undo(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Undoing> {
    let (undone, spec, target) = promotion(app, request, id).await?;
    let of = undone.rollout.clone();
    let old = undone.stable.clone().ok_or_else(|| {
        Error::usage(format!(
            "the journal of rollout {of} does not say which release served before it"
        ))
    })?;
    let live = target
        .observe()
        .await
        .context("failed to read the target")?;
    target.fit().await?;
    are_together(&live.traffic())?;
    let (serving, idle) = two_arms(&live)?;
    let running = running(app, &spec, &live).await?;
    let serves = running.iter().find(|seen| seen.arm == serving.name);
    let digest = undone.digest_of(Role::Stable);
    if is_back(&old, digest, serving, serves) {
        return Ok(Undoing::Already {
            of,
            arm: serving.name.clone(),
            version: old.version,
            weights: live.weights(),
        });
    }
    may_replace(app, &undone, (serving, serves), id).await?;
    if matches!(old.source, Source::Urls(_)) && !old.is(&idle.release) {
        return Err(Error::usage(format!(
            "{} runs {}, and {} is a list of urls, which the engine cannot start",
            idle.name, idle.release.version, old.version
        )));
    }
    let header = Header {
        scaling: scaling(app, target.as_ref()).await,
        digest: digest.map(ToOwned::to_owned),
        running,
        ..header(app, (spec, target.as_ref()), &undone, old, &live, serving)
    };
    if let (Some(candidate), TargetSpec::Aws(_)) = (&header.candidate, &header.target) {
        for note in notes(&header, candidate, serving, idle) {
            app.note(note);
        }
    }
    app.progress(format!(
        "undoes {of}: {} gets {}, and then all traffic, which {} has now with {}",
        idle.name,
        header.candidate.as_ref().map_or("", |c| c.version.as_str()),
        serving.name,
        serving.release.version
    ));
    begin(app, Options::default(), header.clone()).await?;
    Ok(Undoing::Begun(Box::new(header)))
}

/// The promotion that is meant, and its target.
async fn promotion(
    app: &App,
    request: &TargetRequest,
    id: Option<&str>,
) -> Result<(Header, TargetSpec, Arc<dyn Target>)> {
    if let Some(id) = id {
        let (header, status) = app.reached(&app.id_of(id).await?).await?;
        let id = &header.rollout;
        if !matches!(status.end, Some((End::Promoted, _))) {
            return Err(Error::usage(format!(
                "rollout {id} was not promoted, so there is nothing to undo"
            ))
            .ask(Ask::Rollback, "takes the traffic back to the stable arm"));
        }
        let (spec, target) = today(app, &header.target).await?;
        return Ok((header, spec, target));
    }
    let (spec, target) = match app.target(request).await {
        Ok(found) => found,
        // Its own route may have gone, and others still send users to the arms.
        Err(error) => way_back(app, request).await.map_err(|_| error)?,
    };
    match newest_promotion(app, target.identity()).await? {
        Some(header) => {
            let header = match &header.work {
                // To undo that would bring back what was undone, so a person must name it.
                Work::Undo { of, .. } => {
                    let note = format!("rollout {} has undone {of}", header.rollout);
                    app.note(Note::from(note).advise(Advice::ask(
                        Ask::Undo(header.rollout.clone()),
                        "brings the newer version back",
                    )));
                    app.reached(of).await?.0
                }
                _ => header,
            };
            let (spec, target) = today(app, &header.target).await?;
            Ok((header, spec, target))
        }
        None => {
            let error = Error::usage(format!(
                "no rollout in this history was promoted on {}, so there is nothing to undo",
                target.identity()
            ));
            Err(match spec {
                TargetSpec::Aws(_) => error.ask(
                    Ask::RunTaskDefinition,
                    "rolls out a release that is not in the history",
                ),
                _ => error,
            })
        }
    }
}

/// The target of a rollout of the past as it was pinned, which container is the version
/// above all, with the routes that it has today.
async fn today(app: &App, pinned: &TargetSpec) -> Result<(TargetSpec, Arc<dyn Target>)> {
    let TargetSpec::Aws(spec) = pinned else {
        return Ok((pinned.clone(), app.ports.reach(pinned).await?));
    };
    let (target, spec) = app.ports.anew(spec).await?;
    Ok((TargetSpec::Aws(Box::new(spec)), target))
}

/// The arm that has all traffic, and the one that has none.
fn two_arms(live: &Observed) -> Result<(&ObservedArm, &ObservedArm)> {
    let weights = live.weights();
    let serving = all_on(&weights).and_then(|name| live.arm(&name));
    let idle = live.arms.iter().find(|arm| weights.share(&arm.name) <= 0.0);
    serving.zip(idle).ok_or_else(|| {
        Error::busy(format!(
            "both arms have traffic ({}), so neither can be given another release",
            weights.shares()
        ))
        .ask(Ask::TakeBack, "brings all traffic to one arm first")
    })
}

/// Whether the former release serves already: by its own definition or by its digest, and
/// with the same image where both are known.
fn is_back(
    old: &Release,
    digest: Option<&str>,
    serving: &ObservedArm,
    serves: Option<&Running>,
) -> bool {
    let pinned = digest.and_then(|digest| old.by_digest(digest));
    let named = old.is(&serving.release) || pinned.is_some_and(|p| p.is(&serving.release));
    let runs = serves.map_or(&[][..], |seen| &seen.digests[..]);
    named && digest.is_none_or(|digest| runs.iter().all(|other| other == digest))
}

/// What a person should know before a promotion on AWS is undone.
fn notes(header: &Header, old: &Release, serving: &ObservedArm, idle: &ObservedArm) -> Vec<Note> {
    let mut notes = vec![];
    if header.digest.is_none() && !old.version.contains("@sha256:") {
        notes.push(Note::from(format!(
            "the journal does not say which digest {} had when it served, so it is known by its name: if it was pushed again since, it is another image now, and all users get that",
            old.version
        )));
    }
    if let (Promotion::CopyWhole, Source::TaskDefinition(to), Source::TaskDefinition(own)) =
        (header.promotion, &old.source, &idle.release.source)
        && to != own
    {
        let short = |arn: &str| arn.rsplit('/').next().unwrap_or(arn).to_owned();
        let note = Note::from(format!(
            "{0} keeps {1} when this is done, the task definition of {2}, and not its own settings of {3}",
            idle.name,
            short(to),
            serving.name,
            short(own)
        ));
        notes.push(note.advise(Advice::ask(
            Ask::RunTaskDefinition,
            format!(
                "with a revision of {}'s own family gives them back",
                idle.name
            ),
        )));
    }
    notes
}

/// Refuses to undo a promotion that is not what serves any more, if it was not named: by
/// the task definition and the image that the rollout left there, or else by the version.
async fn may_replace(
    app: &App,
    undone: &Header,
    (serving, serves): (&ObservedArm, Option<&Running>),
    id: Option<&str>,
) -> Result<()> {
    if id.is_some() {
        return Ok(());
    }
    let promoted = undone.arm(Role::Candidate);
    let promoted = undone.arms.iter().find(|arm| arm.name == promoted);
    let promoted = promoted.map_or("", |arm| arm.version.as_str());
    let left = match app.journal(&undone.rollout).await {
        Ok((_, status, _)) => status.running(&serving.name).cloned(),
        // What is left is the first entry.
        Err(_) => None,
    };
    let why = match left {
        // It was never read there, so names are all there is.
        None if promoted == serving.release.version => return Ok(()),
        None => format!("serves {} now", serving.release.version),
        Some(left) if !left.release.is(&serving.release) => match &serving.release.source {
            Source::TaskDefinition(arn) if left.release.version == serving.release.version => {
                let name = arn.rsplit('/').next().unwrap_or(arn);
                format!("serves another task definition of {promoted} now ({name})")
            }
            _ => format!("serves {} now", serving.release.version),
        },
        Some(left) => {
            let runs = serves.map_or(&[][..], |seen| &seen.digests[..]);
            let other = runs.iter().find(|digest| !left.digests.contains(digest));
            match other {
                Some(digest) if !left.digests.is_empty() => {
                    format!("serves another image of that name now ({digest})")
                }
                _ => return Ok(()),
            }
        }
    };
    Err(Error::busy(format!(
        "rollout {0} has promoted {promoted}, and {1} {why}: somebody has deployed since",
        undone.rollout, serving.name
    ))
    .ask(
        Ask::Undo(undone.rollout.clone()),
        "brings the release from before that rollout back all the same",
    ))
}

/// The first entry. What has the traffic is the stable arm; the release from before gets
/// the other one, and no time passes but until it is healthy.
fn header(
    app: &App,
    on: (TargetSpec, &dyn Target),
    undone: &Header,
    old: Release,
    live: &Observed,
    serving: &ObservedArm,
) -> Header {
    let mut arms = roles(&live.names(), &serving.name);
    for (arm, seen) in arms.iter_mut().zip(&live.arms) {
        arm.version = match arm.role {
            Role::Stable => seen.release.version.clone(),
            Role::Candidate => old.version.clone(),
        };
    }
    // The other arm got the whole of the former release, and nothing of its own.
    let promotion = match (undone.promotion, &old.source) {
        (Promotion::Copy, Source::TaskDefinition(_)) => Promotion::CopyWhole,
        (promotion, _) => promotion,
    };
    let work = Work::Undo {
        of: undone.rollout.clone(),
        actor: app.actor.clone(),
    };
    Header {
        stable: Some(serving.release.clone()),
        candidate: Some(old),
        promotion,
        capacity: capacity(live, &arms),
        guardrails: Guardrails {
            final_bake_ms: 0,
            healthy_timeout_ms: undone.guardrails.healthy_timeout_ms,
            ..Guardrails::default()
        },
        ..by_hand(app, on, "undo", arms, live.weights(), work)
    }
}
