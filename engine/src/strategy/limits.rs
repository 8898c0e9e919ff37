//! Limits of a guest. Each has a test that keeps it and one that breaks it
//! (`tests/it/limits.rs`, `tests/it/hostile.rs`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::{Config, Error, ResourceLimiter};

pub use crate::journal::SAMPLES_MAX;
use crate::model::is_control;
use crate::model::limits::Caps;
pub use crate::model::{TEXT_BYTES_MAX, cut};

/// Interval at which a guest that computes lets others run.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// Fuel that a host call costs which is not in the journal.
pub const ASIDE_FUEL: u64 = 10_000;
/// Longest time that a guest may take for `describe` and `validate`. Its fuel is
/// used up long before, unless the machine stands still.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Interval between two checks of a compilation's cost.
const COMPILE_LOOK: Duration = Duration::from_millis(20);
/// Most core instances, and tables, of one component.
const INSTANCES_MAX: usize = 100;
/// Globals of all modules in a component together.
pub(super) const GLOBALS_MAX: u64 = 100_000;
/// Most memories of one component.
const MEMORIES_MAX: usize = 16;
/// Longest list that a guest may pass.
pub const LIST_MAX: usize = 64;
/// Bytes of a guest's output that are kept for its trap report.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1_024;

/// The limits that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest component file, bytes.
    pub component_bytes_max: usize,
    /// Largest linear memory of one instance, bytes.
    pub memory_bytes_max: usize,
    /// Most elements of one table.
    pub table_elements_max: usize,
    /// Most instructions (wasmtime's fuel) between two calls.
    pub fuel_per_segment: u64,
    /// Most bytes that one call of the guest may make the host allocate.
    pub hostcall_bytes_max: usize,
    /// Largest stack of the guest, bytes.
    pub stack_bytes_max: usize,
    /// Most memory that compiling a component may take, bytes. The largest honest
    /// components, which hold whole interpreters, stay far below it.
    pub compile_bytes_max: u64,
    /// Most processor time that compiling a component may take. On a busy machine that is
    /// a longer time on the wall.
    pub compile_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes_max: 64 << 20,
            memory_bytes_max: 64 << 20,
            table_elements_max: 100_000,
            fuel_per_segment: 1_000_000_000,
            hostcall_bytes_max: 1 << 20,
            stack_bytes_max: 512 << 10,
            compile_bytes_max: 2 << 30,
            compile_time_max: Duration::from_secs(180),
        }
    }
}

impl Limits {
    /// The stricter of these limits and an operator's caps.
    #[must_use]
    pub(super) fn within(self, caps: Caps) -> Self {
        let memory = caps
            .memory_mib
            .map_or(usize::MAX, |mib| (mib as usize) << 20);
        Self {
            memory_bytes_max: self.memory_bytes_max.min(memory),
            fuel_per_segment: self.fuel_per_segment.min(caps.fuel.unwrap_or(u64::MAX)),
            ..self
        }
    }

    /// The settings that make a run the same every time, on every machine.
    pub(super) fn engine_config(self) -> Config {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .shared_memory(false)
            .consume_fuel(true)
            .epoch_interruption(true)
            .max_wasm_stack(self.stack_bytes_max)
            .async_stack_size(self.stack_bytes_max + (1 << 20))
            .memory_reservation(self.memory_bytes_max as u64)
            .memory_guard_size(1 << 16);
        config
    }
}

/// Traps a guest that grows beyond the limits, so that it never sees a `grow`
/// that fails on one machine and succeeds on another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limiter {
    pub(super) limits: Limits,
    /// Bytes of all memories of the component together.
    pub(super) memory_bytes: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, Error> {
        let max = self.limits.memory_bytes_max;
        let sum = (self.memory_bytes - current.min(self.memory_bytes)).saturating_add(desired);
        if sum > max {
            return Err(Error::msg(format!(
                "it asked for {} MiB of memory, and the limit is {} MiB",
                sum.div_ceil(1 << 20),
                max >> 20
            )));
        }
        self.memory_bytes = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<(), Error> {
        Err(error)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, Error> {
        let max = self.limits.table_elements_max;
        if desired > max {
            return Err(Error::msg(format!(
                "it asked for a table of {desired} elements, and the limit is {max}"
            )));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<(), Error> {
        Err(error)
    }
}

/// Returns when a compilation that begins now, in that thread, has cost too much, and says
/// what. A few kilobytes are enough to keep a compiler busy for hours.
pub(super) async fn compiled_too_long(limits: Limits, thread: Thread) -> String {
    let before = resident_bytes();
    let mut on_the_wall = Duration::ZERO;
    let mut looks = tokio::time::interval(COMPILE_LOOK);
    loop {
        looks.tick().await;
        if resident_bytes().saturating_sub(before) > limits.compile_bytes_max {
            return format!(
                "compiling it takes more than {} MiB of memory",
                limits.compile_bytes_max >> 20
            );
        }
        on_the_wall += COMPILE_LOOK;
        if thread.worked().unwrap_or(on_the_wall) > limits.compile_time_max {
            return format!(
                "compiling it takes longer than {} s of processor time",
                limits.compile_time_max.as_secs_f64()
            );
        }
    }
}

/// A thread of this process: its folder in `/proc`.
#[derive(Debug, Clone, Default)]
pub(super) struct Thread(PathBuf);

/// The thread that asks.
pub(super) fn this_thread() -> Thread {
    let folder = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    Thread(Path::new("/proc").join(folder))
}

impl Thread {
    /// How long processors have worked for it; `None` if the system does not say.
    fn worked(&self) -> Option<Duration> {
        let told = std::fs::read_to_string(self.0.join("schedstat")).ok()?;
        let nanoseconds = told.split_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanoseconds))
    }
}

/// Memory of this process, bytes; 0 if the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    let kib: u64 = number.and_then(|n| n.parse().ok()).unwrap_or(0);
    kib << 10
}

/// A guest's text as one line of at most [`TEXT_BYTES_MAX`]. People read it on
/// terminals among the host's lines, so it must not move the cursor, reverse text,
/// or look like a line of the host.
#[must_use]
pub fn one_line(text: String) -> String {
    cut(text).replace(is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_count_together_and_tables_alone() {
        let mut limiter = Limiter {
            limits: Limits {
                memory_bytes_max: 100,
                table_elements_max: 10,
                ..Limits::default()
            },
            memory_bytes: 0,
        };
        assert!(limiter.memory_growing(0, 60, None).is_ok());
        assert!(limiter.memory_growing(60, 70, None).is_ok());
        // A second memory shares the limit with the first.
        assert!(limiter.memory_growing(0, 30, None).is_ok());
        assert!(limiter.memory_growing(0, 1, None).is_err());
        assert!(limiter.table_growing(0, 10, None).is_ok());
        assert!(limiter.table_growing(10, 11, None).is_err());
    }

    #[test]
    fn a_thread_that_waits_has_not_worked() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || {
            tell.send(this_thread()).expect("heard");
            let _ = stopped.recv();
        });
        let other = told.recv().expect("told");
        // The bound is on work, so a busy machine only takes longer to get there.
        let mut sum = 0_u64;
        while this_thread().worked().expect("Linux says") < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(other.worked().expect("Linux says") < Duration::from_millis(50));
        drop(stop);
        waits.join().expect("no panic");
        assert_eq!(Thread::default().worked(), None);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let kept = cut(long);
        assert_eq!(kept.len(), TEXT_BYTES_MAX + '…'.len_utf8());
        assert!(kept.ends_with('…'));
    }

    #[test]
    fn a_line_does_not_talk_to_a_terminal() {
        let sly = "\u{1b}[2Jgood\n09:00:00  traffic: stable 100 %\u{202e}";
        let plain = " [2Jgood 09:00:00  traffic: stable 100 % ";
        assert_eq!(one_line(sly.to_owned()), plain);
        assert_eq!(one_line("50 % äöü".to_owned()), "50 % äöü");
    }
}
