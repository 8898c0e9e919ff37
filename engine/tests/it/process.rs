//! Processes that die, and processes that race.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use engine::target::Target;
use engine::target::http::Client;
use rand::RngExt as _;
use serde_json::Value;

use crate::support::balancer::{Local, demo_target};
use crate::support::binary::{plugin, run, spawn, spawn_with, stderr, stdout, until, wait};
use crate::support::folder;

/// Requests from users, as many as the balancer takes, until stopped.
struct Users {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
    lanes: Vec<tokio::task::JoinHandle<()>>,
}

impl Users {
    fn start(address: std::net::SocketAddr) -> Self {
        let (stop, sent, failed) = (Arc::default(), Arc::default(), Arc::default());
        let lane = |_| {
            let (stop, sent, failed): (Arc<AtomicBool>, Arc<AtomicU32>, Arc<AtomicU32>) =
                (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&failed));
            tokio::spawn(async move {
                let client = Client::default();
                while !stop.load(Ordering::Relaxed) {
                    let url = format!("http://{address}/");
                    let answer = client
                        .send("GET", &url, None, Duration::from_secs(10))
                        .await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !answer.is_ok_and(|a| a.status == 200) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        };
        let lanes = (0..4).map(lane).collect();
        Self {
            stop,
            sent,
            failed,
            lanes,
        }
    }

    /// How many requests were sent, and how many of them failed.
    async fn stop(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await.expect("no panic");
        }
        (
            self.sent.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

fn last_end(folder: &Path) -> Value {
    let list = stdout(&run(folder, &["list", "--json", "-n", "1"]));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list[0]["end"].clone()
}

/// SIGKILL at random instants, at least fifty times, under load: every rollout
/// gets to the end that it would have had, and no request is lost.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_instants() {
    let folder = folder();
    let local = Local::start(folder.path(), &[]);
    let admin = local.admin();
    let users = Users::start(local.listen);
    let (mut kills, mut rollouts) = (0, 0);
    until(folder.path(), &admin, |s| {
        s["target"]["arms"][1]["healthy"] == 1
    });
    // Compile the plugin once: a process that is killed while it compiles has
    // nothing to show for it.
    let warm = run(
        folder.path(),
        &[
            "run",
            &plugin("canary"),
            "--local",
            &admin,
            "--set",
            "steps=100",
            "--set",
            "bake=1s",
        ],
    );
    assert_eq!(warm.status.code(), Some(0), "{}", stderr(&warm));
    while kills < 50 {
        rollouts += 1;
        let version = format!("v{}", rollouts + 2);
        let candidate = format!(
            "[target]\nkind = \"local\"\n[target.local]\nadmin = \"{admin}\"\n[candidate]\nversion = \"{version}\"\ndemo = {{}}\n"
        );
        std::fs::write(folder.path().join("rollout.toml"), candidate).expect("writable");
        let path = plugin("canary");
        let mut arguments = vec!["run", &path, "--set", "steps=30,100", "--set", "bake=1s"];
        loop {
            let begun = Instant::now();
            let mut process = spawn(folder.path(), &arguments);
            let patience = Duration::from_millis(rand::rng().random_range(20..700));
            let ended = loop {
                if let Some(status) = process.0.try_wait().expect("ours") {
                    break Some(status);
                }
                if begun.elapsed() >= patience {
                    break None;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            if let Some(status) = ended {
                let output = wait(process);
                assert_eq!(status.code(), Some(0), "{}", stderr(&output));
                break;
            }
            process.0.kill().expect("SIGKILL");
            drop(process);
            kills += 1;
            let list: Value = serde_json::from_str(&stdout(&run(
                folder.path(),
                &["list", "--json", "-n", "100"],
            )))
            .expect("JSON");
            // Killed before its first entry there is nothing to resume, and
            // killed after its last one there is nothing left to do.
            let newest = &list[0];
            let begun = list.as_array().map_or(0, Vec::len);
            if begun < rollouts + 1 {
                continue;
            }
            if !newest["end"].is_null() {
                break;
            }
            arguments = vec!["resume"];
        }
        assert_eq!(
            last_end(folder.path())["how"],
            "promoted",
            "rollout {rollouts}"
        );
        let live = local.target().observe().await.expect("reachable");
        assert_eq!(live.weights().share("stable"), 100.0);
        assert_eq!(
            live.arms[0].release.version, version,
            "the stable arm was replaced"
        );
    }
    let (sent, failed) = users.stop().await;
    assert!(sent > 500, "under load: {sent}");
    assert_eq!(
        failed, 0,
        "of {sent} requests over {kills} kills in {rollouts} rollouts"
    );
}

/// Two engines on one target at once: exactly one runs, the other is a 7.
#[test]
fn two_engines_on_one_target() {
    const LANES: usize = 4;
    const ROUNDS: usize = 25;
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            std::thread::spawn(|| {
                let folder = folder();
                let local = Local::start(folder.path(), &[]);
                let admin = local.admin();
                let path = plugin("hostile");
                until(folder.path(), &admin, |s| {
                    s["target"]["arms"][1]["healthy"] == 1
                });
                for round in 0..ROUNDS {
                    // Long enough for the other one to come while it runs.
                    let arguments = [
                        "run", &path, "--local", &admin, "--set", "act=wait", "--set", "amount=2",
                    ];
                    let both = [
                        spawn(folder.path(), &arguments),
                        spawn(folder.path(), &arguments),
                    ];
                    let mut codes: Vec<_> = both
                        .map(|process| {
                            let output = wait(process);
                            (output.status.code(), stderr(&output))
                        })
                        .to_vec();
                    codes.sort();
                    assert_eq!(codes[0].0, Some(0), "round {round}: {codes:?}");
                    assert_eq!(codes[1].0, Some(7), "round {round}: {codes:?}");
                    assert!(
                        codes[1].1.contains("busy with rollout hostile-"),
                        "{codes:?}"
                    );
                    // The next round begins where this one did.
                    let back = run(
                        folder.path(),
                        &["set-weights", "100", "0", "--local", &admin],
                    );
                    assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.join().expect("no panic in a lane");
    }
}

/// A killed demo keeps its balancer's weights in a file and goes on.
#[test]
fn a_killed_demo_resumes_with_its_own_balancer() {
    let folder = folder();
    let path = plugin("canary");
    let mut process = spawn(
        folder.path(),
        &[
            "run",
            &path,
            "--set",
            "steps=30,100",
            "--set",
            "max-bake=3s",
        ],
    );
    for _ in 0..200 {
        if stdout(&run(folder.path(), &["list"])).contains("step 1/2") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    process.0.kill().expect("SIGKILL");
    drop(process);
    let output = run(folder.path(), &["resume"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("promoted"),
        "{}",
        stdout(&output)
    );
    let said = stderr(&output);
    let first = said.lines().next().unwrap_or_default();
    assert!(
        first.contains("traffic: stable"),
        "it speaks at once: {said}"
    );
}

/// The number of a program that an arm runs, once it has written it, and its process group.
fn program(file: &Path) -> (i32, i32) {
    // The strategy is compiled first, which takes long where many tests run.
    for _ in 0..2_400 {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(id) = text.trim().parse()
        {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
            let after = stat.rsplit(") ").next().expect("fields");
            let group = after.split_whitespace().nth(2).expect("the group");
            return (id, group.parse().expect("a number"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} is not there", file.display());
}

/// A rollout file, `r.toml`, whose arms run programs that start others, never end and never
/// serve, so that a rollout waits for them as long as the test takes.
fn write_programs(folder: &Path) {
    let arm = |name: &str| {
        let script = format!("sleep 600 & echo $! > {name}.child; echo $$ > {name}.id; wait");
        format!(
            "[target.local.arms.{name}]\nversion = \"{name}-1\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"
        )
    };
    let file = format!(
        "[target]\nkind = \"local\"\n[target.local]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{}{}[strategy]\nplugin = \"{}\"\n[guardrails]\nhealthy-timeout = \"30m\"\n",
        arm("stable"),
        arm("canary"),
        plugin("canary"),
    );
    std::fs::write(folder.join("r.toml"), file).expect("writable");
}

/// The numbers of those programs, and of what they have started, once they run.
fn programs_of(folder: &Path, engine: i32) -> Vec<i32> {
    let mut ids = vec![];
    for name in ["stable", "canary"] {
        let (id, group) = program(&folder.join(format!("{name}.id")));
        assert_eq!(group, id, "a group of its own");
        assert_ne!(group, engine);
        ids.push(id);
        ids.push(program(&folder.join(format!("{name}.child"))).0);
    }
    ids
}

/// What still runs of these processes. Nobody may have waited for what was orphaned.
fn still_run(ids: &[i32]) -> Vec<String> {
    let stat = |id: &i32| std::fs::read_to_string(format!("/proc/{id}/stat")).ok();
    let runs = |stat: &String| !stat.contains(") Z");
    ids.iter().filter_map(stat).filter(runs).collect()
}

/// A process that is killed runs nothing any more; the programs of its arms, and what they
/// have started, end all the same. They went on for ever, with their ports and their memory.
#[cfg(target_os = "linux")]
#[test]
fn the_programs_of_arms_end_with_a_balancer_that_is_killed() {
    for verb in ["local", "run"] {
        let folder = folder();
        write_programs(folder.path());
        let running = spawn(folder.path(), &[verb, "-f", "r.toml"]);
        let engine = i32::try_from(running.0.id()).expect("a number");
        let ids = programs_of(folder.path(), engine);
        assert_eq!(still_run(&ids).len(), 4, "{verb}");
        // SIGKILL, of this one process.
        drop(running);
        let mut left = still_run(&ids);
        for _ in 0..200 {
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            left = still_run(&ids);
        }
        assert!(left.is_empty(), "{verb}: {left:?}");
    }
}

/// Whether these tests run under `nohup`, as which the engine has to understand it too.
#[cfg(target_os = "linux")]
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a line").trim(), 16).expect("a number");
    ignored & 1 == 1
}

/// Ctrl-C in a terminal is for every process of the group. The programs of the arms are in
/// others: they serve until the traffic is back. Then all that they have started ends too,
/// and nobody is told that users are served.
#[cfg(target_os = "linux")]
#[test]
fn the_programs_of_arms_outlive_a_ctrl_c_until_the_traffic_is_back() {
    for (on_interrupt, signal, says) in [
        ("rollback", "-INT", "the balancer ends with this process"),
        ("suspend", "-HUP", "nobody is served until `engine resume"),
    ] {
        if signal == "-HUP" && hangups_are_ignored() {
            continue;
        }
        let folder = folder();
        write_programs(folder.path());
        let arguments = ["run", "-f", "r.toml", "--on-interrupt", on_interrupt];
        let running = spawn_with(folder.path(), &arguments, |command| {
            use std::os::unix::process::CommandExt as _;
            command.process_group(0);
        });
        let engine = i32::try_from(running.0.id()).expect("a number");
        let ids = programs_of(folder.path(), engine);
        // Only a rollout that is under way is suspended or taken back.
        let driven = || stdout(&run(folder.path(), &["list"])).contains("canary-");
        while !driven() {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(8));
        let group = format!("-{engine}");
        let sent = std::process::Command::new("kill")
            .args([signal, "--", &group])
            .status();
        assert!(sent.expect("kill runs").success());
        let output = wait(running);
        let said = stderr(&output);
        assert!(said.contains(says), "{said}");
        assert_eq!(still_run(&ids), [""; 0]);
    }
}

/// What is wrong with a rollout file must not keep the traffic where it is, if the file says
/// which target is meant; if it does not, the error says how to name it without the file.
#[test]
fn the_way_back_does_not_hang_on_a_typo_in_the_rollout_file() {
    let folder = folder();
    let local = Local::start(folder.path(), &[]);
    let admin = local.admin();
    let good = demo_target(0).replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\""));
    let typo = format!("{good}\n[guardrails]\nlargest-stepp = 5\n");
    let away = || {
        let moves = ["set-weights", "50", "50", "--local", &admin];
        // Both arms must be healthy first.
        for _ in 0..200 {
            if run(folder.path(), &moves).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the traffic cannot be split");
    };
    let write = |text: &str| {
        std::fs::write(folder.path().join("rollout.toml"), text).expect("writable");
    };
    write(&typo);
    for verb in [&["rollback"][..], &["switch", "stable"], &["status"]] {
        away();
        let output = run(folder.path(), verb);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{verb:?}: {said}");
        assert!(said.contains("so only its [target] was read"), "{said}");
        assert!(said.contains("guardrails.largest-stepp"), "{said}");
        assert_eq!(said.matches("was read").count(), 1, "said once: {said}");
    }
    // What begins something needs the whole file.
    let output = run(folder.path(), &["run", &plugin("canary")]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for wrong in [
        typo.replace("kind = \"local\"", "kind = \"locul\""),
        "[target".to_owned(),
    ] {
        write(&wrong);
        away();
        let output = run(folder.path(), &["rollback"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let hint = "--stack, --listener, --rule or --local names the target without a rollout file";
        assert!(said.contains(hint), "{said}");
        let output = run(folder.path(), &["rollback", "--local", &admin]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}
