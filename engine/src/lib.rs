//! Progressive delivery with strategies as WebAssembly components.
//!
//! The modules in reading order; each has its own introduction.

pub mod model; // the words of a rollout, as values
pub mod clock; // what time it is
pub mod spec; // the rollout file, validated
pub mod journal; // calls and answers; replay and status are pure
pub mod store; // port: where journals, leases and signals live
pub mod target; // port: what is rolled out
pub mod simulate; // a scripted target
pub mod rollout; // the driver, the guardrails, the way back
pub mod strategy; // the WebAssembly host
pub mod cli; // the verbs, and the composition root
