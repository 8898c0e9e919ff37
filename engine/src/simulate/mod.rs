//! Rollouts without a load balancer: the real strategy and the real driver
//! under a virtual clock.
//!
//! In reading order: a [`scenario`] describes the world, [`random`] gives its
//! random numbers, [`world`] what both arms measure in every interval, [`fault`]
//! what else goes wrong. [`stage`] turns that into a target and a clock,
//! [`replicate`] plays one rollout on it, [`many`] plays a lot of them, and
//! [`report`] counts. [`oracle`] is the least that a fault could have cost. [`scripted`] is a simpler target without randomness, and
//! [`rehearsal`] plays a real rollout on such a copy.

pub mod fault;
pub mod many;
pub mod oracle;
pub mod random;
pub mod rehearsal;
pub mod replicate;
pub mod report;
pub mod scenario;
pub mod scripted;
pub mod stage;
pub mod world;

pub use scripted::{Behaviour, Fault, SimulatedTarget};
