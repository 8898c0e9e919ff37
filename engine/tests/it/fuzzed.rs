//! Inputs that once did harm, or that reach deep, by the same entries as the
//! fuzzer's. They are also where the fuzzer begins: `make fuzz`.

use std::path::Path;

use crate::support::root;

#[path = "../../fuzz/src/lib.rs"]
mod entries;

/// Gives an entry every file of a folder; it must take those that are good.
fn feed(folder: &Path, is_good: impl Fn(&str) -> bool, entry: fn(&[u8]) -> bool) {
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("a folder") {
        let file = file.expect("a file").path();
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        let taken = entry(&std::fs::read(&file).expect("bytes"));
        assert!(taken || !is_good(name), "{} is refused", file.display());
        count += 1;
    }
    assert!(count > 0, "nothing in {}", folder.display());
}

fn again(name: &str, entry: fn(&[u8]) -> bool) {
    let folder = root().join("engine/tests/fuzzed").join(name);
    feed(&folder, |file| file.starts_with("good"), entry);
}

#[test]
fn plugin_files() {
    let text = include_bytes!("../fuzzed/loader/strategy.wat");
    let wasm = wat::parse_bytes(text).expect("the test's own text is right");
    assert!(entries::loader(&wasm));
    again("loader", entries::loader);
}

#[test]
fn lock_files() {
    again("lock", entries::lock);
}

#[test]
fn files_that_people_write() {
    again("config", entries::config);
    for examples in ["examples/rollouts", "examples/scenarios"] {
        feed(&root().join(examples), |_| true, entries::config);
    }
}

#[test]
fn journals() {
    again("journal", entries::journal);
}

#[test]
fn registries_and_keys() {
    again("manifest", entries::manifest);
}
