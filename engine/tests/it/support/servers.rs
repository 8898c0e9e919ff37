//! Real servers: Debian's nginx, Node, and Python's h2 and grpcio. `make servers` brings
//! what a machine with Node and Python lacks.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::binary::Running;
use super::{folder, root, target_folder};

/// How often a port is tried, and how often a server is asked whether it is up.
const TRIES: usize = 5;
const LOOKS: usize = 200;

/// A server on this machine, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    _process: Running,
    _folder: tempfile::TempDir,
}

fn free() -> SocketAddr {
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("free");
    any.local_addr().expect("bound")
}

fn tool(name: &str) -> PathBuf {
    let place = target_folder().join("servers").join(name);
    assert!(
        place.exists(),
        "{} is missing: run `make servers`",
        place.display()
    );
    place
}

fn script(name: &str) -> PathBuf {
    root().join("engine/tests/servers").join(name)
}

/// Starts what `command` says, on a free port.
async fn start(command: impl Fn(SocketAddr) -> (Command, tempfile::TempDir)) -> Server {
    for _ in 0..TRIES {
        let address = free();
        let (mut command, folder) = command(address);
        let name = command.get_program().to_owned();
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{} does not run: {e}", name.display()));
        let mut process = Running(child);
        for _ in 0..LOOKS {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Server {
                    address,
                    _process: process,
                    _folder: folder,
                };
            }
            // Somebody else took the port.
            if process.0.try_wait().expect("ours").is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("the server does not start");
}

/// Node, over `http` or `http2`.
pub async fn node(protocol: &str) -> Server {
    start(|address| {
        let mut command = Command::new("node");
        let port = address.port().to_string();
        command.arg(script("node.js")).args([&port, protocol]);
        (command, folder())
    })
    .await
}

/// A server in Python.
pub async fn python(name: &str) -> Server {
    start(|address| {
        let mut command = Command::new(tool("bin/python"));
        command.arg(script(name)).arg(address.port().to_string());
        (command, folder())
    })
    .await
}

/// What a client of grpcio prints about its calls.
pub async fn grpc_calls(address: SocketAddr, arguments: &[&str]) -> serde_json::Value {
    let mut command = tokio::process::Command::new(tool("bin/python"));
    command.arg(script("grpc_client.py"));
    command.arg(address.port().to_string()).args(arguments);
    let output = command.output().await.expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// nginx, over HTTP/1.1 or over HTTP/2 alone, with files, and with a server behind it.
pub async fn nginx(http2: bool, behind: SocketAddr) -> Server {
    let config = std::fs::read_to_string(script("nginx.conf")).expect("there");
    start(|address| {
        let folder = folder();
        let place = folder.path();
        let files = place.join("files");
        std::fs::create_dir(&files).expect("writable");
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        std::fs::write(files.join("large.bin"), bytes).expect("writable");
        std::fs::write(files.join("page.html"), "<p>a page</p>\n").expect("writable");
        std::fs::write(files.join("parts.txt"), "one, two\n".repeat(500)).expect("writable");
        let (one, other) = (address.port(), free().port());
        let (port, h2) = if http2 { (other, one) } else { (one, other) };
        let config = config
            .replace("@FOLDER@", &place.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@HTTP2@", &h2.to_string())
            .replace("@NODE@", &behind.port().to_string());
        let file = place.join("nginx.conf");
        std::fs::write(&file, config).expect("writable");
        let mut command = Command::new(tool("nginx"));
        command.arg("-c").arg(file).arg("-p").arg(place);
        command.args(["-e", "stderr"]);
        (command, folder)
    })
    .await
}
