//! The target on AWS, over real HTTP: the engine on one side, an emulator on
//! the other (`tests/emulator`, with its gaps), a proxy that makes trouble
//! between them, and the real AWS CLI as the judge.

mod addresses;
mod apart;
mod awkward;
mod capacity;
mod crash;
mod credentials;
mod definitions;
mod discovery;
mod emulator;
mod faults;
mod identity;
mod manners;
mod metrics;
mod permissions;
mod plan;
mod prototypes;
mod regions;
mod rollout;
pub(crate) mod routes;
mod silent;
mod stacks;
mod together;
mod verbs;
mod without_account;
