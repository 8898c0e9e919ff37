//! Compares the traffic verbs with equivalent scripts over the AWS CLI, and with one
//! bare signed request, as whole processes on the same emulator in one run: wall
//! time, CPU time, memory, HTTP calls.
//!
//! Prints figures and ratios; asserts nothing about time.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark measures real time"
)]

#[path = "../tests/it/support/aws/emulator.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod emulator;
#[path = "../tests/it/support/aws/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod proxy;

/// What the shared files want to know of the repository.
mod support {
    use std::path::{Path, PathBuf};

    pub fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    pub fn target_folder() -> PathBuf {
        let binary = Path::new(env!("CARGO_BIN_EXE_engine"));
        binary.parent().and_then(Path::parent).unwrap().to_owned()
    }
}

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const REGION: &str = "us-east-1";
const CANARY: &str = "ecs-canary-demo-stack";
const COLOURS: &str = "ecs-blue-green-demo-stack";
/// Runs of each command.
const RUNS: usize = 15;

/// What one command costs.
struct Cost {
    wall_ms: Vec<f64>,
    cpu_ms: f64,
    peak_mb: f64,
    calls: usize,
}

impl Cost {
    fn median(&self) -> f64 {
        let mut sorted = self.wall_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// CPU time of children that have ended, ms. The kernel counts in hundredths of a
/// second.
fn children_cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // cutime and cstime, fields 16 and 17 of the whole line.
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(13) + ticks(14)) * 10.0
}

/// Largest resident set of a process and its children while they run, MB.
fn watch_memory(pid: u32) -> f64 {
    let mut most = 0.0_f64;
    let mut seen = vec![pid];
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        for pid in &seen {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            let kb = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
            most = most.max(kb.unwrap_or(0.0) / 1024.0);
        }
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        seen = children
            .split_whitespace()
            .filter_map(|p| p.parse().ok())
            .collect();
        seen.push(pid);
        std::thread::sleep(Duration::from_millis(1));
    }
    most
}

fn measure(proxy: &proxy::Proxy, make: impl Fn(usize) -> Command) -> Cost {
    let once = |n: usize| {
        let mut command = make(n);
        emulator::environment(&mut command, &proxy.endpoint, REGION);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        let wall = begun.elapsed().as_secs_f64() * 1_000.0;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        wall
    };
    // The first run reads what later runs have in the cache.
    once(0);
    proxy.take();
    let before = children_cpu_ms();
    let wall_ms: Vec<f64> = (1..=RUNS).map(once).collect();
    let cpu_ms = (children_cpu_ms() - before) / RUNS as f64;
    let calls = proxy.take().len() / RUNS;
    let mut command = make(RUNS + 1);
    emulator::environment(&mut command, &proxy.endpoint, REGION);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let watcher = std::thread::spawn(move || watch_memory(pid));
    child.wait().unwrap();
    proxy.take();
    Cost {
        wall_ms,
        cpu_ms,
        peak_mb: watcher.join().unwrap(),
        calls,
    }
}

fn engine(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command.arg("--state-dir").arg(state).args(arguments);
    command
}

/// A script as people write it today.
fn script(text: &str) -> Command {
    let bin = support::target_folder().join("emulator/bin");
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-euc", text])
        .env("PATH", format!("{}:{path}", bin.display()));
    command
}

fn output_of(stack: &str, key: &str) -> String {
    format!(
        "aws cloudformation describe-stacks --stack-name {stack} --query \"Stacks[0].Outputs[?OutputKey=='{key}'].OutputValue\" --output text"
    )
}

fn deploy(stack: &str, template: &Path, parameters: &str) -> String {
    format!(
        "aws cloudformation deploy --stack-name {stack} --template-file {} --capabilities CAPABILITY_NAMED_IAM --no-fail-on-empty-changeset --parameter-overrides {parameters}",
        template.display()
    )
}

fn row(name: &str, cost: &Cost, beside: Option<&Cost>) {
    let ratio = |a: f64, b: f64| format!("{:.0}x", a / b.max(0.001));
    let (wall, cpu) = beside.map_or((String::new(), String::new()), |b| {
        (
            ratio(b.median(), cost.median()),
            ratio(b.cpu_ms, cost.cpu_ms),
        )
    });
    println!(
        "  {name:<28} {:>8.1} {wall:>6} {:>9.1} {cpu:>6} {:>8.0} {:>7}",
        cost.median(),
        cost.cpu_ms,
        cost.peak_mb,
        cost.calls
    );
}

/// The n-th run of a verb as a script.
type Script = Box<dyn Fn(usize) -> String>;
/// The n-th run of a verb as arguments of the engine.
type Arguments = Box<dyn Fn(usize) -> Vec<String>>;

#[tokio::main]
async fn main() {
    let fixtures = support::root().join("engine/tests/fixtures/prototypes");
    let (canary, colours) = (fixtures.join("canary.yml"), fixtures.join("blue-green.yml"));
    let proxy = proxy::Proxy::start().await;
    let state = tempfile::tempdir().unwrap();
    let images = "ImageURIStable=app:v1 ImageURICanary=app:v1 StableWeight=95 CanaryWeight=5";
    let run = |text: String| {
        let mut command = script(&text);
        emulator::environment(&mut command, &proxy.endpoint, REGION);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    run(deploy(CANARY, &canary, images));
    let of_colours = "ImageURIBlue=app:v1 ImageURIGreen=app:v1 ActiveColor=blue";
    run(deploy(COLOURS, &colours, of_colours));
    let listener = run(output_of(CANARY, "ListenerArn"));

    println!("traffic verbs as whole processes, median of {RUNS}; x is the script over the engine");
    println!(
        "  {:<28} {:>8} {:>6} {:>9} {:>6} {:>8} {:>7}",
        "", "wall ms", "x", "CPU ms", "x", "peak MB", "calls"
    );
    let signed = |service: &str, body: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--aws-sigv4"]);
        command.arg(format!("aws:amz:{REGION}:{service}"));
        command.args(["--user", "testing:testing", "--data", body, &proxy.endpoint]);
        command
    };
    let body =
        format!("Action=DescribeListeners&Version=2015-12-01&ListenerArns.member.1={listener}");
    let bare = measure(&proxy, |_| signed("elasticloadbalancing", &body));
    row("one bare signed request", &bare, None);

    let status_script = [
        output_of(CANARY, "ALBDNS"),
        format!("L=$({})", output_of(CANARY, "ListenerArn")),
        "aws elbv2 describe-listeners --listener-arns $L --query 'Listeners[0].DefaultActions[0].ForwardConfig.TargetGroups' --output table".to_owned(),
    ]
    .join("; ");
    let pairs: [(&str, Script, Arguments); 4] = [
        (
            "status",
            Box::new(move |_| status_script.clone()),
            Box::new(|_| vec!["status".into(), "--stack".into(), CANARY.into()]),
        ),
        (
            "set-weights",
            Box::new({
                let canary = canary.clone();
                move |n| {
                    let share = 10 + n;
                    let weights = format!("StableWeight={} CanaryWeight={share}", 100 - share);
                    deploy(CANARY, &canary, &weights)
                }
            }),
            Box::new(|n| {
                let share = 40 + n;
                let weights = [(100 - share).to_string(), share.to_string()];
                [
                    &["set-weights".to_owned()],
                    &weights[..],
                    &["--stack".into(), CANARY.into()],
                ]
                .concat()
            }),
        ),
        (
            "switch",
            Box::new(move |n| {
                let colour = ["green", "blue"][n % 2];
                deploy(COLOURS, &colours, &format!("ActiveColor={colour}"))
            }),
            Box::new(|n| {
                let colour = ["green", "blue"][n % 2];
                vec![
                    "switch".into(),
                    colour.into(),
                    "--stack".into(),
                    COLOURS.into(),
                ]
            }),
        ),
        (
            "rollback (from elsewhere)",
            Box::new(move |n| {
                // Each run of the script needs something to take back.
                let share = n % 2;
                let weights = format!("StableWeight={} CanaryWeight={share}", 100 - share);
                deploy(CANARY, &canary, &weights)
            }),
            Box::new(|_| vec!["rollback".into(), "--stack".into(), CANARY.into()]),
        ),
    ];
    for (name, by_script, by_engine) in pairs {
        let theirs = measure(&proxy, |n| script(&by_script(n)));
        let ours = if name.starts_with("rollback") {
            // Each run comes after a change, which is not measured.
            rollbacks(&proxy, state.path(), &by_engine(0))
        } else {
            measure(&proxy, |n| {
                let arguments = by_engine(n);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                engine(state.path(), &arguments)
            })
        };
        row(&format!("{name}: AWS CLI script"), &theirs, None);
        row(&format!("{name}: engine"), &ours, Some(&theirs));
        println!(
            "  {:<28} {:>8.1}x a bare signed request ({})",
            "",
            ours.median() / bare.median(),
            match name {
                "status" => "budget 3; 2.5 before",
                _ => "budget 3; 4.0 to 4.9 before",
            }
        );
    }
}

fn rollbacks(proxy: &proxy::Proxy, state: &Path, rollback: &[String]) -> Cost {
    let raise = ["set-weights", "90", "10", "--stack", CANARY];
    let rollback: Vec<&str> = rollback.iter().map(String::as_str).collect();
    let mut costs = vec![];
    for _ in 0..RUNS {
        let mut command = engine(state, &raise);
        emulator::environment(&mut command, &proxy.endpoint, REGION);
        assert!(command.output().unwrap().status.success());
        proxy.take();
        let before = children_cpu_ms();
        let begun = Instant::now();
        let mut command = engine(state, &rollback);
        emulator::environment(&mut command, &proxy.endpoint, REGION);
        assert!(command.output().unwrap().status.success());
        let wall = begun.elapsed().as_secs_f64() * 1_000.0;
        costs.push((wall, children_cpu_ms() - before, proxy.take().len()));
    }
    let mut command = engine(state, &rollback);
    emulator::environment(&mut command, &proxy.endpoint, REGION);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let watcher = std::thread::spawn(move || watch_memory(pid));
    child.wait().unwrap();
    Cost {
        wall_ms: costs.iter().map(|c| c.0).collect(),
        cpu_ms: costs.iter().map(|c| c.1).sum::<f64>() / RUNS as f64,
        peak_mb: watcher.join().unwrap(),
        calls: costs.iter().map(|c| c.2).sum::<usize>() / RUNS,
    }
}
