//! The versions of the contract that this engine runs. Each is one element of
//! [`ALL`]; all are in one linker, because their names carry their versions.

mod v0_1;

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Error, Store};

use super::sandbox::State;
use super::{Description, Issue, PlannedStep, Returned};
use crate::rollout::Run;

/// One version of the contract.
pub(super) struct Track {
    /// The strategy-api that a component of this track exports.
    pub(super) export: &'static str,
    /// What it may import, besides WASI.
    pub(super) imports: &'static [&'static str],
    pub(super) link: fn(&mut Linker<State>) -> Result<(), Error>,
    pub(super) bind: Bind,
}

/// Turns a linked component into one that can be called.
type Bind = fn(InstancePre<State>) -> Result<Arc<dyn Bound>, Error>;

/// Newest first.
pub(super) const ALL: &[Track] = &[v0_1::TRACK];

/// A component that is ready to be instantiated, in the engine's own types.
#[async_trait]
pub(super) trait Bound: Send + Sync {
    async fn describe(&self, store: &mut Store<State>) -> Result<Description, Error>;
    async fn validate(
        &self,
        store: &mut Store<State>,
        parameters: &str,
    ) -> Result<Result<Vec<PlannedStep>, Vec<Issue>>, Error>;
    async fn run(&self, store: &mut Store<State>, run: &Run) -> Returned;
}
