//! A local balancer: in this process, or as `engine local`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use engine::model::target::{HealthCheck, LocalArm, LocalSpec};
use engine::model::{DemoFault, Release, Source};
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use serde_json::Value;

use super::binary::{Running, code, engine, plugin, run, spawn, stderr, stdout, until, wait};

/// A balancer on free ports, quick to see health.
pub fn spec(sources: [Source; 2]) -> LocalSpec {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let [a, b] = sources;
    let arm = |name: &str, version: &str, weight, source| LocalArm {
        name: name.to_owned(),
        weight,
        release: Release {
            version: version.to_owned(),
            source,
        },
    };
    LocalSpec {
        listen: free,
        admin: free,
        arms: vec![arm("stable", "v1", 100, a), arm("canary", "v2", 0, b)],
        health: HealthCheck {
            interval_ms: 50,
            healthy_after: 1,
            unhealthy_after: 2,
            timeout_ms: 1_000,
            ..HealthCheck::default()
        },
        ..LocalSpec::demo(DemoFault::default())
    }
}

/// The same with other names of the arms.
pub fn named(mut spec: LocalSpec, names: [&str; 2]) -> LocalSpec {
    for (arm, name) in spec.arms.iter_mut().zip(names) {
        name.clone_into(&mut arm.name);
    }
    spec
}

/// The target of a rollout file: a balancer in the process with two demo versions, and so
/// many requests per second.
pub fn demo_target(load_rps: u32) -> String {
    format!(
        r#"
        [target]
        kind = "local"
        [target.local]
        listen = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        load-rps = {load_rps}
        [target.local.health]
        interval = "100ms"
        [target.local.arms.stable]
        version = "v1"
        demo = {{}}
        [target.local.arms.canary]
        version = "v2"
        demo = {{}}
        "#
    )
}

pub fn demo() -> Source {
    Source::Demo(DemoFault::default())
}

pub fn url(address: SocketAddr) -> Source {
    Source::Urls(vec![format!("http://{address}")])
}

pub async fn start(spec: &LocalSpec) -> (Balancer, LocalTarget) {
    let balancer = Balancer::start(spec, None, None).await.expect("it starts");
    let target = LocalTarget::new(balancer.admin);
    (balancer, target)
}

pub async fn healthy(target: &LocalTarget, arm: &str, wanted: u32) {
    for _ in 0..200 {
        let live = target.observe().await.expect("reachable");
        if live.arm(arm).expect("known").healthy == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{arm} never had {wanted} healthy targets");
}

/// `engine local` on free ports.
pub struct Local {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    _process: Running,
}

impl Local {
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        let here = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self::start_at(folder, &[&here, more].concat())
    }

    /// With all its arguments.
    pub fn start_at(folder: &Path, more: &[&str]) -> Self {
        let arguments = [&["local", "--json"], more].concat();
        let mut child = engine(folder, &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says where");
        let says: Value = serde_json::from_str(&line).expect("JSON");
        let address = |key: &str| {
            says[key]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address")
        };
        Self {
            listen: address("listen"),
            admin: address("admin"),
            _process: Running(child),
        }
    }

    pub fn admin(&self) -> String {
        self.admin.to_string()
    }

    pub fn target(&self) -> LocalTarget {
        LocalTarget::new(self.admin)
    }

    /// Runs a verb from a store of its own: the one that is tested may be broken.
    pub fn run_elsewhere(&self, folder: &Path, arguments: &[&str]) -> Output {
        let own = folder.join("own");
        std::fs::create_dir_all(&own).expect("writable");
        let admin = self.admin();
        engine(&own, arguments)
            .args(["--local", &admin])
            .output()
            .expect("the binary runs")
    }

    /// `blue=100 green=0`
    pub fn weights(&self, folder: &Path) -> String {
        let output = self.run_elsewhere(folder, &["status", "--json"]);
        let status: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        let arms = status["target"]["arms"].as_array().expect("arms");
        let one =
            |arm: &Value| format!("{}={}", arm["name"].as_str().expect("text"), arm["weight"]);
        arms.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Waits until both arms are healthy.
    pub fn wait_for_health(&self, folder: &Path) {
        let begun = Instant::now();
        loop {
            let output = self.run_elsewhere(folder, &["status", "--json"]);
            let status: Value = serde_json::from_str(&stdout(&output)).unwrap_or_default();
            if (0..2).all(|arm| status["target"]["arms"][arm]["healthy"] == 1) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A rollout that has half of the traffic, and waits.
pub fn begin(local: &Local, place: &Path) -> Running {
    let admin = local.admin();
    let path = plugin("canary");
    let waits = ["steps=50,100", "bake=600s"];
    let running = spawn(place, &gated(&path, &admin, waits));
    until(place, &admin, |s| s["target"]["arms"][1]["weight"] == 50);
    running
}

/// How a canary is run that its limits alone decide about.
pub fn gated<'a>(plugin: &'a str, admin: &'a str, set: [&'a str; 2]) -> Vec<&'a str> {
    let mut arguments = vec!["run", plugin, "--local", admin];
    for value in ["gate=limits", "probe=false"].into_iter().chain(set) {
        arguments.extend(["--set", value]);
    }
    arguments
}

/// The id of a rollout that was begun and paused.
pub fn begin_and_pause(local: &Local, place: &Path) -> String {
    let admin = local.admin();
    let running = begin(local, place);
    let paused = run(place, &["pause", "--local", &admin]);
    assert_eq!(code(&paused), Some(0), "{}", stderr(&paused));
    assert_eq!(code(&wait(running)), Some(5));
    let list = stdout(&run(place, &["list", "--json", "-n", "1"]));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list[0]["rollout"].as_str().expect("an id").to_owned()
}
