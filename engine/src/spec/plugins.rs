//! `plugins.toml`: which plugins a team uses, where they come from, and whose
//! signature they need.

use std::collections::BTreeMap;

use super::SpecError;
use super::read::{Problems, Section, parse_table};

/// The name of the file, in the folder that the engine is called from.
pub const FILE: &str = "plugins.toml";

/// A plugins file, validated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plugins {
    /// By name.
    pub plugins: BTreeMap<String, Wanted>,
    /// Whose signature what needs.
    pub signatures: Vec<SignatureRule>,
    /// Files of certificates that are trusted besides the machine's own.
    pub ca_files: Vec<String>,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `oci://registry/repository:tag`, or a path.
    pub source: String,
    /// Files of public keys, one of which must have signed it; none means that
    /// the rules for its source count.
    pub signed_by: Option<Vec<String>>,
}

/// What comes from there must be signed by one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRule {
    /// A source, or the beginning of one that ends with `/`.
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
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let problems = Problems::default();
        let mut root = Section::new(&problems, "", parse_table(text)?);
        let file = Self {
            plugins: plugins(root.section("plugins")),
            signatures: root.named("signatures").into_iter().map(rule).collect(),
            ca_files: root.texts("ca-files").unwrap_or_default(),
        };
        root.finish();
        problems.into_result(file)
    }

    /// Files of the keys that may sign a plugin; none if it needs no signature.
    /// The plugin's own list counts, or else the rule that says most of its
    /// source.
    #[must_use]
    pub fn keys_for<'a>(&'a self, wanted: &'a Wanted) -> Option<&'a [String]> {
        if let Some(keys) = &wanted.signed_by {
            return Some(keys);
        }
        let rules = self.signatures.iter();
        let best = rules
            .filter(|rule| rule.covers(&wanted.source))
            .max_by_key(|rule| rule.source.len())?;
        (!best.keys.is_empty()).then_some(&best.keys)
    }
}

impl SignatureRule {
    /// Whole path segments only: a rule for `…/platform/` must not speak for
    /// `…/platform-of-somebody-else/`.
    fn covers(&self, source: &str) -> bool {
        match source.strip_prefix(&self.source) {
            Some(rest) => {
                rest.is_empty() || self.source.ends_with('/') || rest.starts_with([':', '@'])
            }
            None => false,
        }
    }
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

/// Whether a text can be a plugin's name, which a path never is.
#[must_use]
pub fn is_name(text: &str) -> bool {
    super::is_arm_name(text)
}

fn rule((source, mut section): (String, Section<'_>)) -> SignatureRule {
    let rule = SignatureRule {
        source,
        keys: section.texts_or_none("keys"),
    };
    section.finish();
    rule
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
        let keys = |source: &str| {
            let wanted = Wanted {
                source: source.to_owned(),
                signed_by: None,
            };
            file.keys_for(&wanted).map(<[String]>::to_vec)
        };
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
        let special = &file.plugins["special"];
        assert_eq!(
            file.keys_for(special),
            Some(&["keys/special.pub".to_owned()][..])
        );
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
