//! What a plugin file must be, checked before it is linked, with an
//! explanation in place of a linker error.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::limits::{GLOBALS_MAX, cut};
use super::track::{self, Track};
use crate::spec::policy::{CONTRACT, WASI};

/// Why a plugin may not run. Exit code 6.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The file is too big to be a strategy.
    #[error(
        "the file has at least {bytes} bytes and the limit is {max}\n\nhint: build with opt-level \"s\" and strip, or check that this is a strategy"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not WebAssembly.
    #[error("this is not a WebAssembly component: {found}\n\nhint: {hint}")]
    NotAComponent {
        /// What it is instead.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A compiled artefact.
    #[error(
        "this is a precompiled artefact; it is machine code and cannot be checked, so it is never loaded\n\nhint: give the .wasm file it was made from"
    )]
    Precompiled,
    /// Broken or unsupported WebAssembly.
    #[error("it does not compile: {0}")]
    Compile(String),
    /// It wants something that this engine does not have.
    #[error("it imports what this engine does not offer:\n{missing}\n\nhint: {hint}")]
    Imports {
        /// A line per import.
        missing: String,
        /// What to do.
        hint: String,
    },
    /// It is no strategy, or one of another version.
    #[error("{found}\n\nhint: {hint}")]
    Exports {
        /// What it exports instead.
        found: String,
        /// What to do.
        hint: String,
    },
    /// Names fit but types do not.
    #[error(
        "it was built against another form of the contract: {0}\n\nhint: rebuild it against the wit/ folder of this engine, or use the engine it was built for"
    )]
    Types(String),
    /// Not the bytes that a rollout began with.
    #[error(
        "these are not the bytes that it began with\n  pinned: sha256:{pinned}\n  found:  sha256:{found}\n\nhint: the state folder was changed or is damaged; take it from a backup, or abort the rollout"
    )]
    Changed {
        /// What they must be.
        pinned: String,
        /// What they are.
        found: String,
    },
    /// Its own code failed where it must not.
    #[error("its own code failed in {0}")]
    Faulty(String),
}

const WASM_MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: &[u8] = &[0x0d, 0x00, 0x01, 0x00];
const MODULE_VERSION: &[u8] = &[0x01, 0x00, 0x00, 0x00];

/// Looks at the first bytes.
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
            "its WebAssembly version is unknown, or it is cut off",
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
/// of a module has its own, which no limit of memory counts.
pub(super) fn check_globals(bytes: &[u8]) -> Result<(), Rejected> {
    let payloads = wasmparser::Parser::new(0).parse_all(bytes);
    // What is wrong with the rest the compiler says better.
    let globals = payloads.map_while(Result::ok).map(|payload| match payload {
        wasmparser::Payload::GlobalSection(section) => u64::from(section.count()),
        _ => 0,
    });
    let globals: u64 = globals.sum();
    if globals > GLOBALS_MAX {
        return Err(Rejected::Compile(format!(
            "it has {globals} globals; the limit is {GLOBALS_MAX}"
        )));
    }
    Ok(())
}

/// The outside of a component.
#[derive(Debug)]
pub(super) struct Shape {
    imports: Vec<String>,
    /// See [`super::Plugin::permissions`].
    pub(super) permissions: Vec<String>,
    /// See [`super::Plugin::stubbed`].
    pub(super) stubbed: Vec<String>,
    exports: Vec<String>,
}

impl Shape {
    pub(super) fn of(component: &Component, engine: &Engine) -> Self {
        let of = component.component_type();
        let mut permissions = vec![];
        let mut imports = vec![];
        for (name, item) in of.imports(engine) {
            imports.push(name.to_owned());
            // Types alone give no power.
            if let ComponentItem::ComponentInstance(instance) = item.ty
                && !is_wasi(name)
            {
                let functions = instance
                    .exports(engine)
                    .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
                permissions.extend(functions.map(|(function, _)| format!("{name}#{function}")));
            }
        }
        permissions.sort();
        let mut stubbed: Vec<String> = imports.iter().filter(|i| is_wasi(i)).cloned().collect();
        stubbed.sort();
        Self {
            imports,
            permissions,
            stubbed,
            exports: of
                .exports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
        }
    }

    /// The track of the strategy-api that it exports, if all imports are known.
    pub(super) fn check(&self) -> Result<&'static Track, Rejected> {
        let missing: Vec<String> = self
            .imports
            .iter()
            .filter(|name| !is_offered(name))
            .map(|name| format!("  {name}{}", offered_instead(name)))
            .chain(self.permissions.iter().filter_map(|f| unknown(f)))
            .collect();
        if !missing.is_empty() {
            return Err(Rejected::Imports {
                missing: cut(missing.join("\n")),
                hint: "upgrade engine if the plugin needs a newer version of the contract, rebuild the plugin if it was made for an older one; a strategy can reach nothing beyond the contract and the standard library".to_owned(),
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
                .find(|e| base(e) == base(track::ALL[0].export));
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
                        "it is a component but no strategy: it exports {}, not {known}",
                        list(&self.exports)
                    ),
                    hint: "see \"Write your own strategy\" in the README".to_owned(),
                },
            }
        })
    }

    /// A linker's complaint about names that [`Shape::check`] has accepted.
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

fn is_wasi(name: &str) -> bool {
    name.starts_with("wasi:")
}

fn is_offered(name: &str) -> bool {
    let package = base(name)
        .split_once('/')
        .map_or("", |(package, _)| package);
    WASI.contains(&package) && same_track(name, &format!("{}@0.2.0", base(name)))
        || track::ALL
            .iter()
            .flat_map(|t| t.imports)
            .any(|offered| same_track(name, offered))
}

/// A line about a function that this engine's form of an interface does not have.
fn unknown(function: &str) -> Option<String> {
    let (interface, name) = function.split_once('#')?;
    let package = base(interface)
        .strip_prefix("rollout:")?
        .split('/')
        .next()?;
    let (_, functions) = CONTRACT.iter().find(|(known, _)| *known == package)?;
    (!functions.contains(&name))
        .then(|| format!("  {function} (this engine has {})", functions.join(", ")))
}

fn offered_instead(name: &str) -> String {
    let others: Vec<&str> = track::ALL
        .iter()
        .flat_map(|t| t.imports)
        .copied()
        .filter(|offered| base(offered) == base(name))
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" (this engine has {})", others.join(", "))
    }
}

fn base(name: &str) -> &str {
    name.split_once('@').map_or(name, |(base, _)| base)
}

/// Whether two versioned names link: the same name, and the same major
/// version, or the same minor version below 1.0.
fn same_track(a: &str, b: &str) -> bool {
    let track = |name: &str| -> Option<(String, String)> {
        let (base, version) = name.split_once('@')?;
        let mut parts = version.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        let track = if major == "0" {
            format!("0.{minor}")
        } else {
            major.to_owned()
        };
        Some((base.to_owned(), track))
    };
    a == b || track(a).is_some_and(|t| track(b) == Some(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_track_link() {
        assert!(same_track("a:b/c@0.1.0", "a:b/c@0.1.7"));
        assert!(!same_track("a:b/c@0.1.0", "a:b/c@0.2.0"));
        assert!(same_track("a:b/c@1.0.0", "a:b/c@1.9.0"));
        assert!(!same_track("a:b/c@1.0.0", "a:b/d@1.0.0"));
        assert!(same_track("plain", "plain"));
        assert!(!same_track("plain", "a:b/c@1.0.0"));
    }

    #[test]
    fn files_that_are_no_components() {
        let found = |bytes: &[u8]| {
            check_bytes(bytes, 100)
                .expect_err("no component")
                .to_string()
        };
        assert!(found(b"").contains("empty"));
        assert!(found(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(found(b"\0asm").contains("cut off"));
        assert!(found(b"(component)").contains("WebAssembly text"));
        assert!(found(b"#!/bin/sh").contains("does not begin"));
        assert!(found(b"\x7fELF").contains("precompiled"));
        assert!(found(&[0; 101]).contains("101 bytes"));
        assert_eq!(check_bytes(b"\0asm\x0d\0\x01\0", 100), Ok(()));
    }
}
