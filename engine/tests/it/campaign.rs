//! Trouble of the kinds that were once met, by chance, again and again: `make
//! campaign`. Each round has a seed; what it breaks is printed with the command
//! that repeats it. A short one runs with the other tests.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rusqlite::Connection;

use crate::support::balancer::{Local, begin_and_pause, gated};
use crate::support::binary::{Running, code, plugin, run, signal, spawn, stderr};
use crate::support::clients;
use crate::support::folder;
use crate::{imports, way_back};

/// A kind of trouble: what it is called, what a round does, and how many rounds
/// the short campaign has.
struct Kind {
    name: &'static str,
    what: &'static str,
    round: fn(u64),
    short: u64,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "worlds",
        what: "ways back from worlds by chance, with others writing meanwhile",
        round: worlds,
        short: 300,
    },
    Kind {
        name: "imports",
        what: "names of imports by chance against a policy",
        round: imports_by_chance,
        short: 40,
    },
    Kind {
        name: "texts",
        what: "texts by chance on a terminal",
        round: texts,
        short: 300,
    },
    Kind {
        name: "clients",
        what: "broken requests to the local balancer",
        round: broken_clients,
        short: 4,
    },
    Kind {
        name: "stores",
        what: "damaged, cut and locked stores: the way back, and every reading verb",
        round: stores,
        short: 4,
    },
    Kind {
        name: "processes",
        what: "rollouts killed, frozen or locked out at random instants, then taken back",
        round: processes,
        short: 2,
    },
];

/// Runs one round; what it says if it breaks.
fn broken(kind: &Kind, seed: u64) -> Option<String> {
    let round = AssertUnwindSafe(|| (kind.round)(seed));
    let panic = std::panic::catch_unwind(round).err()?;
    let said = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    Some(said.unwrap_or_else(|| "it panicked".to_owned()))
}

fn report(kind: &Kind, seed: u64, what: &str) {
    println!(
        "VIOLATION {} seed {seed}: {what}\n  again: make campaign KIND={} SEED={seed} ROUNDS=1",
        kind.name, kind.name
    );
}

#[test]
fn a_short_campaign() {
    for kind in &KINDS {
        for seed in 0..kind.short {
            if let Some(what) = broken(kind, seed) {
                report(kind, seed, &what);
                panic!("{}", kind.name);
            }
        }
    }
}

/// `make campaign`: SECONDS, KIND, SEED and ROUNDS choose.
#[test]
#[ignore = "it goes on for as long as it is told: make campaign"]
#[expect(clippy::disallowed_methods, reason = "a test takes what make hands it")]
fn campaign() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds: u64 = number("SECONDS").unwrap_or(1_800);
    let first: u64 = number("SEED").unwrap_or_else(rand::random);
    let rounds: u64 = number("ROUNDS").unwrap_or(u64::MAX);
    let wanted = std::env::var("KIND").unwrap_or_default();
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|k| wanted.is_empty() || k.name == wanted)
        .collect();
    assert!(!kinds.is_empty(), "there is no kind {wanted:?}");
    println!("seed {first}, {seconds} s");
    let begun = Instant::now();
    let over = || begun.elapsed() >= Duration::from_secs(seconds);
    let mut tried: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut violations = 0;
    // Each kind gets the same time, a slice after the other.
    let slice = Duration::from_secs(20);
    let mut seed = first;
    let mut done = 0;
    while !over() && done < rounds {
        for kind in &kinds {
            let slice_begun = Instant::now();
            while !over() && slice_begun.elapsed() < slice && done < rounds {
                let counts = tried.entry(kind.name).or_default();
                counts.0 += 1;
                if let Some(what) = broken(kind, seed) {
                    counts.1 += 1;
                    violations += 1;
                    report(kind, seed, &what);
                }
                seed = seed.wrapping_add(1);
                done += 1;
            }
        }
        let so_far: Vec<String> = tried.iter().map(|(k, (n, _))| format!("{k} {n}")).collect();
        println!("{:>5} s  {}", begun.elapsed().as_secs(), so_far.join(", "));
    }
    println!("\nkind        rounds  broken  what");
    for kind in kinds {
        let (rounds, broken) = tried.get(kind.name).copied().unwrap_or_default();
        println!("{:<10} {rounds:>7} {broken:>7}  {}", kind.name, kind.what);
    }
    assert_eq!(violations, 0, "see VIOLATION above");
}

fn dice(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Waits in real time, and for real connections.
fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn worlds(seed: u64) {
    way_back::by_seed(seed);
}

fn imports_by_chance(seed: u64) {
    imports::by_seed(seed);
}

/// Nothing that acts on a terminal comes through, and JSON stays JSON.
fn texts(seed: u64) {
    let mut dice = dice(seed);
    let nasty = [
        '\u{1b}',
        '\u{9b}',
        '\u{7}',
        '\r',
        '\u{0}',
        '\u{202e}',
        '\u{2066}',
        '\u{200b}',
        '\u{feff}',
        '\u{e0041}',
        '\u{ad}',
        '\u{2028}',
        '[',
        '3',
        '1',
        'm',
        ']',
        'a',
        '-',
        'é',
        '\n',
        '\t',
    ];
    let text: String = (0..dice.random_range(0..60))
        .map(|_| match dice.random_range(0..4) {
            0 => char::from_u32(dice.random_range(0..0x11_0000)).unwrap_or('x'),
            _ => nasty[dice.random_range(0..nasty.len())],
        })
        .collect();
    let shown = engine::cli::print::plain(&text, false);
    let acts = |c: char| engine::model::is_hidden(c) && c != '\n' && c != '\t';
    assert!(!shown.chars().any(acts), "{text:?} is shown as {shown:?}");
    let json = serde_json::to_string(&text).expect("JSON");
    let back: Result<String, _> = serde_json::from_str(&engine::cli::print::plain(&json, false));
    assert_eq!(back.ok().as_ref(), Some(&text));
}

/// Whatever clients break, by chance and many at once, is no evidence.
fn broken_clients(seed: u64) {
    let mut dice = dice(seed);
    block_on(async {
        let (balancer, target) =
            clients::start(clients::upstream(clients::good).await, |_| ()).await;
        let mut talks = vec![];
        for _ in 0..40 {
            let said = broken_request(&mut dice);
            let patience = Duration::from_millis(dice.random_range(5..60));
            let listen = balancer.listen;
            talks.push(tokio::spawn(async move {
                clients::say(listen, &said, patience).await;
            }));
        }
        for talk in talks {
            talk.await.expect("it talks");
        }
        let (requests, errors, _) = clients::seen(&target).await;
        assert_eq!((requests, errors), (0, 0), "evidence by broken requests");
        // It still serves.
        let heard = clients::say(
            balancer.listen,
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            Duration::from_secs(20),
        )
        .await;
        assert!(heard.contains("200 OK"), "{heard:?}");
        balancer.stop().await;
    });
}

/// A request that no server could answer: cut off or wrong somewhere.
fn broken_request(dice: &mut ChaCha8Rng) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nhost: x\r\n";
    let length: usize = dice.random_range(2..5_000);
    let some = "y".repeat(dice.random_range(0..length - 1));
    let text = match dice.random_range(0..8) {
        0 => format!("{head}content-length: {length}\r\n\r\n{some}"),
        1 => format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{some}"),
        2 => format!("{head}transfer-encoding: chunked\r\n\r\n-{length:x}\r\n{some}"),
        3 => format!("{head}transfer-encoding: chunked\r\n\r\n1\r\nabc{some}"),
        4 => format!(
            "{head}content-length: {length}\r\ncontent-length: {}\r\n\r\n",
            length + 1
        ),
        5 => format!("{head}x: {}\r\n\r\n", "z".repeat(100 << 10)),
        6 => head[..dice.random_range(0..head.len())].to_owned(),
        _ => {
            let noise = (0..length).map(|_| dice.random_range(0..=255_u8));
            return [b"\x16\x03".to_vec(), noise.collect()].concat();
        }
    };
    text.into_bytes()
}

/// Exit codes that are somebody's decision and no crash.
fn decided(output: &Output) -> bool {
    code(output).is_some_and(|code| code <= 10)
}

/// Damages a store that has a paused rollout in it; then the way back works, and
/// what only reads says something, or says why not.
fn stores(seed: u64) {
    let mut dice = dice(seed);
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &[]);
    local.wait_for_health(place);
    begin_and_pause(&local, place);
    let kept = damage(&mut dice, &place.join("state"));
    let admin = local.admin();
    for arguments in [
        &["list"][..],
        &["history"],
        &["get"],
        &["explain"],
        &["status", "--local", &admin],
    ] {
        let output = run(place, arguments);
        assert!(decided(&output), "{arguments:?}: {}", stderr(&output));
    }
    let verb = ["rollback", "abort"][dice.random_range(0..2)];
    let output = run(place, &[verb, "--local", &admin]);
    let weights = local.weights(place);
    let back = weights == "stable=100 canary=0";
    let said = stderr(&output);
    match code(&output) {
        Some(0) => assert!(back, "{verb} said so, and {weights}: {said}"),
        // The journal was readable and knew of no rollout.
        Some(2) if verb == "abort" && said.contains("no rollout is under way") => {}
        other => panic!("{verb} exits {other:?} with {weights}: {said}"),
    }
    drop(kept);
}

fn damage(dice: &mut ChaCha8Rng, state: &Path) -> Option<Connection> {
    let store = state.join("engine.db");
    let log = state.join("engine.db-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let victim = if log.exists() && length(&log) > 0 && dice.random_range(0..2) == 0 {
        log
    } else {
        store.clone()
    };
    match dice.random_range(0..6) {
        0 => std::fs::remove_dir_all(state).expect("ours"),
        1 => {
            let file = std::fs::File::options()
                .write(true)
                .open(&victim)
                .expect("ours");
            file.set_len(dice.random_range(0..=length(&victim)))
                .expect("ours");
        }
        2 => std::fs::write(&victim, b"").expect("ours"),
        3 => std::fs::remove_file(&victim).expect("ours"),
        4 => {
            let other = Connection::open(&store).expect("there");
            other.execute_batch("BEGIN EXCLUSIVE").expect("free");
            return Some(other);
        }
        _ => {
            let mut file = std::fs::File::options()
                .write(true)
                .open(&victim)
                .expect("ours");
            for _ in 0..dice.random_range(1..40) {
                let at = dice.random_range(0..length(&victim).max(1));
                file.seek(SeekFrom::Start(at)).expect("ours");
                let noise: [u8; 16] = dice.random();
                file.write_all(&noise).expect("ours");
            }
        }
    }
    None
}

/// A rollout meets something at a random instant; then the traffic is taken back.
fn processes(seed: u64) {
    let mut dice = dice(seed);
    let folder = folder();
    let place = folder.path();
    let local = Local::start(place, &["--load", "20"]);
    local.wait_for_health(place);
    let admin = local.admin();
    let path = plugin("canary");
    let arguments = gated(&path, &admin, ["steps=10,50,100", "bake=1s"]);
    let mut running = spawn(place, &arguments);
    std::thread::sleep(Duration::from_millis(dice.random_range(50..4_000)));
    let trouble = dice.random_range(0..4);
    let mut lock = None;
    match trouble {
        0 => running.0.kill().expect("ours"),
        1 => signal(&running.0, "-STOP"),
        2 => signal(&running.0, "-INT"),
        _ => {
            let other = Connection::open(place.join("state/engine.db")).expect("a file");
            other
                .busy_timeout(Duration::from_secs(5))
                .expect("a number");
            if other.execute_batch("BEGIN EXCLUSIVE").is_ok() {
                lock = Some(other);
            }
        }
    }
    let output = run(place, &["rollback", "--local", &admin]);
    assert!(decided(&output), "{}", stderr(&output));
    if lock.is_some() {
        // It cannot write down what it does any more, so it goes back by itself.
        ends(&mut running);
    }
    drop(lock);
    let settled = |weights: &str| weights == "stable=100 canary=0";
    let weights = local.weights(place);
    // 10: the rollout had not moved anything yet.
    if let Some(0 | 10) = code(&output) {
        let said = stderr(&output);
        assert!(
            settled(&weights),
            "trouble {trouble}: {weights}, and it said {said}"
        );
    }
    if trouble == 1 {
        signal(&running.0, "-CONT");
        ends(&mut running);
        let weights = local.weights(place);
        assert!(settled(&weights), "woken, it left {weights}");
    }
}

fn ends(running: &mut Running) {
    let begun = Instant::now();
    while running.0.try_wait().expect("ours").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(90), "it hangs");
        std::thread::sleep(Duration::from_millis(50));
    }
}
