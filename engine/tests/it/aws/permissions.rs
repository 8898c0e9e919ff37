//! What the guide says a verb may call is what it calls.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::aws::emulator::{self, unique};
use crate::support::aws::proxy::Proxy;
use crate::support::binary::{engine, plugin, stderr};
use crate::support::{folder, root};

/// The APIs in the guide's rows that begin so.
fn documented(rows: &[&str]) -> BTreeSet<String> {
    let guide =
        std::fs::read_to_string(root().join("engine/docs/guide/aws.md")).expect("the guide");
    let mut names = BTreeSet::new();
    for row in rows {
        let line = guide.lines().find(|l| l.starts_with(&format!("| {row}")));
        let line = line.unwrap_or_else(|| panic!("no row {row}"));
        let words = line.split([' ', ',', '|']);
        let is_api = |w: &&str| w.chars().skip(1).any(char::is_uppercase);
        names.extend(words.filter(is_api).map(ToOwned::to_owned));
    }
    names
}

/// Runs a verb from a cold cache; what it called must be what the rows say.
fn check(folder: &Path, proxy: &Proxy, arguments: &[&str], code: i32, rows: &[&str]) {
    let _ = std::fs::remove_dir_all(folder.join("state"));
    proxy.take();
    let mut command = engine(folder, arguments);
    emulator::environment(&mut command, &proxy.endpoint, "ca-central-1");
    let output = command.output().expect("the binary runs");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {}",
        stderr(&output)
    );
    let called: BTreeSet<String> = proxy.take().into_iter().collect();
    let allowed = documented(rows);
    for api in &called {
        assert!(
            allowed.contains(api),
            "{arguments:?} called {api}, the guide has {allowed:?}"
        );
    }
    let own = documented(&rows[rows.len() - 1..]);
    let writes = |name: &&String| {
        ["Modify", "Update", "Create", "Delete"]
            .iter()
            .any(|w| name.starts_with(w))
    };
    // Of a listener and a rule only one is written.
    let missing: Vec<&String> = own
        .iter()
        .filter(writes)
        .filter(|n| !called.contains(*n) && *n != "ModifyRule" && *n != "DeleteChangeSet")
        .collect();
    assert!(missing.is_empty(), "{arguments:?} never called {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_calls_what_the_guide_says() {
    let folder = folder();
    let folder = folder.path();
    let proxy = Proxy::start().await;
    let name = unique("allowed");
    let stack = ["--stack", name.as_str()];
    let finding = "finding a target by its stack";
    let check = |arguments: &[&str], code: i32, rows: &[&str]| {
        let arguments = [arguments, &stack[..]].concat();
        tokio::task::block_in_place(|| check(folder, &proxy, &arguments, code, rows));
    };
    let images = [
        "deploy",
        "blue-green",
        "-p",
        "ImageURIBlue=a:1",
        "-p",
        "ImageURIGreen=a:1",
    ];
    check(&images, 0, &[finding, "status", "deploy"]);
    check(&["status"], 0, &[finding, "status"]);
    check(&["set-weights", "90", "10"], 0, &[finding, "set-weights"]);
    check(&["rollback", "--to", "blue"], 0, &[finding, "set-weights"]);
    check(&["switch", "green"], 0, &[finding, "set-weights"]);
    check(&["switch", "blue"], 0, &[finding, "set-weights"]);
    let colours = plugin("blue-green");
    let run = ["run", &colours, "--image", "a:broken"];
    check(&run, 3, &[finding, "status", "set-weights", "run"]);
    check(&["delete", "--yes"], 0, &[finding, "delete"]);
}
