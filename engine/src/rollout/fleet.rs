//! Many rollouts in one process. A parked rollout is not in memory: only its wake
//! time and id are, and waking it is a replay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::{Driver, RolloutError, Standing};
use crate::model::Millis;
use crate::store::StoreError;

/// Most rollouts that are driven at once; the others stay parked a little longer. A
/// kernel allows about 9,400 instances per process.
const DRIVEN_MAX: usize = 2_000;

/// Delay after a failure of the store until a rollout is tried again, ms.
const STORE_RETRY_MS: Millis = 1_000;

/// What happened in a fleet.
#[derive(Debug)]
pub enum News {
    /// A rollout has left the fleet: it has ended, needs a person, or could not be
    /// driven at all.
    Stopped {
        /// The rollout.
        rollout: String,
        /// Where it stands, or why it could not be driven.
        result: Result<Standing, RolloutError>,
    },
    /// The store failed. No rollout has left the fleet, and the fleet tries again.
    /// Reported once, until the store works again.
    StoreFailed(StoreError),
}

/// Adds rollouts to a fleet that runs.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::UnboundedSender<(String, Millis)>);

impl Handle {
    /// Adds a rollout that is due at `at` (Unix ms). False if the fleet is gone.
    pub fn add(&self, rollout: String, at: Millis) -> bool {
        self.0.send((rollout, at)).is_ok()
    }
}

/// Drives rollouts until each has ended or needs a person.
pub struct Fleet {
    driver: Driver,
    /// Weak, so that only handles keep the inbox open.
    sender: mpsc::WeakUnboundedSender<(String, Millis)>,
    inbox: mpsc::UnboundedReceiver<(String, Millis)>,
    /// Whether a handle may exist.
    expects: bool,
    parked: BinaryHeap<Reverse<(Millis, String)>>,
    /// The current wake time of each rollout; other times in the heap are stale.
    wakes: HashMap<String, Millis>,
    driven: JoinSet<Result<Standing, RolloutError>>,
    names: HashMap<Id, String>,
    driving: HashSet<String>,
    signals_after: u64,
    /// Rollouts that got a signal while they were driven, perhaps too late to read it.
    signalled: HashSet<String>,
    /// Whether the store failed at the last attempt.
    failing: bool,
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new(driver: Driver) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        Self {
            driver,
            sender: sender.downgrade(),
            inbox,
            expects: false,
            parked: BinaryHeap::new(),
            wakes: HashMap::new(),
            driven: JoinSet::new(),
            names: HashMap::new(),
            driving: HashSet::new(),
            signals_after: 0,
            signalled: HashSet::new(),
            failing: false,
        }
    }

    /// A handle that adds rollouts while the fleet runs. As long as there is one,
    /// [`Fleet::next`] waits for more.
    pub fn handle(&mut self) -> Handle {
        if let Some(sender) = self.sender.upgrade() {
            return Handle(sender);
        }
        self.take_in();
        let (sender, inbox) = mpsc::unbounded_channel();
        (self.sender, self.inbox, self.expects) = (sender.downgrade(), inbox, true);
        Handle(sender)
    }

    fn take_in(&mut self) {
        while let Ok((rollout, at)) = self.inbox.try_recv() {
            self.add(rollout, at);
        }
    }

    /// Adds a rollout that is due at `at` (Unix ms). One that is parked here already is
    /// due then instead; one that is being driven is not changed.
    pub fn add(&mut self, rollout: String, at: Millis) {
        if self.driving.contains(&rollout) {
            return;
        }
        self.wakes.insert(rollout.clone(), at);
        self.parked.push(Reverse((at, rollout)));
    }

    /// Number of parked rollouts.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.wakes.len()
    }

    /// Runs until something happens; `None` if the fleet is empty and nobody can add to
    /// it. Dropping the future loses nothing. Dropping the fleet drops what is in memory;
    /// the journals stay, and any process can go on.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            self.start_due();
            if self.driven.is_empty() && self.wakes.is_empty() && !self.expects {
                return None;
            }
            let now = self.driver.clock.now();
            let poll = now.saturating_add(self.driver.options.signal_poll_ms);
            let wake = match self.parked.peek() {
                Some(Reverse((due, _))) if self.driven.len() < DRIVEN_MAX => poll.min(*due),
                _ => poll,
            };
            tokio::select! {
                Some(done) = self.driven.join_next_with_id() => {
                    if let Some(news) = self.came_back(done) {
                        return Some(news);
                    }
                }
                added = self.inbox.recv(), if self.expects => match added {
                    Some((rollout, at)) => self.add(rollout, at),
                    None => self.expects = false,
                },
                () = self.driver.clock.sleep_until(wake), if !self.wakes.is_empty() => {
                    // A store that can be read may still not be writable: only a rollout that was
                    // driven shows that it works again.
                    if let Err(error) = self.wake_signalled().await
                        && let Some(news) = self.store_failed(error)
                    {
                        return Some(news);
                    }
                }
            }
        }
    }

    /// Handles the result of a rollout that was driven.
    fn came_back(
        &mut self,
        done: Result<(Id, Result<Standing, RolloutError>), JoinError>,
    ) -> Option<News> {
        let (id, result) = match done {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(RolloutError::Panicked(last_words(error)))),
        };
        let rollout = self.names.remove(&id)?;
        self.driving.remove(&rollout);
        let missed = self.signalled.remove(&rollout);
        let now = self.driver.clock.now();
        match result {
            Ok(Standing::Parked(until)) => {
                self.failing = false;
                self.add(rollout, if missed { now } else { until });
                None
            }
            Err(RolloutError::Store(error @ StoreError::Database { .. })) => {
                self.add(rollout, now.saturating_add(STORE_RETRY_MS));
                self.store_failed(error)
            }
            result => {
                self.failing &= result.is_err();
                Some(News::Stopped { rollout, result })
            }
        }
    }

    fn store_failed(&mut self, error: StoreError) -> Option<News> {
        let known = std::mem::replace(&mut self.failing, true);
        (!known).then_some(News::StoreFailed(error))
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
            let name = rollout.clone();
            let task = self
                .driven
                .spawn(async move { driver.drive(&rollout).await });
            self.driving.insert(name.clone());
            self.names.insert(task.id(), name);
        }
    }

    /// Wakes the rollouts that got a signal. One query for the whole fleet.
    async fn wake_signalled(&mut self) -> Result<(), StoreError> {
        let now = self.driver.clock.now();
        for (number, rollout, _) in self.driver.store.signals(None, self.signals_after).await? {
            self.signals_after = number;
            if self.wakes.contains_key(&rollout) {
                self.add(rollout, now);
            } else if self.driving.contains(&rollout) {
                self.signalled.insert(rollout);
            }
        }
        Ok(())
    }
}

/// The message of a panic.
fn last_words(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "its task was stopped".to_owned();
    };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast_ref::<&str>()
            .map_or_else(|| "it panicked".to_owned(), |text| (*text).to_owned()),
    }
}
