//! Strategies: those that ship, and guests that were built for tests.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};
use tokio::sync::OnceCell;

use super::{root, target_folder};

/// Bytes of a guest; says how to build it if it is not there.
pub fn guest(name: &str) -> Vec<u8> {
    let place = guest_path(name);
    std::fs::read(&place).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; `make plugins test-guests language-guests` builds it",
            place.display()
        )
    })
}

/// Where a guest is.
pub fn guest_path(name: &str) -> PathBuf {
    match name {
        "canary" | "blue-green" => root().join(format!("plugins/{name}.wasm")),
        name => target_folder().join(format!("guests/{name}.wasm")),
    }
}

/// One host for all tests, with a compile cache.
pub fn host() -> Arc<Host> {
    static HOST: OnceLock<Arc<Host>> = OnceLock::new();
    HOST.get_or_init(|| {
        let cache = target_folder().join("test-compiled");
        Arc::new(Host::new(Some(&cache), Limits::default()).expect("the host starts"))
    })
    .clone()
}

/// A guest that one test loads and others wait for.
type Shared = Arc<OnceCell<Arc<Plugin>>>;

/// A guest, ready to run. Tests that begin at once share it: some take minutes to compile.
pub async fn plugin(name: &str) -> Arc<Plugin> {
    static KNOWN: OnceLock<Mutex<HashMap<String, Shared>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let place = known
        .lock()
        .expect("no panic")
        .entry(name.to_owned())
        .or_default()
        .clone();
    let load = || async { host().load(&guest(name)).await.expect("the guest loads") };
    place.get_or_init(load).await.clone()
}
