//! What a person may have meant by a verb that does not exist: a good guess, or none.

use crate::spec::nearest;

/// Words that other tools and people have for our verbs.
const MEANT: &[(&str, &str)] = &[
    ("start", "run"),
    ("begin", "run"),
    ("rollout", "run"),
    ("release", "run"),
    ("canary", "run"),
    ("blue-green", "run"),
    ("try", "demo"),
    ("ps", "list"),
    ("ls", "list"),
    ("rollouts", "list"),
    ("events", "history"),
    ("log", "history"),
    ("journal", "history"),
    ("audit", "history"),
    ("show", "get"),
    ("describe", "get"),
    ("info", "get"),
    ("why", "explain"),
    ("continue", "resume"),
    ("unpause", "resume"),
    ("restart", "resume"),
    ("back", "rollback"),
    ("revert", "undo"),
    ("cancel", "abort"),
    ("kill", "abort"),
    ("terminate", "abort"),
    ("hold", "pause"),
    ("suspend", "pause"),
    ("follow", "wait"),
    ("tail", "wait"),
    ("confirm", "approve"),
    ("accept", "approve"),
    ("weights", "set-weights"),
    ("weight", "set-weights"),
    ("shift", "set-weights"),
    ("traffic", "set-weights"),
    ("flip", "switch"),
    ("swap", "switch"),
    ("cutover", "switch"),
    ("create", "deploy"),
    ("up", "deploy"),
    ("destroy", "delete"),
    ("remove", "delete"),
    ("rm", "delete"),
    ("teardown", "delete"),
    ("validate", "check"),
    ("lint", "check"),
    ("preview", "plan"),
    ("dry-run", "plan"),
    ("diff", "plan"),
    ("diagnose", "doctor"),
    ("whoami", "doctor"),
    ("new", "init"),
    ("serve", "local"),
    ("proxy", "local"),
    ("balancer", "local"),
    ("plugins", "plugin"),
];

/// First words that say nothing by themselves where a verb follows: `get-status`.
const EMPTY: &[&str] = &["get", "show", "do", "run", "list"];

/// Longest word in which only one letter may be wrong: most short words are near to some
/// verb that means something else.
const SHORT: usize = 5;

/// The verb that was meant by a word; `None` if that would be a bad guess.
#[must_use]
pub fn meant<'a>(word: &str, verbs: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let verb = |word: &str| verbs.iter().copied().find(|verb| *verb == word);
    let known = |word: &str| {
        let meant = MEANT.iter().find(|(other, _)| *other == word);
        verb(word).or_else(|| verb(meant?.1))
    };
    let near = |word: &str| {
        let near = nearest(word, verbs.iter().copied())?;
        // Two letters beside each other that are swapped are one mistake.
        let one = strsim::osa_distance(word, near) <= 1;
        (word.chars().count() > SHORT || one).then_some(near)
    };
    known(&word).or_else(|| near(&word)).or_else(|| {
        let (first, rest) = word.split_once('-')?;
        match EMPTY.contains(&first) {
            true => known(rest).or_else(|| known(first)),
            false => known(first),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: &[&str] = &[
        "run",
        "demo",
        "init",
        "check",
        "plan",
        "simulate",
        "resume",
        "status",
        "wait",
        "get",
        "list",
        "history",
        "explain",
        "replay",
        "what-if",
        "export",
        "import",
        "set-weights",
        "switch",
        "rollback",
        "undo",
        "promote",
        "pause",
        "abort",
        "approve",
        "deploy",
        "delete",
        "local",
        "schema",
        "completions",
        "doctor",
        "version",
        "plugin",
    ];

    #[test]
    fn a_guess_is_good_or_there_is_none() {
        for (word, verb) in [
            ("deploy-canary", Some("deploy")),
            ("switch-color", Some("switch")),
            ("set-weight", Some("set-weights")),
            ("set_weights", Some("set-weights")),
            ("promote-canary", Some("promote")),
            ("ps", Some("list")),
            ("events", Some("history")),
            ("get-status", Some("status")),
            ("list-rollouts", Some("list")),
            ("get-weights", Some("set-weights")),
            ("rolback", Some("rollback")),
            ("rollbakc", Some("rollback")),
            ("stauts", Some("status")),
            ("rnu", Some("run")),
            ("lst", Some("list")),
            ("Deploy", Some("deploy")),
            ("destroy-stack", Some("delete")),
            // Near to a verb by its letters, and far from it by what it means.
            ("test", None),
            ("edit", None),
            ("put", None),
            ("frobnicate", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(meant(word, VERBS), verb, "{word}");
        }
    }
}
