//! The way back never needs the store, and who only reads needs no lock.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::model::Weights;
use engine::ops::Kind;
use engine::ops::app::{Access, App};
use engine::ops::begin::{BeginRequest, begin_rollout};
use engine::ops::history::{HistoryRequest, ListRequest, get, history, list};
use engine::ops::news::{Listener, News};
use engine::ops::past::{explain, export};
use engine::ops::request::TargetRequest;
use engine::ops::status::overview;
use engine::ops::traffic::set_weights;
use engine::ops::watch::Happened;
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::Options;
use engine::target::Target as _;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use rusqlite::{Connection, params};

use crate::support::app::{TestApp, drive_until, local, refused, rollout, suspended, texts};
use crate::support::balancer::{Local, begin, begin_and_pause, demo, healthy, named, spec, start};
use crate::support::binary::{code, engine, run, signal, spawn, stderr, wait};
use crate::support::folder;

/// Ways in which a store cannot be written to. What must live as long as the
/// trouble comes back.
fn break_store(folder: &Path, how: &str) -> Option<Connection> {
    let state = folder.join("state");
    let store = state.join("engine.db");
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
            Person::with(folder, Access::Write).expect("it is made");
            let other = Connection::open(&store).expect("there");
            other.execute_batch("BEGIN EXCLUSIVE").expect("free");
            return Some(other);
        }
        other => panic!("{other}?"),
    }
    None
}

/// A person of this process, with the store of a folder.
struct Person {
    app: App,
    news: Arc<Mutex<Vec<String>>>,
}

impl Person {
    /// Who opens the store in that folder like this.
    fn with(folder: &Path, access: Access) -> engine::ops::Result<Self> {
        let news: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = news.clone();
        let listener: Listener = Arc::new(move |news| {
            let text = match news {
                News::Note(note) => note.text,
                News::Progress(text) | News::Trouble(text) => text,
            };
            heard.lock().expect("no panic").push(text);
        });
        let app = App::open(&folder.join("state"), <_>::default(), access, listener)?;
        Ok(Self { app, news })
    }

    /// Who takes traffic back.
    fn back(folder: &Path) -> Self {
        Self::with(folder, Access::WayBack).expect("the way back is always there")
    }

    fn heard(&self) -> String {
        self.news.lock().expect("no panic").join("\n")
    }
}

/// A balancer whose two arms are healthy.
async fn balanced(names: [&str; 2]) -> (Balancer, LocalTarget) {
    let (balancer, target) = start(&named(spec([demo(), demo()]), names)).await;
    for arm in names {
        healthy(&target, arm, 1).await;
    }
    (balancer, target)
}

/// Moves the traffic as somebody does whose store is well.
async fn set(target: &LocalTarget, weights: [(&str, u32); 2]) {
    target
        .set_weights(&Weights::of(weights))
        .await
        .expect("valid");
}

/// The share of an arm, percent.
async fn share(target: &LocalTarget, arm: &str) -> f64 {
    let live = target.observe().await.expect("reachable");
    live.weights().share(arm)
}

const TROUBLES: [&str; 6] = [
    "the folder is a file",
    "the folder cannot be made",
    "the database is garbage",
    "the database is another program's",
    "the database is a folder",
    "a frozen process has the lock",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_works_without_a_store() {
    for how in TROUBLES {
        let folder = folder();
        let place = folder.path();
        let (balancer, target) = balanced(["stable", "canary"]).await;
        let at = local(balancer.admin);
        let trouble = break_store(place, how);
        // The frozen process keeps nobody from reading that there is no rollout.
        let readable = how == "a frozen process has the lock";
        let verbs = ["rollback", "abort"];
        for verb in verbs.into_iter().take(if readable { 1 } else { 2 }) {
            set(&target, [("stable", 50), ("canary", 50)]).await;
            let person = Person::back(place);
            let back = match verb {
                "rollback" => rollback(&person.app, &at, None).await,
                _ => abort(&person.app, &at, None, "").await,
            };
            assert!(back.is_ok(), "{how}, {verb}: {back:?}");
            let heard = person.heard();
            assert!(
                heard.contains("could not be written down"),
                "{how}: {heard}"
            );
            assert_eq!(share(&target, "stable").await, 100.0, "{how}, {verb}");
        }
        // What is no way back does nothing, and says what still works.
        let half = match Person::with(place, Access::Write) {
            Ok(person) => {
                let half = set_weights(&person.app, &at, &texts(&["50", "50"])).await;
                half.map(|_| ())
            }
            Err(error) => Err(error),
        };
        let error = half.expect_err(how);
        if !readable {
            let said = engine::cli::advice::text(&error);
            assert!(said.contains("engine rollback"), "{how}: {said}");
        }
        assert_eq!(share(&target, "stable").await, 100.0, "{how}");
        drop(trouble);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_colours_are_not_guessed() {
    let folder = folder();
    let (balancer, target) = balanced(["blue", "green"]).await;
    let at = local(balancer.admin);
    set(&target, [("blue", 25), ("green", 75)]).await;
    break_store(folder.path(), "the database is garbage");
    let person = Person::back(folder.path());
    let back = rollback(&person.app, &at, None).await;
    refused(back, Kind::Usage, &["--to blue"]);
    assert_eq!(share(&target, "blue").await, 25.0);
    let back = rollback(&person.app, &at, Some("blue")).await;
    back.expect("done");
    assert_eq!(share(&target, "blue").await, 100.0);
    let back = rollback(&person.app, &at, Some("red")).await;
    refused(back, Kind::Usage, &[]);
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
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
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

/// A canary that waits with half of the traffic.
fn waiting(at: &TargetRequest) -> BeginRequest {
    let set = ["gate=limits", "probe=false", "steps=50,100", "bake=600s"];
    rollout("canary", at.clone(), &set)
}

/// The rollouts that the store in that folder has.
async fn rollouts(folder: &Path) -> engine::ops::Result<Vec<String>> {
    let person = Person::with(folder, Access::Read)?;
    let all = ListRequest {
        limit: 100,
        ..ListRequest::default()
    };
    let rows = list(&person.app, &all).await?;
    Ok(rows.into_iter().map(|listed| listed.row.rollout).collect())
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

#[tokio::test(flavor = "multi_thread")]
async fn reading_needs_no_lock() {
    let folder = folder();
    let place = folder.path();
    let (balancer, _target) = balanced(["stable", "canary"]).await;
    let at = local(balancer.admin);
    let writer = Person::with(place, Access::Write).expect("it is made");
    let id = suspended(&writer.app, &waiting(&at), ("canary", 50.0)).await;
    let other = Connection::open(place.join("state/engine.db")).expect("there");
    other.execute_batch("BEGIN EXCLUSIVE").expect("free");
    let begun = Instant::now();
    let reader = Person::with(place, Access::Read).expect("it can be read");
    let (app, named) = (&reader.app, Some(id.as_str()));
    let seen = overview(app, &at, None).await.expect("seen");
    assert_eq!(seen.rollout.expect("known").header.rollout, id);
    assert_eq!(rollouts(place).await.as_deref(), Ok(&[id.clone()][..]));
    get(app, &at, named).await.expect("known");
    let asked = HistoryRequest {
        rollout: Some(id.clone()),
        ..HistoryRequest::default()
    };
    history(app, &asked).await.expect("known");
    explain(app, named).await.expect("known");
    let exported = export(app, &id, Some(place.join("x.journal"))).await;
    exported.expect("written");
    drop((other, writer, reader));
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
    assert_eq!(rollouts(&copied).await, Ok(vec![id]));
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
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(code(&wait(resumed)), Some(3));
    assert_eq!(local.weights(place), "stable=100 canary=0");
}

/// However many verbs came after it, a rollout that has not ended is known and
/// keeps its plugin.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_verbs_later() {
    let folder = folder();
    let place = folder.path();
    let (balancer, target) = balanced(["stable", "canary"]).await;
    let (elsewhere, _other) = balanced(["stable", "canary"]).await;
    let (at, elsewhere) = (local(balancer.admin), local(elsewhere.admin));
    let person = Person::with(place, Access::Write).expect("it is made");
    let id = suspended(&person.app, &waiting(&at), ("canary", 50.0)).await;
    let verb = set_weights(&person.app, &elsewhere, &texts(&["100", "0"])).await;
    verb.expect("done");
    drop(person);
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
    let person = Person::with(place, Access::Write).expect("there");
    let request = rollout("blue-green", elsewhere.clone(), &["bake=1s", "gate=limits"]);
    let swept = begin_rollout(&person.app, &request, Options::default()).await;
    swept.expect("it begins");
    let newest = ListRequest {
        limit: 1,
        all: true,
        ..ListRequest::default()
    };
    let rows = list(&person.app, &newest).await.expect("rows");
    assert!(
        rows.iter().any(|listed| listed.row.rollout == id),
        "{rows:?}"
    );
    // It goes on, and so has its plugin.
    let person = Person::with(place, Access::Write).expect("there");
    let mut looks = 0;
    drive_until(&person.app, &id, |_, happened| {
        looks += u32::from(matches!(happened, Happened::Entry(_)));
        looks > 1
    })
    .await;
    let back = abort(&Person::back(place).app, &at, None, "").await;
    assert!(matches!(back, Ok(TakenBack::Aborted(_))), "{back:?}");
    assert_eq!(share(&target, "stable").await, 100.0);
}

/// Several changes by hand do not make the new version the stable one.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_stable_arm_outlives_what_people_set() {
    let (balancer, target) = balanced(["blue", "green"]).await;
    let at = local(balancer.admin);
    let test = TestApp::new();
    let tries = [
        ([["40", "60"], ["10", "90"]], "blue"),
        ([["50", "50"], ["0", "100"]], "blue"),
        // All users were on green, and somebody tried blue with a few.
        ([["0", "100"], ["1", "99"]], "green"),
    ];
    for (steps, back) in tries {
        for step in steps {
            let moved = set_weights(&test.app, &at, &texts(&step)).await;
            moved.expect("done");
        }
        rollback(&test.app, &at, None).await.expect("done");
        assert_eq!(share(&target, back).await, 100.0, "{steps:?}");
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
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
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
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_passed_over_or_refused() {
    let folder = folder();
    let place = folder.path();
    let (balancer, target) = balanced(["stable", "canary"]).await;
    let at = local(balancer.admin);
    let writer = Person::with(place, Access::Write).expect("it is made");
    suspended(&writer.app, &waiting(&at), ("canary", 50.0)).await;
    drop(writer);
    let store = place.join("state/engine.db");
    let other = Connection::open(&store).expect("there");
    let garble = "UPDATE journal SET event = '{}' WHERE seq = 0";
    assert_eq!(other.execute(garble, []).expect("SQL"), 1);
    drop(other);
    let reader = Person::with(place, Access::Read).expect("it can be read");
    overview(&reader.app, &at, None).await.expect("seen");
    drop(reader);
    let named = abort(&Person::back(place).app, &at, Some("canary-nosuch12"), "").await;
    assert!(named.is_err(), "{named:?}");
    assert_eq!(share(&target, "stable").await, 50.0);
    let back = rollback(&Person::back(place).app, &at, None).await;
    assert_eq!(share(&target, "stable").await, 100.0, "{back:?}");
    // A pipe in its place.
    set(&target, [("stable", 50), ("canary", 50)]).await;
    std::fs::remove_dir_all(place.join("state")).expect("ours");
    std::fs::create_dir(place.join("state")).expect("ours");
    let made = Command::new("mkfifo").arg(&store).status().expect("mkfifo");
    assert!(made.success());
    refused(rollouts(place).await, Kind::Internal, &[]);
    let back = rollback(&Person::back(place).app, &at, None).await;
    back.expect("done");
    assert_eq!(share(&target, "stable").await, 100.0);
    // No folder, and so no journal: what is named is taken back.
    set(&target, [("stable", 50), ("canary", 50)]).await;
    std::fs::remove_dir_all(place.join("state")).expect("ours");
    let back = abort(&Person::back(place).app, &at, None, "").await;
    back.expect("done");
    assert_eq!(share(&target, "stable").await, 100.0);
}
