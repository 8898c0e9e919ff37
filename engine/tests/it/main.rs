//! One integration binary: each further one would link wasmtime again.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests watch real processes and sockets"
)]

mod addresses;
mod aws;
mod balancer;
mod calls;
mod campaign;
mod ci_examples;
mod cli;
mod clients;
mod contract;
mod crash;
mod documents;
mod door;
mod end_to_end;
mod fleet;
mod foreign;
mod fuzzed;
mod hindsight;
mod hostile;
mod imports;
mod languages;
mod layers;
mod limits;
mod network;
mod ops;
mod order;
mod pins;
mod process;
mod property;
mod proxy;
mod real_speed;
mod reference;
mod registry;
mod render;
mod schemas;
mod screen;
mod secrets;
mod servers;
mod signals;
mod signature;
mod simulate;
mod store;
mod storeless;
mod support;
mod way_back;
