//! What a person can ask for, whatever the front end: a request goes in, an outcome
//! or a typed [`Error`] comes out, and [`news`] tells what happens meanwhile.
//! Nothing here parses arguments, prints, or knows exit codes.

pub mod advice;
pub mod app;
pub mod begin;
pub mod check;
pub mod command;
mod compile;
pub mod deploy;
pub mod doctor;
pub mod error;
pub mod examined;
pub mod find;
mod gone;
pub mod history;
mod home;
pub mod init;
pub mod local;
pub mod news;
pub mod past;
pub mod permissions;
pub mod picture;
pub mod pin;
pub mod plan;
pub mod plugin;
pub mod ports;
pub mod private;
pub mod request;
pub mod scenarios;
pub mod sight;
pub mod simulate;
pub mod status;
pub mod template;
pub mod traffic;
pub mod undo;
pub mod watch;
pub mod way_back;

pub use advice::{Advice, Ask, Input};
pub use error::{Context, Error, Kind, Result};
