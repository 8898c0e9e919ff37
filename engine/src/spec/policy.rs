//! What an operator allows a plugin: `[policy]` of the rollout file, and the
//! same keys in a file of their own for a whole host. Of two policies the
//! stricter rule counts, whichever file says it.

use super::imports::{Import, is_word};
use super::read::{Reader, Section};
use crate::model::limits::{CALLS_MAX, Caps, JOURNAL_MIB_MAX, MEMORY_MIB_MAX};
use crate::model::problem::Problems;

/// A policy: what plugins may import, which of them may run, who must have signed
/// them, and how much they may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Imports that no plugin may have.
    pub deny_imports: Vec<String>,
    /// The only plugins that may run, by digest (hex); any may if `None`.
    pub digests: Option<Vec<String>>,
    /// Groups of files of public keys: of each group one must have signed the
    /// plugin.
    pub signers: Vec<Vec<String>>,
    /// Limits that every run keeps to.
    pub caps: Caps,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// All its problems with their paths.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let reader = Reader::new(text);
        let policy = read(reader.section(reader.table()?));
        reader.into_result(policy)
    }

    /// The policy that allows what both of them allow.
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

    /// The first import that is denied, with the rule that denies it. An import that
    /// cannot be read might be anything, so every rule denies it.
    #[must_use]
    pub fn denied<'a>(&'a self, imports: &'a [String]) -> Option<(&'a str, &'a str)> {
        self.deny_imports.iter().find_map(|rule| {
            let import = imports.iter().find(|import| covers(rule, import))?;
            Some((import.as_str(), rule.as_str()))
        })
    }
}

/// The contract's packages, each with an interface of the same name, and the
/// functions that a strategy can import.
pub const CONTRACT: &[(&str, &[&str])] = &[
    ("traffic", &["get-weights", "set-weights", "switch-color"]),
    ("metrics", &["get-metrics", "query", "get-health"]),
    (
        "control",
        &[
            "now", "wait", "probe", "probes", "log", "progress", "report",
        ],
    ),
];

/// What the standard libraries of guests import: the packages of WASI 0.2's
/// command world. The host has only stubs for them.
pub const WASI: &[&str] = &[
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:io",
    "wasi:random",
    "wasi:sockets",
];

/// What a rule names.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    /// `rollout:traffic`
    package: String,
    interface: Option<&'a str>,
    function: Option<&'a str>,
}

/// Reads a rule. `traffic` is the contract's package, `traffic.set-weights` one function
/// of it, `rollout:traffic/traffic@0.1.0#set-weights` the same as locks spell it, and
/// `wasi:sockets` a package from elsewhere. A rule with a version denies every version.
fn named(text: &str) -> Option<Named<'_>> {
    let (place, function) = match text.split_once('#') {
        Some((place, function)) => (place, Some(function)),
        None => (text, None),
    };
    let (place, version) = match place.split_once('@') {
        Some((place, version)) => (place, Some(version)),
        None => (place, None),
    };
    let (place, function) = match place.split_once('.') {
        Some((place, short)) if function.is_none() && version.is_none() => (place, Some(short)),
        Some(_) => return None,
        None => (place, function),
    };
    let (package, interface) = match place.split_once('/') {
        Some((package, interface)) => (package, Some(interface)),
        None => (place, None),
    };
    let (namespace, name) = package.split_once(':').unwrap_or(("rollout", package));
    let words = [Some(namespace), Some(name), interface, function];
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let digits = |v: &str| v.split('.').all(number);
    let fits = words.into_iter().flatten().all(is_word) && version.is_none_or(digits);
    fits.then(|| Named {
        package: format!("{namespace}:{name}"),
        interface,
        function,
    })
}

/// Why a rule is a mistake: it denies nothing that a plugin could import. `None` if it
/// denies something.
fn useless(rule: &str) -> Option<String> {
    let Some(named) = named(rule) else {
        return Some(format!(
            "has {rule:?}; write a package, or package.function, such as \"traffic\" or \"traffic.set-weights\""
        ));
    };
    let known = |what: &str, names: &[&str]| {
        Some(format!(
            "has {rule:?}, and {what}; choose one of: {}",
            names.join(", ")
        ))
    };
    let Some(name) = named.package.strip_prefix("rollout:") else {
        // The host has only stubs for them and does not know their functions.
        let whole = named.interface.is_none() && named.function.is_none();
        if whole && WASI.contains(&named.package.as_str()) {
            return None;
        }
        return known(
            "outside of the contract a rule can only name a whole package of WASI",
            WASI,
        );
    };
    let packages: Vec<&str> = CONTRACT.iter().map(|(name, _)| *name).collect();
    let Some((_, functions)) = CONTRACT.iter().find(|(package, _)| *package == name) else {
        return known("the contract has no such package", &packages);
    };
    if named.interface.is_some_and(|interface| interface != name) {
        return known("that package has no such interface", &[name]);
    }
    match named.function {
        Some(function) if !functions.contains(&function) => {
            known(&format!("{name} has no such function"), functions)
        }
        _ => None,
    }
}

fn covers(rule: &str, import: &str) -> bool {
    let (Some(rule), Ok(import)) = (named(rule), Import::parse(import)) else {
        return true;
    };
    // A plugin that imports a whole interface imports each of its functions.
    let same = |a: Option<&str>, b: Option<&str>| a.is_none() || b.is_none() || a == b;
    rule.package == import.interface.package
        && same(rule.interface, Some(import.interface.name))
        && same(rule.function, import.function)
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
            &format!("has {digest:?}, which is not a SHA-256: that has 64 hexadecimal digits"),
        );
    }
    let deny_imports = section.texts("deny-imports").unwrap_or_default();
    for why in deny_imports.iter().filter_map(|rule| useless(rule)) {
        section.problem("deny-imports", &why);
    }
    let policy = Policy {
        deny_imports,
        digests,
        signers: section.texts("signers").into_iter().collect(),
        caps: Caps {
            memory_mib: section.integer("memory-mib", 1, MEMORY_MIB_MAX),
            fuel: section
                .integer("fuel-million", 1, 1_000)
                .map(|n| u64::from(n) * 1_000_000),
            calls: section.integer("calls", 1, CALLS_MAX),
            journal_mib: section.integer("journal-mib", 1, JOURNAL_MIB_MAX),
            all_entries: true,
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
        for rule in [
            set,
            "rollout:traffic/traffic@0.1.0",
            "rollout:traffic@0.1.0",
            "rollout:traffic@0.2.0#set-weights",
            "traffic#set-weights",
            "rollout:traffic.set-weights",
        ] {
            assert!(covers(rule, set), "{rule}");
        }
        assert!(!covers("traffic", "rollout:metrics/metrics@0.1.0#query"));
        assert!(covers("wasi:sockets", "wasi:sockets/tcp@0.2.6"));
        assert!(!covers("wasi:sock", "wasi:sockets/tcp@0.2.6"));
    }

    #[test]
    fn what_cannot_be_read_is_denied() {
        for import in [
            "",
            "set-weights",
            "traffic#set-weights",
            "rollout:traffic/traffic",
            "rollout:traffic/traffic@0.1#set-weights",
            "rollout:traffic/traffic@0.1.00#set-weights",
            "rollout:traffic/traffic@0.1.0+x#set-weights",
            "rollout:traffic/traffic@0.1.0-rc.1#set-weights",
            "rollout:traffic/TRAFFIC@0.1.0#set-weights",
            "rollout:traffic/traffic@0.1.0#[method]r.set-weights",
            "unlocked-dep=<rollout:traffic@{>=0.1.0}>",
        ] {
            for rule in ["traffic", "metrics", "control.log", "wasi:sockets", "?"] {
                assert!(covers(rule, import), "{rule} {import}");
            }
        }
        let nothing = Policy::default();
        assert_eq!(nothing.denied(&["?".to_owned()]), None);
        // A whole interface has the denied function too.
        assert!(covers(
            "traffic.set-weights",
            "rollout:traffic/traffic@0.1.0"
        ));
    }

    #[test]
    fn a_rule_that_denies_nothing_is_a_mistake() {
        for rule in [
            "traffic",
            "traffic.set-weights",
            "rollout:metrics/metrics@0.1.0#query",
            "wasi:sockets",
        ] {
            assert_eq!(useless(rule), None, "{rule}");
        }
        for rule in [
            "",
            "trafic",
            "Traffic",
            "traffic.*",
            "traffic.set_weights",
            "traffic.set-weight",
            "set-weights",
            "traffic/metrics",
            "other:traffic",
            "wasi:socket",
            "wasi:sockets/tpc",
            "wasi:sockets.create-tcp-socket",
            "traffic@0.1.0.set-weights",
            "traffic@x",
        ] {
            let text = format!("deny-imports = [{rule:?}]");
            let error = Policy::parse(&text).expect_err(rule).to_string();
            assert!(error.contains(&format!("has {rule:?}")), "{error}");
        }
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
