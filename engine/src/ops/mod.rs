//! What a person can ask for, whatever the front end: a request goes in, an outcome
//! or a typed [`Error`] comes out, and [`news`] tells what happens meanwhile.
//! Nothing here parses arguments, prints, or knows exit codes.

pub mod app;
pub mod begin;
pub mod deploy;
pub mod error;
pub mod find;
pub mod news;
pub mod ports;
pub mod private;
pub mod request;

pub use error::{Context, Error, Kind, Result};
