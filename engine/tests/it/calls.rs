//! All functions of the host, each in all ways in which it can be refused: none is
//! free, none is unseen, and none keeps a person from taking the traffic back. The
//! functions come from the contract itself, so a new one is here as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::clock::{Clock, SystemClock};
use engine::journal::status::Status;
use engine::journal::{Actor, Call, Event};
use engine::model::limits::Caps;
use engine::model::{Decision, End, Finding, Level, MetricsQuery, StreamFinding, Weight, Weights};
use engine::rollout::fleet::Fleet;
use engine::rollout::session::Calls;
use engine::rollout::{Driver, Ran, Standing};
use engine::strategy::limits::{LIST_MAX, Limits, TEXT_BYTES_MAX};
use engine::strategy::{Host, Plugin};
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, Resolve, WorldId, WorldItem};

use crate::support::components::{binary, component};
use crate::support::lab::{self, Lab, Scripted};
use crate::support::root;

/// What a guest passes: nothing, or what is too long, too large and no number.
const ARGUMENTS: [(&str, &str); 2] = [
    ("i32.const 0", "f64.const 0"),
    ("i32.const 80", "f64.const nan"),
];
/// More than one can make in a test, unless calls do not count.
const CALLS: u32 = 150;

/// Read once: what is in it belongs to it alone.
fn contract() -> &'static (Resolve, WorldId) {
    static CONTRACT: OnceLock<(Resolve, WorldId)> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let mut resolve = Resolve::default();
        let wit = root().join("wit");
        let (package, _) = resolve.push_dir(wit).expect("the contract");
        let world = resolve.select_world(&[package], Some("strategy"));
        (resolve, world.expect("its world"))
    })
}

/// Every function that a strategy can import, by interface.
fn functions() -> Vec<(String, Function)> {
    let (resolve, world) = contract();
    let imports = resolve.worlds[*world].imports.values();
    let functions = imports.flat_map(|item| match item {
        WorldItem::Interface { id, .. } => {
            let name = resolve.id_of(*id).expect("a name");
            let all = resolve.interfaces[*id].functions.values();
            all.map(|f| (name.clone(), f.clone())).collect::<Vec<_>>()
        }
        WorldItem::Function(f) => vec![("$root".to_owned(), f.clone())],
        WorldItem::Type { .. } => vec![],
    });
    functions.collect()
}

/// A function of the guest.
fn declared(resolve: &Resolve, variant: AbiVariant, function: &Function) -> String {
    let signature = resolve.wasm_signature(variant, function);
    let all = |types: &[WasmType]| {
        let words = types.iter().map(|t| match t {
            WasmType::F64 => "f64",
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
            other => panic!("the contract has no {other:?}"),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    format!(
        "(param {}) (result {})",
        all(&signature.params),
        all(&signature.results)
    )
}

/// A component that does something for ever in one of its functions, with `$call`
/// for the call of the host.
fn guest(
    (interface, function): &(String, Function),
    (number, real): (&str, &str),
    spins_in: &str,
    between: &str,
) -> Vec<u8> {
    let (resolve, world) = contract();
    let signature = resolve.wasm_signature(AbiVariant::GuestImport, function);
    let arguments = signature.params.iter().map(|t| match t {
        WasmType::F64 => format!("({real})"),
        _ => format!("({number})"),
    });
    let arguments = arguments.collect::<Vec<_>>().join(" ");
    let drops = "drop ".repeat(signature.results.len());
    // What the host wrote is wiped, or it would be the next call's arguments.
    let spin = format!(
        "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 4096))
           (call $call {arguments}) {drops} {between} (br $l))"
    );
    let api = resolve.worlds[*world]
        .exports
        .values()
        .find_map(|e| match e {
            WorldItem::Interface { id, .. } => Some(*id),
            _ => None,
        });
    let api = api.expect("an interface");
    let name = resolve.id_of(api).expect("a name");
    let exports = resolve.interfaces[api].functions.values().map(|f| {
        let at = match f.name.as_str() {
            "describe" => 8_192,
            "validate" => 8_256,
            _ => 8_288,
        };
        let body = if f.name == spins_in {
            spin.as_str()
        } else {
            ""
        };
        format!(
            "(func (export \"{name}#{}\") {} {body} (i32.const {at}))",
            f.name,
            declared(resolve, AbiVariant::GuestExport, f)
        )
    });
    let text = format!(
        r#"(module
          (import "{interface}" "{}" (func $call {}))
          (memory (export "memory") 100)
          (data (i32.const 8192) "\00\24\00\00\04\00\00\00" "\04\24\00\00\05\00\00\00" "\04\24\00\00\05\00\00\00" "\09\24\00\00\02\00\00\00")
          (data (i32.const 8296) "\00\24\00\00\04\00\00\00")
          (data (i32.const 9216) "spin" "0.1.0" "{{}}")
          (global $free (mut i32) (i32.const 65536))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (if (i32.gt_u (i32.add (global.get $free) (local.get 3)) (i32.const 6500000))
              (then (global.set $free (i32.const 65536))))
            (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.get $free)
            (global.set $free (i32.add (global.get $free) (local.get 3))))
          {})"#,
        function.name,
        declared(resolve, AbiVariant::GuestImport, function),
        exports.collect::<Vec<_>>().join("\n")
    );
    let mut module = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).expect("embeds");
    ComponentEncoder::default()
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .unwrap_or_else(|e| panic!("{e:?}: {text}"))
}

fn host(fuel_per_segment: u64) -> Host {
    let limits = Limits {
        fuel_per_segment,
        ..Limits::default()
    };
    Host::new(None, limits).expect("starts")
}

async fn load(host: &Host, bytes: &[u8]) -> Arc<Plugin> {
    host.load(bytes).await.expect("loads")
}

#[tokio::test]
async fn nothing_is_asked_while_a_strategy_says_who_it_is() {
    let host = host(20_000_000);
    for function in functions() {
        for arguments in ARGUMENTS {
            let name = &function.1.name;
            let plugin = load(&host, &guest(&function, arguments, "describe", "")).await;
            let why = plugin.describe().await.expect_err(name).to_string();
            let plugin = load(&host, &guest(&function, arguments, "validate", "")).await;
            let too = plugin.validate("{}").await.expect_err(name).to_string();
            // What cannot even be read does not get as far.
            let unread = arguments == ARGUMENTS[1];
            for why in [why, too] {
                let refused = why.contains("it called the host, which only `run` may");
                assert!(refused || unread, "{name} {arguments:?}: {why}");
                assert!(!why.contains("an endless loop"), "{name}: {why}");
            }
        }
    }
}

#[tokio::test]
async fn no_call_is_free_and_none_is_unseen() {
    let host = host(20_000_000);
    let mut refused = 0;
    for function in functions() {
        for arguments in ARGUMENTS {
            let name = function.1.name.as_str();
            let plugin = load(&host, &guest(&function, arguments, "run", "")).await;
            let mut lab = Lab::new(plugin, lab::good(), json!({}));
            lab.header.caps.calls = Some(CALLS);
            let Standing::Over(End::RolledBack, reason) = lab.run().await else {
                panic!("{name} {arguments:?}: it ends");
            };
            assert_eq!(lab.target.peek().weights().share("stable"), 100.0, "{name}");
            let journal = lab.journal().await;
            let by_strategy = journal.iter().filter(|e| match &e.event {
                Event::Asked { by, .. } | Event::Exchanged { by, .. } => *by == Actor::Strategy,
                _ => false,
            });
            let calls = by_strategy.count();
            let full = reason.contains("fill 64 MiB of the journal");
            let counted = reason.contains("it has made 150 calls") && calls == CALLS as usize;
            let counted = counted || full;
            // These are in no journal: they cost fuel alone.
            let aside = matches!(name, "now" | "probes");
            let burnt = reason.contains("an endless loop?") && aside && calls == 0;
            // Arguments that are no value of their type end it at once.
            let unread = arguments == ARGUMENTS[1] && calls <= 1 && !burnt;
            let takes_anything = matches!(name, "set-weights" | "get-metrics");
            assert!(
                counted || burnt || unread && !takes_anything,
                "{name} {arguments:?}: {calls} calls, {reason}"
            );
            let too_long = journal.iter().filter(|e| match &e.event {
                Event::Exchanged { reply, .. } => reply.to_string().contains("the limit is 64"),
                _ => false,
            });
            refused += too_long.count();
        }
    }
    assert_eq!(refused, 2 * CALLS as usize, "two functions take lists");
}

/// Whatever a strategy fills it with, and whoever reads it again.
#[tokio::test]
async fn a_journal_has_a_largest_size() {
    let text = || "x".repeat(TEXT_BYTES_MAX);
    let stream = StreamFinding {
        name: text(),
        candidate_bad: 0.0,
        candidate_of: 0.0,
        stable_bad: 0.0,
        stable_of: 0.0,
        log_evidence: 0.0,
    };
    let finding = Finding {
        until: 0,
        log_evidence: 0.0,
        log_limit: 0.0,
        decision: Decision::Stay,
        excess_requests: 0.0,
        streams: vec![stream; LIST_MAX],
        explanation: text(),
    };
    let odd = Weights(vec![
        Weight {
            arm: text(),
            weight: 1,
        };
        LIST_MAX
    ]);
    let query = MetricsQuery {
        since: lab::START,
        over_ms: vec![0.123_456_789_012; LIST_MAX],
        by_zone: false,
    };
    for call in [
        Call::Wait {
            seconds: 0,
            signals: vec![text(); LIST_MAX],
        },
        Call::Report {
            finding: Box::new(finding),
        },
        Call::Log {
            level: Level::Debug,
            message: text(),
        },
        Call::Progress {
            percent: 1,
            note: text(),
        },
        Call::Probe { name: text() },
        Call::Query {
            name: text(),
            since: 0,
        },
        Call::SetWeights { weights: odd },
        Call::SwitchColor { color: text() },
        Call::GetMetrics { query },
        Call::GetHealth,
        Call::GetWeights,
    ] {
        let asked = call.clone();
        let strategy = Scripted(move |calls: Arc<dyn Calls>| {
            let asked = asked.clone();
            async move {
                while calls.perform(asked.clone()).await.is_ok() {}
                Ran::Interrupted
            }
        });
        let mut lab = Lab::new(Arc::new(strategy), lab::good(), json!({}));
        lab.header.caps.journal_mib = Some(1);
        let Standing::Over(End::RolledBack, reason) = lab.run().await else {
            panic!("{call}: it ends");
        };
        let name = call.to_string();
        let name = &name[..name.len().min(40)];
        assert!(
            reason.contains("fill 1 MiB of the journal"),
            "{name}: {reason}"
        );
        let journal = lab.journal().await;
        let written = serde_json::to_vec(&journal).expect("JSON").len();
        // One entry more than fits, and it is not the limit of an empty journal.
        assert!(
            (300_000..1_600_000).contains(&written),
            "{name}: {written} bytes"
        );
        // The same entries are as large for whoever adds them up again, and a rollout
        // that began when only answers counted keeps to that.
        let bytes = |caps: Caps| {
            let mut entries = journal.clone();
            if let Event::Started(header) = &mut entries[0].event {
                header.caps = caps;
            }
            Status::of(&entries).expect("a header").bytes
        };
        let (old, new) = (bytes(Caps::of_old()), bytes(lab.header.caps));
        assert_eq!(new, lab.status().await.bytes, "{name}");
        assert!(old < new, "{name}: {old} of {new}");
    }
}

/// A guest that never ends by itself, whatever it does.
async fn endless(host: &Host) -> Vec<(String, Arc<Plugin>)> {
    let mut all = vec![];
    for function in functions() {
        for arguments in ARGUMENTS {
            let between =
                "(memory.fill (i32.const 65536) (i32.const 0) (i32.const 65536))".repeat(200);
            let bytes = guest(&function, arguments, "run", &between);
            let name = format!("{} {arguments:?}", function.1.name);
            all.push((name, load(host, &bytes).await));
        }
    }
    // And without any call.
    for (name, body) in [
        ("computes", "(loop $l (br $l))"),
        (
            "fills",
            "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 131072)) (br $l))",
        ),
        ("recurses", "(loop $l (call $after (i32.const 0)) (br $l))"),
    ] {
        let run = format!(
            "(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {body} unreachable)"
        );
        let bytes = binary(&component(&run));
        all.push((name.to_owned(), load(host, &bytes).await));
    }
    all
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_abort_waits_for_no_guest() {
    let host = host(u64::MAX >> 8);
    let mut aborted = 0;
    for (name, plugin) in endless(&host).await {
        let lab = Lab::new(plugin, lab::good(), json!({}));
        let abort = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            lab.signal("abort", "enough").await;
        };
        let both = async { tokio::join!(lab.run(), abort).0 };
        let ended = tokio::time::timeout(PATIENCE, both).await;
        let Ok(Standing::Over(End::RolledBack, reason)) = ended else {
            panic!("{name}: {ended:?}");
        };
        aborted += u32::from(reason.contains("aborted by ada: enough"));
        assert_eq!(lab.target.peek().weights().share("stable"), 100.0, "{name}");
    }
    // The others end at arguments that cannot be read, before anybody can abort.
    let kinds = functions().len();
    assert!(aborted as usize >= kinds + 3, "{aborted} of {kinds} kinds");
}

#[tokio::test]
async fn a_deadline_waits_for_no_guest() {
    let host = host(u64::MAX >> 8);
    for (name, plugin) in endless(&host).await {
        let mut lab = Lab::new(plugin, lab::good(), json!({}));
        let clock = Arc::new(SystemClock);
        lab.header.created = clock.now();
        lab.header.guardrails.deadline_ms = 100;
        let driver = Driver {
            clock,
            ..lab.driver()
        };
        driver.begin(lab.header.clone()).await.expect("begins");
        let mut fleet = Fleet::new(driver);
        fleet.add(lab::ID.to_owned(), lab.header.created);
        let ended = tokio::time::timeout(PATIENCE, fleet.next()).await;
        let ended = ended.map(lab::stopped);
        let Ok(Ok(Standing::Over(End::RolledBack, _))) = ended else {
            panic!("{name}: {ended:?}");
        };
        assert_eq!(lab.target.peek().weights().share("stable"), 100.0, "{name}");
    }
}
