//! The program of an arm: started, started again when it ends, and what became of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::task::AbortHandle;

use crate::model::Deployment;

/// How long a program that ended stays down before it is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How often a program may end without having served before its arm is given up.
const ENDS_MAX: u32 = 3;
/// How much of the end of its output is shown.
const LINES: usize = 5;
const TAIL_BYTES: u64 = 4_096;

/// Where the programs of one balancer write what they print.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    folder: PathBuf,
    /// The balancer's admin address, which no other one has while it runs.
    balancer: String,
}

impl Logs {
    /// Those of the balancer with that admin address.
    pub(super) fn new(folder: &Path, admin: SocketAddr) -> Self {
        let local = admin.ip() == IpAddr::from(Ipv4Addr::LOCALHOST);
        Self {
            folder: folder.to_owned(),
            balancer: match local {
                true => admin.port().to_string(),
                false => file_name(&admin.to_string()),
            },
        }
    }

    /// The log of an arm with that version. Balancers of one machine share the folder, so
    /// each has names of its own.
    pub(super) fn of(&self, arm: &str, version: &str) -> PathBuf {
        let (version, balancer) = (file_name(version), &self.balancer);
        self.folder.join(format!("{arm}-{version}-{balancer}.log"))
    }
}

/// The version that is in a file's name.
fn file_name(version: &str) -> String {
    let letter = |c: char| match c.is_ascii_alphanumeric() || c == '.' {
        true => c,
        false => '-',
    };
    version.chars().map(letter).collect()
}

/// A program that runs for an arm.
#[derive(Debug)]
pub(super) struct Program {
    log: Option<PathBuf>,
    ends: Mutex<Ends>,
}

/// A program that runs, in a process group of its own: a Ctrl-C in the terminal is for the
/// engine, which takes the traffic back before it stops what serves. All that the program
/// has started goes with it when this is dropped.
#[derive(Debug)]
struct Group {
    program: Child,
    _guard: Option<Guard>,
}

/// Ends a group of processes when this one has ended, however that was: what `kill -9` does
/// runs nothing of ours, and a program that is left holds its port, its memory and its log. A
/// shell reads a pipe that ends with this process. Dropped, it ends without having done
/// anything.
///
/// Linux has a signal for this (`PR_SET_PDEATHSIG`), but it comes when the thread has ended
/// that started the program, reaches that one process and none that it has started, and only
/// unsafe code can ask for it.
#[derive(Debug)]
struct Guard(#[expect(dead_code, reason = "dropped with the group")] Child);

/// Waits for the end of its input, whatever the terminal sends meanwhile.
const GUARD: &str = "trap '' HUP INT QUIT TERM; read -r _; kill -s KILL -- \"-$1\"";

impl Guard {
    /// One for that group; none where there is no shell.
    fn over(group: u32) -> Option<Self> {
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell.args(["-c", GUARD, "guard", &group.to_string()]);
        shell.stdin(Stdio::piped());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        // A Ctrl-C in the terminal is not for it either.
        let guard = shell.process_group(0).kill_on_drop(true).spawn();
        guard.ok().map(Self)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once it was waited for it has no id, and another group may have its number.
        let id = self.program.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// How it has ended since it last served.
#[derive(Debug, Default)]
struct Ends {
    count: u32,
    how: String,
    /// The part of the log that the last start of it has written, bytes.
    wrote: Range<u64>,
}

/// Starts a program; it is started again whenever it ends, until the task is aborted,
/// which kills it.
///
/// # Errors
/// It cannot be started at all; the text says why.
pub(super) fn start(
    command: Vec<String>,
    port: u16,
    log: Option<PathBuf>,
) -> Result<(Arc<Program>, AbortHandle), String> {
    let begin = length(log.as_deref());
    let child = spawn(&command, port, log.as_deref())?;
    let program = Arc::new(Program {
        log,
        ends: Mutex::default(),
    });
    let task = tokio::spawn(program.clone().supervise((child, begin), command, port));
    Ok((program, task.abort_handle()))
}

impl Program {
    /// Notes that its backend has passed its health checks.
    pub(super) fn serves(&self) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Ends::default();
    }

    /// Whether it runs; if it has ended, how, with the last lines of its output.
    pub(super) fn deployment(&self) -> Deployment {
        let (count, how, wrote) = {
            let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            (ends.count, ends.how.clone(), ends.wrote.clone())
        };
        if count == 0 {
            return Deployment::Steady;
        }
        let times = match count {
            1 => String::new(),
            count => format!(", {count} times without having served"),
        };
        let said = format!("its program {how}{times}{}", self.last_words(wrote));
        match count {
            ENDS_MAX.. => Deployment::Failed(said),
            _ => Deployment::Moving(said),
        }
    }

    /// The end of its output before it last ended: the log has that of earlier starts too.
    fn last_words(&self, wrote: Range<u64>) -> String {
        let Some(log) = &self.log else {
            return String::new();
        };
        let tail = tail(log, wrote).unwrap_or_default();
        let lines: Vec<&str> = tail.lines().filter(|l| !l.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        match last {
            [] => format!("; it wrote nothing to {}", log.display()),
            last => format!("; the end of {}:\n  {}", log.display(), last.join("\n  ")),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a pause between real restarts")]
    async fn supervise(
        self: Arc<Self>,
        (child, mut begin): (Group, u64),
        command: Vec<String>,
        port: u16,
    ) {
        let mut child = Ok(child);
        loop {
            let how = match child {
                Ok(mut child) => ended(child.program.wait().await),
                Err(why) => format!("cannot be started again: {why}"),
            };
            {
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.count = ends.count.saturating_add(1);
                ends.how = how;
                ends.wrote = begin..length(self.log.as_deref());
            }
            tokio::time::sleep(RESTART_AFTER).await;
            begin = length(self.log.as_deref());
            child = spawn(&command, port, self.log.as_deref());
        }
    }
}

/// How a program ended, in words.
fn ended(status: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("cannot be followed: {error}"),
    }
}

/// How long a log is now, bytes; 0 if there is none.
fn length(log: Option<&Path>) -> u64 {
    log.and_then(|log| log.metadata().ok())
        .map_or(0, |m| m.len())
}

fn tail(log: &Path, part: Range<u64>) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(log)?;
    let begin = part.start.max(part.end.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = vec![];
    file.take(part.end.saturating_sub(begin))
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn spawn(command: &[String], port: u16, log: Option<&Path>) -> Result<Group, String> {
    let filled: Vec<String> = command
        .iter()
        .map(|a| a.replace("{port}", &port.to_string()))
        .collect();
    let (program, arguments) = filled
        .split_first()
        .ok_or_else(|| "the release's command is empty".to_owned())?;
    let output = || -> Stdio {
        let file = log.and_then(|path| {
            std::fs::create_dir_all(path.parent()?).ok()?;
            let mut options = std::fs::OpenOptions::new();
            options.mode(0o600);
            options.create(true).append(true).open(path).ok()
        });
        file.map_or_else(Stdio::null, Stdio::from)
    };
    tokio::process::Command::new(program)
        .args(arguments)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map(|program| Group {
            _guard: program.id().and_then(Guard::over),
            program,
        })
        .map_err(|e| format!("{program:?} cannot be started: {e}"))
}
