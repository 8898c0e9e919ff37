//! Sees a rollout to its end: drives it, or follows another process that does,
//! and shows what happens.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use console::Term;

use super::exit::Exit;
use super::print::plain_news;
use super::render::{self, Narrator};
use super::run::OnInterrupt;
use super::{Global, traffic};
use crate::clock::Clock;
use crate::journal::status::Status;
use crate::journal::verdict::verdict;
use crate::journal::{Entry, Event, Header};
use crate::model::{Command, Millis};
use crate::ops::app::App;
use crate::ops::command::signal;
use crate::ops::status::look;
use crate::ops::way_back;
use crate::rollout::fleet::{Fleet, News};
use crate::rollout::{Options, RolloutError, Standing};
use crate::store::StoreError;
use crate::view;

/// How often the view is drawn.
const REFRESH: Duration = Duration::from_millis(250);

/// Ctrl-C and SIGTERM, from the moment this is made: none is lost.
///
/// What comes within a second of another one is the same: `timeout` signals a
/// process and then its group, and nobody means two things by that.
pub struct Interruptions {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    clock: Arc<dyn Clock>,
    last: Option<Millis>,
}

/// See [`Interruptions`].
const SAME_MS: Millis = 1_000;

impl Interruptions {
    /// Listens from now on.
    pub fn new(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            clock,
            last: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns at the next one.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            let now = self.clock.now();
            if self.last.is_none_or(|last| now.abs_diff(last) >= SAME_MS) {
                self.last = Some(now);
                return;
            }
        }
    }
}

/// Drives a rollout in this process until it ends or needs a person.
pub async fn drive(
    app: &App,
    global: &Global,
    rollout: &str,
    options: Options,
    on_interrupt: OnInterrupt,
) -> crate::ops::Result<Exit> {
    let mut fleet = Fleet::new(app.driver(options));
    fleet.add(rollout.to_owned(), app.clock.now());
    let mut view = View::new(app, global, rollout).await?;
    let mut ticks = tokio::time::interval(REFRESH);
    let mut interruptions = Interruptions::new(app.clock.clone())?;
    let mut count = 0;
    let result = {
        let next = fleet.next();
        tokio::pin!(next);
        loop {
            tokio::select! {
                result = &mut next => break Some(result),
                // A screen that cannot be drawn must not stop the rollout.
                _ = ticks.tick() => { let _ = view.refresh().await; }
                () = interruptions.next() => {
                    count += 1;
                    if count == 1 && on_interrupt == OnInterrupt::Rollback {
                        view.say("interrupted: taking all traffic back (once more to quit at once)");
                        let abort = Command::Abort { reason: "interrupted".to_owned() };
                        let signal = signal(app, &abort);
                        app.store.signal(rollout, &signal).await?;
                    } else {
                        break None;
                    }
                }
            }
        }
    };
    // What was in memory goes; the journal has it all.
    drop(fleet);
    let _ = view.refresh().await;
    view.erase();
    let exit = match result {
        None => {
            let weights = render::shares(&view.status.weights);
            let part = if app.ports.balances().await {
                "\nthe balancer was part of this process; `resume` starts it again with these weights"
            } else {
                ""
            };
            eprintln!(
                "suspended: the traffic stays at {weights}{part}\n`engine resume {rollout}` goes on, `engine abort {rollout}` takes it back"
            );
            app.let_go(rollout).await?;
            stop_balancers(app, &mut interruptions).await;
            if global.json {
                view.finish(app, global, Exit::Paused).await?;
            }
            return Ok(Exit::Paused);
        }
        Some(None) => Exit::Unexpected,
        Some(Some(News::StoreFailed(StoreError::Database { message, place }))) => {
            let why = format!("the store {place} failed: {message}");
            let exit = without_a_store(app, global, &view, why).await;
            stop_balancers(app, &mut interruptions).await;
            return exit;
        }
        Some(Some(News::StoreFailed(error))) => return Err(RolloutError::Store(error).into()),
        Some(Some(News::Stopped { result, .. })) => Exit::from(&result?),
    };
    view.finish(app, global, exit).await?;
    stop_balancers(app, &mut interruptions).await;
    Ok(exit)
}

/// A rollout whose journal cannot be written any more is watched by nobody from
/// here on: its traffic goes back.
async fn without_a_store(
    app: &App,
    global: &Global,
    view: &View<'_>,
    why: String,
) -> crate::ops::Result<Exit> {
    let rollout = &view.rollout;
    eprintln!(
        "{why}
so nobody could watch over rollout {rollout} any more: taking all traffic back"
    );
    let known = app.store.load(rollout, 0).await.unwrap_or_default();
    let entries = if known.is_empty() {
        vec![Entry {
            seq: 0,
            at: view.header.created,
            epoch: 0,
            event: Event::Started(Box::new(view.header.clone())),
        }]
    } else {
        known
    };
    let app = app.in_lifeboat(why, rollout, entries);
    let back = way_back::abort_rollout(&app, rollout, "the store failed").await?;
    traffic::taken_back(global, &back)
}

/// Lets requests finish, unless somebody is in a hurry.
async fn stop_balancers(app: &App, interruptions: &mut Interruptions) {
    tokio::select! {
        () = app.ports.stop() => {}
        () = interruptions.next() => {}
    }
}

/// How following a rollout ended.
pub enum Followed {
    /// It does not move any more, or the person has gone; the exit code.
    Left(Exit),
    /// No process drives it any more.
    Abandoned,
}

/// How often to look whether somebody still drives.
const LOOK_FOR_DRIVER_MS: Millis = 2_000;

/// Follows a rollout that another process drives, to its end or pause, or until
/// nobody drives it any more.
pub async fn follow(app: &App, global: &Global, rollout: &str) -> crate::ops::Result<Followed> {
    let mut interruptions = Interruptions::new(app.clock.clone())?;
    let mut view = View::new(app, global, rollout).await?;
    let mut ticks = tokio::time::interval(REFRESH);
    let mut look_at = app.clock.now() + LOOK_FOR_DRIVER_MS;
    loop {
        tokio::select! {
            _ = ticks.tick() => view.refresh().await?,
            () = interruptions.next() => {
                view.erase();
                return Ok(Followed::Left(Exit::Paused));
            }
        }
        if let Some(exit) = settled(&view.status) {
            view.erase();
            view.finish(app, global, exit).await?;
            return Ok(Followed::Left(exit));
        }
        if app.clock.now() >= look_at {
            look_at = app.clock.now() + LOOK_FOR_DRIVER_MS;
            let driver = app.living_owner(&view.header).await?;
            if driver.is_none_or(|busy| busy.driver() == Some(&app.owner)) {
                view.erase();
                return Ok(Followed::Abandoned);
            }
        }
    }
}

/// The exit code of a rollout that does not move any more.
pub fn settled(status: &Status) -> Option<Exit> {
    let standing = match (&status.end, &status.hold, &status.mismatch) {
        (Some((end, reason)), ..) => Standing::Over(*end, reason.clone()),
        (None, Some(hold), _) => Standing::Held(hold.clone()),
        (None, None, Some(mismatch)) => Standing::Diverged(mismatch.clone()),
        (None, None, None) => return None,
    };
    Some(Exit::from(&standing))
}

/// A rollout on the screen: lines that stay, and on a terminal a block below
/// them that is drawn again and again.
struct View<'a> {
    app: &'a App,
    rollout: String,
    header: Header,
    status: Status,
    narrator: Narrator,
    term: Term,
    live: bool,
    drawn: usize,
    /// The arms as they were last looked at, and when.
    seen: Option<(Millis, Vec<String>)>,
}

impl<'a> View<'a> {
    async fn new(app: &'a App, global: &Global, rollout: &str) -> crate::ops::Result<Self> {
        let (header, _, entries) = app.journal(rollout).await?;
        let mut status = Status::new(&header);
        let mut narrator = Narrator::new(rollout);
        // What is history already is not told again.
        for entry in &entries {
            narrator.line(entry);
            status.apply(entry);
        }
        Ok(Self {
            app,
            rollout: rollout.to_owned(),
            status,
            header,
            narrator,
            term: Term::stderr(),
            live: std::io::stderr().is_terminal() && !global.json,
            drawn: 0,
            seen: None,
        })
    }

    fn say(&mut self, line: &str) {
        self.erase();
        let _ = self.term.write_line(&plain_news(line));
    }

    fn erase(&mut self) {
        let _ = self.term.clear_last_lines(self.drawn);
        self.drawn = 0;
    }

    async fn refresh(&mut self) -> crate::ops::Result<()> {
        for notice in self.app.ports.notices() {
            self.say(&notice);
        }
        let news = self
            .app
            .store
            .load(&self.rollout, self.status.entries)
            .await?;
        for entry in &news {
            self.status.apply(entry);
            if let Some(line) = self.narrator.line(entry) {
                self.say(&line);
            }
        }
        if self.live {
            let lines = self.block().await;
            self.erase();
            let width = usize::from(self.term.size().1);
            for line in &lines {
                // One line each, or the wrong ones would be erased.
                let line = plain_news(line).replace('\n', " ");
                let cut = console::truncate_str(&line, width, "…");
                self.term.write_line(&cut)?;
            }
            self.drawn = lines.len();
        }
        Ok(())
    }

    async fn block(&mut self) -> Vec<String> {
        let now = self.app.clock.now();
        let mut lines = render::head(&self.status, now);
        // A target that samples once a minute is not asked four times a second.
        let pause = Millis::from(self.header.sample_period_ms / 10);
        match &self.seen {
            Some((at, seen)) if now < at + pause => lines.extend(seen.iter().cloned()),
            _ => {
                let seen = self.arms(now).await;
                lines.extend(seen.iter().cloned());
                self.seen = Some((now, seen));
            }
        }
        lines
    }

    async fn arms(&self, now: Millis) -> Vec<String> {
        let Ok(target) = self.app.ports.reach(&self.header.target).await else {
            return vec![];
        };
        let Ok(seen) = look(target.as_ref(), now).await else {
            return vec![];
        };
        let width = match self.term.size().1 {
            0..100 => 4,
            100..120 => 12,
            _ => render::BAR,
        };
        render::arm_lines(&seen, width)
    }

    /// The verdict, as data on stdout.
    async fn finish(&mut self, app: &App, global: &Global, exit: Exit) -> crate::ops::Result<()> {
        if global.json {
            let load = app.ports.load_seen().await;
            json!(view::rollout::Driven {
                status: (&self.status).into(),
                exit: exit as u8,
                requests: load.map(|(sent, failed)| view::rollout::Requests { sent, failed }),
            });
            return Ok(());
        }
        let style = render::phase_style(self.status.phase);
        out!("{}", style.apply_to(verdict(&self.header, &self.status)));
        if let Some((sent, failed)) = app.ports.load_seen().await {
            out!("users sent {sent} requests meanwhile; {failed} of them failed");
        }
        Ok(())
    }
}
