//! Whether tasks stop by themselves: they end, run out of memory, or fail health checks. ECS
//! starts another one each time, so errors and latency may show little of a version that
//! cannot stay up.

use std::collections::BTreeMap;

use super::{Caution, Watch, source};
use crate::duration::in_words;
use crate::{ErrorKind, Level, Point, Rollout};

/// The query by which a target tells how many tasks of an arm stopped by themselves, with a
/// value where some did. No rollout file has a query of this name.
const RESTARTS: &str = "engine:restarts";
/// The same for those that ran out of memory, and the highest code with which one ended.
const OUT_OF_MEMORY: &str = "engine:out-of-memory";
const EXIT_CODES: &str = "engine:exit-codes";
/// Newest samples in which stops count, also across steps, and their number from which on
/// tasks restart again and again.
const LATELY: f64 = 30.0;
const AGAIN: f64 = 3.0;
/// How many times as many for each task as stable's they must be.
const TIMES: f64 = 3.0;
/// Samples without a stop after which it is over.
const QUIET: f64 = 10.0;

/// Tasks that stopped by themselves, of stable and candidate.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Whether the target tells.
    watched: bool,
    /// How many, by the time (Unix ms) that the target gives them. It may forget them.
    known: BTreeMap<u64, [f64; 2]>,
    /// Since when they count, and the time of the last look (Unix ms).
    since: f64,
    now: f64,
    /// When the candidate's newest stopped (Unix ms), and how many of its had by then.
    newest: Option<(f64, f64)>,
    /// Why the candidate's stopped, in words.
    cause: String,
    /// How many tasks run.
    tasks: [f64; 2],
    /// Whether it was said at this step that they restart again and again.
    said: bool,
}

impl Restarts {
    /// Finds out whether the target tells of them.
    pub(super) fn find(rollout: &mut Rollout, caution: Caution) -> Self {
        let now = rollout.now();
        let mut watched = caution != Caution::Ignore;
        if watched && let Err(error) = rollout.query(RESTARTS, now) {
            watched = may_pass(rollout, error.kind, &error.message);
        }
        Self {
            watched,
            tasks: [1.0; 2],
            ..Self::default()
        }
    }

    /// A step begins, the first of which is the beginning of the count.
    pub(super) fn enter(&mut self, now: f64) {
        if self.since <= 0.0 {
            (self.since, self.now) = (now, now);
        }
        self.said = false;
    }

    /// How many lately, of stable and candidate. An interval in which that began counts.
    fn counts(&self, period: f64) -> [f64; 2] {
        let since = self.since.max(self.now - LATELY * period);
        let lately = self.known.range(source::key(since - period + 1.0)..);
        lately.fold([0.0; 2], |sum, (_, of)| [sum[0] + of[0], sum[1] + of[1]])
    }

    /// Whether the candidate's newest is no older than that.
    fn is_fresh(&self, period: f64) -> bool {
        self.newest
            .is_some_and(|(at, _)| at + (QUIET + 1.0) * period > self.now)
    }

    fn add(&mut self, names: &[String; 2], points: Vec<Point>) {
        for point in points {
            if let Some(arm) = names.iter().position(|name| *name == point.arm) {
                let known = &mut self.known.entry(source::key(point.at)).or_default()[arm];
                *known = known.max(point.value);
            }
        }
    }
}

impl Watch {
    /// Reads who stopped lately, and says it once for each time that it begins.
    pub(super) fn see_restarts(&mut self, rollout: &mut Rollout) {
        let period = self.source.period;
        let names = self.source.names();
        let restarts = &mut self.restarts;
        if !restarts.watched {
            return;
        }
        let now = rollout.now();
        let since = restarts.since.max(now - LATELY * period);
        match rollout.query(RESTARTS, (since - period).max(0.0)) {
            Ok(points) => restarts.add(names, points),
            Err(error) => {
                restarts.watched = may_pass(rollout, error.kind, &error.message);
                // What nobody sees any more must hold nothing for ever.
                if !restarts.watched {
                    restarts.known.clear();
                    restarts.newest = None;
                }
                return;
            }
        }
        // The time in which nothing could be read was not a quiet one.
        restarts.now = now;
        let [_, candidate] = restarts.counts(period);
        let mut known = restarts.known.iter().rev();
        #[allow(clippy::cast_precision_loss)]
        let newest = known.find(|(_, of)| of[1] > 0.0).map(|(at, _)| *at as f64);
        let Some(newest) = newest.filter(|_| candidate > 0.0) else {
            return;
        };
        let all: f64 = restarts.known.values().map(|of| of[1]).sum();
        let before = restarts.newest.replace((newest, all));
        if before == Some((newest, all)) {
            return;
        }
        restarts.cause = cause(rollout, &names[1], newest).unwrap_or_default();
        if candidate >= AGAIN
            && let Ok(health) = rollout.health()
        {
            let total = |arm: &String| {
                let of = health.iter().find(|h| h.arm == *arm);
                f64::from(of.map_or(0, |h| h.total).max(1))
            };
            restarts.tasks = [total(&names[0]), total(&names[1])];
        }
        let begins = before.is_none_or(|(before, _)| newest - before > QUIET * period);
        let again = !restarts.said && self.restart_again();
        if begins || again {
            self.restarts.said |= again;
            let why = self.restarted(&names[0], &names[1]);
            rollout.log(Level::Warn, &format!("{}: {why}", self.title()));
        }
    }

    /// Whether the candidate's tasks stop again and again, and stable's do not.
    fn restart_again(&self) -> bool {
        let [stable, candidate] = self.restarts.counts(self.source.period);
        let [of_stable, of_candidate] = self.restarts.tasks;
        candidate >= AGAIN
            && self.restarts.is_fresh(self.source.period)
            && candidate / of_candidate >= TIMES * stable / of_stable
    }

    /// Which tasks stopped lately, in words.
    fn restarted(&self, stable: &str, candidate: &str) -> String {
        let [of_stable, of_candidate] = self.restarts.counts(self.source.period);
        let cause = match self.restarts.cause.as_str() {
            "" => String::new(),
            cause => format!(" ({cause})"),
        };
        let own = match of_candidate < 1.5 {
            true => format!("1 task of {candidate} stopped by itself"),
            false => format!("{of_candidate:.0} tasks of {candidate} stopped by themselves"),
        };
        let theirs = match of_stable < 0.5 {
            true => format!("none of {stable}"),
            false => format!("{of_stable:.0} of {stable}"),
        };
        let lately = in_words(LATELY * self.source.period);
        let again = match self.restart_again() {
            true => "tasks restart again and again: ",
            false => "",
        };
        format!("{again}{own} in the last {lately}{cause}, and {theirs}")
    }

    /// The same, while it is news.
    pub(super) fn restarts_said(&self) -> Option<String> {
        let [_, candidate] = self.restarts.counts(self.source.period);
        let news = candidate > 0.0 && self.restarts.is_fresh(self.source.period);
        let [stable, own] = self.source.names();
        news.then(|| self.restarted(stable, own))
    }

    /// The same, where no step may be taken because of it.
    pub(super) fn restarting(&self) -> Option<String> {
        let holds = self.settings.task_restarts == Caution::Hold && self.restart_again();
        self.restarts_said().filter(|_| holds)
    }
}

/// Whether what keeps the stops from being read may pass. A target that does not tell them
/// says so once, and who lacks a permission is told.
fn may_pass(rollout: &mut Rollout, kind: ErrorKind, message: &str) -> bool {
    if kind == ErrorKind::Denied {
        let line = format!("restarts of tasks are not watched: {message}");
        rollout.log(Level::Warn, &line);
    }
    !matches!(kind, ErrorKind::NotFound | ErrorKind::Denied)
}

/// Why tasks of the candidate stopped in its newest interval with stops.
fn cause(rollout: &mut Rollout, candidate: &str, at: f64) -> Option<String> {
    let mut most = |query: &str| {
        let points = rollout.query(query, at).ok()?.into_iter();
        let own = points.filter(|point| point.arm == candidate);
        own.map(|point| point.value).reduce(f64::max)
    };
    let memory = most(OUT_OF_MEMORY).is_some_and(|of| of > 0.0);
    let code = most(EXIT_CODES).map(|code| format!("exit code {code:.0}"));
    match (code, memory) {
        (Some(code), true) => Some(format!("{code}, out of memory")),
        (None, true) => Some("out of memory".to_owned()),
        (Some(code), false) => Some(code),
        (None, false) => Some("failed health checks".to_owned()),
    }
}
