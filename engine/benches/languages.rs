//! The same strategy in three languages: what each costs. `make bench-languages`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::journal::{Call, Reply};
use engine::model::{Arm, HostError, Millis, Role, Sample, Wake, Weights};
use engine::rollout::session::{Calls, Interrupted};
use engine::rollout::{Ran, Run, Strategy};
use engine::strategy::limits::Limits;
use engine::strategy::{Host, Plugin};

mod measure;

use measure::{median, resident_mb, us};

/// Rollouts that wait at once.
const PARKED: usize = 200;

fn guest(language: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_BIN_EXE_engine")).ancestors().nth(2);
    let place = folder.expect("target/release");
    let place = place.join(format!("guests/doubling-{language}.wasm"));
    std::fs::read(&place)
        .unwrap_or_else(|e| panic!("{}: {e}; run `make bench-languages`", place.display()))
}

/// Every request is good; with `park`, no wait ever ends.
struct World {
    park: bool,
}

#[async_trait]
impl Calls for World {
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted> {
        Ok(match call {
            Call::Wait { .. } if self.park => std::future::pending().await,
            Call::Wait { .. } => Reply::Woke(Wake::Timer),
            Call::GetMetrics { .. } => {
                Reply::Samples(["stable", "canary"].map(sample).into_iter().collect())
            }
            _ => Reply::Done,
        })
    }

    async fn refuse(&self, _: Call, why: HostError) -> Result<Reply, Interrupted> {
        Ok(Reply::Failed(why))
    }

    fn now(&self) -> Millis {
        1_800_000_000_000
    }

    fn probes(&self) -> Vec<String> {
        vec![]
    }
}

fn sample(arm: &str) -> Sample {
    Sample {
        arm: arm.to_owned(),
        zone: None,
        start: 1_800_000_000_000,
        period_ms: 60_000,
        requests: 1_000,
        errors: 0,
        client_errors: 0,
        over: vec![0],
        whole: None,
        latency: None,
        cpu: None,
        memory: None,
        healthy: None,
    }
}

fn run_of() -> Run {
    let arm = |name: &str, role| Arm {
        name: name.to_owned(),
        role,
        version: "v".to_owned(),
    };
    Run {
        rollout: "bench".to_owned(),
        arms: vec![arm("stable", Role::Stable), arm("canary", Role::Candidate)],
        weights: Weights::of([("stable", 100), ("canary", 0)]),
        sample_period_ms: 60_000,
        parameters: r#"{"first-share": 1}"#.to_owned(),
        seed: "2a".to_owned(),
        caps: <_>::default(),
    }
}

/// Memory of one rollout that waits, KiB.
async fn parked(plugin: &Arc<Plugin>) -> f64 {
    let before = resident_mb("self", "VmRSS");
    let tasks: Vec<_> = (0..PARKED)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move { plugin.run(Arc::new(World { park: true }), run_of()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    let each = (resident_mb("self", "VmRSS") - before) * 1_024.0 / PARKED as f64;
    for task in tasks {
        task.abort();
    }
    each
}

#[tokio::main]
async fn main() {
    println!(
        "{:<8} {:>10} {:>12} {:>12} {:>14} {:>12} {:>14}",
        "", "size KB", "compile ms", "cached ms", "instantiate us", "per call us", "parked KiB"
    );
    for language in ["rust", "js", "python"] {
        let bytes = guest(language);
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path().join("compiled");
        let host = || Host::new(Some(&cache), Limits::default()).expect("starts");
        let begun = Instant::now();
        let plugin = host().load(&bytes).await.expect("loads");
        let cold = begun.elapsed();
        // The cache is written by a thread of its own.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let bare = median(10, async || drop(host())).await;
        let cached = median(10, async || {
            host().load(&bytes).await.expect("loads");
        })
        .await;
        let instantiate = median(200, async || {
            plugin.describe().await.expect("describes");
        })
        .await;
        let (ran, fuel) = plugin
            .run_metered(Arc::new(World { park: false }), &run_of())
            .await;
        assert!(matches!(ran, Ran::Returned(Ok(_))), "{language}: {ran:?}");
        let whole = median(200, async || {
            plugin.run(Arc::new(World { park: false }), run_of()).await;
        })
        .await;
        #[expect(clippy::cast_precision_loss, reason = "some fifty calls")]
        let calls = fuel.len() as f64;
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let size = bytes.len() as f64 / 1e3;
        println!(
            "{language:<8} {size:>10.0} {:>12.0} {:>12.2} {:>14.1} {:>12.2} {:>14.0}",
            us(cold) / 1e3,
            us(cached.saturating_sub(bare)) / 1e3,
            us(instantiate),
            us(whole.saturating_sub(instantiate)) / calls,
            parked(&plugin).await,
        );
    }
    println!("instantiate: with one call of `describe`; parked: resident, mean of {PARKED}");
}
