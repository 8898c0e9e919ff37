//! Components that attack the host, in ways that a Rust guest cannot. Each is
//! contained and explained, and leaves the traffic where it was.
//!
//! `tests/hostile/cases` has a file per attack, which says what fails and with
//! which words; `shell.wat` makes a component of it. What would be long to write
//! down is made here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::journal::summary::Summary;
use engine::journal::{Call, Event, Reply};
use engine::model::{ArmHealth, End, HostError, Weights};
use engine::ops::Kind;
use engine::ops::begin::BeginRequest;
use engine::ops::history::{ListRequest, list};
use engine::rollout::session::{Calls, Interrupted};
use engine::rollout::{Ran, Standing, Strategy as _};
use engine::strategy::Host;
use engine::strategy::contract::Rejected;
use engine::strategy::limits::{EPOCH_TICK, Limits};
use serde_json::{Value, json};

use crate::support::app::{TestApp, refused, texts};
use crate::support::binary::{stderr, stdout};
use crate::support::components::{beside, binary, component, corpus, host};
use crate::support::guests;
use crate::support::lab::{self, Lab};

/// A case that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The process may grow to this, and no further, whatever a component does.
const MIB_MAX: u64 = 512;
/// Where everything that runs guest code fails.
const ALL: &str = "describe validate run";

/// One attack.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// `load`, or some of `describe`, `validate` and `run`, or `nothing`.
    fails_in: String,
    says: String,
}

impl Case {
    fn new(name: &str, bytes: Vec<u8>, fails_in: &str, says: &str) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            fails_in: fails_in.to_owned(),
            says: says.to_owned(),
        }
    }

    fn read(place: &Path) -> Self {
        let text = std::fs::read_to_string(place).expect("readable");
        let line = |key: &str| {
            let found = text.lines().find_map(|l| l.strip_prefix(key));
            found.unwrap_or_else(|| panic!("{} does not say {key}", place.display()))
        };
        let name = place.file_stem().expect("a name").to_string_lossy();
        let bytes = binary(&component(&text));
        Self::new(&name, bytes, line(";; fails in: "), line(";; says: "))
    }

    /// Loads it, asks it everything and rolls out with it.
    async fn play(&self, host: &Host) {
        let plugin = match host.load(&self.bytes).await {
            Ok(plugin) => plugin,
            Err(why) => return self.check::<()>("load", Err(why.to_string())),
        };
        self.check("load", Ok(()));
        let text = |why: Rejected| why.to_string();
        self.check("describe", plugin.describe().await.map_err(text));
        self.check("validate", plugin.validate("{}").await.map_err(text));
        let lab = Lab::new(plugin, lab::good(), json!({}));
        let (arm, result) = match lab.run().await {
            Standing::Over(End::Promoted, reason) => ("canary", Ok(reason)),
            Standing::Over(End::RolledBack, reason) => ("stable", Err(reason)),
            other => panic!("{}: {other:?}", self.name),
        };
        let share = lab.target.peek().weights().share(arm);
        assert_eq!(share, 100.0, "{}: {arm} after {result:?}", self.name);
        self.check("run", result);
    }

    /// What came of a stage, held against what was to come.
    fn check<T>(&self, stage: &str, result: Result<T, String>) {
        let fails = self.fails_in.split(' ').any(|s| s == stage);
        match result {
            Ok(_) => assert!(!fails, "{}: {stage} works", self.name),
            Err(why) => {
                assert!(fails, "{}: {stage} fails: {why}", self.name);
                assert!(why.contains(&self.says), "{}: {stage}: {why}", self.name);
                // A person reads it; a terminal is not for megabytes.
                assert!(why.len() < 5_000, "{}: {} bytes", self.name, why.len());
            }
        }
    }
}

fn repeat(times: usize, one: impl Fn(usize) -> String) -> String {
    (0..times).map(one).collect::<Vec<_>>().join("\n")
}

/// A module of a component, so often.
fn many(times: usize, module: &str) -> String {
    let instances = "(core instance (instantiate $m))\n".repeat(times);
    beside(&format!("(core module $m {module})\n{instances}"), "")
}

/// A section of a binary.
fn section(id: u8, name: &str, body: &[u8]) -> Vec<u8> {
    let mut content = vec![];
    if !name.is_empty() {
        content.push(u8::try_from(name.len()).expect("short"));
        content.extend(name.as_bytes());
    }
    content.extend(body);
    let mut section = vec![id];
    let mut length = content.len();
    while length >= 0x80 {
        section.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    section.push(length as u8);
    section.extend(content);
    section
}

/// A component in a component, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0".to_vec();
    (0..depth).fold(header.clone(), |inner, _| {
        [&header[..], &section(4, "", &inner)].concat()
    })
}

/// What is small to write down and large to hold.
fn bombs() -> Vec<Case> {
    let case = |name: &str, text: &str, fails_in: &str, says: &str| {
        Case::new(name, binary(text), fails_in, says)
    };
    let globals = "(global i64 (i64.const 1))".repeat(1_000);
    let imports = repeat(10_000, |n| format!("(import \"query-{n}\" (func))"));
    let exports = repeat(900, |n| format!("(export \"extra-{n}\" (instance $i))"));
    let doubled = repeat(40, |n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1));
    let long = "x".repeat(90_000);
    vec![
        case(
            "many-instances",
            &many(101, ""),
            ALL,
            "instance count too high",
        ),
        case(
            "many-memories",
            &many(16, "(memory 0)"),
            ALL,
            "memory count too high",
        ),
        case(
            "much-memory",
            &many(14, "(memory 80)"),
            ALL,
            "the limit is 64 MiB",
        ),
        case(
            "many-tables",
            &many(1, &"(table 0 funcref)".repeat(100)),
            ALL,
            "table count too high",
        ),
        case(
            "a-large-table",
            &many(1, "(table 100001 funcref)"),
            ALL,
            "the limit is 100000",
        ),
        case(
            "as-many-tables-as-there-may-be",
            &many(95, "(table 100000 funcref)"),
            "nothing",
            "",
        ),
        case(
            "as-many-globals-as-there-may-be",
            &many(95, &globals.repeat(99)),
            "nothing",
            "",
        ),
        case(
            "many-globals",
            &many(1, &globals.repeat(101)),
            "load",
            "the limit is 100000",
        ),
        case(
            "many-imports",
            &format!("(component {imports})"),
            "load",
            "  query-0\n  query-1\n",
        ),
        case(
            "many-exports",
            &format!("(component (instance $i) {exports})"),
            "load",
            "not a strategy: it exports extra-0, extra-1",
        ),
        case(
            "a-long-name",
            &format!("(component (import \"{long}\" (func)))"),
            "load",
            "does not offer:\n  xxx",
        ),
        case(
            "a-type-that-doubles",
            &format!(
                "(component (type $t0 (tuple u64 u64)) {doubled} (import \"f\" (func (param \"p\" $t40))))"
            ),
            "load",
            "type size exceeds the limit",
        ),
        case(
            "resources-for-ever",
            &beside(
                r#"(type $r (resource (rep i32)))
                (core func $new (canon resource.new $r))
                (core module $m
                  (import "" "new" (func $new (param i32) (result i32)))
                  (func $start (loop $l (drop (call $new (i32.const 1))) (br $l)))
                  (start $start))
                (core instance (instantiate $m (with "" (instance (export "new" (func $new))))))"#,
                "",
            ),
            ALL,
            "handle limit exceeded",
        ),
    ]
}

/// What is of another world.
fn strangers() -> Vec<Case> {
    let shell = component("");
    let case = |name: &str, text: &str, fails_in: &str, says: &str| {
        Case::new(name, binary(text), fails_in, says)
    };
    let with = |from: &str, to: &str| {
        assert!(shell.contains(from), "the shell has no {from}");
        shell.replace(from, to)
    };
    let now = r#"(export "now" (func (result f64)))"#;
    let lift =
        "(canon lift (core func $run) (memory $memory) (realloc $realloc) (post-return $after))";
    vec![
        case(
            "another-version",
            &with("strategy-api@0.1.0", "strategy-api@0.2.0"),
            "load",
            "this engine runs rollout:strategy/strategy-api@0.1.0",
        ),
        case(
            "another-version-of-an-import",
            &with("control@0.1.0", "control@0.2.0"),
            "load",
            "this engine has rollout:control/control@0.1.0",
        ),
        case("a-later-patch", &with("@0.1.0", "@0.1.9"), "nothing", ""),
        case(
            "an-unknown-function",
            &with(now, &format!("{now} (export \"format-disk\" (func))")),
            "load",
            "format-disk",
        ),
        case(
            "a-function-of-another-type",
            &with(
                r#"(export "probes" (func (result (list string))))"#,
                r#"(export "probes" (func (result (list u8))))"#,
            ),
            "load",
            "probes",
        ),
        case(
            "an-export-of-another-type",
            &with(
                r#"(type $verdict' (enum "promoted" "rolled-back" "inconclusive"))"#,
                r#"(type $verdict' (enum "promoted" "rolled-back"))"#,
            ),
            ALL,
            "expected enum of 3 names, found 2 names",
        ),
        case(
            "a-missing-export",
            &with(
                "    (export \"run\" (func $run)))\n  (export",
                ")\n  (export",
            ),
            "load",
            "does not have export `run`",
        ),
        case(
            "more-exports-than-needed",
            &with(
                "(export \"rollout:strategy",
                "(export \"extra\" (func $run)) (export \"rollout:strategy",
            ),
            "nothing",
            "",
        ),
        case(
            "the-web",
            &beside(
                r#"(import "wasi:http/outgoing-handler@0.2.0" (instance))
                (import "wasi:sockets/tcp@0.2.0" (instance))"#,
                "",
            ),
            "load",
            "does not offer:\n  wasi:http/outgoing-handler@0.2.0\n\n",
        ),
        case(
            "wasi-to-come",
            &beside(r#"(import "wasi:cli/stdout@0.3.0" (instance))"#, ""),
            "load",
            "does not offer:\n  wasi:cli/stdout@0.3.0",
        ),
        case(
            "an-asynchronous-run",
            &with(
                lift,
                &lift.replace("(post-return $after)", "async (callback $describe)"),
            ),
            "load",
            "async",
        ),
        case(
            "shared-memory",
            &many(1, "(memory 1 1 shared)"),
            "load",
            "shared memories",
        ),
        case(
            "garbage-collection",
            &many(1, "(type (struct (field i32)))"),
            "load",
            "gc",
        ),
    ]
}

/// What no toolchain writes.
fn forgeries() -> Vec<Case> {
    let shell = binary(&component(""));
    let with = |sections: &[Vec<u8>]| [&shell[..], &sections.concat()].concat();
    let imports = "(import \"a:b/c@1.0.0\" (instance)) (import \"a:b/c@1.0.0\" (instance))";
    let twice = wat::parse_str(format!("(component {imports})")).expect("well formed");
    vec![
        Case::new("nested-deep", nested(1_000), "load", "exports nothing"),
        Case::new("the-same-name-twice", twice, "load", "conflicts"),
        Case::new(
            "a-giant-custom-section",
            with(&[section(0, "junk", &vec![7; 40 << 20])]),
            "nothing",
            "",
        ),
        Case::new(
            "many-custom-sections",
            with(&vec![section(0, "junk", b""); 200_000]),
            "nothing",
            "",
        ),
        Case::new(
            "forged-names-and-producers",
            with(&[
                section(0, "name", &[0xff; 100]),
                section(0, "component-name", &[0, 3, 0xff, 0xff, 0xff]),
                section(0, "producers", &[0xff; 100]),
                section(0, "target_features", &[0xff; 100]),
            ]),
            "nothing",
            "",
        ),
        Case::new(
            "a-section-without-a-name",
            with(&[section(0, "", &[2, 0xff, 0xff])]),
            "load",
            "UTF-8",
        ),
        Case::new(
            "too-large",
            vec![0; (64 << 20) + 1],
            "load",
            "67108865 bytes",
        ),
    ]
}

fn cases() -> BTreeMap<String, Case> {
    let files = std::fs::read_dir(corpus().join("cases")).expect("a folder");
    let files = files.map(|f| Case::read(&f.expect("readable").path()));
    let cases = files.chain(bombs()).chain(strangers()).chain(forgeries());
    cases.map(|case| (case.name.clone(), case)).collect()
}

/// Runs something on a thread of its own; says so if it panics or hangs.
fn contained<W, F>(name: &str, work: W) -> Result<(), String>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let begun = Instant::now();
    forget_peak();
    let (done, over) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("it starts");
        runtime.block_on(work());
        let _ = done.send(());
    });
    if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        return Err(format!("{name} hangs"));
    }
    thread.join().map_err(|panic| {
        let words = panic.downcast::<String>();
        words.map_or_else(|_| format!("{name} panics"), |words| *words)
    })?;
    let (ms, mib) = (begun.elapsed().as_millis(), peak_kib() >> 10);
    println!("{name}: {ms} ms, {mib} MiB");
    if mib > MIB_MAX {
        return Err(format!("{name} takes {mib} MiB"));
    }
    Ok(())
}

/// The most memory that this process had since the peak was forgotten.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|l| l.split_whitespace().next());
    peak.and_then(|n| n.parse().ok()).expect("a number")
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
}

/// Runs a test in a process of its own: its memory is its alone, and should it
/// crash, the others do not.
fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().expect("this one"))
        .args(["--ignored", "--exact", "--nocapture", test])
        .output()
        .expect("it starts");
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("1 passed"), "{test} is no test: {said}");
}

#[test]
fn the_corpus_is_contained() {
    alone("hostile::every_case");
}

#[test]
#[ignore = "the_corpus_is_contained starts it in a process of its own"]
fn every_case() {
    let cases = cases();
    assert!(cases.len() > 80, "{} cases", cases.len());
    let only = std::env::var("CASE").unwrap_or_default();
    let chosen = cases.into_iter().filter(|(name, _)| name.contains(&only));
    let wrong: Vec<String> = chosen
        .filter_map(|(name, case)| {
            let played = contained(&name, move || async move { case.play(&host()).await });
            played.err()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_files_are_contained() {
    alone("hostile::every_broken_file");
}

/// Files that were cut off, and files with a wrong byte somewhere.
#[test]
#[ignore = "broken_files_are_contained starts it in a process of its own"]
fn every_broken_file() {
    let whole = binary(&component(""));
    let canary = guests::guest("canary");
    let cuts = (8..whole.len()).step_by(7).map(|end| whole[..end].to_vec());
    let large = (8..canary.len()).step_by(9_973);
    let cuts: Vec<Vec<u8>> = cuts
        .chain(large.map(|end| canary[..end].to_vec()))
        .collect();
    assert!(cuts.len() > 400, "{}", cuts.len());
    contained("cut off", move || async move {
        let host = host();
        for cut in cuts {
            let why = host.load(&cut).await.expect_err("not whole");
            assert!(why.to_string().len() > 20, "{why}");
        }
    })
    .unwrap_or_else(|why| panic!("{why}"));

    let mut random = 0x2545_f491_u32;
    let mut next = |below: usize| {
        // Xorshift: the same on every run.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random as usize % below
    };
    let mut ran = 0;
    for flip in 0..400 {
        let (at, bit) = (8 + next(whole.len() - 8), next(8));
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        let (sender, loaded) = mpsc::channel();
        contained(
            &format!("flip {flip}: bit {bit} of byte {at}"),
            move || async move {
                let Ok(plugin) = host().load(&bytes).await else {
                    return;
                };
                let _ = sender.send(());
                let _ = plugin.describe().await;
                let _ = plugin.validate("{}").await;
                let lab = Lab::new(plugin, lab::good(), json!({}));
                let standing = lab.run().await;
                let arm = match &standing {
                    Standing::Over(End::Promoted, _) => "canary",
                    // It has moved nothing, and may say that it cannot tell.
                    Standing::Over(..) | Standing::Held(_) => "stable",
                    other => panic!("{other:?}"),
                };
                let share = lab.target.peek().weights().share(arm);
                assert_eq!(share, 100.0, "{arm} after {standing:?}");
            },
        )
        .unwrap_or_else(|why| panic!("flip {flip}: bit {bit} of byte {at}: {why}"));
        ran += loaded.iter().count();
    }
    // Some must get through, or this says nothing about running them.
    assert!(ran > 20, "{ran} of 400 load");
}

/// A kilobyte can keep a compiler busy for an hour: loops within loops, with the
/// same variables in all of them.
#[tokio::test]
async fn a_compiler_has_limits_too() {
    let loops = 400;
    let sums = repeat(loops, |n| {
        format!("local.get {n} i64.const 1 i64.add local.set {n}")
    });
    let knot = format!(
        "(func {} {} {sums} {})",
        "(local i64)".repeat(loops),
        "loop ".repeat(loops),
        "i32.const 0 br_if 0 end ".repeat(loops)
    );
    let knot = binary(&many(1, &knot));
    for (limits, says) in [
        (
            Limits {
                compile_bytes_max: 64 << 20,
                ..Limits::default()
            },
            "more than 64 MiB of memory",
        ),
        (
            Limits {
                compile_time_max: Duration::from_millis(100),
                ..Limits::default()
            },
            "longer than 0.1 s",
        ),
    ] {
        let host = Host::new(None, limits).expect("starts");
        let why = host.load(&knot).await.expect_err("too much").to_string();
        assert!(why.contains(says), "{why}");
    }
}

/// A host that takes its time to answer.
struct Slow;

#[async_trait]
impl Calls for Slow {
    async fn perform(&self, _: Call) -> Result<Reply, Interrupted> {
        // Long enough for the guest to be asked to give way as soon as it gets on.
        tokio::time::sleep(EPOCH_TICK * 3).await;
        Ok(Reply::Health(vec![ArmHealth {
            arm: "stable".to_owned(),
            healthy: 1,
            total: 1,
            health_reason: None,
        }]))
    }

    async fn refuse(&self, _: Call, why: HostError) -> Result<Reply, Interrupted> {
        Ok(Reply::Failed(why))
    }

    fn now(&self) -> u64 {
        lab::START
    }

    fn probes(&self) -> Vec<String> {
        vec![]
    }
}

/// The guest makes room for an answer before the call has returned, and gives way
/// in there: neither may cost it its new segment.
#[tokio::test]
async fn a_slow_answer_begins_a_segment_too() {
    let bytes = case("segments-that-nearly-are-too-long");
    let plugin = host().load(&bytes).await.expect("loads");
    let run = engine::rollout::Run {
        rollout: lab::ID.to_owned(),
        arms: vec![],
        weights: Weights::default(),
        sample_period_ms: 1_000,
        parameters: "{}".to_owned(),
        seed: "2a".to_owned(),
        caps: <_>::default(),
    };
    let ran = plugin.run(Arc::new(Slow), run).await;
    let Ran::Returned(Ok(outcome)) = ran else {
        panic!("{ran:?}");
    };
    assert_eq!(outcome.reason, "did as told");
}

/// Bytes as they are written in a text.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("\\{b:02x}")).collect()
}

/// What a guest says, people read on a terminal, among lines of the host.
#[tokio::test]
async fn a_guest_does_not_talk_to_the_terminal() {
    let sly = "\u{1b}[2Jpromoted\r\n09:00:00  traffic: stable 100 %\u{202e}";
    let length = sly.len();
    let says = |verdict: &str| {
        format!(
            r#"(data (i32.const 2048) "{}")
            (func $describe (result i32)
              (i32.store (i32.const 64) (i32.const 2048))
              (i32.store (i32.const 68) (i32.const {length}))
              (i32.const 64))
            (func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
              (call $log (i32.const 1) (i32.const 2048) (i32.const {length}))
              {verdict}
              (i32.const 160))"#,
            escaped(sly.as_bytes())
        )
    };
    let outcome = format!(
        "(i32.store (i32.const 168) (i32.const 2048)) (i32.store (i32.const 172) (i32.const {length}))"
    );
    let error = format!(
        "(i32.store8 (i32.const 160) (i32.const 1)) (i32.store (i32.const 164) (i32.const 2048)) (i32.store (i32.const 168) (i32.const {length}))"
    );
    for verdict in [outcome, error] {
        let bytes = binary(&component(&says(&verdict)));
        let plugin = host().load(&bytes).await.expect("loads");
        let refused = plugin.describe().await.expect_err("not a name");
        let name = refused.to_string();
        let lab = Lab::new(plugin, lab::good(), json!({}));
        let Standing::Over(_, reason) = lab.run().await else {
            panic!("it ends");
        };
        let journal = lab.journal().await;
        let logged = journal.iter().find_map(|e| match &e.event {
            Event::Exchanged {
                call: Call::Log { message, .. },
                ..
            } => Some(message.clone()),
            _ => None,
        });
        for text in [name, reason, logged.expect("it logged")] {
            assert!(text.contains("[2Jpromoted  09:00:00"), "{text:?}");
            assert!(
                !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{text:?}"
            );
        }
    }
}

/// A demo whose new version a hostile component is to roll out.
struct Demo {
    test: TestApp,
    plugin: PathBuf,
}

impl Demo {
    fn with(bytes: &[u8]) -> Self {
        let test = TestApp::surrounded(<_>::default());
        let plugin = test.write("evil.wasm", bytes);
        Self { test, plugin }
    }

    async fn begin(&self, set: &[&str]) -> engine::ops::Result<String> {
        let request = BeginRequest {
            plugin: Some(self.plugin.clone()),
            set: texts(set),
            ..BeginRequest::default()
        };
        let begun = Instant::now();
        let result = self.test.begin(&request).await;
        assert!(begun.elapsed() < PATIENCE, "{result:?}");
        result
    }

    /// Nothing begins, and nothing has to be tidied up.
    async fn refuses(&self, set: &[&str], kind: Kind, says: &str) {
        let error = refused(self.begin(set).await, kind, &[says]);
        let length = error.message.len();
        assert!(length < 6_000, "{length} bytes: {error}");
        assert_eq!(self.rollouts().await, []);
        let balancers = self.test.at("state/embedded");
        let left = std::fs::read_dir(&balancers).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{}", balancers.display());
    }

    /// It begins; how it ends.
    async fn rolls_out(&self, set: &[&str]) -> (End, String) {
        let id = self.begin(set).await.expect("it begins");
        match self.test.drive(&id).await {
            Standing::Over(end, reason) => (end, reason),
            other => panic!("{other:?}"),
        }
    }

    async fn rollouts(&self) -> Vec<Summary> {
        let all = ListRequest {
            limit: 100,
            ..ListRequest::default()
        };
        let all = list(&self.test.app, &all).await.expect("memory");
        all.into_iter().map(|listed| listed.row).collect()
    }
}

fn case(name: &str) -> Vec<u8> {
    Case::read(&corpus().join(format!("cases/{name}.wat"))).bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_before_anything_begins() {
    for (name, says) in [
        (
            "start-traps",
            "its own code failed in describe: it panicked",
        ),
        ("describe-spins", "an endless loop?"),
        ("describe-calls", "it called the host, which only `run` may"),
        ("validate-traps", "its own code failed in validate"),
    ] {
        let demo = Demo::with(&case(name));
        demo.refuses(&[], Kind::Rejected, says).await;
    }
    let empty = Demo::with(b"");
    empty
        .refuses(&[], Kind::Rejected, "the file is empty")
        .await;
    let endless = Demo {
        plugin: "/dev/zero".into(),
        ..empty
    };
    let says = "only files are read";
    endless.refuses(&[], Kind::Usage, says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_traffic_is_taken_back() {
    // What fails in describe already would not get as far as a rollout.
    let after_run = "(func $after (param i32)
      (if (i32.eq (local.get 0) (i32.const 160)) (then unreachable)))";
    for (bytes, says) in [
        (case("run-traps"), "it panicked or reached `unreachable`"),
        (
            binary(&component(after_run)),
            "it panicked or reached `unreachable`",
        ),
        (case("run-odd-verdict"), "unexpected discriminant: 9"),
    ] {
        let demo = Demo::with(&bytes);
        let (end, reason) = demo.rolls_out(&[]).await;
        assert_eq!(end, End::RolledBack, "{reason}");
        assert!(reason.contains(says), "{reason}");
        let rollouts = demo.rollouts().await;
        assert_eq!(rollouts.len(), 1, "{rollouts:?}");
        assert_eq!(rollouts[0].end, Some(End::RolledBack));
    }
}

/// A component whose parameters have this schema.
fn with_schema(schema: &str) -> Vec<u8> {
    binary(&component(&format!(
        r#"(data (i32.const 70000) "{}")
        (func $describe (result i32)
          (i32.store (i32.const 88) (i32.const 70000))
          (i32.store (i32.const 92) (i32.const {}))
          (i32.const 64))"#,
        escaped(schema.as_bytes()),
        schema.len()
    )))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_hostile_too() {
    let refers = |to: &str| json!({"$ref": to}).to_string();
    // Each level asks twice for the next one.
    let level = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        (n.to_string(), json!({"anyOf": [next, next]}))
    };
    let mut levels: serde_json::Map<String, Value> = (0..40).map(level).collect();
    levels.insert("40".to_owned(), json!({"type": "string"}));
    let doubles = json!({"$ref": "#/$defs/0", "$defs": levels}).to_string();
    let deep = format!("{}{{}}{}", "{\"not\":".repeat(2_000), "}".repeat(2_000));
    let required: Vec<String> = (0..2_000).map(|n| format!("p{n}")).collect();
    let required = json!({"required": required}).to_string();
    let itself = json!({"properties": {"k": {"$ref": "#/properties/k"}}}).to_string();
    let slow = r#"{"properties": {"k": {"pattern": "^(?=a)((a+)+)+\\2$"}}}"#;
    let slow_text = format!("k={}b", "a".repeat(40));
    let pattern = [&*slow_text];
    for (schema, set, kind, says) in [
        (
            "{",
            &[][..],
            Kind::Rejected,
            "its parameters schema is not JSON",
        ),
        ("[]", &[], Kind::Rejected, "its parameters schema is wrong"),
        (&deep, &[], Kind::Rejected, "recursion limit exceeded"),
        (
            &refers("file:///etc/passwd"),
            &[],
            Kind::Rejected,
            "file:///etc/passwd",
        ),
        (
            &refers("https://example.com/x"),
            &[],
            Kind::Rejected,
            "https://example.com/x",
        ),
        (&doubles, &[], Kind::Rejected, "cannot be checked in time"),
        ("false", &[], Kind::Usage, "False schema does not allow"),
        (&required, &[], Kind::Usage, "\"p0\" is a required property"),
        (slow, &pattern, Kind::Usage, "backtracking"),
    ] {
        let demo = Demo::with(&with_schema(schema));
        demo.refuses(set, kind, says).await;
    }
    // What refers to itself and forbids nothing is silly, and works.
    for (schema, set) in [(refers("#"), &[][..]), (itself, &["k=1,2"])] {
        let ended = Demo::with(&with_schema(&schema)).rolls_out(set).await;
        assert_eq!(ended, (End::Promoted, "did as told".to_owned()));
    }
}
