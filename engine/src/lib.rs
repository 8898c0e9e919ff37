//! Progressive delivery with strategies as WebAssembly components.
//!
//! The modules in reading order; each has its own introduction.

// So that `rollout/fixture.rs` reads the same here and in `tests/it`.
#[cfg(test)]
extern crate self as engine;

pub mod cli; // the command line: arguments, words on a screen, exit codes
pub mod clock; // the time
pub mod hindsight; // journals of the past: replay, what-if, explain
pub mod journal; // calls and answers; replay and status are pure
pub mod model; // the words of a rollout, as values
pub mod ops; // what a person can ask for, whatever the front end
pub mod plot; // pictures of rollouts
pub mod rollout; // the driver, the guardrails, the way back
pub mod schema; // JSON Schemas, made from types
pub mod simulate; // rollouts in a simulated world
pub mod spec; // the rollout file, validated
pub mod store; // port: journals, leases and signals
pub mod strategy; // the WebAssembly host
pub mod supply; // where plugins come from, and what they are pinned to
pub mod target; // port: what is rolled out
pub mod view; // outcomes as JSON, and the schemas of it
