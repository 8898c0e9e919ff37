//! What an operator allows a plugin: `[policy]` of the rollout file, and the
//! same keys in a file of their own for a whole host. Of two policies the
//! stricter rule counts, whichever file says it.

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::read::{Problems, Section, parse_table};

/// Most memory that a policy may grant a guest, MiB: what the host reserves.
pub const MEMORY_MIB_MAX: u32 = 64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Imports that no plugin may have.
    pub deny_imports: Vec<String>,
    /// The only plugins that may run, by digest (hex); none means any.
    pub digests: Option<Vec<String>>,
    /// Groups of files of public keys: of each group one must have signed the
    /// plugin.
    pub signers: Vec<Vec<String>>,
    /// Numbers that every run keeps to.
    pub caps: Caps,
}

/// Limits of one run, stricter than the host's own. A rollout is pinned to
/// those that it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Caps {
    /// Linear memory, MiB.
    pub memory_mib: Option<u32>,
    /// Instructions (wasmtime's fuel) between two calls.
    pub fuel: Option<u64>,
    /// Calls of the strategy in the whole rollout.
    pub calls: Option<u32>,
    /// Size of the journal, MiB, about.
    pub journal_mib: Option<u32>,
}

impl Caps {
    fn stricter(self, other: Self) -> Self {
        Self {
            memory_mib: least(self.memory_mib, other.memory_mib),
            fuel: least(self.fuel, other.fuel),
            calls: least(self.calls, other.calls),
            journal_mib: least(self.journal_mib, other.journal_mib),
        }
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// All its problems with their paths.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let problems = Problems::default();
        let policy = read(Section::new(&problems, "", parse_table(text)?));
        problems.into_result(policy)
    }

    /// What both allow.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let digests = match (self.digests, other.digests) {
            (Some(mut a), Some(b)) => {
                a.retain(|digest| b.contains(digest));
                Some(a)
            }
            (a, b) => a.or(b),
        };
        let (mut deny_imports, mut signers) = (self.deny_imports, self.signers);
        deny_imports.extend(other.deny_imports);
        signers.extend(other.signers);
        Self {
            deny_imports,
            digests,
            signers,
            caps: self.caps.stricter(other.caps),
        }
    }

    /// The first import that is denied, with the rule that denies it.
    #[must_use]
    pub fn denied<'a>(&'a self, imports: &'a [String]) -> Option<(&'a str, &'a str)> {
        self.deny_imports.iter().find_map(|rule| {
            let import = imports.iter().find(|import| covers(rule, import))?;
            Some((import.as_str(), rule.as_str()))
        })
    }

    /// Whether a plugin of that digest (hex) may run.
    #[must_use]
    pub fn allows(&self, sha256: &str) -> bool {
        self.digests
            .as_ref()
            .is_none_or(|all| all.iter().any(|d| d == sha256))
    }
}

/// `traffic` is the contract's package, `traffic.set-weights` one function of
/// it, and `wasi:sockets` a package of anybody.
fn covers(rule: &str, import: &str) -> bool {
    let (interface, function) = import.split_once('#').unwrap_or((import, ""));
    let interface = interface.split('@').next().unwrap_or(interface);
    if let Some((package, wanted)) = rule.split_once('.') {
        return function == wanted && covers(package, interface);
    }
    let package = if rule.contains(':') {
        rule.to_owned()
    } else {
        format!("rollout:{rule}")
    };
    interface == package || interface.starts_with(&format!("{package}/"))
}

pub(super) fn read(mut section: Section<'_>) -> Policy {
    let digests = section.texts("digests").map(|all| {
        let digests = all
            .iter()
            .map(|d| d.strip_prefix("sha256:").unwrap_or(d).to_lowercase());
        digests.collect::<Vec<_>>()
    });
    for digest in digests.iter().flatten().filter(|d| !super::is_sha256(d)) {
        section.problem(
            "digests",
            &format!("has {digest:?}, which is no SHA-256 of 64 hexadecimal digits"),
        );
    }
    let policy = Policy {
        deny_imports: section.texts("deny-imports").unwrap_or_default(),
        digests,
        signers: section.texts("signers").into_iter().collect(),
        caps: Caps {
            memory_mib: section.integer("memory-mib", 1, MEMORY_MIB_MAX),
            fuel: section
                .integer("fuel-million", 1, 1_000)
                .map(|n| u64::from(n) * 1_000_000),
            calls: section.integer("calls", 1, crate::spec::CALLS_MAX),
            journal_mib: section.integer("journal-mib", 1, crate::spec::JOURNAL_MIB_MAX),
        },
    };
    section.finish();
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_cover_packages_and_functions() {
        let set = "rollout:traffic/traffic@0.1.0#set-weights";
        assert!(covers("traffic", set));
        assert!(covers("rollout:traffic", set));
        assert!(covers("rollout:traffic/traffic", set));
        assert!(covers("traffic.set-weights", set));
        assert!(!covers("traffic.switch-color", set));
        assert!(!covers("traf", set));
        assert!(!covers("metrics", set));
        assert!(covers("wasi:sockets", "wasi:sockets/tcp@0.2.6"));
        assert!(!covers("wasi:sock", "wasi:sockets/tcp@0.2.6"));
    }

    #[test]
    fn the_stricter_rule_counts() {
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let file = format!("digests = [{a:?}, {b:?}]\ncalls = 10\ndeny-imports = [\"traffic\"]");
        let host = format!("digests = [{b:?}, {c:?}]\ncalls = 20\nmemory-mib = 8");
        let both = Policy::parse(&file)
            .expect("valid")
            .stricter(Policy::parse(&host).expect("valid"));
        assert_eq!(both.digests, Some(vec![b.clone()]));
        assert!(both.allows(&b) && !both.allows(&a));
        assert_eq!((both.caps.calls, both.caps.memory_mib), (Some(10), Some(8)));
        assert_eq!(both.deny_imports, ["traffic"]);
    }

    #[test]
    fn problems_have_paths() {
        let error = Policy::parse("digests = [\"12\"]\nmemory = 3").expect_err("wrong");
        let text = error.to_string();
        assert!(text.contains("digests: has \"12\""), "{text}");
        assert!(text.contains("memory: there is no such key"), "{text}");
    }
}
