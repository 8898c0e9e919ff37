//! Shows a rollout while it is driven or followed, and how it ended.

use std::io::IsTerminal as _;
use std::sync::Arc;

use clap::ValueEnum;
use console::Term;
use tokio::sync::mpsc;

use super::exit::Exit;
use super::print::{self, plain_news};
use super::render;
use super::{Global, advice, traffic};
use crate::clock::Clock;
use crate::journal::narrate::Narrator;
use crate::journal::verdict::{in_short, verdict};
use crate::journal::{Event, Work};
use crate::model::{Millis, Role};
use crate::ops::Result;
use crate::ops::app::App;
use crate::ops::watch::{self, Audience, Ended, Happened, Left, Watched, Wish, Wishes};
use crate::rollout::Options;
use crate::view;

/// Ctrl-C, SIGTERM, SIGQUIT and the end of the terminal, from the moment on at which this is
/// made; none of them is lost. The programs of arms would outlive a process that these kill.
///
/// A signal within a second of another one counts as the same interruption:
/// `timeout` signals a process and then its group, which is one wish.
pub struct Interruptions {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    /// None where the process was started to outlive its terminal, as with `nohup`.
    hangup: Option<tokio::signal::unix::Signal>,
    clock: Arc<dyn Clock>,
    last: Option<Millis>,
}

/// How long after an interruption another signal counts as the same one, ms.
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
            quit: signal(SignalKind::quit())?,
            hangup: match ignores_hangup() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    /// Returns at the next interruption.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.quit.recv() => {}
                () = received(self.hangup.as_mut()) => {}
            }
            let now = self.clock.now();
            if self.last.is_none_or(|last| now.abs_diff(last) >= SAME_MS) {
                self.last = Some(now);
                return;
            }
        }
    }
}

async fn received(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether the end of the terminal is nothing to this process; where that cannot be read,
/// nobody knows, and so it stays as it is.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 == 1)
}

/// What the first Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnInterrupt {
    /// Leave the traffic where it is; `engine resume` goes on.
    Suspend,
    /// Take all traffic back first.
    Rollback,
}

/// Sees a verb to its end that moves traffic by itself: what it has sent cannot be
/// called back. The first Ctrl-C says so, and the second leaves with the exit code
/// `left`.
pub(super) async fn to_its_end(
    app: &App,
    left: Exit,
    verb: impl Future<Output = crate::ops::Result<Exit>>,
) -> crate::ops::Result<Exit> {
    let mut interruptions = Interruptions::new(app.clock.clone())?;
    let mut asked = false;
    tokio::pin!(verb);
    loop {
        tokio::select! {
            done = &mut verb => return done,
            () = interruptions.next() => {
                if asked {
                    eprintln!(
                        "left: what was sent may still take effect; `engine status` shows where the traffic is, and `engine rollback` takes it back"
                    );
                    return Ok(left);
                }
                asked = true;
                eprintln!("interrupted: the engine finishes what it has begun with the traffic (press Ctrl-C again to leave at once)");
            }
        }
    }
}

/// What Ctrl-C and SIGTERM wish for, from now on.
fn wishes(clock: Arc<dyn Clock>, on_interrupt: OnInterrupt) -> std::io::Result<Wishes> {
    let mut interruptions = Interruptions::new(clock)?;
    let (sender, wishes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut wish = match on_interrupt {
            OnInterrupt::Rollback => Wish::TakeBack,
            OnInterrupt::Suspend => Wish::Leave,
        };
        loop {
            interruptions.next().await;
            if sender.send(wish).is_err() {
                return;
            }
            wish = Wish::Leave;
        }
    });
    Ok(wishes)
}

/// What this process does with a rollout while it shows it.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// This process drives it.
    Drive(Options, OnInterrupt),
    /// Another process drives it; this one takes over if that one stops.
    FollowOrDrive(Options, OnInterrupt),
    /// Another process drives it, and this one only shows it.
    Follow,
}

/// Shows a rollout until it does not move any more, or the person leaves; returns the
/// exit code for it.
pub(super) async fn watch(app: &App, global: &Global, rollout: &str, how: How) -> Result<Exit> {
    let on_interrupt = match how {
        How::Drive(_, on_interrupt) | How::FollowOrDrive(_, on_interrupt) => on_interrupt,
        How::Follow => OnInterrupt::Suspend,
    };
    let mut wishes = wishes(app.clock.clone(), on_interrupt)?;
    let mut view = View::new(global, rollout);
    let sees_arms = view.live;
    let mut hears = |rollout: &Watched, what: Happened<'_>| view.show(rollout, what);
    let audience = Audience {
        hears: &mut hears,
        wishes: &mut wishes,
        sees_arms,
    };
    let ended = match how {
        How::Drive(options, _) => watch::drive(app, rollout, options, audience).await,
        How::FollowOrDrive(options, _) => {
            watch::follow_or_drive(app, rollout, options, audience).await
        }
        How::Follow => watch::follow(app, rollout, audience).await,
    };
    view.erase();
    let exit = show_end(global, &ended?, view.told.as_deref())?;
    watch::let_requests_finish(app, &mut wishes).await;
    Ok(exit)
}

/// Says why nobody watches a rollout any more. `told` is the reason of the decision that
/// was shown.
fn show_end(global: &Global, ended: &Ended, told: Option<&str>) -> Result<Exit> {
    let Watched { header, status, .. } = &ended.rollout;
    let rollout = &header.rollout;
    match &ended.left {
        Left::Stopped(standing) => {
            let exit = match &ended.left_behind {
                Some(_) => Exit::RollbackFailed,
                None => Exit::from(standing),
            };
            finish(global, ended, exit, told)?;
            if let Some(error) = &ended.left_behind {
                eprintln!("error: {}", advice::text(error));
            }
            // The users of a demo are made up.
            if ended.embedded && ended.requests.is_none() {
                eprintln!(
                    "the balancer ends with this process: from now on it serves nobody; `engine local` runs one that stays"
                );
            }
            Ok(exit)
        }
        Left::Gone => Ok(Exit::Paused),
        Left::Suspended { embedded } => {
            let weights = render::shares(&status.weights);
            match embedded {
                true => eprintln!(
                    "suspended at {weights}\nthe balancer ends with this process: nobody is served until `engine resume {rollout}` starts it again with these weights; `engine abort {rollout}` gives the rollout up"
                ),
                false => eprintln!(
                    "suspended: the traffic stays at {weights}, and nobody watches it, whatever the metrics say\n`engine resume {rollout}` goes on, `engine abort {rollout}` takes it back"
                ),
            }
            if global.json {
                finish(global, ended, Exit::Paused, told)?;
            }
            Ok(Exit::Paused)
        }
        Left::Abandoned => {
            eprintln!(
                "no process drives rollout {rollout}; `engine resume {rollout}` goes on with it"
            );
            Ok(Exit::Paused)
        }
        Left::Stranded(back) => traffic::taken_back(global, back),
    }
}

/// The verdict, as data on stdout.
fn finish(global: &Global, ended: &Ended, exit: Exit, told: Option<&str>) -> Result<()> {
    let Watched { header, status, .. } = &ended.rollout;
    if global.json {
        let requests = ended.requests;
        json!(view::rollout::Driven {
            status: status.into(),
            exit: exit as u8,
            moved_since: false,
            requests: requests.map(|(sent, failed)| view::rollout::Requests { sent, failed }),
        });
        return Ok(());
    }
    let style = render::phase_style(status.phase);
    let reason = status.end.as_ref().map(|(_, reason)| reason.as_str());
    let on_one_screen = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let said = match in_short(header, status) {
        Some(short) if on_one_screen && told == reason => short,
        _ => verdict(header, status),
    };
    let said = render::told(&said, print::width());
    out!("{}", style.apply_to(said));
    if let Some((sent, failed)) = ended.requests {
        out!("users sent {sent} requests meanwhile; {failed} of them failed");
    }
    if status.is_over() && matches!(header.work, Work::Strategy(_)) {
        eprintln!(
            "`engine explain {}` says what it knew at each decision",
            status.rollout
        );
    }
    Ok(())
}

/// A rollout on the screen: lines that stay, and on a terminal a block below
/// them that is drawn again and again.
struct View {
    narrator: Narrator,
    term: Term,
    live: bool,
    drawn: usize,
    /// When it began to show it, Unix ms.
    begun: Millis,
    /// When something was last said, Unix ms.
    said: Millis,
    /// The reason of the decision that was shown.
    told: Option<String>,
}

/// How long a view that is not drawn again and again is silent at first, ms: whoever has just
/// begun wants to know that something happens.
const SILENCE_AT_FIRST_MS: Millis = 10_000;
/// How long it is later, ms: a log of a day must stay short.
const SILENCE_MAX_MS: Millis = 30_000;
/// What counts as at first, ms.
const AT_FIRST_MS: Millis = 60_000;

impl View {
    fn new(global: &Global, rollout: &str) -> Self {
        Self {
            narrator: Narrator::new(rollout),
            term: Term::stderr(),
            live: std::io::stderr().is_terminal() && !global.json,
            drawn: 0,
            begun: 0,
            said: Millis::MAX,
            told: None,
        }
    }

    /// Whether it was silent for too long.
    fn is_due(&self, now: Millis) -> bool {
        let longest = match now.saturating_sub(self.begun) {
            0..=AT_FIRST_MS => SILENCE_AT_FIRST_MS,
            _ => SILENCE_MAX_MS,
        };
        now.saturating_sub(self.said) >= longest
    }

    fn show(&mut self, rollout: &Watched, what: Happened<'_>) {
        if !matches!(what, Happened::Entry(_) | Happened::Tick) {
            self.said = rollout.now;
        }
        match what {
            // The narrator must know the earlier entries, but people have seen them.
            Happened::Begun(entries) => {
                self.begun = rollout.now;
                for entry in entries {
                    self.narrator.line(entry);
                }
            }
            Happened::Entry(entry) => {
                if let Some(line) = self.narrator.line(entry) {
                    self.said = rollout.now;
                    self.say(&line);
                }
                if let Event::Decided { reason, .. } = &entry.event {
                    self.told = Some(reason.clone());
                }
            }
            Happened::Notice(text) => self.say(text),
            Happened::Tick if self.live => self.draw(rollout),
            Happened::Tick if self.is_due(rollout.now) => {
                self.said = rollout.now;
                self.say(&render::standing(&rollout.status, rollout.now));
            }
            Happened::Tick => {}
            Happened::TakingBack => {
                self.say(
                    "interrupted: taking all traffic back (press Ctrl-C again to leave at once)",
                );
            }
            Happened::TakingOver => self.say(&format!(
                "the process that drove rollout {} does not answer any more; this one takes over",
                rollout.header.rollout
            )),
            Happened::Stranded(why) => self.say(&format!(
                "{why}\nso nobody could watch over rollout {} any more: taking all traffic back",
                rollout.header.rollout
            )),
        }
    }

    fn say(&mut self, line: &str) {
        self.erase();
        let width = match self.live {
            true => usize::from(self.term.size().1),
            false => usize::MAX,
        };
        let _ = self
            .term
            .write_line(&plain_news(&render::told(line, width)));
    }

    fn erase(&mut self) {
        let _ = self.term.clear_last_lines(self.drawn);
        self.drawn = 0;
    }

    fn draw(&mut self, rollout: &Watched) {
        let width = usize::from(self.term.size().1);
        let Watched {
            header,
            status,
            now,
            ..
        } = rollout;
        let mut lines = render::head(header, status, *now, width);
        if let Some(seen) = &rollout.arms {
            let stable = Some(header.arm(Role::Stable));
            lines.extend(render::arm_lines(seen, stable, width));
        }
        self.erase();
        for line in &lines {
            // `erase` counts lines, so none of them may become two on the screen.
            let line = plain_news(line).replace('\n', " ");
            // A screen that cannot be drawn must not stop the rollout.
            let _ = self
                .term
                .write_line(&console::truncate_str(&line, width, "…"));
        }
        self.drawn = lines.len();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};

    use super::*;
    use crate::journal::Entry;
    use crate::journal::status::Status;
    use crate::rollout::fixture;

    /// A view that is not on a terminal, and what it has written.
    struct Log {
        view: View,
        file: File,
        rollout: Watched,
    }

    impl Log {
        fn new(live: bool) -> Self {
            let file = tempfile::tempfile().expect("a file");
            let copy = || file.try_clone().expect("a file");
            let header = fixture::header();
            Self {
                view: View {
                    narrator: Narrator::new("test-1"),
                    term: Term::read_write_pair(copy(), copy()),
                    live,
                    drawn: 0,
                    begun: 0,
                    said: Millis::MAX,
                    told: None,
                },
                rollout: Watched {
                    status: Status::new(&header),
                    now: header.created,
                    header,
                    arms: None,
                },
                file,
            }
        }

        /// What is written when that happens so long after the beginning, ms.
        fn at(&mut self, ms: Millis, what: Happened<'_>) -> String {
            self.rollout.now = self.rollout.header.created + ms;
            let before = self.file.stream_position().expect("a place");
            self.view.show(&self.rollout, what);
            let mut written = String::new();
            self.file
                .seek(std::io::SeekFrom::Start(before))
                .expect("a place");
            self.file.read_to_string(&mut written).expect("text");
            written
        }

        /// The ticks from one moment to another at which it spoke by itself.
        fn spoke(&mut self, from: Millis, to: Millis) -> Vec<Millis> {
            let ticks = (from..to).step_by(250);
            let spoke = ticks.filter(|ms| !self.at(*ms, Happened::Tick).is_empty());
            spoke.collect()
        }
    }

    /// In CI nobody looks at ten silent seconds and knows that something happens; and a day
    /// does not fill a log.
    #[test]
    fn a_view_that_is_no_terminal_gives_signs_of_life() {
        let mut log = Log::new(false);
        log.at(0, Happened::Begun(&[]));
        assert_eq!(log.spoke(250, 9_999), [0; 0], "nothing is new");
        let line = log.at(10_000, Happened::Tick);
        assert!(line.contains("traffic: stable 100 %"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        let at_first = [20_000, 30_000, 40_000, 50_000, 60_000];
        assert_eq!(log.spoke(10_250, 60_250), at_first);
        assert_eq!(
            log.spoke(60_250, 180_250),
            [90_000, 120_000, 150_000, 180_000]
        );
    }

    #[test]
    fn what_it_says_anyway_counts_and_what_it_keeps_to_itself_does_not() {
        let entry = |event| Entry {
            seq: 1,
            at: 0,
            epoch: 1,
            event,
        };
        let held = entry(Event::Failed {
            reason: "it trapped".to_owned(),
        });
        let mut log = Log::new(false);
        log.at(0, Happened::Begun(&[]));
        let line = log.at(7_000, Happened::Entry(&held));
        assert!(line.contains("it trapped"), "{line}");
        assert_eq!(log.spoke(7_250, 18_000), [17_000], "ten seconds after that");
        let line = log.at(24_000, Happened::Notice("the store is slow"));
        assert!(line.contains("the store is slow"), "{line}");
        assert_eq!(log.spoke(24_250, 35_000), [34_000]);

        // The first entry of a journal is told by whoever began the rollout.
        let silent = entry(Event::Started(Box::new(fixture::header())));
        let mut log = Log::new(false);
        log.at(0, Happened::Begun(&[]));
        assert_eq!(log.at(5_000, Happened::Entry(&silent)), "");
        assert_eq!(log.spoke(5_250, 11_000), [10_000]);
    }

    /// A clock that is set back makes no flood of lines, and no silence for ever.
    #[test]
    fn a_clock_that_jumps_does_not_confuse_it() {
        let mut log = Log::new(false);
        log.at(600_000, Happened::Begun(&[]));
        assert_eq!(log.spoke(300_000, 310_000), [0; 0]);
        assert_eq!(log.spoke(610_000, 611_000), [610_000]);
    }

    #[test]
    fn a_terminal_is_drawn_anew_instead() {
        let mut log = Log::new(true);
        log.at(0, Happened::Begun(&[]));
        assert_ne!(log.at(250, Happened::Tick), "", "at each tick");
        assert_ne!(log.at(500, Happened::Tick), "");
    }
}
