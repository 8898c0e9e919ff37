//! What people can ask for, without a front end: a request goes in, and the outcome
//! or the error is looked at as it is. A local balancer and the emulator are real.

mod begin;
mod check;
mod command;
mod deploy;
mod doctor;
mod find;
mod gone;
mod init;
mod past;
mod pin;
mod plan;
mod plugin;
mod status;
mod traffic;
mod undo;
mod way_back;
