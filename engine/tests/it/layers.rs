//! Arrows between modules point one way, no files are in a circle, and pure modules do
//! no I/O.

use std::path::Path;

/// What a use case may call. A front end may call the same, and `ops`.
const BENEATH_OPS: &[&str] = &[
    "model",
    "spec",
    "clock",
    "journal",
    "store",
    "target",
    "rollout",
    "strategy",
    "simulate",
    "plot",
    "supply",
    "hindsight",
];

/// Which modules each module may use, and nothing else.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("schema", &[]),
    ("plot", &["model", "journal"]),
    ("spec", &["model", "schema"]),
    ("journal", &["model"]),
    ("store", &["model", "journal"]),
    ("hindsight", &["model", "journal", "rollout"]),
    ("supply", &["model", "spec", "clock"]),
    ("target", &["model", "clock"]),
    (
        "simulate",
        &[
            "model", "spec", "clock", "journal", "store", "target", "rollout", "schema",
        ],
    ),
    ("rollout", &["model", "clock", "journal", "store", "target"]),
    ("strategy", &["model", "spec", "journal", "rollout"]),
    ("ops", BENEATH_OPS),
    (
        "view",
        &[
            "ops",
            "model",
            "spec",
            "journal",
            "target",
            "simulate",
            "hindsight",
            "schema",
        ],
    ),
];

/// Files that take time and randomness as arguments and touch nothing.
const PURE: &[&str] = &[
    "schema.rs",
    "spec/schema.rs",
    "model/address.rs",
    "model/mod.rs",
    "model/aws.rs",
    "model/command.rs",
    "model/image.rs",
    "model/limits.rs",
    "model/naming.rs",
    "model/network.rs",
    "model/problem.rs",
    "model/query.rs",
    "model/secret.rs",
    "model/target.rs",
    "spec/mod.rs",
    "hindsight/explain.rs",
    "hindsight/file.rs",
    "spec/aws.rs",
    "spec/draft.rs",
    "spec/imports.rs",
    "spec/plugins.rs",
    "spec/policy.rs",
    "supply/lock.rs",
    "supply/registry/manifest.rs",
    "supply/registry/reference.rs",
    "supply/trust.rs",
    "spec/read.rs",
    "spec/credentials.rs",
    "journal/mod.rs",
    "journal/exchanges.rs",
    "journal/narrate.rs",
    "journal/replay.rs",
    "journal/status.rs",
    "journal/summary.rs",
    "journal/verdict.rs",
    "plot/journal.rs",
    "plot/mod.rs",
    "rollout/guardrails.rs",
    "rollout/roles.rs",
    "store/claim.rs",
    "simulate/fault.rs",
    "simulate/oracle.rs",
    "simulate/random.rs",
    "simulate/report.rs",
    "simulate/scenario/mod.rs",
    "simulate/scenario/check.rs",
    "simulate/world.rs",
    "target/aws/calls.rs",
    "target/aws/credentials.rs",
    "target/aws/definition.rs",
    "target/aws/traffic.rs",
    "rollout/recovery.rs",
    "ops/deploy/checks.rs",
];

const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::time::Instant",
    "rand::",
    "async fn",
];

/// What that module may use, or nothing if it has no rule.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    if module == "cli" {
        return Some([BENEATH_OPS, &["ops", "view"]].concat());
    }
    let (_, allowed) = EDGES.iter().find(|(name, _)| *name == module)?;
    Some(allowed.to_vec())
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn modules_use_only_what_they_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    files(&source, &mut all);
    assert!(all.len() > 30, "the sources are there");
    for path in all {
        let inside = path.strip_prefix(&source).expect("inside");
        let first = inside.components().next().expect("not empty");
        let module = Path::new(first.as_os_str()).file_stem().expect("a name");
        let module = module.to_string_lossy().into_owned();
        let Some(allowed) = allowed(&module) else {
            assert!(
                matches!(module.as_str(), "lib" | "main"),
                "{module} has no rule"
            );
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("readable");
        // A doc comment may point anywhere.
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let text = code.collect::<Vec<_>>().join("\n");
        for part in text.split("crate::").skip(1) {
            let used: String = part
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            assert!(
                used.is_empty() || used == module || allowed.contains(&used.as_str()),
                "{} uses {used}, which {module} may not",
                inside.display()
            );
        }
    }
}

/// Words of a front end: a command line, a terminal, the environment.
const FRONT: &[&str] = &[
    "println!(",
    "eprint!(",
    " print!(",
    "clap::",
    "console::",
    "anyhow::",
    "ExitCode",
    "env::var",
];

#[test]
fn only_a_front_end_prints_and_parses() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    files(&source, &mut all);
    let below = all.iter().filter(|path| {
        let inside = path.strip_prefix(&source).expect("inside");
        !inside.starts_with("cli") && !inside.starts_with("main.rs")
    });
    for path in below {
        let text = std::fs::read_to_string(path).expect("readable");
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        for line in code {
            for word in FRONT {
                // A rollout file may say that a credential is in the environment.
                if *word == "env::var" && path.ends_with("target/secret.rs") {
                    continue;
                }
                assert!(
                    !line.contains(word),
                    "{} has {word}: {line}",
                    path.display()
                );
            }
        }
    }
}

/// The literals of a Rust file outside of its comments, with what they escape.
fn literals(code: &str) -> Vec<&str> {
    let mut all = vec![];
    let mut rest = code;
    // No raw literal and no character is a quote there; see the assertion below.
    while let Some(begin) = rest.find('"') {
        let inside = &rest[begin + 1..];
        let mut escaped = false;
        let end = inside.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            break;
        };
        all.push(&inside[..end]);
        rest = &inside[end + 1..];
    }
    all
}

/// Whether a text has a flag of a command line in it, or one of our commands.
fn is_of_a_command_line(text: &str) -> bool {
    let flag = text.match_indices("--").any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + 2..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '-')
            && after.is_some_and(|c| c.is_ascii_lowercase() || c == '{')
    });
    flag || text.contains("`engine ") || text.contains("engine plugin ")
}

#[test]
fn operations_name_no_flags_and_no_verbs() {
    for text in [
        "use --accept-weights",
        "--set {set}",
        "`engine resume ID` goes on",
    ] {
        assert!(is_of_a_command_line(text), "{text}");
    }
    for text in ["a -- b", "--", "an engine runs", "x--y"] {
        assert!(!is_of_a_command_line(text), "{text}");
    }
    assert_eq!(literals(r#"f("a \"--b\"", "c")"#), [r#"a \"--b\""#, "c"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = 0;
    for (module, code) in modules(&source) {
        if module.first().is_none_or(|first| first != "ops") {
            continue;
        }
        let name = module.join("::");
        for odd in ["r#\"", "'\"'"] {
            assert!(!code.contains(odd), "{name} has {odd}");
        }
        for text in literals(&code) {
            found += 1;
            assert!(
                !is_of_a_command_line(text),
                "{name}: an operation has other front ends too; what a person can do is `ops::advice`, and its words are in `cli/advice.rs`: {text}"
            );
        }
    }
    assert!(found > 300, "the literals are found: {found}");
}

#[test]
fn pure_files_do_no_io() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in PURE {
        let text = std::fs::read_to_string(source.join(file)).expect("readable");
        for word in IMPURE {
            assert!(!text.contains(word), "{file} has {word}");
        }
    }
}

/// What a `use` or a path in a file names, in whole paths from the root of the crate.
///
/// A `pub use` hands something on and uses nothing, so it is kept apart.
struct Named {
    used: Vec<Vec<String>>,
    handed_on: Vec<Vec<String>>,
}

/// Splits `a::{b, c::{d, e}}` into `a::b`, `a::c::d` and `a::c::e`.
fn spread(tree: &str, before: &[String], all: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (path, braces) = match tree.split_once('{') {
        Some((path, rest)) => (path, rest.strip_suffix('}')),
        None => (tree, None),
    };
    let path = path.split(" as ").next().unwrap_or_default();
    let mut whole = before.to_vec();
    let parts = path.split("::").map(str::trim).filter(|p| !p.is_empty());
    whole.extend(parts.map(ToOwned::to_owned));
    let Some(inside) = braces else {
        if whole.len() > before.len() {
            all.push(whole);
        }
        return;
    };
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&inside[from..at], &whole, all);
                from = at + 1;
            }
            _ => {}
        }
    }
    spread(&inside[from..], &whole, all);
}

/// The path from the root of the crate, if it is one within the crate.
fn from_root(module: &[String], path: &[String], modules: &Modules) -> Option<Vec<String>> {
    let mut module = module.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => return Some(rest[1..].to_vec()),
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                module.pop()?;
                rest = &rest[1..];
            }
        }
        child => {
            let child = [&module[..], &[child.to_owned()]].concat();
            if !modules.contains_key(&child) {
                return None;
            }
        }
    }
    Some([&module[..], rest].concat())
}

type Modules = std::collections::BTreeMap<Vec<String>, String>;

/// The code of every file, without comments and unit tests, by its path as a module.
fn modules(source: &Path) -> Modules {
    let mut all = vec![];
    files(source, &mut all);
    let mut modules = Modules::new();
    for path in all {
        let inside = path
            .strip_prefix(source)
            .expect("inside")
            .with_extension("");
        let mut parts: Vec<String> = inside
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if parts
            .last()
            .is_some_and(|last| last == "mod" || last == "lib")
        {
            parts.pop();
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let text = text
            .split("\n#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default();
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        modules.insert(parts, code.collect::<Vec<_>>().join("\n"));
    }
    modules
}

fn named(module: &[String], code: &str, modules: &Modules) -> Named {
    let mut named = Named {
        used: vec![],
        handed_on: vec![],
    };
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let lines = statement.trim_end_matches(';');
        let at = lines
            .rfind("\nuse ")
            .map(|at| (at + 5, false))
            .or_else(|| lines.strip_prefix("use ").map(|_| (4, false)))
            .or_else(|| {
                let at = lines
                    .rfind("\npub use ")
                    .or(lines.rfind("\npub(crate) use "))?;
                let of = lines[at..].find("use ")?;
                Some((at + of + 4, true))
            });
        let Some((at, handed_on)) = at else {
            rest.push_str(statement);
            continue;
        };
        let mut all = vec![];
        spread(&lines[at..].replace('\n', " "), &[], &mut all);
        let all = all.iter().filter_map(|p| from_root(module, p, modules));
        match handed_on {
            true => named.handed_on.extend(all),
            false => named.used.extend(all),
        }
    }
    // Paths that are written out where they are needed.
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for word in rest.split(|c| !is_path(c)).filter(|w| w.contains("::")) {
        let path: Vec<String> = word
            .split("::")
            .filter(|part| !part.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if !path.is_empty() && !word.starts_with("::") {
            named.used.extend(from_root(module, &path, modules));
        }
    }
    named
}

/// No two files need each other, directly or through others.
///
/// The rule for a `mod.rs`: it holds what the files beneath it share, and puts them
/// together, so between the two a `use` may point both ways. What it hands on with
/// `pub use` counts as used where it stands.
#[test]
fn no_files_are_in_a_circle() {
    use std::collections::{BTreeMap, BTreeSet};
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = modules(&source);
    let all: BTreeMap<&Vec<String>, Named> = modules
        .iter()
        .map(|(module, code)| (module, named(module, code, &modules)))
        .collect();
    // The module in which that stands, past what others hand on.
    let home = |path: &[String]| {
        let mut path = path.to_vec();
        for _ in 0..5 {
            let length = (0..=path.len())
                .rev()
                .find(|n| modules.contains_key(&path[..*n]))?;
            let (module, item) = path.split_at(length);
            let handed_on = &all.get(&module.to_vec())?.handed_on;
            let origin = handed_on
                .iter()
                .find(|o| !item.is_empty() && o.last() == item.first());
            match origin {
                Some(origin) => path = [&origin[..], &item[1..]].concat(),
                None => return Some(module.to_vec()),
            }
        }
        None
    };
    let edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = all
        .iter()
        .map(|(module, named)| {
            let to = named.used.iter().filter_map(|path| home(path));
            let to = to.filter(|to| !to.starts_with(module) && !module.starts_with(to));
            ((*module).clone(), to.collect())
        })
        .collect();
    let count: usize = edges.values().map(BTreeSet::len).sum();
    assert!(count > 300, "the arrows are found: {count}");
    // What has no arrow into the rest, or none from it, is in no circle: take it away,
    // again and again.
    let mut left = edges;
    loop {
        let before = left.len();
        let from: BTreeSet<Vec<String>> = left.keys().cloned().collect();
        let to: BTreeSet<Vec<String>> = left.values().flatten().cloned().collect();
        left.retain(|module, next| to.contains(module) && !next.is_disjoint(&from));
        if left.len() == before {
            break;
        }
    }
    let shown: Vec<String> = left
        .iter()
        .map(|(module, to)| {
            let to = to.iter().filter(|to| left.contains_key(*to));
            let to: Vec<String> = to.map(|to| to.join("::")).collect();
            format!("{} -> {}", module.join("::"), to.join(", "))
        })
        .collect();
    assert!(
        shown.is_empty(),
        "these files are in a circle, or between two:\n{}",
        shown.join("\n")
    );
}

#[test]
fn json_leaves_through_the_views_alone() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    let mut all = vec![];
    files(&source, &mut all);
    for path in all {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        assert!(!code.contains("serde_json"), "{}", path.display());
    }
}
