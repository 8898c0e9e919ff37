//! The versions of the contract that this engine runs. Each is one element of
//! [`ALL`]. All share one linker, because their names contain their versions.

mod v0_1;

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Error, Store};

use super::sandbox::State;
use super::{Description, Issue, Returned};
use crate::model::PlannedStep;
use crate::rollout::Run;

/// One version of the contract.
pub(super) struct Track {
    /// The strategy-api that a component of this track exports.
    pub(super) export: &'static str,
    /// The interfaces that it may import, besides WASI.
    pub(super) imports: &'static [&'static str],
    pub(super) link: fn(&mut Linker<State>) -> Result<(), Error>,
    pub(super) bind: Bind,
}

/// Turns a linked component into one that can be called.
type Bind = fn(InstancePre<State>) -> Result<Arc<dyn Bound>, Error>;

/// Newest first.
pub(super) const ALL: &[Track] = &[v0_1::TRACK];

/// A component that is ready to be instantiated, behind the engine's own types.
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

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, HasSelf};
    use wasmtime::{Config, Engine};

    use super::*;

    /// One interface of a future track.
    mod next {
        wasmtime::component::bindgen!({
            inline: "
                package rollout:next;
                package rollout:control@0.2.0 {
                    interface control { now: func() -> string; }
                }
                world next { import rollout:control/control@0.2.0; }
            ",
            imports: { default: async | trappable },
        });
    }

    impl next::rollout::control::control::Host for State {
        async fn now(&mut self) -> Result<String, Error> {
            Ok("2026-11-21T22:50:31Z".to_owned())
        }
    }

    #[test]
    fn a_second_track_stands_beside_the_first() {
        let engine = Engine::new(&Config::new()).expect("starts");
        let mut linker = Linker::new(&engine);
        for track in ALL {
            (track.link)(&mut linker).expect("links");
        }
        next::Next::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).expect("links");
        let of_both = r#"(component
            (import "rollout:control/control@0.1.0" (instance (export "now" (func (result f64)))))
            (import "rollout:control/control@0.2.0" (instance (export "now" (func (result string))))))"#;
        let bytes = wat::parse_str(of_both).expect("right");
        let component = Component::new(&engine, bytes).expect("compiles");
        assert!(linker.instantiate_pre(&component).is_ok());
    }
}
