//! What is fuzzed: everything that reads what others wrote. Each entry takes
//! any bytes; nothing may panic, hang or eat memory, and what was read must
//! come back from what is written.
//!
//! The tests include this file too (`tests/it/fuzzed.rs`), so that an input
//! which once did harm goes the same way again.

#![forbid(unsafe_code)]

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use engine::cli::render;
use engine::hindsight::{explain, file, what_if};
use engine::journal::narrate::{self, Narrator};
use engine::journal::replay::Cursor;
use engine::journal::status::Status;
use engine::journal::{Actor, Call, Entry, Event, Work, exchanges};
use engine::model::sha256_hex;
use engine::rollout::session::Calls;
use engine::rollout::{Ran, Run, Strategy};
use engine::simulate::scenario::Corpus;
use engine::spec::Spec;
use engine::spec::plugins::Plugins;
use engine::spec::policy::Policy;
use engine::strategy::contract::{Rejected, check_bytes};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use engine::supply::lock::Lock;
use engine::supply::registry::manifest;
use engine::supply::registry::reference::Reference;
use engine::supply::signature::{Claim, PrivateKey, PublicKey};
use tokio::runtime::Runtime;

/// Small, so that what keeps to them is over soon.
const LIMITS: Limits = Limits {
    component_bytes_max: 64 << 10,
    memory_bytes_max: 2 << 20,
    table_elements_max: 1_000,
    fuel_per_segment: 1_000_000,
    hostcall_bytes_max: 64 << 10,
    stack_bytes_max: 128 << 10,
    compile_bytes_max: 512 << 20,
    compile_time_max: Duration::from_secs(10),
};

/// A host keeps all that it ever loaded; nobody else gives it thousands.
const LOADED_MAX: usize = 50;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("it starts"));
static HOST: LazyLock<Mutex<(Host, usize)>> = LazyLock::new(|| Mutex::new((host(), 0)));

fn host() -> Host {
    Host::new(None, LIMITS).expect("it starts")
}

/// A plugin file; whether it is a strategy that answers.
pub fn loader(input: &[u8]) -> bool {
    let checked = check_bytes(input, LIMITS.component_bytes_max);
    let mut held = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = RUNTIME.block_on(held.0.load(input));
    // Who does not even look like a component must not reach the compiler.
    if let Err(rejected) = checked {
        assert_eq!(loaded.map(|_| ()), Err(rejected));
        return false;
    }
    match loaded {
        Ok(plugin) => {
            held.1 += 1;
            if held.1 == LOADED_MAX {
                *held = (host(), 0);
            }
            RUNTIME.block_on(ask(&plugin))
        }
        Err(Rejected::Compile(why)) => {
            // The host survives that, and it is a mistake all the same.
            assert!(!why.starts_with("the compiler failed"), "{why}");
            false
        }
        Err(_) => false,
    }
}

async fn ask(plugin: &Plugin) -> bool {
    let described = plugin.describe().await;
    let valid = plugin.validate("{}").await;
    described.is_ok() && matches!(valid, Ok(Ok(_)))
}

/// A `plugins.lock`; whether it is one.
pub fn lock(input: &[u8]) -> bool {
    let Some(lock) = text(input).and_then(|text| Lock::parse(text).ok()) else {
        return false;
    };
    assert_eq!(Lock::parse(&lock.render()), Ok(lock));
    true
}

/// What people write: rollout files, plugin files, policies and scenarios. All
/// of them read every text, so that examples are seeds as they are.
pub fn config(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    let read = [
        Spec::parse(text).map(drop).map_err(|e| e.to_string()),
        Plugins::parse(text).map(drop).map_err(|e| e.to_string()),
        Policy::parse(text).map(drop).map_err(|e| e.to_string()),
        Corpus::parse(text)
            .map(drop)
            .map_err(|problems| format!("{problems:?}")),
    ];
    read.iter().any(Result::is_ok)
}

/// An exported journal; whether it is one.
pub fn journal(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    let _ = file::read(text);
    // Again with the right digest, which nobody finds by chance.
    let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |i| i + 1);
    let body = &text[..end];
    let sealed = format!("{body}{{\"sha256\":\"{}\"}}\n", sha256_hex(body.as_bytes()));
    let Ok(entries) = file::read(&sealed) else {
        return false;
    };
    assert_eq!(file::read(&file::write(&entries)), Ok(entries.clone()));
    let status = Status::of(&entries).expect("it has a beginning");
    if let Some(Event::Started(header)) = entries.first().map(|e| &e.event) {
        let _ = render::head(header, &status, status.updated, 80);
    }
    let mut narrator = Narrator::new(&status.rollout);
    for entry in &entries {
        let _ = narrator.line(entry);
    }
    for exchange in exchanges(&entries) {
        let _ = (narrate::history(&exchange), narrate::label(&exchange));
    }
    let _ = explain::explain(&entries);
    let _ = what_if::recorded(&entries);
    ask_again(&entries);
    let _ = Cursor::new(entries).left_over();
    true
}

fn ask_again(entries: &[Entry]) {
    let Event::Started(header) = &entries[0].event else {
        return;
    };
    let Work::Strategy(pin) = &header.work else {
        return;
    };
    let calls = entries.iter().filter_map(|entry| match &entry.event {
        Event::Asked { by, call, .. } | Event::Exchanged { by, call, .. } => {
            (*by == Actor::Strategy).then(|| call.clone())
        }
        _ => None,
    });
    let again = Again(calls.collect());
    let _ = RUNTIME.block_on(what_if::what_if(&again, header, pin, entries));
}

/// Makes the calls that were made before.
struct Again(Vec<Call>);

#[async_trait]
impl Strategy for Again {
    async fn run(&self, calls: Arc<dyn Calls>, _: Run) -> Ran {
        for call in &self.0 {
            if calls.perform(call.clone()).await.is_err() {
                return Ran::Interrupted;
            }
        }
        Ran::Returned(Err("it has seen enough".to_owned()))
    }
}

/// What registries and key files hold; whether it is anything of that.
pub fn manifest(input: &[u8]) -> bool {
    let mut known = manifest::complaints(input, 1 << 20).contains(&None);
    if let Ok(claim) = Claim::read(input) {
        assert_eq!(Claim::read(&claim.payload()), Ok(claim));
        known = true;
    }
    let Some(text) = text(input) else {
        return known;
    };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        assert_eq!(text.parse(), Ok(reference));
        known = true;
    }
    if let Ok(key) = PublicKey::from_pem(text) {
        assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key));
        known = true;
    }
    // A password costs a second, which says nothing new about its reader.
    if !text.contains("ENCRYPTED") {
        known |= PrivateKey::from_pem(text, "").is_ok();
    }
    known
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
