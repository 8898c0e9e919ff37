//! Many rollouts in one process. A rollout that waits long is not in memory:
//! what is left of it is a deadline and an id, and waking it is a replay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use tokio::task::JoinSet;

use super::{Driver, RolloutError, Standing};
use crate::model::Millis;

/// Most rollouts that are driven at once; the others stay parked a moment
/// longer. A kernel allows about 9,400 instances per process.
const DRIVEN_MAX: usize = 2_000;

/// Drives rollouts until each has ended or needs a person.
pub struct Fleet {
    driver: Driver,
    parked: BinaryHeap<Reverse<(Millis, String)>>,
    /// The wake-up time that counts; an older one in the heap is stale.
    wakes: HashMap<String, Millis>,
    driven: JoinSet<(String, Result<Standing, RolloutError>)>,
    signals_after: u64,
    /// Signalled while they were driven: perhaps too late to be seen there.
    signalled: HashSet<String>,
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new(driver: Driver) -> Self {
        Self {
            driver,
            parked: BinaryHeap::new(),
            wakes: HashMap::new(),
            driven: JoinSet::new(),
            signals_after: 0,
            signalled: HashSet::new(),
        }
    }

    /// Adds a rollout that is due at `at` (Unix ms).
    pub fn add(&mut self, rollout: String, at: Millis) {
        self.wakes.insert(rollout.clone(), at);
        self.parked.push(Reverse((at, rollout)));
    }

    /// Number of rollouts that only wait.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.wakes.len()
    }

    /// Runs until the next rollout ends or needs a person; none when the fleet
    /// is empty. Dropping the future drops what is in memory; the journals
    /// stay, and any process can go on.
    pub async fn next(&mut self) -> Option<(String, Result<Standing, RolloutError>)> {
        loop {
            self.start_due();
            if self.driven.is_empty() && self.wakes.is_empty() {
                return None;
            }
            let now = self.driver.clock.now();
            let poll = now.saturating_add(self.driver.options.signal_poll_ms);
            let wake = match self.parked.peek() {
                Some(Reverse((due, _))) if self.driven.len() < DRIVEN_MAX => poll.min(*due),
                _ => poll,
            };
            tokio::select! {
                Some(done) = self.driven.join_next() => {
                    let Ok((rollout, result)) = done else { continue };
                    match result {
                        Ok(Standing::Parked(until)) => {
                            let missed = self.signalled.remove(&rollout);
                            let now = self.driver.clock.now();
                            self.add(rollout, if missed { now } else { until });
                        }
                        result => return Some((rollout, result)),
                    }
                }
                () = self.driver.clock.sleep_until(wake), if !self.wakes.is_empty() => {
                    if let Err(error) = self.wake_signalled().await {
                        let rollout = self.wakes.keys().next().cloned().unwrap_or_default();
                        return Some((rollout, Err(error)));
                    }
                }
            }
        }
    }

    fn start_due(&mut self) {
        let now = self.driver.clock.now();
        while self.driven.len() < DRIVEN_MAX
            && let Some(Reverse((due, _))) = self.parked.peek()
            && *due <= now
            && let Some(Reverse((due, rollout))) = self.parked.pop()
        {
            if self.wakes.get(&rollout) != Some(&due) {
                continue;
            }
            self.wakes.remove(&rollout);
            let driver = self.driver.clone();
            self.driven.spawn(async move {
                let result = driver.drive(&rollout).await;
                (rollout, result)
            });
        }
    }

    /// A signal wakes its rollout at once. One query for the whole fleet.
    async fn wake_signalled(&mut self) -> Result<(), RolloutError> {
        let now = self.driver.clock.now();
        for (number, rollout, _) in self.driver.store.signals(None, self.signals_after).await? {
            self.signals_after = number;
            if self.wakes.contains_key(&rollout) {
                self.add(rollout, now);
            } else {
                self.signalled.insert(rollout);
            }
        }
        Ok(())
    }
}
