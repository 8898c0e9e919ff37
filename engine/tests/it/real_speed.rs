//! Whole rollouts at the speed of real clocks: `make real-speed`. Users are split by the
//! live weights, CloudWatch hears of them two minutes late (`tests/emulator/feed.py`),
//! and the process that drives the good one is killed in the middle.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::aws::bottle::REGION;
use crate::support::aws::emulator::{awkward, aws, endpoint, environment, tool};
use crate::support::binary::{Running, engine, plugin};
use crate::support::{folder, root};

/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// A stack that people use, and a rollout on it.
struct Service {
    name: String,
    listener: String,
    users: Running,
    folder: tempfile::TempDir,
    begun: Instant,
}

impl Service {
    /// The stack of that way of making it, with its users.
    fn open(built: &Value, way: &str) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (name, made) = (text(&built[way]["name"]), &built[way]["made"]);
        let (listener, balancer) = (text(&made["Listener"]), text(&made["Balancer"]));
        let services = ["stable", "canary"].map(|arm| format!("{name}-{arm}"));
        let mut feeder = Command::new(tool("python"));
        environment(&mut feeder, &endpoint(), REGION);
        let users = feeder
            .arg(root().join("engine/tests/emulator/feed.py"))
            .args([&listener, &balancer, &name])
            .args(services)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self {
            name,
            listener,
            users: Running(users.expect("python starts")),
            folder: folder(),
            begun: Instant::now(),
        }
    }

    /// Starts the engine, and writes down what it says.
    fn engine(&self, arguments: &[&str]) -> Running {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("writable");
        let mut command = engine(self.folder.path(), arguments);
        environment(&mut command, &endpoint(), REGION);
        let process = command.stdout(log.try_clone().expect("a file")).stderr(log);
        Running(process.spawn().expect("the binary runs"))
    }

    fn run(&self, image: &str) -> Running {
        let canary = plugin("canary");
        let target = ["--listener", &self.listener, "--cluster", &self.name];
        let run = ["run", &canary, "--image", image, "--set", "steps=25,100"];
        let set = ["holdback=0", "probe=false", "max-bake=2m"];
        let more = set.map(|pair| ["--set", pair]).concat();
        self.engine(&[&run[..], &target, &more].concat())
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("said")
    }

    /// Percent of the users that the canary has.
    fn share(&self) -> i64 {
        let describe = [
            "elbv2",
            "describe-listeners",
            "--listener-arns",
            &self.listener,
        ];
        let actions = aws(REGION, &describe)["Listeners"][0]["DefaultActions"].clone();
        let groups = actions[0]["ForwardConfig"]["TargetGroups"].clone();
        let mut groups = groups.as_array().expect("groups").iter();
        let canary = groups.find(|g| g["TargetGroupArn"].to_string().contains("-canary/"));
        canary.expect("named")["Weight"].as_i64().expect("a weight")
    }

    /// Waits for that share.
    fn until(&self, wanted: impl Fn(i64) -> bool) {
        while !wanted(self.share()) {
            assert!(self.begun.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_secs(3));
        }
    }

    /// Waits for the end of the engine; its exit code.
    fn ends(&self, mut process: Running) -> Option<i32> {
        loop {
            if let Some(status) = process.0.try_wait().expect("ours") {
                return status.code();
            }
            assert!(self.begun.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The image of the container `app` of an arm.
    fn image(&self, arm: &str) -> String {
        let family = format!("{}-{arm}", self.name);
        let describe = [
            "ecs",
            "describe-services",
            "--cluster",
            &self.name,
            "--services",
        ];
        let service = aws(REGION, &[&describe[..], &[&family]].concat())["services"][0].clone();
        let definition = service["taskDefinition"]
            .as_str()
            .expect("an ARN")
            .to_owned();
        let describe = [
            "ecs",
            "describe-task-definition",
            "--task-definition",
            &definition,
        ];
        let definition = aws(REGION, &describe)["taskDefinition"].clone();
        let containers = definition["containerDefinitions"].as_array();
        let mut containers = containers.expect("a list").iter();
        let app = containers.find(|c| c["name"] == "app").expect("an app");
        app["image"].as_str().expect("a text").to_owned()
    }

    /// Sends the users home, and prints what the engine said; what they met.
    fn close(mut self, title: &str) -> Value {
        println!("== {title}\n{}", self.said());
        println!("-- {} s in all", self.begun.elapsed().as_secs());
        drop(self.users.0.stdin.take());
        let told = self.users.0.stdout.take().expect("piped");
        let met: Value = serde_json::from_reader(told).expect("JSON");
        println!("-- users: {met}\n");
        met
    }
}

fn a_good_one(built: &Value) -> Value {
    let service = Service::open(built, "cloudformation");
    let mut process = service.run("reg.example/shop:good");
    service.until(|share| share == 25);
    std::thread::sleep(Duration::from_secs(30));
    process.0.kill().expect("SIGKILL");
    process.0.wait().expect("it ended");
    assert_eq!(service.share(), 25, "nobody was moved");
    std::thread::sleep(Duration::from_secs(20));
    let resume = [
        "resume",
        "--listener",
        &service.listener,
        "--cluster",
        &service.name,
    ];
    let code = service.ends(service.engine(&resume));
    assert_eq!(code, Some(0), "{}", service.said());
    let images = ["stable", "canary"].map(|arm| service.image(arm));
    assert_eq!(images, ["reg.example/shop:good"; 2]);
    assert_eq!(service.share(), 0, "stable has all of it again");
    service.close("a good version, and the engine killed in the middle")
}

fn a_bad_one(built: &Value) -> Value {
    let service = Service::open(built, "boto3");
    let code = service.ends(service.run("reg.example/shop:bad"));
    assert_eq!(code, Some(3), "{}", service.said());
    assert_eq!(service.share(), 0);
    assert_eq!(service.image("stable"), "reg.example/shop:v1");
    service.close("a bad version")
}

/// `make real-speed`, which `make campaign` begins with.
#[test]
#[ignore = "it takes ten minutes: make real-speed"]
fn a_good_and_a_bad_version() {
    let built = awkward("nginx");
    let (good, bad) = std::thread::scope(|scope| {
        let good = scope.spawn(|| a_good_one(&built));
        let bad = scope.spawn(|| a_bad_one(&built));
        (
            good.join().expect("promoted"),
            bad.join().expect("it went back"),
        )
    });
    let number = |key: &str| bad[key].as_f64().expect("a number");
    println!(
        "the bad version had users for {} s: {} of their {} requests went wrong, of {} in all",
        number("seconds"),
        number("hit"),
        number("of-the-bad"),
        number("requests"),
    );
    assert!(number("hit") > 0.0, "there was something to find");
    assert_eq!(good["hit"], 0);
}
