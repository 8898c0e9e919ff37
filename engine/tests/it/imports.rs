//! Whatever a linker would give to a component, the policy has judged.

use std::sync::OnceLock;

use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, begin_rollout};
use engine::ops::plugin::inspect::inspect;
use engine::spec::policy::Policy;
use engine::strategy::Host;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::support::app::{TestApp, refused};
use crate::support::components::{beside, binary, component, host};

/// What the contract has, and the shell of the hostile components imports.
const PACKAGES: [&str; 3] = ["traffic", "metrics", "control"];

fn offered(package: &str) -> String {
    format!("rollout:{package}/{package}@0.1.0")
}

fn text(name: &str) -> String {
    let escaped: Vec<String> = name.bytes().map(|b| format!("\\{b:02x}")).collect();
    format!("\"{}\"", escaped.concat())
}

/// Whether a linker that has the package finds it by this name. Asks wasmtime
/// itself, with an interface of our own.
fn links(name: &str, package: &str) -> bool {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(Engine::default);
    let mut linker = Linker::<()>::new(engine);
    let mut instance = linker.instance(&offered(package)).expect("a name");
    instance.func_wrap("f", |_, ()| Ok(())).expect("a function");
    let import = format!(
        "(component (import {} (instance (export \"f\" (func)))))",
        text(name)
    );
    let component = Component::new(engine, binary(&import));
    component.is_ok_and(|component| linker.instantiate_pre(&component).is_ok())
}

/// A host for all of these, which compile to the same few functions.
async fn judged(host: &Host, name: &str, package: &str) {
    let shell = component("");
    let own = format!("\"{}\"", offered(package));
    assert!(shell.contains(&own), "{own}");
    let bytes = binary(&shell.replace(&own, &text(name)));
    let linked = links(name, package);
    match host.load(&bytes).await {
        Err(_) => {}
        Ok(_) if !linked => panic!("{name:?} is taken, and does not link"),
        Ok(plugin) => {
            let mut all = plugin.permissions.clone();
            all.extend(plugin.stubbed.iter().cloned());
            let rules = [package.to_owned(), format!("rollout:{package}")];
            for rule in rules {
                let policy = Policy::parse(&format!("deny-imports = [{rule:?}]")).expect("a rule");
                assert!(
                    policy.denied(&all).is_some(),
                    "{name:?} passes {rule}: {all:?}"
                );
            }
        }
    }
}

/// Ways to write the same name otherwise.
fn variants(name: &str) -> Vec<String> {
    let place = name.split('@').next().expect("a place").to_owned();
    let versions = [
        "0.1.0+x",
        "0.1.0+evil.1",
        "0.1.9+x",
        "0.1.0+0.1.0",
        "0.1.0-rc.1",
        "0.1.0-rc.1+x",
        "0.1.0-0",
        "0.1.00",
        "0.01.0",
        "00.1.0",
        "0.1",
        "0.1.0.0",
        "0.1.9",
        "0.1.18446744073709551615",
        "0.1.18446744073709551616",
        "1.1.0",
        "0.2.0",
        "0.1.0 ",
        " 0.1.0",
        "v0.1.0",
        "",
    ];
    let mut all: Vec<String> = versions.iter().map(|v| format!("{place}@{v}")).collect();
    all.extend([
        name.to_owned(),
        place.clone(),
        place.to_uppercase(),
        place.split(':').nth(1).expect("a name").to_owned(),
        place.split('/').nth(1).expect("a name").to_owned(),
        format!("locked-dep=<{place}@0.1.0>"),
        format!("unlocked-dep=<{place}@{{>=0.1.0}}>"),
        format!(
            "unlocked-dep=<{}>",
            place.split('/').next().expect("a package")
        ),
        format!("url=<https://example.com/{name}>"),
        format!(
            "url=<https://example.com>,integrity=<sha256-{}>",
            "a".repeat(43)
        ),
        format!("integrity=<sha256-{}>", "a".repeat(43)),
        format!("[implements=<{name}>]x"),
        format!("[method]{name}"),
        format!("{name}#set-weights"),
        format!("a:{name}"),
        format!("{place}/nested@0.1.0"),
    ]);
    all
}

#[tokio::test]
async fn what_links_is_judged() {
    let host = host();
    let mut linked = 0;
    for package in PACKAGES {
        for name in variants(&offered(package)) {
            linked += u32::from(links(&name, package));
            judged(&host, &name, package).await;
        }
    }
    // Some of them fool the linker, or this says nothing.
    assert!(linked >= 3 * 6, "{linked} link");
}

#[test]
fn a_linker_looks_past_the_build() {
    // The reason for all of this.
    assert!(links("rollout:traffic/traffic@0.1.0+x", "traffic"));
}

fn mutated() -> impl Strategy<Value = (&'static str, String)> {
    let edit = (0..6_u8, any::<prop::sample::Index>(), "[ -~é\u{200b}]");
    let package = prop::sample::select(&PACKAGES[..]);
    let start = package.prop_flat_map(|p| (Just(p), prop::sample::select(variants(&offered(p)))));
    (start, prop::collection::vec(edit, 0..4)).prop_map(|((package, name), edits)| {
        let mut name: Vec<char> = name.chars().collect();
        for (kind, at, with) in edits {
            let with = with.chars().next().expect("one");
            let at = at.index(name.len() + 1);
            match kind {
                0 => name.insert(at, with),
                1 if at < name.len() => drop(name.remove(at)),
                2 if at < name.len() => name[at] = with,
                3 if at < name.len() => name[at] = name[at].to_ascii_uppercase(),
                4 if at < name.len() => name.insert(at, name[at]),
                _ => name.extend(['+', with]),
            }
        }
        (package, name.into_iter().collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_by_chance_are_judged((package, name) in mutated()) {
        static HOST: OnceLock<Host> = OnceLock::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(judged(HOST.get_or_init(host), &name, package));
    }
}

/// One name of that seed.
pub fn by_seed(seed: u64) {
    static HOST: OnceLock<Host> = OnceLock::new();
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let (package, name) = mutated().new_tree(&mut runner).expect("a name").current();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(judged(HOST.get_or_init(host), &name, package));
}

/// What is no instance, or has more than functions and types in it.
#[tokio::test]
async fn an_import_is_an_interface() {
    let host = host();
    for import in [
        r#"(import "set-weights" (func))"#,
        r#"(import "traffic" (instance (export "set-weights" (func))))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (component))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (core module))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (instance (export "inner" (instance (export "set-weights" (func))))))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (instance (export "rollout:traffic/traffic@0.1.0" (instance (export "set-weights" (func))))))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (instance (export "inner" (component))))"#,
        r#"(import "rollout:traffic/traffic@0.1.1" (instance (export "r" (type $r (sub resource))) (export "[method]r.set-weights" (func (param "self" (borrow $r))))))"#,
        r#"(import "rollout:types/types@0.1.0" (instance (export "set-weights" (func))))"#,
        r#"(import "rollout:types/types@0.1.0" (instance (export "inner" (instance))))"#,
        r#"(import "wasi:cli/environment@0.2.0" (instance (export "inner" (instance (export "set-weights" (func))))))"#,
        r#"(import "wasi:traffic/traffic@0.2.0" (instance))"#,
        r#"(import "wasi:cli/environment@0.3.0" (instance))"#,
        r#"(import "wasi:cli/environment@0.2.0+x" (instance))"#,
        r#"(import "wasi:cli/environment@0.2.0-rc.1" (instance))"#,
    ] {
        let Ok(bytes) = wat::parse_str(beside(import, "")) else {
            continue;
        };
        let refused = host.load(&bytes).await.expect_err(import).to_string();
        assert!(
            refused.contains("does not offer") || refused.contains("compile"),
            "{import}: {refused}"
        );
    }
}

/// The policy of a person.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_does_not_get_past_a_policy() {
    let test = TestApp::surrounded(<_>::default());
    let policy = test.write("policy.toml", "deny-imports = [\"traffic\"]");
    let strict = test.within(|surroundings| surroundings.policy = Some(policy));
    for (version, says) in [
        ("0.1.0", "deny-imports has \"traffic\""),
        ("0.1.9", "deny-imports has \"traffic\""),
        (
            "0.1.0+x",
            "does not offer:\n  rollout:traffic/traffic@0.1.0+x (this engine has rollout:traffic/traffic@0.1.0)",
        ),
        (
            "0.1.7+20261127",
            "does not offer:\n  rollout:traffic/traffic@0.1.7+20261127",
        ),
        (
            "0.1.0-rc.1",
            "does not offer:\n  rollout:traffic/traffic@0.1.0-rc.1",
        ),
    ] {
        let name = format!("rollout:traffic/traffic@{version}");
        let bytes = binary(&component("").replace(&offered("traffic"), &name));
        let plugin = test.write("sly.wasm", bytes);
        let request = BeginRequest {
            plugin: Some(plugin.clone()),
            ..BeginRequest::default()
        };
        let begun = begin_rollout(&strict, &request, <_>::default()).await;
        refused(begun, Kind::Rejected, &[says]);
        let seen = inspect(&strict, &<_>::default(), &plugin).await;
        refused(seen, Kind::Rejected, &[says]);
    }
}
