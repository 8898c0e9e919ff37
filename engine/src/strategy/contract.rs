//! What a plugin file must be. It is checked before it is linked, so that the
//! message explains more than a linker error.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::limits::{GLOBALS_MAX, cut};
use super::track::{self, Track};
use crate::spec::imports::{Import, Interface};
use crate::spec::policy::{CONTRACT, WASI};

/// Why a plugin may not run. Exit code 6.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The file is too large.
    #[error(
        "the file has at least {bytes} bytes and the limit is {max}\n\nhint: build it with opt-level \"s\" and strip, or check that this is a strategy"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes are not a WebAssembly component.
    #[error("this is not a WebAssembly component: {found}\n\nhint: {hint}")]
    NotAComponent {
        /// What it is instead.
        found: String,
        /// What to do.
        hint: String,
    },
    /// The bytes are a compiled artefact.
    #[error(
        "this is a precompiled artefact, that is, machine code that cannot be checked\n\nhint: give the .wasm file that it was made from"
    )]
    Precompiled,
    /// The WebAssembly is invalid, unsupported or too costly to compile.
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    /// It imports something that this engine does not have.
    #[error("it imports what this engine does not offer:\n{missing}\n\nhint: {hint}")]
    Imports {
        /// A line per import.
        missing: String,
        /// What to do.
        hint: String,
    },
    /// It does not export a strategy, or one of another version.
    #[error("{found}\n\nhint: {hint}")]
    Exports {
        /// What it exports instead.
        found: String,
        /// What to do.
        hint: String,
    },
    /// Its imports have the right names and other types.
    #[error(
        "it was built against another form of the contract: {0}\n\nhint: rebuild it against the wit/ folder of this engine, or use the engine that it was built for"
    )]
    Types(String),
    /// The bytes are not those that the rollout began with.
    #[error(
        "these are not the bytes that the rollout began with\n  pinned: sha256:{pinned}\n  found:  sha256:{found}\n\nhint: the state folder was changed or is damaged; take it from a backup, or abort the rollout"
    )]
    Changed {
        /// What they must be.
        pinned: String,
        /// What they are.
        found: String,
    },
    /// A function that must not fail failed.
    #[error("its own code failed in {0}")]
    Faulty(String),
    /// The machine refused what every strategy needs.
    #[error(
        "this machine did not give it memory to begin with: {0}\n\nhint: the strategy is not at fault; try again, or look whether the machine is short of memory"
    )]
    Machine(String),
}

const WASM_MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: &[u8] = &[0x0d, 0x00, 0x01, 0x00];
const MODULE_VERSION: &[u8] = &[0x01, 0x00, 0x00, 0x00];

/// Checks the size and the first bytes.
pub fn check_bytes(bytes: &[u8], max: usize) -> Result<(), Rejected> {
    if bytes.len() > max {
        return Err(Rejected::TooLarge {
            bytes: bytes.len(),
            max,
        });
    }
    if Engine::detect_precompiled(bytes).is_some() || bytes.starts_with(b"\x7fELF") {
        return Err(Rejected::Precompiled);
    }
    let not = |found: &str, hint: &str| {
        Err(Rejected::NotAComponent {
            found: found.to_owned(),
            hint: hint.to_owned(),
        })
    };
    let build = "build a component, e.g. cargo build --target wasm32-wasip2";
    match bytes.strip_prefix(WASM_MAGIC) {
        Some(rest) if rest.starts_with(COMPONENT_VERSION) => Ok(()),
        Some(rest) if rest.starts_with(MODULE_VERSION) => not(
            "it is a core WebAssembly module",
            "wrap it with `wasm-tools component new`, or build for wasm32-wasip2",
        ),
        Some(_) => not(
            "its WebAssembly version is unknown, or the file is incomplete",
            build,
        ),
        None if bytes.is_empty() => not("the file is empty", build),
        None if bytes.trim_ascii_start().starts_with(b"(") => not(
            "it is WebAssembly text",
            "turn it into binary with `wasm-tools parse`",
        ),
        None => not("it does not begin as WebAssembly does", build),
    }
}

/// Refuses a component with more globals than any compiler writes. Each instance
/// of a module has its own, which the memory limit does not count.
pub(super) fn check_globals(bytes: &[u8]) -> Result<(), Rejected> {
    let payloads = wasmparser::Parser::new(0).parse_all(bytes);
    // Errors in the rest are left to the compiler, which explains them better.
    let globals = payloads.map_while(Result::ok).map(|payload| match payload {
        wasmparser::Payload::GlobalSection(section) => u64::from(section.count()),
        _ => 0,
    });
    let globals: u64 = globals.sum();
    if globals > GLOBALS_MAX {
        return Err(Rejected::Compile(format!(
            "it has {globals} globals, and the limit is {GLOBALS_MAX}"
        )));
    }
    Ok(())
}

/// The imports and exports of a component.
#[derive(Debug)]
pub(super) struct Shape {
    /// One line for each import that is not offered.
    missing: Vec<String>,
    /// See [`super::Plugin::permissions`].
    pub(super) permissions: Vec<String>,
    /// See [`super::Plugin::stubbed`].
    pub(super) stubbed: Vec<String>,
    exports: Vec<String>,
}

impl Shape {
    /// Reads every import before anything is linked. A linker matches names by its
    /// own rules, so an import counts as missing unless it is understood exactly.
    pub(super) fn of(component: &Component, engine: &Engine) -> Self {
        let of = component.component_type();
        let mut shape = Self {
            missing: vec![],
            permissions: vec![],
            stubbed: vec![],
            exports: of
                .exports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
        };
        for (name, item) in of.imports(engine) {
            let interface = Interface::parse(name);
            let instance = match (&interface, &item.ty) {
                (Ok(interface), ComponentItem::ComponentInstance(instance))
                    if is_offered(interface) && item.implements.is_none() =>
                {
                    instance
                }
                _ => {
                    let instead = offered_instead(name);
                    shape.missing.push(format!("  {name}{instead}"));
                    continue;
                }
            };
            let is_stub = interface.is_ok_and(|i| is_wasi(i.package));
            if is_stub {
                shape.stubbed.push(name.to_owned());
            }
            for (inner, item) in instance.exports(engine) {
                let function = format!("{name}#{inner}");
                match item.ty {
                    // A type alone permits nothing.
                    ComponentItem::Type(_) | ComponentItem::Resource(_) => {}
                    ComponentItem::ComponentFunc(_) if is_stub => {}
                    ComponentItem::ComponentFunc(_) => {
                        shape.missing.extend(unknown(&function));
                        shape.permissions.push(function);
                    }
                    _ => shape.missing.push(format!(
                        "  {function} (an interface has functions and types only)"
                    )),
                }
            }
        }
        shape.permissions.sort();
        shape.stubbed.sort();
        shape
    }

    /// The track of the strategy-api that it exports, if all imports are offered.
    pub(super) fn check(&self) -> Result<&'static Track, Rejected> {
        if !self.missing.is_empty() {
            return Err(Rejected::Imports {
                missing: cut(self.missing.join("\n")),
                hint: "upgrade engine if the plugin needs a newer version of the contract, or rebuild the plugin if it was made for an older one; a strategy can use only the contract and the standard library".to_owned(),
            });
        }
        let track = track::ALL
            .iter()
            .find(|t| self.exports.iter().any(|e| same_track(e, t.export)));
        track.ok_or_else(|| {
            let known: Vec<&str> = track::ALL.iter().map(|t| t.export).collect();
            let known = known.join(", ");
            let other = self
                .exports
                .iter()
                .find(|e| is_like(e, track::ALL[0].export));
            match other {
                Some(other) => Rejected::Exports {
                    found: format!(
                        "it exports {}, and this engine runs {known}",
                        cut(other.clone())
                    ),
                    hint: "upgrade engine, or rebuild the plugin against this engine's wit/ folder"
                        .to_owned(),
                },
                None => Rejected::Exports {
                    found: format!(
                        "it is a component but not a strategy: it exports {}, not {known}",
                        list(&self.exports)
                    ),
                    hint: "see engine/docs/guide/strategies.md".to_owned(),
                },
            }
        })
    }

    /// Explains a linker's error about names that [`Shape::check`] has accepted.
    #[expect(clippy::unused_self, reason = "reads as: the shape explains")]
    pub(super) fn explain(&self, complaint: &str) -> Rejected {
        Rejected::Types(cut(complaint.to_owned()))
    }

    pub(super) fn world(&self, track: &Track) -> String {
        self.exports
            .iter()
            .find(|e| same_track(e, track.export))
            .cloned()
            .unwrap_or_default()
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        cut(names.join(", "))
    }
}

fn is_wasi(package: &str) -> bool {
    package.starts_with("wasi:")
}

fn is_offered(interface: &Interface<'_>) -> bool {
    let of_contract = || offered().any(|o| interface.links(&o));
    let (major, minor) = (interface.version.major, interface.version.minor);
    WASI.contains(&interface.package) && (major, minor) == (0, 2) || of_contract()
}

/// All interfaces that the tracks offer.
fn offered() -> impl Iterator<Item = Interface<'static>> {
    let names = track::ALL.iter().flat_map(|t| t.imports);
    names.filter_map(|name| Interface::parse(name).ok())
}

/// A line about a function that this engine's form of an interface lacks.
fn unknown(function: &str) -> Option<String> {
    let import = Import::parse(function).ok();
    let known = import.as_ref().and_then(|i| {
        let package = i.interface.package.strip_prefix("rollout:")?;
        CONTRACT.iter().find(|(known, _)| *known == package)
    });
    let (_, functions) = known.unwrap_or(&("", &[]));
    let name = import.and_then(|i| i.function);
    name.is_none_or(|name| !functions.contains(&name))
        .then(|| match functions.join(", ") {
            none if none.is_empty() => format!("  {function} (this engine does not have it)"),
            known => format!("  {function} (this engine has {known})"),
        })
}

/// What is offered under that name, in other versions or spellings.
fn offered_instead(name: &str) -> String {
    let others: Vec<&str> = track::ALL
        .iter()
        .flat_map(|t| t.imports)
        .copied()
        .filter(|offered| is_like(name, offered))
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" (this engine has {})", others.join(", "))
    }
}

fn is_like(name: &str, offered: &str) -> bool {
    let base = |name: &str| name.split('@').next().map(str::to_ascii_lowercase);
    base(name) == base(offered)
}

/// Whether both names are versions of one track, so that one links to the other.
fn same_track(name: &str, offered: &str) -> bool {
    let read = Interface::parse;
    read(name).is_ok_and(|name| read(offered).is_ok_and(|offered| name.links(&offered)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_components() {
        let found = |bytes: &[u8]| {
            check_bytes(bytes, 100)
                .expect_err("no component")
                .to_string()
        };
        assert!(found(b"").contains("empty"));
        assert!(found(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(found(b"\0asm").contains("incomplete"));
        assert!(found(b"(component)").contains("WebAssembly text"));
        assert!(found(b"#!/bin/sh").contains("does not begin"));
        assert!(found(b"\x7fELF").contains("precompiled"));
        assert!(found(&[0; 101]).contains("101 bytes"));
        assert_eq!(check_bytes(b"\0asm\x0d\0\x01\0", 100), Ok(()));
    }
}
