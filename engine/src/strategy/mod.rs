//! The strategy host: runs components in a sandbox.
//!
//! A component is checked before it is linked ([`contract`]), compiled once per
//! digest, and instantiated anew for every run. It can use only the calls of its
//! contract: the functions of WASI are deterministic stubs ([`sandbox`]), and
//! every resource has a limit ([`limits`]). Each version of the contract is a
//! [`track`]; all of them are in one linker.

mod checked;
pub mod contract;
mod image;
pub mod limits;
pub mod sandbox;
mod track;
mod unfold;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Engine, Store, Trap};

use crate::model::limits::Caps;
use crate::model::{Outcome, PlannedStep, is_name, sha256_hex};
use crate::rollout::session::{Calls, Interrupted};
use crate::rollout::{Ran, Run, Strategy};
use checked::Checked;
use contract::Rejected;
use limits::{ANSWER_TIME_MAX, ASIDE_FUEL, EPOCH_TICK, Limits, cut};
use sandbox::{Called, State};
use track::Bound;

/// What a strategy says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// JSON Schema of its parameters.
    pub parameters_schema: String,
}

/// One problem of the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// JSON pointer to the wrong value.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// The interfaces of the contract, with their versions, of which a plugin exports one;
/// newest first.
#[must_use]
pub fn contracts() -> Vec<&'static str> {
    track::ALL.iter().map(|track| track.export).collect()
}

/// Compiles components and keeps them by digest.
pub struct Host {
    engine: Engine,
    linker: Arc<Linker<State>>,
    limits: Limits,
    /// Which components have passed the checks before; `None` without a cache.
    checked: Option<Checked>,
    loaded: Mutex<HashMap<String, Arc<Plugin>>>,
}

/// A component that was checked and compiled.
pub struct Plugin {
    /// Lower-case hex digest of its bytes.
    pub sha256: String,
    /// The strategy-api that it exports, with its version.
    pub world: String,
    /// Functions of the contract that it imports, `interface@version#function`:
    /// its permissions.
    pub permissions: Vec<String>,
    /// Interfaces that its toolchain imports for itself; all of them are stubs.
    pub stubbed: Vec<String>,
    /// Size of the component, bytes.
    pub size: usize,
    bound: Arc<dyn Bound>,
    engine: Engine,
    limits: Limits,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("sha256", &self.sha256)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host that keeps compiled code in the folder `cache`, and which components have
    /// passed the checks; with `None` it checks and compiles every time. What is in the
    /// folder is trusted, so nobody but its user may write to it.
    pub fn new(cache: Option<&Path>, limits: Limits) -> Result<Self, wasmtime::Error> {
        let mut config = limits.engine_config();
        if let Some(folder) = cache {
            let mut compiled = CacheConfig::new();
            compiled.with_directory(folder);
            config.cache(Some(Cache::new(compiled)?));
        }
        let engine = Engine::new(&config)?;
        tick(engine.weak());
        let mut linker = Linker::new(&engine);
        sandbox::link(&mut linker)?;
        for track in track::ALL {
            (track.link)(&mut linker)?;
        }
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            limits,
            checked: cache.map(Checked::within),
            loaded: Mutex::default(),
        })
    }

    /// Checks and compiles a component, and keeps it by its digest.
    pub async fn load(&self, bytes: &[u8]) -> Result<Arc<Plugin>, Rejected> {
        self.load_as(bytes, sha256_hex(bytes)).await
    }

    async fn load_as(&self, bytes: &[u8], sha256: String) -> Result<Arc<Plugin>, Rejected> {
        contract::check_bytes(bytes, self.limits.component_bytes_max)?;
        if let Some(plugin) = self.get(&sha256) {
            return Ok(plugin);
        }
        let (engine, linker) = (self.engine.clone(), self.linker.clone());
        let (limits, digest, bytes) = (self.limits, sha256.clone(), bytes.to_vec());
        let checked = self.checked.clone();
        let (sender, compiled) = tokio::sync::oneshot::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        // In a thread of its own: nothing can stop the compiler, but the process can
        // end without waiting for this thread.
        std::thread::spawn(move || {
            let _ = begin.send(limits::this_thread());
            let checked = checked.as_ref();
            let _ = sender.send(compile(&engine, &linker, limits, checked, digest, &bytes));
        });
        let too_long = async {
            let thread = begun.await.unwrap_or_default();
            limits::compiled_too_long(limits, thread).await
        };
        let plugin = tokio::select! {
            // A panic of the compiler must not end the engine.
            plugin = compiled => plugin.map_err(|_| Rejected::Compile("the compiler failed".to_owned()))??,
            why = too_long => return Err(Rejected::Compile(why)),
        };
        let plugin = Arc::new(plugin);
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sha256, plugin.clone());
        Ok(plugin)
    }

    /// Loads bytes that must have that digest, for a rollout that goes on.
    pub async fn load_exactly(&self, bytes: &[u8], sha256: &str) -> Result<Arc<Plugin>, Rejected> {
        let found = sha256_hex(bytes);
        if found != sha256 {
            return Err(Rejected::Changed {
                pinned: sha256.to_owned(),
                found,
            });
        }
        self.load_as(bytes, found).await
    }

    /// The plugin with that digest, if it is loaded.
    #[must_use]
    pub fn get(&self, sha256: &str) -> Option<Arc<Plugin>> {
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(sha256)
            .cloned()
    }
}

fn compile(
    engine: &Engine,
    linker: &Linker<State>,
    limits: Limits,
    checked: Option<&Checked>,
    sha256: String,
    bytes: &[u8],
) -> Result<Plugin, Rejected> {
    let known = checked.is_some_and(|checked| checked.has(&sha256));
    if !known {
        contract::check_globals(bytes)?;
        unfold::check(bytes)?;
    }
    let component =
        Component::new(engine, bytes).map_err(|e| Rejected::Compile(cut(format!("{e:#}"))))?;
    if let Some(checked) = checked.filter(|_| !known) {
        checked.add(&sha256);
    }
    let shape = contract::Shape::of(&component, engine);
    let track = shape.check()?;
    let pre = linker
        .instantiate_pre(&component)
        .map_err(|e| shape.explain(&format!("{e:#}")))?;
    image::prepare(&component)?;
    let bound = (track.bind)(pre).map_err(|e| shape.explain(&format!("{e:#}")))?;
    Ok(Plugin {
        sha256,
        world: shape.world(track),
        permissions: shape.permissions,
        stubbed: shape.stubbed,
        size: bytes.len(),
        bound,
        engine: engine.clone(),
        limits,
    })
}

/// Advances the epoch until the engine is dropped, so that a guest that computes
/// lets others run.
fn tick(engine: wasmtime::EngineWeak) {
    std::thread::spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH_TICK);
        }
    });
}

impl Plugin {
    /// Asks the strategy for its name, version and parameters. It cannot make calls.
    pub async fn describe(&self) -> Result<Description, Rejected> {
        let mut store = self.store(None, "", Caps::default());
        let result = in_time(self.bound.describe(&mut store)).await;
        let description = result
            .map_err(|e| Rejected::Faulty(format!("describe: {}", explain(&e, store.data()))))?;
        // The name becomes a part of the rollout's id, which people type.
        if !is_name(&description.name) {
            return Err(Rejected::Faulty(format!(
                "describe: it calls itself {:?}; a name is made of letters, digits, - and _, and does not begin with -",
                description.name
            )));
        }
        Ok(description)
    }

    /// Asks the strategy to check parameters. It cannot make calls.
    pub async fn validate(
        &self,
        parameters: &str,
    ) -> Result<Result<Vec<PlannedStep>, Vec<Issue>>, Rejected> {
        let mut store = self.store(None, "", Caps::default());
        let result = in_time(self.bound.validate(&mut store, parameters)).await;
        result.map_err(|e| Rejected::Faulty(format!("validate: {}", explain(&e, store.data()))))
    }

    /// Runs the strategy, and returns how much fuel it had used at each of its calls
    /// too: a fingerprint of the way that it took.
    pub async fn run_metered(&self, calls: Arc<dyn Calls>, run: &Run) -> (Ran, Vec<u64>) {
        let mut store = self.store(Some(calls), &run.seed, run.caps);
        let ran = match self.bound.run(&mut store, run).await {
            Ok(result) => Ran::Returned(result),
            Err(error) if error.downcast_ref::<Interrupted>().is_some() => Ran::Interrupted,
            Err(error) => Ran::Trapped(explain(&error, store.data())),
        };
        (ran, std::mem::take(&mut store.data_mut().burnt))
    }

    fn store(&self, calls: Option<Arc<dyn Calls>>, seed: &str, caps: Caps) -> Store<State> {
        let limits = self.limits.within(caps);
        let mut store = Store::new(&self.engine, State::new(calls, seed, limits));
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(limits.hostcall_bytes_max);
        let fuel = limits.fuel_per_segment;
        // It cannot fail, because the engine is configured to count fuel.
        let _ = store.set_fuel(fuel);
        store.call_hook(move |mut context, hook| {
            let Some(called) = context.data_mut().hooked(hook) else {
                return Ok(());
            };
            // Asides cost fuel too, or a guest could make them for hours.
            let left = context.get_fuel()?;
            let left = match called {
                Called::Journaled => {
                    context.data_mut().burnt.push(fuel.saturating_sub(left));
                    fuel
                }
                Called::Aside => left.saturating_sub(ASIDE_FUEL),
            };
            context.set_fuel(left)?;
            Ok(())
        });
        store
    }
}

#[async_trait]
impl Strategy for Plugin {
    async fn run(&self, calls: Arc<dyn Calls>, run: Run) -> Ran {
        self.run_metered(calls, &run).await.0
    }
}

/// What a trap means, with the last lines that the guest printed.
fn explain(error: &wasmtime::Error, state: &State) -> String {
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => format!(
            "it computed {} instructions without a call to the host: an endless loop?",
            state.limiter.limits.fuel_per_segment
        ),
        Some(Trap::StackOverflow) => "its stack overflowed: endless recursion?".to_owned(),
        Some(Trap::UnreachableCodeReached) => "it panicked or reached `unreachable`".to_owned(),
        Some(trap) => trap.to_string(),
        None if error.is::<Interrupted>() => {
            "it called the host, which only `run` may do".to_owned()
        }
        None => error.root_cause().to_string(),
    };
    let words = state.output.tail();
    if words.is_empty() {
        cause
    } else {
        format!("{cause}\n{words}")
    }
}

async fn in_time<T>(
    asked: impl Future<Output = Result<T, wasmtime::Error>>,
) -> Result<T, wasmtime::Error> {
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, asked).await;
    answer.unwrap_or_else(|_| {
        let seconds = ANSWER_TIME_MAX.as_secs();
        Err(wasmtime::Error::msg(format!(
            "it did not answer within {seconds} s"
        )))
    })
}

/// What a run returned, or the trap that ended it.
type Returned = Result<Result<Outcome, String>, wasmtime::Error>;
