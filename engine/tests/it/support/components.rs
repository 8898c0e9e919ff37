//! Components that are written here, as text, and a host that is hard on them.

use std::path::PathBuf;

use engine::strategy::Host;
use engine::strategy::limits::Limits;

use super::root;

/// Where the corpus lies.
pub fn corpus() -> PathBuf {
    root().join("engine/tests/hostile")
}

/// A text of the corpus.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(corpus().join(name)).expect("readable")
}

/// A component with these functions, and honest ones for those that are left out.
pub fn component(functions: &str) -> String {
    beside("", functions)
}

/// The same, with something beside its core module.
pub fn beside(outside: &str, functions: &str) -> String {
    let honest = text("honest.wat");
    let mut parts = vec![functions.to_owned()];
    for part in honest.split("\n(func ").skip(1) {
        let name = part.split_whitespace().next().expect("a name");
        if !functions.contains(&format!("(func {name} ")) {
            parts.push(format!("(func {part}"));
        }
    }
    text("shell.wat")
        .replace(";;CASE;;", &parts.join("\n"))
        .replace(";;OUTSIDE;;", outside)
}

pub fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|e| panic!("the test's own text is wrong: {e}"))
}

/// Less patience with loops than by default, or each takes seconds.
pub fn host() -> Host {
    let limits = Limits {
        fuel_per_segment: 100_000_000,
        ..Limits::default()
    };
    Host::new(None, limits).expect("starts")
}
