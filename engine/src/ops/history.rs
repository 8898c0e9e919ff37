//! What a store knows of rollouts: `list`, `get`, `history`.

use std::path::PathBuf;

use super::app::App;
use super::command::Reached;
use super::error::{Error, Result};
use super::gone;
use super::picture;
use super::request::TargetRequest;
use crate::journal::Entry;
use crate::journal::summary::Summary;
use crate::model::Arm;
use crate::store::Page;

/// Rollouts that shall be listed.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only those on the target that this names, if it names one.
    pub target: TargetRequest,
    /// At most so many that have ended.
    pub limit: u32,
    /// Single verbs too.
    pub all: bool,
}

/// A rollout in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What a store knows of it without its journal.
    pub row: Summary,
    /// Its arms, with the versions that its strategy first saw; empty where they were not
    /// read.
    pub arms: Vec<Arm>,
    /// Whether a living process drives it; `None` once it has ended.
    pub driven: Option<bool>,
}

/// Most rollouts of a list whose arms are read although nobody asked for so many: each
/// needs a look into its journal.
const ARMS_MAX: usize = 100;

/// Lists rollouts, the newest first. What has not ended is there, however much came
/// after it.
///
/// # Errors
/// Usage, if the request or the rollout file is wrong.
pub async fn list(app: &App, request: &ListRequest) -> Result<Vec<Listed>> {
    let identity = request.target.identity(app).await?;
    let mut open = app.store.open(identity.as_deref()).await?;
    if gone::end_gone(app, &open).await {
        open = app.store.open(identity.as_deref()).await?;
    }
    let page = Page::newest(identity.as_deref(), request.limit);
    let page = match request.all {
        true => page,
        false => page.of_strategies(),
    };
    let mut rows = app.store.history(&page).await?;
    for open in &open {
        if !rows.iter().any(|row| row.rollout == open.summary.rollout) {
            rows.push(open.summary.clone());
        }
    }
    let driven = app.driven(&open);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut listed = vec![];
    for (index, row) in rows.into_iter().enumerate() {
        let header = match index < limit.max(ARMS_MAX) {
            // A journal that cannot be read has a row all the same.
            true => app.store.header(&row.rollout).await.unwrap_or_default(),
            false => None,
        };
        let arms = header.map_or_else(Vec::new, |header| header.arms);
        let driven = row.end.is_none().then(|| driven.contains(&*row.rollout));
        listed.push(Listed { row, arms, driven });
    }
    Ok(listed)
}

/// A rollout: the one that is named, or the newest one.
///
/// # Errors
/// Usage, if there is none.
pub async fn get(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<Reached> {
    app.reached(&named_or_newest(app, request, id).await?).await
}

/// A journal that shall be read.
#[derive(Debug, Clone, Default)]
pub struct HistoryRequest {
    /// The target of which the newest rollout is meant, if no rollout is named.
    pub target: TargetRequest,
    /// The rollout.
    pub rollout: Option<String>,
    /// A picture of it that is written.
    pub plot: Option<PathBuf>,
}

/// The whole journal of a rollout: the one that is named, or the newest one.
///
/// # Errors
/// Usage, if there is none, or if the picture cannot be written.
pub async fn history(app: &App, request: &HistoryRequest) -> Result<Vec<Entry>> {
    let id = named_or_newest(app, &request.target, request.rollout.as_deref()).await?;
    let (.., entries) = app.journal(&id).await?;
    if let Some(path) = &request.plot {
        picture::draw_rollout(app, &entries, path)?;
    }
    Ok(entries)
}

/// The rollout that is named, or the newest one, of the target that a request names.
async fn named_or_newest(app: &App, request: &TargetRequest, id: Option<&str>) -> Result<String> {
    if let Some(id) = id {
        return app.id_of(id).await;
    }
    let identity = request.identity(app).await?;
    let page = Page::newest(identity.as_deref(), 1);
    let newest = app.store.history(&page).await?.into_iter().next();
    newest.map(|row| row.rollout).ok_or_else(|| {
        Error::usage(match identity {
            Some(identity) => format!("there are no rollouts on {identity} yet"),
            None => "there are no rollouts yet".to_owned(),
        })
    })
}
