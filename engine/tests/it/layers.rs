//! Arrows between modules point one way, and pure modules do no I/O.

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
    "model/mod.rs",
    "model/aws.rs",
    "model/command.rs",
    "model/limits.rs",
    "model/naming.rs",
    "model/query.rs",
    "model/secret.rs",
    "model/target.rs",
    "spec/mod.rs",
    "hindsight/explain.rs",
    "hindsight/file.rs",
    "spec/aws.rs",
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
    "simulate/random.rs",
    "simulate/report.rs",
    "simulate/scenario/mod.rs",
    "simulate/scenario/check.rs",
    "simulate/world.rs",
    "target/aws/calls.rs",
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
