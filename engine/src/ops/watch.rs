//! Sees a rollout to where it stops: drives it in this process, or follows another
//! one that drives it. Whoever watches is told what happens, and may wish for
//! something meanwhile.

use std::future::pending;

use tokio::sync::mpsc;

use super::app::App;
use super::command::signal;
use super::error::{Error, Result};
use super::status::{Seen, look};
use super::way_back::{self, TakenBack};
use crate::journal::status::Status;
use crate::journal::{Entry, Header};
use crate::model::{Command, End, Millis};
use crate::rollout::fleet::{Fleet, News};
use crate::rollout::{Options, RolloutError, Standing};
use crate::store::StoreError;

/// How often the journal is looked at, ms.
const REFRESH_MS: Millis = 250;
/// How often to look whether somebody still drives, ms.
const LOOK_FOR_DRIVER_MS: Millis = 2_000;

/// What a person who watches may wish for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// All traffic back to the stable arm. Only of a rollout that this process drives;
    /// from any other one leaves.
    TakeBack,
    /// To leave. The traffic stays where it is.
    Leave,
}

/// Wishes, as they come. One without a sender wishes for nothing.
pub type Wishes = mpsc::UnboundedReceiver<Wish>;

/// A rollout at a moment.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What it is.
    pub header: Header,
    /// How it stands.
    pub status: Status,
    /// The moment, Unix ms.
    pub now: Millis,
    /// Its target, as it was last looked at; none if nobody wants to see it, or if it
    /// does not answer.
    pub arms: Option<Seen>,
}

/// What happens to a rollout that is watched.
#[derive(Debug, Clone, Copy)]
pub enum Happened<'a> {
    /// One begins to look. It has these entries already.
    Begun(&'a [Entry]),
    /// Its journal has a new entry.
    Entry(&'a Entry),
    /// Something that a person wants to know at once, such as why nothing happens.
    Notice(&'a str),
    /// Some time has passed.
    Tick,
    /// Its traffic is being taken back, as was wished.
    TakingBack,
    /// The process that drove it does not answer any more; this one drives it now.
    TakingOver,
    /// This process cannot watch over it any more, for this reason, so its traffic is
    /// being taken back.
    Stranded(&'a str),
}

/// Who watches.
pub struct Audience<'a> {
    /// Hears what happens.
    pub hears: &'a mut (dyn FnMut(&Watched, Happened<'_>) + Send),
    /// What it wishes for.
    pub wishes: &'a mut Wishes,
    /// Whether it wants to see the arms, so that the target is asked again and again.
    pub sees_arms: bool,
}

impl Audience<'_> {
    async fn wish(&mut self) -> Wish {
        next(self.wishes).await
    }
}

async fn next(wishes: &mut Wishes) -> Wish {
    match wishes.recv().await {
        Some(wish) => wish,
        None => pending().await,
    }
}

/// How watching a rollout ended.
#[derive(Debug)]
pub enum Left {
    /// The rollout does not move any more.
    Stopped(Standing),
    /// The person has gone. Another process drives it.
    Gone,
    /// The person has gone, and the rollout waits for a process that goes on with it.
    Suspended {
        /// Whether its balancer is part of this process.
        embedded: bool,
    },
    /// The process that drove it does not do so any more.
    Abandoned,
    /// This process could not watch over it any more, and so the traffic was taken back.
    Stranded(TakenBack),
}

/// How watching ended, and the rollout then.
#[derive(Debug)]
pub struct Ended {
    /// The rollout.
    pub rollout: Watched,
    /// Why nobody watches it any more.
    pub left: Left,
    /// Of a way back by hand that has ended: the error that users are still sent elsewhere.
    pub left_behind: Option<Error>,
    /// Requests that the built-in load had sent when the rollout stopped, and how many
    /// of them failed.
    pub requests: Option<(u64, u64)>,
    /// Whether its balancer is part of this process, and ends with it.
    pub embedded: bool,
}

/// Drives a rollout in this process until it ends or needs a person.
pub async fn drive(
    app: &App,
    rollout: &str,
    options: Options,
    audience: Audience<'_>,
) -> Result<Ended> {
    let mut watch = Watch::begin(app, rollout, audience).await?;
    let left = watch.drive(options).await?;
    Ok(watch.end(left, true).await)
}

/// Follows a rollout that another process drives until it ends or needs a person, or
/// until nobody drives it any more.
pub async fn follow(app: &App, rollout: &str, audience: Audience<'_>) -> Result<Ended> {
    let mut watch = Watch::begin(app, rollout, audience).await?;
    let left = watch.follow().await?;
    Ok(watch.end(left, false).await)
}

/// Follows a rollout as long as another process drives it, and drives it as soon as
/// none does.
pub async fn follow_or_drive(
    app: &App,
    rollout: &str,
    options: Options,
    audience: Audience<'_>,
) -> Result<Ended> {
    let mut watch = Watch::begin(app, rollout, audience).await?;
    let mut left = watch.follow().await?;
    if matches!(left, Left::Abandoned) {
        watch.tell(Happened::TakingOver);
        left = watch.drive(options).await?;
    }
    Ok(watch.end(left, true).await)
}

/// Lets the balancers of this process finish their requests, unless somebody wishes
/// to leave.
pub async fn let_requests_finish(app: &App, wishes: &mut Wishes) {
    tokio::select! {
        () = app.ports.stop() => {}
        _ = next(wishes) => {}
    }
}

/// A rollout that is being watched.
struct Watch<'a, 'b> {
    app: &'a App,
    audience: Audience<'b>,
    rollout: Watched,
    /// Its journal, as far as it was read: the store may not give it again.
    entries: Vec<Entry>,
    /// How many entries it had when this process came.
    begun_with: usize,
    /// When the arms are looked at again, Unix ms.
    look_at: Millis,
}

impl<'a, 'b> Watch<'a, 'b> {
    async fn begin(app: &'a App, rollout: &str, audience: Audience<'b>) -> Result<Self> {
        let (header, status, entries) = app.journal(rollout).await?;
        let mut watch = Self {
            app,
            audience,
            rollout: Watched {
                header,
                status,
                now: app.clock.now(),
                arms: None,
            },
            begun_with: entries.len(),
            entries: vec![],
            look_at: 0,
        };
        watch.tell(Happened::Begun(&entries));
        watch.entries = entries;
        Ok(watch)
    }

    fn tell(&mut self, what: Happened<'_>) {
        (self.audience.hears)(&self.rollout, what);
    }

    async fn drive(&mut self, options: Options) -> Result<Left> {
        let id = self.rollout.header.rollout.clone();
        let mut fleet = Fleet::new(self.app.driver(options));
        fleet.add(id.clone(), self.app.clock.now());
        let stopped = {
            let next = fleet.next();
            tokio::pin!(next);
            loop {
                let tick = self.app.clock.now() + REFRESH_MS;
                tokio::select! {
                    stopped = &mut next => break Some(stopped),
                    // News that cannot be read must not stop the rollout.
                    () = self.app.clock.sleep_until(tick) => { let _ = self.refresh().await; }
                    wish = self.audience.wish() => match wish {
                        Wish::TakeBack => {
                            self.tell(Happened::TakingBack);
                            let abort = Command::Abort { reason: "interrupted".to_owned() };
                            // A person who wants it back gets it back, store or not.
                            let abort = signal(self.app, &abort);
                            if let Err(error) = self.app.store.signal(&id, &abort).await {
                                break Some(Some(News::StoreFailed(error)));
                            }
                        }
                        Wish::Leave => break None,
                    }
                }
            }
        };
        // What was in memory goes; the journal has it all.
        drop(fleet);
        let _ = self.refresh().await;
        match stopped {
            None => {
                let embedded = self.app.ports.balances().await;
                self.app.let_go(&id).await?;
                Ok(Left::Suspended { embedded })
            }
            Some(None) => Err(Error::internal(format!(
                "rollout {id} is not driven any more, and nothing says why"
            ))),
            Some(Some(News::StoreFailed(error))) => self.stranded(error.into()).await,
            Some(Some(News::Stopped { result, .. })) => match result {
                Ok(standing) => Ok(Left::Stopped(standing)),
                Err(error) => self.stranded(error).await,
            },
        }
    }

    /// A rollout that this process cannot drive any more is watched by nobody from here
    /// on, unless another process has it: its traffic goes back.
    async fn stranded(&mut self, error: RolloutError) -> Result<Left> {
        let id = self.rollout.header.rollout.clone();
        let back = match error {
            // Another process has it, or the target is out of reach for a way back too.
            RolloutError::Store(StoreError::Busy(_) | StoreError::Fenced { .. })
            | RolloutError::Overtaken { .. }
            | RolloutError::Target(_) => return Err(error.into()),
            RolloutError::Store(_) | RolloutError::Journal(_) => {
                let why = match &error {
                    RolloutError::Store(StoreError::Database { message, place }) => {
                        format!("the store {place} failed: {message}")
                    }
                    _ => error.to_string(),
                };
                self.tell(Happened::Stranded(&why));
                let app = self.app.in_lifeboat(why, &id, self.entries.clone());
                way_back::abort_rollout(&app, &id, "the store failed").await?
            }
            // As it was before this process came, so nothing is more urgent than before.
            RolloutError::Strategy(_) if self.entries.len() == self.begun_with => {
                return Err(error.into());
            }
            RolloutError::Strategy(_) | RolloutError::Panicked(_) => {
                let why = error.to_string();
                self.tell(Happened::Stranded(&why));
                self.app.let_go(&id).await?;
                way_back::abort_rollout(self.app, &id, &why).await?
            }
        };
        Ok(Left::Stranded(back))
    }

    async fn follow(&mut self) -> Result<Left> {
        let mut look_for_driver = self.app.clock.now() + LOOK_FOR_DRIVER_MS;
        loop {
            self.refresh().await?;
            if let Some(standing) = Standing::settled(&self.rollout.status) {
                return Ok(Left::Stopped(standing));
            }
            if self.app.clock.now() >= look_for_driver {
                look_for_driver = self.app.clock.now() + LOOK_FOR_DRIVER_MS;
                let driver = self.app.living_owner(&self.rollout.header).await?;
                if driver.is_none_or(|busy| busy.driver() == Some(&self.app.owner)) {
                    return Ok(Left::Abandoned);
                }
            }
            let tick = self.app.clock.now() + REFRESH_MS;
            tokio::select! {
                () = self.app.clock.sleep_until(tick) => {}
                _ = self.audience.wish() => return Ok(Left::Gone),
            }
        }
    }

    /// Tells what is new.
    async fn refresh(&mut self) -> Result<()> {
        self.rollout.now = self.app.clock.now();
        for notice in self.app.ports.notices() {
            self.tell(Happened::Notice(&notice));
        }
        let (id, known) = (&self.rollout.header.rollout, self.rollout.status.entries);
        for entry in self.app.store.load(id, known).await? {
            self.rollout.status.apply(&entry);
            self.tell(Happened::Entry(&entry));
            self.entries.push(entry);
        }
        if self.audience.sees_arms && self.rollout.now >= self.look_at {
            self.rollout.arms = self.arms().await;
            // A target that samples once a minute is not asked four times a second.
            let pause = Millis::from(self.rollout.header.sample_period_ms / 10);
            self.look_at = self.rollout.now + pause;
        }
        self.tell(Happened::Tick);
        Ok(())
    }

    async fn arms(&self) -> Option<Seen> {
        let reached = self.app.ports.reach(&self.rollout.header.target).await;
        look(reached.ok()?.as_ref(), self.rollout.now).await.ok()
    }

    /// How it ended. Whoever only looks on moves nothing; whoever `wants` it to go on wants
    /// what a way back by hand has left taken back too.
    async fn end(self, left: Left, wants: bool) -> Ended {
        let requests = match left {
            Left::Stopped(_) => self.app.ports.load_seen().await,
            _ => None,
        };
        let embedded = self.app.ports.balances().await;
        let Watched { header, status, .. } = &self.rollout;
        let left_behind = match left {
            Left::Stopped(Standing::Over(End::RolledBack, _))
                if wants && header.work.goes_back() =>
            {
                way_back::take_what_came(self.app, header, status)
                    .await
                    .err()
            }
            _ => None,
        };
        Ended {
            rollout: self.rollout,
            left,
            left_behind,
            requests,
            embedded,
        }
    }
}
