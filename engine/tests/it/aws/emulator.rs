//! The emulator is tested too.

use std::process::Command;

use crate::support::aws::emulator::{Emulator, environment, tool};
use crate::support::root;

#[test]
fn the_emulator_does_what_its_own_checks_say() {
    // One of its own: the checks empty it again and again.
    let emulator = Emulator::start(&[]);
    let endpoint = format!("http://{}", emulator.address);
    let mut command = Command::new(tool("python"));
    environment(&mut command, &endpoint, "us-east-1");
    let output = command
        .arg(root().join("engine/tests/emulator/check.py"))
        .arg(&endpoint)
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
