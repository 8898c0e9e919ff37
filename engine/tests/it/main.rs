//! One integration binary: each further one would link wasmtime again.

mod balancer;
mod cli;
mod contract;
mod crash;
mod end_to_end;
mod lab;
mod layers;
mod limits;
mod order;
mod process;
mod property;
mod signals;
mod store;
