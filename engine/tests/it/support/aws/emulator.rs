//! The emulator, one for all tests of the process, and the AWS CLI beside it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use engine::target::http::Client;
use serde_json::{Value, json};

use crate::support::{root, target_folder};

/// A program of the emulator's own Python environment.
pub fn tool(name: &str) -> PathBuf {
    let place = target_folder().join("emulator/bin").join(name);
    assert!(
        place.exists(),
        "{}: `make emulator` makes it",
        place.display()
    );
    place
}

/// One emulator.
pub struct Emulator {
    pub address: String,
    /// Its standard input is its life line.
    process: Child,
}

impl Emulator {
    pub fn start(arguments: &[&str]) -> Self {
        let script = root().join("engine/tests/emulator/serve.py");
        let mut process = Command::new(tool("python"))
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on ");
        Self {
            address: address
                .unwrap_or_else(|| panic!("it said {line:?}"))
                .to_owned(),
            process,
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The AWS CLI looks at a stack every 30 s, so for it stacks are quick.
fn emulator() -> &'static Emulator {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    EMULATOR.get_or_init(|| Emulator::start(&["--stack-polls", "0"]))
}

/// `http://127.0.0.1:PORT`
pub fn endpoint() -> String {
    format!("http://{}", emulator().address)
}

/// A name that no other test has.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a process needs to speak to the emulator and to nothing else.
pub fn environment(command: &mut Command, endpoint: &str, region: &str) {
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", region)
        .env("AWS_DEFAULT_REGION", region)
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", "testing")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/nonexistent")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        .env_remove("AWS_PROFILE");
}

/// The judge: what the real AWS CLI prints, as JSON.
pub fn aws(region: &str, arguments: &[&str]) -> Value {
    try_aws(region, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// The same where it may fail: what it complains about.
pub fn try_aws(region: &str, arguments: &[&str]) -> Result<Value, String> {
    let command = arguments.iter().map(|part| (*part).to_owned()).collect();
    ask_aws(region, &[command]).remove(0)
}

/// A script of the emulator's folder that answers each line of JSON with one.
struct Lines(Mutex<(Child, BufReader<ChildStdout>)>);

impl Lines {
    fn start(script: &str) -> Self {
        let mut command = Command::new(tool("python"));
        environment(&mut command, &endpoint(), "us-east-1");
        let process = command
            .arg(root().join("engine/tests/emulator").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        // It ends with its standard input, which is closed with this process.
        let mut process = process.expect("python starts");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Self(Mutex::new((process, answers)))
    }

    fn ask(&self, question: &Value) -> Value {
        let mut line = String::new();
        {
            // Others go on if what follows panics.
            let (process, answers) = &mut *self.0.lock().expect("no panic");
            let questions = process.stdin.as_mut().expect("piped");
            writeln!(questions, "{question}").expect("it reads");
            answers.read_line(&mut line).expect("it answers");
        }
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer["error"].is_null(), "{question}: {}", answer["error"]);
        answer
    }
}

/// The judge about many things at once: what the real AWS CLI prints for each command.
pub fn aws_each(region: &str, commands: &[Vec<String>]) -> Vec<Value> {
    let answers = ask_aws(region, commands).into_iter();
    let shown = answers.map(|answer| answer.unwrap_or_else(|error| panic!("{error}")));
    shown.collect()
}

/// One of several that run, because each start of the CLI takes a second of the processor.
fn ask_aws(region: &str, commands: &[Vec<String>]) -> Vec<Result<Value, String>> {
    static RUNNING: [OnceLock<Lines>; 3] = [const { OnceLock::new() }; 3];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % RUNNING.len();
    let cli = RUNNING[next].get_or_init(|| Lines::start("cli.py"));
    let answers = cli.ask(&json!({"region": region, "commands": commands}));
    let answers = answers.as_array().expect("a list").iter();
    let answer = |answer: &Value| match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["printed"].clone()),
    };
    answers.map(answer).collect()
}

/// An awkward stack of `tests/fixtures/awkward`, made by CloudFormation and by boto3: of
/// both the name, and the ids of the resources by their logical names.
pub fn awkward(kind: &str) -> Value {
    static BUILDER: OnceLock<Lines> = OnceLock::new();
    let builder = BUILDER.get_or_init(|| Lines::start("awkward.py"));
    builder.ask(&json!({"kind": kind}))
}

/// Scripts the emulator.
pub async fn script(path: &str, body: Value) {
    let url = format!("{}/shim/{path}", endpoint());
    let body = serde_json::to_vec(&body).expect("JSON");
    let timeout = std::time::Duration::from_secs(10);
    let answer = Client::default()
        .send("POST", &url, Some(body), timeout)
        .await;
    let answer = answer.expect("the emulator answers");
    assert!(
        answer.status.is_success(),
        "{path}: {}",
        String::from_utf8_lossy(&answer.body)
    );
}

/// Two subnets of the region's default network.
pub fn subnets(region: &str) -> Vec<String> {
    static KNOWN: OnceLock<Mutex<std::collections::HashMap<String, Vec<String>>>> = OnceLock::new();
    let mut known = KNOWN
        .get_or_init(Default::default)
        .lock()
        .expect("no panic");
    known
        .entry(region.to_owned())
        .or_insert_with(|| {
            let answer = aws(region, &["ec2", "describe-subnets"]);
            let subnets = answer["Subnets"].as_array().expect("a list");
            let ids = subnets.iter().filter_map(|s| s["SubnetId"].as_str());
            ids.take(2).map(ToOwned::to_owned).collect()
        })
        .clone()
}

/// The only network of the region.
pub fn network(region: &str) -> String {
    static KNOWN: OnceLock<Mutex<std::collections::HashMap<String, String>>> = OnceLock::new();
    let mut known = KNOWN
        .get_or_init(Default::default)
        .lock()
        .expect("no panic");
    known
        .entry(region.to_owned())
        .or_insert_with(|| {
            let answer = aws(region, &["ec2", "describe-vpcs"]);
            answer["Vpcs"][0]["VpcId"]
                .as_str()
                .expect("a default network")
                .to_owned()
        })
        .clone()
}
