//! Reads the journals of finished rollouts again, to learn from them.
//!
//! [`mod@file`] turns a journal into one file and back; [`mod@replay`] runs a
//! plugin against it; [`what_if`] asks another plugin, or other parameters, what
//! they would have decided from the same metrics; [`explain`] says which metric
//! led to which decision. All but the plugin's own run are pure.

pub mod explain;
pub mod file;
pub mod replay;
pub mod what_if;
