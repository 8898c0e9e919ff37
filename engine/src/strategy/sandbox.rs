//! What a guest sees of the world: no files, no network, no environment; a clock
//! that moves only with calls, and random numbers from the rollout's seed.
//!
//! Standard libraries import WASI whether a program uses it or not. So the imports
//! exist, but each gives the same answer on every replay.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use wasmtime::CallHook;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::limits::{Limiter, Limits, OUTPUT_BYTES_MAX};
use crate::model::Millis;
use crate::rollout::session::Calls;

/// The host's data of one instance.
pub struct State {
    /// Receives the calls of the contract; `None` while the guest must not make any.
    pub(super) calls: Option<Arc<dyn Calls>>,
    pub(super) limiter: Limiter,
    pub(super) output: Output,
    /// The kind of the call that is about to return to the guest.
    pub(super) called: Option<Called>,
    /// Host calls that have not returned. Within one, the guest's allocator can run
    /// and let other guests run, which is a host call too.
    depth: u32,
    /// Fuel that each segment took, one entry for each call of the contract.
    pub(super) burnt: Vec<u64>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(super) fn new(calls: Option<Arc<dyn Calls>>, seed: &str, limits: Limits) -> Self {
        let output = Output::default();
        let seed = crate::model::sha256_hex(seed.as_bytes());
        let random = |stream: u64| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&seed.as_bytes()[..32]);
            let mut random = ChaCha20Rng::from_seed(bytes);
            random.set_stream(stream);
            random
        };
        let clock = LogicalClock(calls.clone());
        let wasi = WasiCtx::builder()
            .secure_random(random(0))
            .insecure_random(random(1))
            .insecure_random_seed(2)
            .max_random_size(1 << 16)
            .wall_clock(clock.clone())
            .monotonic_clock(clock)
            .stdout(output.clone())
            .stderr(output.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self {
            calls,
            limiter: Limiter {
                limits,
                memory_bytes: 0,
            },
            output,
            called: None,
            depth: 0,
            burnt: vec![],
            wasi,
            table: ResourceTable::new(),
        }
    }
}

/// The kind of a host call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    /// A call of the journal, which begins a new segment.
    Journaled,
    /// A stub, or a question that is not in the journal: it buys no fuel.
    Aside,
}

impl State {
    /// The call that returns to the guest right now, if one does. Calls that wasmtime
    /// makes for itself do not count, or the time that a guest takes would matter.
    pub(super) fn hooked(&mut self, hook: CallHook) -> Option<Called> {
        match hook {
            CallHook::CallingHost => self.depth += 1,
            CallHook::ReturningFromHost => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return self.called.take();
                }
            }
            CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
        }
        None
    }
}

impl State {
    /// Every function of the host begins here, so that each costs fuel.
    pub(super) fn enter(&mut self) -> &mut Self {
        self.called.get_or_insert(Called::Aside);
        self
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.enter();
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Adds the stubs. Sleeping through WASI is refused: only `control.wait` lets
/// time pass.
pub(super) fn link(linker: &mut Linker<State>) -> Result<(), wasmtime::Error> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    for name in ["subscribe-duration", "subscribe-instant"] {
        clock.func_new(name, |_, _, _, _| {
            Err(wasmtime::Error::msg(
                "it tried to sleep; use control.wait, which survives a restart",
            ))
        })?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// A clock that shows the time of the last answer.
#[derive(Clone)]
struct LogicalClock(Option<Arc<dyn Calls>>);

impl LogicalClock {
    fn millis(&self) -> Millis {
        self.0.as_ref().map_or(0, |calls| calls.now())
    }
}

impl HostWallClock for LogicalClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.millis())
    }
}

impl HostMonotonicClock for LogicalClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.millis().saturating_mul(1_000_000)
    }
}

/// The last [`OUTPUT_BYTES_MAX`] that a guest printed, for its trap report.
#[derive(Debug, Clone, Default)]
pub(super) struct Output(Arc<Mutex<VecDeque<u8>>>);

impl Output {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        kept.drain(..excess);
    }

    /// The last lines, trimmed, at most 2 KiB of them.
    pub(super) fn tail(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = kept.len().saturating_sub(2_048);
        let bytes: Vec<u8> = kept.iter().skip(skipped).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let tells = |c| crate::model::is_control(c) && c != '\n';
        text.trim().replace(tells, " ")
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(OUTPUT_BYTES_MAX)
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_the_last_bytes() {
        let output = Output::default();
        output.push(&vec![b'a'; OUTPUT_BYTES_MAX]);
        output.push(b"the end\n");
        assert!(output.tail().ends_with("aathe end"));
        assert_eq!(output.0.lock().expect("one thread").len(), OUTPUT_BYTES_MAX);
    }
}
