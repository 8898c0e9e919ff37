//! `plugins.toml`: which plugins a team uses, where they come from, and whose
//! signature they need.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::read::{Reader, Section};
use crate::model::is_name;
use crate::model::problem::Problems;

/// The name of the file. It is looked for in the working folder and in those above it.
pub const FILE: &str = "plugins.toml";

/// A plugins file, validated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plugins {
    /// The plugins that the team uses, by name.
    pub plugins: BTreeMap<String, Wanted>,
    /// Whose signature the sources need.
    pub signatures: Vec<SignatureRule>,
    /// Files of certificates that are trusted besides the machine's own.
    pub ca_files: Vec<String>,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `oci://registry/repository:tag`, or a path.
    pub source: String,
    /// Files of public keys, one of which must have signed it; if `None`, the rules
    /// for its source say who must have.
    pub signed_by: Option<Vec<String>>,
}

/// A rule: what comes from this source must be signed by one of these keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRule {
    /// A source, or the first segments of one, spelled as [`plainly`] does it.
    pub source: String,
    /// Files of public keys; empty asks for no signature.
    pub keys: Vec<String>,
}

impl Wanted {
    /// Whether it comes from a registry.
    #[must_use]
    pub fn is_oci(&self) -> bool {
        self.source.starts_with(OCI)
    }
}

/// What sources in registries begin with.
pub const OCI: &str = "oci://";

impl Plugins {
    /// Reads a plugins file.
    ///
    /// # Errors
    /// All its problems with their paths.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let reader = Reader::new(text);
        let mut root = reader.section(reader.table()?);
        let file = Self {
            plugins: plugins(root.section("plugins")),
            signatures: rules(root.named("signatures")),
            ca_files: root.texts("ca-files").unwrap_or_default(),
        };
        root.finish();
        reader.into_result(file)
    }

    /// Files of the keys, one of which must have signed what comes from a registry;
    /// `None` if it needs no signature. Of several rules the most specific counts.
    #[must_use]
    pub fn keys_for(&self, source: &str) -> Option<&[String]> {
        let source = plainly(source);
        let rules = self.signatures.iter();
        let best = rules
            .filter(|rule| rule.covers(&source))
            .max_by_key(|rule| rule.source.len())?;
        (!best.keys.is_empty()).then_some(&best.keys)
    }

    /// Files of the keys, one of which must have signed a file; `None` if it needs no
    /// signature. `place` says where a rule's folder is, and must spell it as `path`
    /// is spelled.
    #[must_use]
    pub fn keys_for_file(&self, path: &Path, place: impl Fn(&str) -> PathBuf) -> Option<&[String]> {
        let rules = self.signatures.iter();
        let rules = rules.filter(|rule| !rule.source.starts_with(OCI));
        let placed = rules.map(|rule| (place(&rule.source), rule));
        let (_, best) = placed
            .filter(|(folder, _)| path.starts_with(folder))
            .max_by_key(|(folder, _)| folder.components().count())?;
        (!best.keys.is_empty()).then_some(&best.keys)
    }
}

impl SignatureRule {
    /// Whether the rule is for this source. It compares whole path segments: a rule
    /// for `…/platform/` must not apply to `…/platform-of-somebody-else/`.
    fn covers(&self, source: &str) -> bool {
        let (Some(rule), Some(rest)) = (
            self.source.strip_prefix(OCI),
            source.strip_prefix(&self.source),
        ) else {
            return false;
        };
        // What follows a host is a port, and what follows a repository a tag.
        rest.is_empty()
            || rule.is_empty()
            || rest.starts_with('/')
            || rule.contains('/') && rest.starts_with([':', '@'])
    }
}

/// One spelling for all sources that mean the same: a rule must not depend on a
/// capital letter in a host, on the default port, or on `./`.
fn plainly(source: &str) -> String {
    let Some(rest) = source.strip_prefix(OCI) else {
        return lexically(Path::new(source)).display().to_string();
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.to_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    match path.trim_end_matches('/') {
        "" => format!("{OCI}{host}"),
        path => format!("{OCI}{host}/{path}"),
    }
}

/// A path without `.` and, where that can be seen, `..`.
#[must_use]
pub fn lexically(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        let last = plain.components().next_back();
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(last, Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn plugins(mut section: Section<'_>) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    for name in section.keys() {
        let wanted = if section.is_table(&name) {
            let mut table = section.section(&name);
            let wanted = Wanted {
                source: table.required_text("source"),
                signed_by: table.texts("signed-by"),
            };
            table.finish();
            wanted
        } else {
            Wanted {
                source: section.required_text(&name),
                signed_by: None,
            }
        };
        if !is_name(&name) {
            section.problem(&name, "a plugin's name is made of letters, digits, - and _");
        }
        if wanted.source.contains("://") && !wanted.is_oci() {
            section.problem(
                &name,
                &format!(
                    "has the source {:?}; it must be a path, or begin with oci://",
                    wanted.source
                ),
            );
        }
        all.insert(name, wanted);
    }
    section.finish();
    all
}

fn rules(sections: Vec<(String, Section<'_>)>) -> Vec<SignatureRule> {
    let mut all: Vec<SignatureRule> = vec![];
    for (source, mut section) in sections {
        if source.is_empty() || source.contains('*') {
            section.problem(
                "",
                "is for sources that begin like it, without a pattern: \"oci://registry.example/team/\" or \"plugins/\"",
            );
        }
        let rule = SignatureRule {
            source: plainly(&source),
            keys: section.texts_or_none("keys"),
        };
        if all.iter().any(|other| other.source == rule.source) {
            section.problem(
                "",
                "and another rule mean the same source; leave one of them",
            );
        }
        section.finish();
        all.push(rule);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Plugins {
        Plugins::parse(
            r#"
            ca-files = ["ca.pem"]
            [plugins]
            canary = "plugins/canary.wasm"
            gate = "oci://registry.example/platform/gate:1.2"
            [plugins.special]
            source = "oci://registry.example/platform/special:1"
            signed-by = ["keys/special.pub"]
            [signatures."oci://registry.example/"]
            keys = ["keys/all.pub"]
            [signatures."oci://registry.example/platform/"]
            keys = ["keys/platform.pub", "keys/old.pub"]
            [signatures."oci://registry.example/open"]
            keys = []
            "#,
        )
        .expect("valid")
    }

    #[test]
    fn the_most_special_rule_counts() {
        let file = file();
        let keys = |source: &str| file.keys_for(source).map(<[String]>::to_vec);
        assert_eq!(keys("plugins/canary.wasm"), None);
        assert_eq!(
            keys("oci://registry.example/platform/gate:1.2").map(|k| k.len()),
            Some(2)
        );
        assert_eq!(
            keys("oci://registry.example/other:1"),
            Some(vec!["keys/all.pub".to_owned()])
        );
        assert_eq!(keys("oci://registry.example/open:1"), None);
        // Not the beginning of a longer name.
        assert!(keys("oci://registry.example/open-door:1").is_some());
        assert_eq!(keys("oci://registry.example.evil/platform/gate:1"), None);
        for other in [
            "oci://Registry.Example/platform/gate:1.2",
            "oci://registry.example:443/platform/gate@sha256:00",
            "oci://registry.example/platform/deep/gate:1",
        ] {
            assert_eq!(keys(other).map(|k| k.len()), Some(2), "{other}");
        }
        assert_eq!(keys("oci://registry.example:5000/platform/gate:1"), None);
    }

    #[test]
    fn a_rule_for_a_folder_does_not_depend_on_how_a_path_is_spelled() {
        let keys = |rule: &str, source: &str| {
            let text = format!("[signatures.{rule:?}]\nkeys = [\"a.pub\"]");
            let file = Plugins::parse(&text).expect("valid");
            let place = |path: &str| lexically(&Path::new("/home/ada/mono").join(path));
            file.keys_for_file(&place(source), place).is_some()
        };
        for rule in [
            "plugins/",
            "plugins",
            "./plugins",
            "a/../plugins/",
            "/home/ada/mono/plugins",
            "../mono/plugins",
        ] {
            for source in [
                "plugins/x.wasm",
                "./plugins/x.wasm",
                "plugins/../plugins/deep/x.wasm",
                "/home/ada/mono/plugins/x.wasm",
            ] {
                assert!(keys(rule, source), "{rule} {source}");
            }
            for source in ["plugins-of-others/x.wasm", "../plugins/x.wasm", "x.wasm"] {
                assert!(!keys(rule, source), "{rule} {source}");
            }
        }
        for source in ["x.wasm", ".hidden/x.wasm", "deep/x.wasm"] {
            assert!(keys("./", source) && keys(".", source), "{source}");
        }
        assert!(!keys(".", "../x.wasm"));
        assert!(keys("../shared", "/home/ada/shared/x.wasm"));
        let all = Plugins::parse("[signatures.\"oci://\"]\nkeys = [\"a.pub\"]").expect("valid");
        assert!(all.keys_for("oci://r.example/x:1").is_some());
    }

    #[test]
    fn a_rule_in_two_spellings_is_a_mistake() {
        let text =
            "[signatures.\"build/\"]\nkeys = [\"a.pub\"]\n[signatures.\"./build\"]\nkeys = []";
        let error = Plugins::parse(text).expect_err("twice").to_string();
        assert!(error.contains("mean the same"), "{error}");
    }

    #[test]
    fn problems_have_paths() {
        let error =
            Plugins::parse("[plugins]\n\"a/b\" = \"x.wasm\"\nc = \"https://x\"\nd = 3\n[plugin]\n")
                .expect_err("wrong");
        let text = error.to_string();
        for part in [
            "plugins.a/b:",
            "plugins.c: has the source",
            "plugins.d: is 3",
            "did you mean",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
