//! The way back never needs the store, and who only reads needs no lock.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::support::balancer::{Local, begin, begin_and_pause};
use crate::support::binary::{
    code, engine, plugin, run, signal, spawn, stderr, stdout, until, wait,
};
use crate::support::folder;

/// Ways in which a store cannot be written to. What must live as long as the
/// trouble comes back.
fn break_store(folder: &Path, how: &str) -> Option<Connection> {
    let state = folder.join("state");
    let store = state.join("engine.db");
    // The balancer has made it, as any verb does.
    std::fs::remove_dir_all(&state).expect("ours");
    match how {
        "the folder is a file" => std::fs::write(&state, "").expect("writable"),
        "the folder cannot be made" => {
            std::fs::write(folder.join("file"), "").expect("writable");
            std::os::unix::fs::symlink("file/below", &state).expect("a link");
        }
        "the database is garbage" => {
            std::fs::create_dir_all(&state).expect("writable");
            std::fs::write(&store, "no database at all, ".repeat(500)).expect("writable");
        }
        "the database is another program's" => {
            std::fs::create_dir_all(&state).expect("writable");
            let other = Connection::open(&store).expect("new");
            let tables = "CREATE TABLE journal (a); CREATE VIEW lease AS SELECT 1;";
            other.execute_batch(tables).expect("new");
        }
        "the database is a folder" => std::fs::create_dir_all(store).expect("writable"),
        "a frozen process has the lock" => {
            std::fs::create_dir_all(&state).expect("writable");
            assert_eq!(code(&run(folder, &["list"])), Some(0));
            let other = Connection::open(&store).expect("there");
            other.execute_batch("BEGIN EXCLUSIVE").expect("free");
            return Some(other);
        }
        other => panic!("{other}?"),
    }
    None
}

fn set(local: &Local, folder: &Path, weights: [&str; 2]) {
    let output = local.from_elsewhere(folder, &["set-weights", weights[0], weights[1]]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}

const TROUBLES: [&str; 6] = [
    "the folder is a file",
    "the folder cannot be made",
    "the database is garbage",
    "the database is another program's",
    "the database is a folder",
    "a frozen process has the lock",
];

#[test]
fn the_way_back_works_without_a_store() {
    for how in TROUBLES {
        let folder = folder();
        let place = folder.path();
        let local = Local::start(place, &[]);
        local.wait_for_health(place);
        let trouble = break_store(place, how);
        // The frozen process keeps nobody from reading that there is no rollout.
        let readable = how == "a frozen process has the lock";
        let verbs = [("rollback", 0), ("abort", 3)];
        for (verb, exit) in verbs.into_iter().take(if readable { 1 } else { 2 }) {
            set(&local, place, ["stable=50", "canary=50"]);
            let output = run(place, &[verb, "--local", &local.admin()]);
            let said = stderr(&output);
            assert_eq!(code(&output), Some(exit), "{how}, {verb}: {said}");
            assert!(said.contains("could not be written down"), "{how}: {said}");
            assert_eq!(local.weights(place), "stable=100 canary=0", "{how}, {verb}");
        }
        // What is no way back does nothing, and says what still works.
        let output = run(
            place,
            &["set-weights", "50", "50", "--local", &local.admin()],
        );
        assert_ne!(code(&output), Some(0), "{how}");
        if !readable {
            assert!(
                stderr(&output).contains("engine rollback"),
                "{how}: {}",
                stderr(&output)
            );
        }
        assert_eq!(local.weights(place), "stable=100 canary=0", "{how}");
        drop(trouble);
    }
}

#[test]
fn without_a_history_colours_are_not_guessed() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &["--names", "blue,green"]);
    local.wait_for_health(place);
    set(&local, place, ["blue=25", "green=75"]);
    break_store(place, "the database is garbage");
    let admin = local.admin();
    let output = run(place, &["rollback", "--local", &admin]);
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--to blue"), "{}", stderr(&output));
    assert_eq!(local.weights(place), "blue=25 green=75");
    let output = run(place, &["rollback", "--to", "blue", "--local", &admin]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(local.weights(place), "blue=100 green=0");
    let output = run(place, &["rollback", "--to", "red", "--local", &admin]);
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
}

/// Nothing can be written any more, as on a full disk.
fn on_a_full_disk(folder: &Path, arguments: &[&str]) -> Output {
    let inner = engine(folder, arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    if let Some(at) = inner.get_current_dir() {
        shell.current_dir(at);
    }
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    shell.output().expect("sh runs")
}

#[test]
fn a_full_disk_does_not_stop_an_abort() {
    for verb in ["abort", "rollback"] {
        let folder = folder();
        let place = folder.path();
        let local = Local::start(place, &[]);
        local.wait_for_health(place);
        let id = begin_and_pause(&local, place);
        let admin = local.admin();
        let output = on_a_full_disk(place, &[verb, "--local", &admin]);
        let expected = if verb == "abort" { 3 } else { 0 };
        assert_eq!(code(&output), Some(expected), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("could not be written down"),
            "{}",
            stderr(&output)
        );
        assert_eq!(local.weights(place), "stable=100 canary=0");
        // With room again the journal says what it knows, and nothing moves by itself.
        let output = run(place, &["resume", &id]);
        assert_eq!(code(&output), Some(7), "{}", stderr(&output));
        assert_eq!(local.weights(place), "stable=100 canary=0");
    }
}

#[test]
fn a_rollout_whose_store_fails_takes_the_traffic_back() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    let running = begin(&local, place);
    let state = place.join("state/engine.db");
    let other = Connection::open(state).expect("there");
    other
        .busy_timeout(Duration::from_secs(30))
        .expect("a number");
    other.execute_batch("BEGIN EXCLUSIVE").expect("free");
    let output = wait(running);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("taking all traffic back"),
        "{}",
        stderr(&output)
    );
    assert_eq!(local.weights(place), "stable=100 canary=0");
}

#[test]
fn reading_needs_no_lock() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    let id = begin_and_pause(&local, place);
    let other = Connection::open(place.join("state/engine.db")).expect("there");
    other.execute_batch("BEGIN EXCLUSIVE").expect("free");
    let admin = local.admin();
    let begun = Instant::now();
    for arguments in [
        &["status", "--local", &admin][..],
        &["list"],
        &["get", &id],
        &["history", &id],
        &["explain", &id],
        &["export", &id],
    ] {
        let output = run(place, arguments);
        assert_eq!(code(&output), Some(0), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(&id) || arguments[0] != "list");
    }
    drop(other);
    // A copy of the folder that nobody may write to, log included.
    let copied = place.join("copied");
    let copy = copied.join("state");
    std::fs::create_dir_all(&copy).expect("writable");
    for end in ["", "-wal"] {
        let name = format!("engine.db{end}");
        let from = place.join("state").join(&name);
        if from.exists() {
            std::fs::copy(from, copy.join(&name)).expect("writable");
        }
    }
    use std::os::unix::fs::PermissionsExt as _;
    let closed = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(&copy, closed).expect("ours");
    let output = run(&copied, &["list"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(&id), "{}", stdout(&output));
    assert!(
        begun.elapsed() < Duration::from_secs(300),
        "it waited for the lock"
    );
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o700)).expect("ours");
}

/// A process that stands still keeps its lease for a while, and not for ever.
#[test]
fn resume_takes_over_from_a_frozen_owner() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    let admin = local.admin();
    let frozen = begin(&local, place);
    signal(&frozen.0, "-STOP");
    // It begins to look while the lease is still good.
    let resumed = spawn(place, &["resume", "--local", &admin]);
    let store = Connection::open(place.join("state/engine.db")).expect("there");
    let pid = resumed.0.id().to_string();
    let begun = Instant::now();
    loop {
        let owner: Option<String> = store
            .query_row("SELECT owner FROM lease", [], |row| row.get(0))
            .expect("a lease");
        if owner.is_some_and(|owner| owner.contains(&format!("\"pid\":{pid},"))) {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(80),
            "it was not taken over"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    signal(&frozen.0, "-CONT");
    let woken = wait(frozen);
    assert_eq!(code(&woken), Some(7), "{}", stderr(&woken));
    let output = run(place, &["abort", "--local", &admin]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert_eq!(code(&wait(resumed)), Some(3));
    assert_eq!(local.weights(place), "stable=100 canary=0");
}

/// However many verbs came after it, a rollout that has not ended is known and
/// keeps its plugin.
#[test]
fn ten_thousand_verbs_later() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    let other = Local::start(place, &["--load", "50"]);
    local.wait_for_health(place);
    other.wait_for_health(place);
    let id = begin_and_pause(&local, place);
    let elsewhere = other.admin();
    let verb = run(place, &["set-weights", "100", "0", "--local", &elsewhere]);
    assert_eq!(code(&verb), Some(0), "{}", stderr(&verb));
    let mut store = Connection::open(place.join("state/engine.db")).expect("there");
    let rows: Vec<(String, i64, i64, String)> = store
        .prepare("SELECT rollout, seq, at, event FROM journal WHERE rollout LIKE 'set-weights-%'")
        .expect("SQL")
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .expect("SQL")
        .collect::<Result<_, _>>()
        .expect("rows");
    let transaction = store.transaction().expect("free");
    for copy in 0..10_001_i64 {
        for (rollout, seq, at, event) in &rows {
            let new = format!("{rollout}-{copy}");
            transaction
                .execute(
                    "INSERT INTO journal (rollout, seq, at, epoch, event) VALUES (?1, ?2, ?3, 1, ?4)",
                    params![new, seq, at + 1 + copy, event.replace(rollout, &new)],
                )
                .expect("SQL");
        }
    }
    transaction.commit().expect("room");
    drop(store);
    // This one sweeps what nobody needs any more.
    let path = plugin("blue-green");
    let swept = run(
        place,
        &[
            "run",
            &path,
            "--local",
            &elsewhere,
            "--set",
            "bake=1s",
            "--set",
            "gate=limits",
        ],
    );
    assert!(
        code(&swept).is_some_and(|code| code != 1),
        "{}",
        stderr(&swept)
    );
    let list = stdout(&run(place, &["list", "--all", "-n", "1"]));
    assert!(list.contains(&id), "{list}");
    let resumed = spawn(place, &["resume", "--local", &local.admin()]);
    until(place, &local.admin(), |s| s["driven"] == true);
    let output = run(place, &["abort", "--local", &local.admin()]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert_eq!(code(&wait(resumed)), Some(3));
}

/// Several changes by hand do not make the new version the stable one.
#[test]
fn the_last_stable_arm_outlives_what_people_set() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &["--names", "blue,green"]);
    local.wait_for_health(place);
    let admin = local.admin();
    let go = |arguments: &[&str]| run(place, &[arguments, &["--local", &admin]].concat());
    let tries: [(&[[&str; 3]], &str); 3] = [
        (
            &[["set-weights", "40", "60"], ["set-weights", "10", "90"]],
            "blue=100 green=0",
        ),
        (
            &[["set-weights", "50", "50"], ["set-weights", "0", "100"]],
            "blue=100 green=0",
        ),
        // All users were on green, and somebody tried blue with a few.
        (
            &[["set-weights", "0", "100"], ["set-weights", "1", "99"]],
            "blue=0 green=100",
        ),
    ];
    for (steps, back) in tries {
        for step in steps {
            let output = go(step);
            assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        }
        let output = go(&["rollback"]);
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        assert_eq!(local.weights(place), back, "{steps:?}");
    }
}

/// An owner that lives and could not be told is waited for: "rolled back" is said
/// only once it cannot move the traffic again.
#[test]
fn an_owner_behind_a_lock_is_told_before_the_end() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    let running = begin(&local, place);
    let other = Connection::open(place.join("state/engine.db")).expect("there");
    other
        .busy_timeout(Duration::from_secs(5))
        .expect("a number");
    other.execute_batch("BEGIN IMMEDIATE").expect("free");
    let admin = local.admin();
    let abort = spawn(place, &["abort", "--local", &admin]);
    // Longer than the way back waits, shorter than the owner does.
    std::thread::sleep(Duration::from_secs(5));
    drop(other);
    let output = wait(abort);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("still drives"),
        "{}",
        stderr(&output)
    );
    // It heard of it, or saw first that its traffic had been moved.
    assert!(matches!(code(&wait(running)), Some(3 | 7)));
    assert_eq!(local.weights(place), "stable=100 canary=0");
}

/// A claim without a journal, a damaged journal and a pipe keep nobody from going
/// back; and an unreadable store takes nobody's traffic but that which is named.
#[test]
fn what_cannot_be_read_is_passed_over_or_refused() {
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    let admin = local.admin();
    begin_and_pause(&local, place);
    let store = place.join("state/engine.db");
    let other = Connection::open(&store).expect("there");
    let garble = "UPDATE journal SET event = '{}' WHERE seq = 0";
    assert_eq!(other.execute(garble, []).expect("SQL"), 1);
    drop(other);
    assert_eq!(code(&run(place, &["status", "--local", &admin])), Some(0));
    let named = run(place, &["abort", "canary-nosuch12", "--local", &admin]);
    assert_ne!(code(&named), Some(3), "{}", stderr(&named));
    assert_eq!(local.weights(place), "stable=50 canary=50");
    let output = run(place, &["rollback", "--local", &admin]);
    assert_eq!(
        local.weights(place),
        "stable=100 canary=0",
        "{}",
        stderr(&output)
    );
    // A pipe in its place.
    set(&local, place, ["50", "50"]);
    std::fs::remove_dir_all(place.join("state")).expect("ours");
    std::fs::create_dir(place.join("state")).expect("ours");
    let made = Command::new("mkfifo").arg(&store).status().expect("mkfifo");
    assert!(made.success());
    let list = run(place, &["list"]);
    assert_eq!(code(&list), Some(1), "{}", stderr(&list));
    let output = run(place, &["rollback", "--local", &admin]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(local.weights(place), "stable=100 canary=0");
    // No folder, and so no journal: what is named is taken back.
    set(&local, place, ["50", "50"]);
    std::fs::remove_dir_all(place.join("state")).expect("ours");
    let output = run(place, &["abort", "--local", &admin]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert_eq!(local.weights(place), "stable=100 canary=0");
}
