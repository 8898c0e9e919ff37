//! Many replicates on many threads. The result does not depend on their number.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::replicate::{self, Subject};
use super::report::Tally;
use super::scenario::Scenario;
use crate::rollout::RolloutError;

/// A scenario, what is rolled out in it, and how often.
#[derive(Clone, Copy)]
pub struct Play<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The strategy with its parameters.
    pub subject: &'a Subject,
    /// Number of replicates.
    pub replicates: u32,
}

/// Why a simulation broke off. This is a bug, not a result.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The driver could not do its work.
    #[error("failed to play {scenario}, replicate {replicate}")]
    Rollout {
        /// The scenario's name.
        scenario: String,
        /// The replicate, from 0.
        replicate: u32,
        /// The driver's error.
        source: Box<RolloutError>,
    },
    /// A thread could not be set up.
    #[error("failed to start a thread of the simulation: {0}")]
    Runtime(#[from] std::io::Error),
    /// A thread panicked.
    #[error("a thread of the simulation panicked")]
    Panicked,
}

/// Plays all replicates of every play, in order. Blocks its thread; `tell` is
/// called now and then with the number that are done and the number of all.
pub fn play_all(
    plays: &[Play<'_>],
    jobs: usize,
    tell: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Vec<Tally>>, Broken> {
    let work: Vec<(usize, u32)> = plays
        .iter()
        .enumerate()
        .flat_map(|(at, play)| (0..play.replicates).map(move |number| (at, number)))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, Tally)>, Broken> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let mut done = vec![];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((at, number)) = work.get(index) else {
                return Ok(done);
            };
            let play = plays[*at];
            let played = runtime
                .block_on(replicate::play(play.subject, play.scenario, *number))
                .map_err(|source| {
                    // The other threads stop too.
                    next.store(work.len(), Ordering::Relaxed);
                    Broken::Rollout {
                        scenario: play.scenario.name.clone(),
                        replicate: *number,
                        source: Box::new(source),
                    }
                })?;
            done.push((index, played.into()));
            tell(index + 1, work.len());
        }
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter();
        joined
            .map(|w| w.join().unwrap_or(Err(Broken::Panicked)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut all: Vec<(usize, Tally)> = results.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    let mut tallies: Vec<Vec<Tally>> = plays.iter().map(|_| vec![]).collect();
    for (index, tally) in all {
        tallies[work[index].0].push(tally);
    }
    Ok(tallies)
}

/// Number of cores, for as many threads.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
