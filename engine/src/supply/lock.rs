//! `plugins.lock`: which bytes each name of `plugins.toml` stands for. It is
//! generated, committed, and reviewed as a diff. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::registry::reference::is_digest;
use crate::spec::imports::Import;
use crate::spec::plugins::OCI;

/// The file's name, beside `plugins.toml`.
pub const FILE: &str = "plugins.lock";

/// Version of the format.
const FORMAT: u32 = 1;

const INTRODUCTION: &str =
    "# Written by `engine plugin lock` and `engine plugin update`. Commit it; do not edit it.\n\n";

/// The pinned plugins, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock(Vec<Locked>);

/// One pinned plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Locked {
    /// Its name in `plugins.toml`.
    pub name: String,
    /// Its source there when it was pinned.
    pub source: String,
    /// Digest of its manifest in the registry, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Digest of the component that runs, `sha256:…`.
    pub wasm: String,
    /// Size of the component, bytes.
    pub size: u64,
    /// The strategy-api that it exports.
    pub world: String,
    /// Id of the key that signed it, if `plugins.toml` demands a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Functions of the contract that it imports: its permissions.
    pub imports: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default, rename = "plugin")]
    plugins: Vec<Locked>,
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if version != FORMAT {
            return Err(format!(
                "it has version {version}, and this engine reads version {FORMAT}; use the version of engine that wrote it, or a newer one"
            ));
        }
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let mut lock = Self::default();
        for plugin in file.plugins {
            for digest in plugin.manifest.iter().chain([&plugin.wasm]) {
                if !is_digest(digest) {
                    return Err(format!(
                        "{} has the digest {digest:?}, and a digest is sha256: and 64 hexadecimal digits",
                        plugin.name
                    ));
                }
            }
            for import in &plugin.imports {
                if let Err(why) = Import::parse(import) {
                    return Err(format!("{} has the import {import:?}: {why}", plugin.name));
                }
            }
            let (oci, exact) = (plugin.source.starts_with(OCI), plugin.manifest.is_some());
            if oci != exact {
                return Err(format!(
                    "{} comes from {} and {} digest of a manifest",
                    plugin.name,
                    plugin.source,
                    if oci { "lacks the" } else { "has the" }
                ));
            }
            if lock.get(&plugin.name).is_some() {
                return Err(format!("it has {} twice", plugin.name));
            }
            lock.set(plugin);
        }
        Ok(lock)
    }

    /// The content of the file.
    #[must_use]
    pub fn render(&self) -> String {
        let file = File {
            version: FORMAT,
            plugins: self.0.clone(),
        };
        // Plain tables of strings and numbers can always be written as TOML.
        let text = toml::to_string_pretty(&file).unwrap_or_default();
        format!("{INTRODUCTION}{text}")
    }

    /// The plugin of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Locked> {
        self.0.iter().find(|p| p.name == name)
    }

    /// All plugins, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Locked> {
        self.0.iter()
    }

    /// Pins a plugin and replaces the pin of the same name.
    pub fn set(&mut self, plugin: Locked) {
        self.remove(&plugin.name);
        let place = self.0.partition_point(|p| p.name < plugin.name);
        self.0.insert(place, plugin);
    }

    /// Removes the pin of a plugin.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|p| p.name != name);
    }
}

impl Locked {
    /// The digest of its bytes, hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        hex(&self.wasm)
    }

    /// The permissions that `old` does not have.
    #[must_use]
    pub fn new_imports(&self, old: &Self) -> Vec<&str> {
        missing(&self.imports, &old.imports)
    }

    /// The changes since it was pinned as `old`, one line each.
    #[must_use]
    pub fn changes(&self, old: Option<&Self>) -> String {
        let mut text = String::new();
        let Some(old) = old else {
            let _ = writeln!(text, "{}: new", self.name);
            let _ = writeln!(text, "  source   {}", self.source);
            let _ = writeln!(text, "  wasm     {} ({} bytes)", self.wasm, self.size);
            if let Some(manifest) = &self.manifest {
                let _ = writeln!(text, "  manifest {manifest}");
            }
            for import in &self.imports {
                let _ = writeln!(text, "  + may call {import}");
            }
            return text;
        };
        if self == old {
            return text;
        }
        let _ = writeln!(text, "{}:", self.name);
        let none = || "none".to_owned();
        for (what, was, is) in [
            ("source", old.source.clone(), self.source.clone()),
            (
                "manifest",
                old.manifest.clone().unwrap_or_else(none),
                self.manifest.clone().unwrap_or_else(none),
            ),
            ("wasm", old.wasm.clone(), self.wasm.clone()),
            ("size", old.size.to_string(), self.size.to_string()),
            ("world", old.world.clone(), self.world.clone()),
            (
                "signed by",
                old.signed_by.clone().unwrap_or_else(none),
                self.signed_by.clone().unwrap_or_else(none),
            ),
        ] {
            if was != is {
                let _ = writeln!(text, "  {what}\n    was {was}\n    is  {is}");
            }
        }
        for import in missing(&old.imports, &self.imports) {
            let _ = writeln!(text, "  - no longer calls {import}");
        }
        for import in self.new_imports(old) {
            let _ = writeln!(text, "  + may call {import}");
        }
        text
    }
}

fn missing<'a>(these: &'a [String], there: &[String]) -> Vec<&'a str> {
    let new = these.iter().filter(|i| !there.contains(i));
    new.map(String::as_str).collect()
}

/// The digits of `sha256:…`.
#[must_use]
pub fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(name: &str) -> Locked {
        Locked {
            name: name.to_owned(),
            source: format!("plugins/{name}.wasm"),
            manifest: None,
            wasm: format!("sha256:{}", "0".repeat(64)),
            size: 1_234,
            world: "rollout:strategy/strategy-api@0.1.0".to_owned(),
            signed_by: None,
            imports: vec!["rollout:metrics/metrics@0.1.0#get-metrics".to_owned()],
        }
    }

    #[test]
    fn a_file_comes_back_as_it_was_and_in_order() {
        let mut lock = Lock::default();
        lock.set(locked("gate"));
        lock.set(Locked {
            manifest: Some(format!("sha256:{}", "a".repeat(64))),
            source: "oci://registry.example/canary:1".to_owned(),
            ..locked("canary")
        });
        let text = lock.render();
        assert_eq!(Lock::parse(&text), Ok(lock.clone()));
        assert!(text.find("canary") < text.find("gate"));
        // Pinning the same plugin again changes nothing.
        lock.set(locked("gate"));
        assert_eq!(lock.render(), text);
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let good = {
            let mut lock = Lock::default();
            lock.set(locked("gate"));
            lock.render()
        };
        let says = |text: &str| Lock::parse(text).expect_err("no lock");
        assert!(says("").contains("version"));
        assert!(says(&good.replace("version = 1", "version = 2")).contains("newer"));
        assert!(says(&good.replace("size", "sise")).contains("sise"));
        assert!(says(&good.replace("sha256:0", "sha256:")).contains("64 hexadecimal"));
        for import in ["@0.1.0+x#", "@0.1.00#", "@0.1#", "#"] {
            let odd = good.replace("@0.1.0#", import);
            assert!(says(&odd).contains("gate has the import"), "{odd}");
        }
        let twice = format!("{good}\n{}", &good[good.find("[[").expect("a table")..]);
        assert!(says(&twice).contains("twice"));
        let nowhere = good.replace("plugins/gate.wasm", "oci://r.example/gate:1");
        assert!(says(&nowhere).contains("lacks the digest of a manifest"));
    }

    #[test]
    fn a_new_permission_is_seen() {
        let old = locked("gate");
        let mut new = old.clone();
        new.imports
            .push("rollout:traffic/traffic@0.1.0#set-weights".to_owned());
        new.wasm = format!("sha256:{}", "1".repeat(64));
        assert_eq!(
            new.new_imports(&old),
            ["rollout:traffic/traffic@0.1.0#set-weights"]
        );
        let text = new.changes(Some(&old));
        assert!(text.contains("+ may call rollout:traffic/traffic@0.1.0#set-weights"));
        assert!(text.contains(&old.wasm) && text.contains(&new.wasm));
        assert_eq!(old.changes(Some(&old)), "");
    }
}
