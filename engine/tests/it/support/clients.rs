//! Clients and servers of their own: what they say, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use engine::model::query::Count;
use engine::model::target::LocalSpec;
use engine::model::{DemoFault, MetricsQuery, Source};
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::balancer::spec;

/// A server that hands each connection to `serve`, with the head of its request.
/// Health checks are answered.
pub async fn upstream<F>(
    serve: impl Fn(TcpStream, String) -> F + Send + Clone + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                if head.starts_with("GET /healthz") {
                    answer(&mut stream, "200 OK").await;
                    return;
                }
                serve(stream, head).await;
            });
        }
    });
    address
}

pub async fn answer(stream: &mut TcpStream, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
}

/// Reads a body to its end, if it has one, and answers 200.
pub async fn good(mut stream: TcpStream, head: String) {
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1);
    if let Some(length) = length.and_then(|l| l.split("\r\n").next()?.parse::<usize>().ok()) {
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
    } else if head.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => body.push(byte),
                Err(_) => return,
            }
        }
    }
    answer(&mut stream, "200 OK").await;
}

pub async fn start(
    address: SocketAddr,
    change: impl FnOnce(&mut LocalSpec),
) -> (Balancer, LocalTarget) {
    let url = Source::Urls(vec![format!("http://{address}")]);
    let mut spec = spec([url, Source::Demo(DemoFault::default())]);
    spec.clients.body_ms = 400;
    change(&mut spec);
    let balancer = Balancer::start(&spec, None, None).await.expect("starts");
    let target = LocalTarget::new(balancer.admin);
    (balancer, target)
}

/// Requests, errors and what clients spoiled, of the first arm so far.
pub async fn seen(target: &LocalTarget) -> (u32, u32, u64) {
    // A sample closes with its second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let samples = target
        .samples(&MetricsQuery::default())
        .await
        .expect("open");
    let live = target.observe().await.expect("open");
    let ours = || samples.iter().filter(|s| s.arm == "stable");
    (
        ours().map(|s| s.requests).sum(),
        ours().map(|s| s.errors).sum(),
        live.arms[0].spoiled,
    )
}

/// A count of an arm over all complete seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts"
)]
pub async fn counted(target: &LocalTarget, count: Count, arm: &str) -> u64 {
    let points = target.counted(count, 0).await.expect("open");
    let points = points.expect("a balancer counts it").into_iter();
    let ours = points.filter(|p| p.arm == arm);
    ours.map(|p| p.value as u64).sum()
}

/// Users that ask one after the other, and leave after `patience` without an answer; until
/// what is returned is dropped.
pub fn users(address: SocketAddr, many: usize, patience: Duration) -> tokio::task::JoinSet<()> {
    let mut users = tokio::task::JoinSet::new();
    for _ in 0..many {
        users.spawn(async move {
            loop {
                let said = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                say(address, said, patience).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    users
}

/// Sends bytes, waits for what comes back until the balancer closes or `patience`
/// is over, and hangs up.
pub async fn say(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The same of what is answered: waits for the answer to begin, however busy the machine is,
/// and for the rest of it a little longer.
pub async fn hear(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    let _ = stream.write_all(bytes).await;
    let mut text = vec![0; 4096];
    let begun = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut text)).await;
    text.truncate(begun.map_or(0, |read| read.unwrap_or(0)));
    let rest = stream.read_to_end(&mut text);
    let _ = tokio::time::timeout(Duration::from_millis(300), rest).await;
    String::from_utf8_lossy(&text).into_owned()
}
