//! The real binary: run to its end, or in the background.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::guests::guest_path;

/// The binary with a state folder of its own, in that folder.
pub fn engine(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command
        .current_dir(folder)
        .env("USER", "tester")
        .env_remove("NO_COLOR")
        // What it changes is for the tests that set it.
        .env_remove("CI")
        .arg("--state-dir")
        .arg("state")
        .args(arguments);
    command
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = engine(folder, arguments).output().expect("the binary runs");
    crate::schemas::hold(arguments, &output);
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process that does not outlive its test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The path of a guest, as an argument.
pub fn plugin(name: &str) -> String {
    guest_path(name).display().to_string()
}

pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([name, &pid]).status();
    assert!(status.expect("kill runs").success());
}

/// Starts `engine` in the background.
pub fn spawn(folder: &Path, arguments: &[&str]) -> Running {
    spawn_with(folder, arguments, |_| ())
}

/// The same, in surroundings of its own.
pub fn spawn_with(
    folder: &Path,
    arguments: &[&str],
    surround: impl FnOnce(&mut Command),
) -> Running {
    let mut command = engine(folder, arguments);
    surround(&mut command);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Running(child.expect("the binary runs"))
}

/// Waits for a background process.
pub fn wait(running: Running) -> Output {
    // The guard must not kill what has ended by itself.
    let mut running = std::mem::ManuallyDrop::new(running);
    let deadline = Instant::now() + Duration::from_secs(90);
    while running.0.try_wait().expect("ours").is_none() {
        assert!(Instant::now() < deadline, "it hangs");
        std::thread::sleep(Duration::from_millis(20));
    }
    let child = std::mem::replace(&mut running.0, Command::new("true").spawn().expect("true"));
    child.wait_with_output().expect("ours")
}

/// Polls `engine status --json` until it says so.
pub fn until(folder: &Path, admin: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..300 {
        let output = run(folder, &["status", "--json", "--local", admin]);
        if let Ok(status) = serde_json::from_str::<Value>(&stdout(&output))
            && output.status.success()
        {
            if wanted(&status) {
                return status;
            }
            last = status;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never happened; at last: {last}");
}

pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}
