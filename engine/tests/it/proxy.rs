//! What a good proxy does, one test for each behaviour of the local balancer: when an
//! answer is judged, how HTTP/2 and gRPC pass, what is sent once more, and which
//! requests are refused before an arm sees them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use engine::model::MetricsQuery;
use engine::model::query::Count;
use engine::model::target::{HealthProtocol, LocalSpec};
use engine::target::Target;
use engine::target::local::LocalTarget;
use engine::target::local::balancer::Balancer;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::balancer::{healthy, spec, url};
use crate::support::binary::{run, stdout};
use crate::support::clients::{counted, hear, say, seen, start, upstream};
use crate::support::folder;

const PATIENCE: Duration = Duration::from_secs(20);
const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";

/// Answers each connection with these bytes, and closes it.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    upstream(move |mut stream: TcpStream, _| async move {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
    })
    .await
}

// === When an answer is judged ===

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_an_error_of_its_arm() {
    let broken: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nten bytes.",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
    ];
    for bytes in broken {
        let (balancer, target) = start(answering(bytes).await, |_| ()).await;
        say(balancer.listen, GET, PATIENCE).await;
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(seen(&target).await, (1, 1, 0), "{shown}");
    }
    let whole: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        // Its end is the end of the connection.
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ];
    for bytes in whole {
        let (balancer, target) = start(answering(bytes).await, |_| ()).await;
        say(balancer.listen, GET, PATIENCE).await;
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(seen(&target).await, (1, 0, 0), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_within_an_answer_is_an_error_of_its_arm() {
    let address = upstream(|mut stream: TcpStream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.";
        let _ = stream.write_all(head).await;
        tokio::time::sleep(PATIENCE).await;
    })
    .await;
    let (balancer, target) = start(address, |spec| spec.response_timeout_ms = 300).await;
    let heard = say(balancer.listen, GET, PATIENCE).await;
    assert!(heard.ends_with("ten bytes."), "{heard}");
    assert_eq!(seen(&target).await, (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_of_an_answer_says_nothing_about_its_arm() {
    let address = upstream(|mut stream: TcpStream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(&[0; 1024]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    say(balancer.listen, GET, Duration::from_millis(100)).await;
    assert_eq!(seen(&target).await, (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_the_time_to_the_head_and_the_time_to_the_end_stands_beside_it() {
    let address = upstream(|mut stream: TcpStream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na";
        let _ = stream.write_all(head).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let _ = stream.write_all(b"b").await;
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    say(balancer.listen, GET, PATIENCE).await;
    seen(&target).await;
    let samples = target.samples(&MetricsQuery::default()).await;
    let samples = samples.expect("reachable");
    let (head, whole) = (
        samples[0].latency.expect("known"),
        samples[0].whole.expect("known"),
    );
    assert!(head.p99 < 300.0, "{head:?}");
    assert!(whole.p99 >= 390.0, "{whole:?}");
}

// === Who leaves ===

/// A server that tells when the head of a request has come, and never answers.
async fn silent() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let (came, comes) = tokio::sync::mpsc::unbounded_channel();
    let address = upstream(move |stream: TcpStream, _| {
        let came = came.clone();
        async move {
            let _ = came.send(());
            let _held = stream;
            std::future::pending::<()>().await;
        }
    })
    .await;
    (address, comes)
}

/// Those without an answer, and out of how many, of the first arm so far.
async fn unanswered(target: &LocalTarget) -> (u64, u64) {
    let of = async |count| counted(target, count, "stable").await;
    (of(Count::Unanswered).await, of(Count::Asked).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_the_arm_owes_the_answer_had_none() {
    let (address, mut comes) = silent().await;
    let (balancer, target) = start(address, |spec| spec.clients.body_ms = 20_000).await;
    let post = "POST / HTTP/1.1\r\nhost: x\r\n";
    // What is said, and whether that is all of the request.
    let cases = [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), true),
        (format!("{post}content-length: 3\r\n\r\nabc"), true),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            true,
        ),
        (format!("{post}content-length: 3\r\n\r\nab"), false),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\na\r\n"),
            false,
        ),
        (
            format!("{post}content-length: 3\r\nexpect: 100-continue\r\n\r\n"),
            false,
        ),
    ];
    for (said, _) in &cases {
        let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
        stream.write_all(said.as_bytes()).await.expect("open");
        comes.recv().await.expect("it comes");
        // The rest of what was said is on its way.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let given_up = cases.iter().filter(|(_, whole)| *whole).count();
    let given_up = u64::try_from(given_up).expect("few");
    assert_eq!(seen(&target).await, (0, 0, 6), "none of them is an error");
    assert_eq!(unanswered(&target).await, (given_up, given_up));
    let live = target.observe().await.expect("open");
    assert_eq!(live.arms[0].unanswered, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resets_a_stream_while_the_arm_owes_the_answer_had_none() {
    let (address, mut comes) = silent().await;
    let (balancer, target) = start(address, |_| ()).await;
    let stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("speaks HTTP/2");
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::post("http://shop.example/x");
        let request = request
            .body(Full::<Bytes>::from("all of it"))
            .expect("valid");
        let asked = tokio::spawn(sender.send_request(request));
        comes.recv().await.expect("it comes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked.abort();
    }
    assert_eq!(seen(&target).await, (0, 0, 2));
    assert_eq!(unanswered(&target).await, (2, 2));
    // The connection is still a good one.
    assert!(sender.ready().await.is_ok());
}

/// The head of an answer is not yet the answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_an_answer_that_stalls_had_none() {
    let heads = [
        "content-length: 100\r\n\r\nten bytes.",
        "transfer-encoding: chunked\r\n\r\na\r\nten bytes.\r\n",
        "content-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n",
        "content-type: text/event-stream\r\n\r\ndata: 1\n\n",
    ];
    for head in heads {
        let address = upstream(move |mut stream: TcpStream, _| async move {
            let head = format!("HTTP/1.1 200 OK\r\n{head}");
            let _ = stream.write_all(head.as_bytes()).await;
            std::future::pending::<()>().await;
        })
        .await;
        let (balancer, target) = start(address, |_| ()).await;
        let heard = hear(balancer.listen, GET).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
        assert_eq!(seen(&target).await, (0, 0, 1), "{head}");
        assert_eq!(unanswered(&target).await, (1, 1), "{head}");
    }
}

/// Consent to a tunnel is not yet an answer. Whoever ends one in which the arm has said
/// nothing, it is compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_in_which_the_arm_says_nothing_is_one_without_an_answer() {
    const CONSENT: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    // What the arm says in the tunnel, and whether it ends it.
    for (says, ends, silent) in [
        (&b""[..], true, 1),
        (b"", false, 1),
        (b"hello", true, 0),
        (b"hello", false, 0),
    ] {
        let address = upstream(move |mut stream: TcpStream, _| async move {
            let _ = stream.write_all(CONSENT).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = stream.write_all(says).await;
            if !ends {
                // Until the other end has gone.
                let _ = stream.read(&mut [0; 64]).await;
            }
        })
        .await;
        let (balancer, target) = start(address, |_| ()).await;
        let ask =
            "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let heard = say(balancer.listen, ask.as_bytes(), Duration::from_millis(300)).await;
        assert!(heard.starts_with("HTTP/1.1 101"), "{heard}");
        assert!(heard.ends_with(&*String::from_utf8_lossy(says)), "{heard}");
        assert_eq!(seen(&target).await, (1, 0, silent), "{says:?} {ends}");
        let asked = 1 + silent;
        assert_eq!(
            unanswered(&target).await,
            (silent, asked),
            "{says:?} {ends}"
        );
    }
}

/// What the client does not take is not owed to it.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_an_answer_that_flows_had_one() {
    let address = upstream(|mut stream: TcpStream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(&[b'x'; 100_000]).await.is_ok() {}
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
    stream.write_all(GET).await.expect("open");
    // It reads nothing, until nobody can send any more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(stream);
    assert_eq!(seen(&target).await, (0, 0, 1));
    assert_eq!(unanswered(&target).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_balancer_answers_itself_was_not_given_up() {
    let (address, _comes) = silent().await;
    let (balancer, target) = start(address, |spec| spec.response_timeout_ms = 300).await;
    let broken = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nab";
    let heard = say(balancer.listen, broken, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    let heard = say(balancer.listen, GET, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 504"), "{heard}");
    assert_eq!(seen(&target).await, (1, 1, 1));
    assert_eq!(unanswered(&target).await, (0, 1));
}

/// A client that brings the cookie of an arm has chosen it, and could leave as often as it
/// likes.
#[tokio::test(flavor = "multi_thread")]
async fn who_chose_the_arm_and_leaves_says_nothing_about_it() {
    let (address, mut comes) = silent().await;
    let (balancer, target) = start(address, |spec| spec.sticky_seconds = 60).await;
    for cookie in ["", "cookie: engine-arm=stable\r\n"] {
        let said = format!("GET / HTTP/1.1\r\nhost: x\r\n{cookie}\r\n");
        let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
        stream.write_all(said.as_bytes()).await.expect("open");
        comes.recv().await.expect("it comes");
    }
    assert_eq!(seen(&target).await, (0, 0, 2));
    assert_eq!(unanswered(&target).await, (1, 1));
}

/// The cookie that the balancer gives whom a lot brings to the first arm.
async fn kept(balancer: &Balancer) -> String {
    let heard = say(balancer.listen, GET, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    let given = heard.split("set-cookie: ").nth(1).expect("told to stay");
    let pair = given.split(';').next().expect("a pair");
    format!("cookie: {pair}\r\n")
}

/// Where all clients have cookies, a version is seen by what each lot still tells: each
/// kind of evidence once, however often its client leaves.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_drawn_for_an_arm_and_leaves_it_later_says_so_once() {
    let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
    let address = upstream(move |mut stream: TcpStream, head: String| {
        let came = came.clone();
        async move {
            if head.contains(" /buy ") {
                let _ = came.send(());
                std::future::pending::<()>().await;
            }
            crate::support::clients::answer(&mut stream, "200 OK").await;
        }
    })
    .await;
    let sticky = |spec: &mut LocalSpec| spec.sticky_seconds = 60;
    let (other, _) = start(address, sticky).await;
    let foreign = kept(&other).await;
    // How often each cookie leaves; how many lots of this balancer they are.
    for (own, times, lots) in [(0, 1, 0), (1, 1, 1), (1, 5, 1), (3, 2, 3)] {
        let (balancer, target) = start(address, sticky).await;
        let mut cookies = vec![foreign.clone()];
        for _ in 0..own {
            cookies.push(kept(&balancer).await);
        }
        for _ in 0..times {
            for cookie in &cookies {
                let said = format!("GET /buy HTTP/1.1\r\nhost: x\r\n{cookie}\r\n");
                let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
                stream.write_all(said.as_bytes()).await.expect("open");
                comes.recv().await.expect("it comes");
            }
        }
        let spoiled = times * (own + 1);
        let (_, errors, left) = seen(&target).await;
        assert_eq!((errors, left), (0, spoiled), "{own} {times}");
        // Those who were drawn had an answer first.
        assert_eq!(unanswered(&target).await, (lots, 2 * lots), "{own} {times}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_drawn_for_an_arm_and_is_answered_there_counts_once() {
    let address = upstream(crate::support::clients::good).await;
    let (balancer, target) = start(address, |spec| spec.sticky_seconds = 60).await;
    let cookie = kept(&balancer).await;
    let said = format!("GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{cookie}\r\n");
    for _ in 0..5 {
        say(balancer.listen, said.as_bytes(), PATIENCE).await;
    }
    // All six are in the samples.
    assert_eq!(seen(&target).await, (6, 0, 0));
    assert_eq!(unanswered(&target).await, (0, 2));
}

/// A version that lost a method tells it to each of its clients; one of them cannot tell it
/// twice.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_drawn_for_an_arm_finds_once_what_it_does_not_serve() {
    for status in ["501 Not Implemented", "505 Version", "500 Oh", "404 No"] {
        let address = upstream(move |mut stream: TcpStream, head: String| async move {
            let status = match head.contains(" /buy ") {
                true => status,
                false => "200 OK",
            };
            crate::support::clients::answer(&mut stream, status).await;
        })
        .await;
        let (balancer, target) = start(address, |spec| spec.sticky_seconds = 60).await;
        let counts = match &status[..3] {
            "500" => (6, 0),
            "404" => (0, 6),
            _ => (2, 4),
        };
        for _ in 0..2 {
            let cookie = kept(&balancer).await;
            let said = format!("GET /buy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{cookie}\r\n");
            for _ in 0..3 {
                say(balancer.listen, said.as_bytes(), PATIENCE).await;
            }
        }
        let (requests, errors, _) = seen(&target).await;
        let samples = target.samples(&MetricsQuery::default()).await;
        let samples = samples.expect("open");
        let by_client: u32 = samples.iter().map(|s| s.client_errors).sum();
        assert_eq!(requests, 8);
        assert_eq!((errors, by_client), counts, "{status}");
    }
}

/// What no version serves is an error where a lot chose the arm, because both arms get it
/// alike, and none where the client did.
#[tokio::test(flavor = "multi_thread")]
async fn who_chose_the_arm_cannot_make_errors_of_it_by_asking_for_what_no_version_has() {
    let address = upstream(|mut stream: TcpStream, head: String| async move {
        let status = match head.split(' ').next() {
            Some("FOO") => "501 Unsupported method",
            Some("GET") if head.contains("/broken") => "500 Oh",
            _ => "200 OK",
        };
        crate::support::clients::answer(&mut stream, status).await;
    })
    .await;
    for (sticky, cookie, line, counts) in [
        (60, true, "FOO /", (0, 1)),
        (60, false, "FOO /", (1, 0)),
        (0, true, "FOO /", (1, 0)),
        (60, true, "GET /broken", (1, 0)),
    ] {
        let (balancer, target) = start(address, |spec| spec.sticky_seconds = sticky).await;
        let cookie = if cookie {
            "cookie: engine-arm=stable\r\n"
        } else {
            ""
        };
        let said = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{cookie}\r\n");
        say(balancer.listen, said.as_bytes(), PATIENCE).await;
        let (requests, errors, _) = seen(&target).await;
        let samples = target
            .samples(&MetricsQuery::default())
            .await
            .expect("open");
        let by_client: u32 = samples.iter().map(|s| s.client_errors).sum();
        assert_eq!(requests, 1);
        assert_eq!((errors, by_client), counts, "{sticky} {cookie:?} {line}");
    }
}

// === HTTP/2 and gRPC ===

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A server that speaks HTTP/2 alone.
async fn http2(answer: impl Fn(Parts) -> Answer + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                let answer = answer.clone();
                async move {
                    let _ = body.collect().await;
                    Ok::<_, Infallible>(answer(head))
                }
            });
            tokio::spawn(async move {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

fn plain(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).boxed())
}

/// What a gRPC server answers: perhaps a message, and the status after it.
fn grpc(message: Option<&'static [u8]>, status: &'static str) -> Answer {
    let fields = HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        HeaderValue::from_static(status),
    )]);
    let mut answer = match message {
        Some(message) => {
            let body = Full::new(Bytes::from_static(message));
            Response::new(body.with_trailers(async { Some(Ok(fields)) }).boxed())
        }
        // Without a message the status is in the head.
        None => {
            let mut answer = Response::new(Empty::new().boxed());
            *answer.headers_mut() = fields;
            answer
        }
    };
    let kind = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert("content-type", kind);
    answer
}

/// Sends a request over HTTP/2, and reads the answer with its trailers.
async fn ask(
    address: SocketAddr,
    host: &str,
    path: &str,
) -> (hyper::http::response::Parts, Bytes, Option<HeaderMap>) {
    let stream = TcpStream::connect(address).await.expect("listens");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .expect("speaks HTTP/2");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{host}{path}"));
    let request = request.body(Empty::<Bytes>::new()).expect("valid");
    let (head, body) = sender
        .send_request(request)
        .await
        .expect("answered")
        .into_parts();
    let body = body.collect().await.expect("whole");
    let trailers = body.trailers().cloned();
    (head, body.to_bytes(), trailers)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_grpc_is_what_counts_and_trailers_pass() {
    let address = http2(|head| match head.uri.path() {
        "/healthz" => plain(""),
        "/good" => grpc(Some(b"answer"), "0"),
        "/broken" => grpc(Some(b"answer"), "13"),
        "/refused" => grpc(None, "16"),
        "/overloaded" => grpc(None, "14"),
        _ => {
            let mut answer = plain("no status at all");
            let kind = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert("content-type", kind);
            answer
        }
    })
    .await;
    // Requests, errors and those of clients after each.
    for (path, errors) in [
        ("/good", (0, 0)),
        ("/broken", (1, 0)),
        ("/refused", (0, 1)),
        ("/overloaded", (1, 0)),
        ("/unsaid", (1, 0)),
    ] {
        let (balancer, target) = start(address, |spec| spec.upstream_http2 = true).await;
        let (head, body, trailers) = ask(balancer.listen, "shop.example", path).await;
        match path {
            "/good" | "/broken" => {
                assert_eq!(body, "answer");
                assert!(
                    trailers.is_some_and(|t| t.contains_key("grpc-status")),
                    "{path}"
                );
            }
            "/refused" => assert_eq!(head.headers["grpc-status"], "16"),
            _ => {}
        }
        assert_eq!(seen(&target).await.1, errors.0, "{path}");
        let samples = target.samples(&MetricsQuery::default()).await;
        let client_errors = samples.expect("reachable")[0].client_errors;
        assert_eq!(client_errors, errors.1, "{path}");
    }
}

/// Sends a request over HTTP/2 and reads nothing of the answer; dropping what it returns
/// ends that.
async fn ask_and_read_nothing(address: SocketAddr, path: &str) -> impl Sized {
    let stream = TcpStream::connect(address).await.expect("listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("speaks HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(format!("http://shop.example{path}"));
    let request = request.body(Empty::<Bytes>::new()).expect("valid");
    (
        sender.send_request(request).await.expect("answered"),
        sender,
    )
}

/// Clients share connections to an arm, and must not be able to spoil its answers for
/// each other.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_over_http_2_holds_up_nobody_else() {
    let address = http2(|head| match head.uri.path() {
        "/large" => plain(vec![0; 8 << 20]),
        _ => plain("small"),
    })
    .await;
    let (balancer, target) = start(address, |spec| {
        spec.upstream_http2 = true;
        spec.response_timeout_ms = 3_000;
    })
    .await;
    healthy(&target, "stable", 1).await;
    let mut idlers = vec![];
    for _ in 0..8 {
        idlers.push(ask_and_read_nothing(balancer.listen, "/large").await);
    }
    for _ in 0..3 {
        let (_, body, _) = ask(balancer.listen, "shop.example", "/small").await;
        assert_eq!(body, "small");
    }
    let (requests, errors, _) = seen(&target).await;
    assert_eq!((requests, errors), (3, 0));
    drop(idlers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_http_2_is_the_host_that_the_client_asked_for() {
    let address = http2(|head| {
        let host = head.headers.get("host").map(|h| format!("{h:?}"));
        plain(format!(
            "{:?} {host:?}",
            head.uri.authority().map(ToString::to_string)
        ))
    })
    .await;
    let (balancer, target) = start(address, |spec| spec.upstream_http2 = true).await;
    healthy(&target, "stable", 1).await;
    let says = "Some(\"shop.example\") None";
    let heard = say(balancer.listen, GET, PATIENCE).await;
    assert!(heard.ends_with(says), "{heard}");
    let (_, body, _) = ask(balancer.listen, "shop.example", "/x").await;
    assert_eq!(body, says);
    // With a port, as an IPv6 address, and as the address in the request line says.
    for (request, host) in [
        (
            "GET /x HTTP/1.1\r\nhost: shop.example:8443",
            "shop.example:8443",
        ),
        (
            "GET /x HTTP/1.1\r\nhost: [2001:db8::7]:80",
            "[2001:db8::7]:80",
        ),
        (
            "GET http://shop.example/x HTTP/1.1\r\nhost: other",
            "shop.example",
        ),
    ] {
        let request = format!("{request}\r\nconnection: close\r\n\r\n");
        let heard = say(balancer.listen, request.as_bytes(), PATIENCE).await;
        assert!(heard.ends_with(&format!("Some({host:?}) None")), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_speak_what_the_traffic_speaks() {
    let is = |answer: fn(Parts) -> Answer, protocol: HealthProtocol| async move {
        let address = http2(answer).await;
        let (_balancer, target) = start(address, |spec| {
            spec.upstream_http2 = true;
            spec.health.protocol = protocol;
        })
        .await;
        for _ in 0..20 {
            let live = target.observe().await.expect("reachable");
            if live.arms[0].healthy == 1 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    let grpc_health = || HealthProtocol::Grpc {
        service: "shop.Shop".to_owned(),
    };
    // A plain server over HTTP/2.
    assert!(is(|_| plain("well"), HealthProtocol::Http).await);
    // gRPC servers, without and with the health protocol.
    assert!(is(|_| grpc(None, "12"), HealthProtocol::Http).await);
    assert!(
        is(
            |_| grpc(Some(b"\0\0\0\0\x02\x08\x01"), "0"),
            HealthProtocol::Http
        )
        .await
    );
    assert!(is(|_| grpc(Some(b"\0\0\0\0\x02\x08\x01"), "0"), grpc_health()).await);
    // One that says that it does not serve, one that fails, and one that does not know.
    assert!(
        !is(
            |_| grpc(Some(b"\0\0\0\0\x02\x08\x02"), "0"),
            HealthProtocol::Http
        )
        .await
    );
    assert!(!is(|_| grpc(Some(b"\0\0\0\0\x02\x08\x02"), "0"), grpc_health()).await);
    assert!(!is(|_| grpc(None, "13"), HealthProtocol::Http).await);
    assert!(!is(|_| grpc(None, "12"), grpc_health()).await);
}

// === What is sent once more ===

/// A server that answers the first request of each connection, and closes it when the
/// second one comes. Returns its address and what it has got.
async fn hasty() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    let got = Arc::new(Mutex::new(vec![]));
    let keeps = got.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let got = keeps.clone();
            tokio::spawn(async move {
                for nth in 0..2 {
                    let mut bytes = vec![0; 4096];
                    let mut text = String::new();
                    // The bodies of this test end with a dot.
                    while !text.ends_with("\r\n\r\n") && !text.ends_with('.') {
                        match stream.read(&mut bytes).await {
                            Ok(0) | Err(_) => return,
                            Ok(n) => text += &String::from_utf8_lossy(&bytes[..n]),
                        }
                        if text.contains("content-length: 5") && !text.ends_with('.') {
                            text = text.trim_end().to_owned();
                        }
                    }
                    let health = text.starts_with("GET /healthz");
                    if !health {
                        let line = text.split(' ').next().unwrap_or_default();
                        got.lock().expect("whole").push(line.to_owned());
                    }
                    if nth == 1 && !health {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    (address, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_kept_connection_lost_is_sent_again_if_that_does_no_harm() {
    for (method, body, again) in [
        ("GET", "", true),
        ("DELETE", "", true),
        ("PUT", "abcd.", true),
        // The server may have done it, and twice might be wrong.
        ("POST", "abcd.", false),
    ] {
        let (address, got) = hasty().await;
        let (balancer, target) = start(address, |_| ()).await;
        let request = |method: &str, body: &str| {
            let length = match body {
                "" => String::new(),
                body => format!("content-length: {}\r\n", body.len()),
            };
            format!("{method} /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n{body}")
        };
        let first = say(balancer.listen, request("GET", "").as_bytes(), PATIENCE).await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        let second = say(balancer.listen, request(method, body).as_bytes(), PATIENCE).await;
        let code = if again {
            "HTTP/1.1 200"
        } else {
            "HTTP/1.1 502"
        };
        assert!(second.starts_with(code), "{method}: {second}");
        let times = if again { 2 } else { 1 };
        let got = got.lock().expect("whole").clone();
        assert_eq!(got[1..], vec![method; times], "{method}");
        assert_eq!(seen(&target).await, (2, u32::from(!again), 0), "{method}");
        // It is seen, and compared with the other arm's.
        let times = u64::from(again);
        let of = async |count| counted(&target, count, "stable").await;
        assert_eq!(of(Count::SentAgain).await, times, "{method}");
        assert_eq!(of(Count::Unanswered).await, times, "{method}");
        assert_eq!(of(Count::Asked).await, 2, "{method}");
        let live = target.observe().await.expect("open");
        assert_eq!(live.arms[0].sent_again, times, "{method}");
        let folder = folder();
        let admin = balancer.admin.to_string();
        let status = tokio::task::spawn_blocking(move || {
            stdout(&run(folder.path(), &["status", "--local", &admin]))
        });
        let status = status.await.expect("no panic");
        assert_eq!(status.contains("1 sent again"), again, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_hangs_up_is_at_fault() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let address = upstream(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async {}
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    let heard = say(balancer.listen, GET, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it was a new connection");
    assert_eq!(seen(&target).await, (1, 1, 0));
}

// === Heads ===

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_host() {
    let address = upstream(|mut stream: TcpStream, head: String| async move {
        let host = head.lines().find(|l| l.to_lowercase().starts_with("host:"));
        let text = host.unwrap_or("no host").to_owned();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    let refused = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ];
    for request in refused {
        let request = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let heard = say(balancer.listen, request.as_bytes(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{request}: {heard}");
    }
    assert_eq!(seen(&target).await, (0, 0, 0), "no arm was asked");
    let passed = [
        (
            "GET / HTTP/1.1\r\nhost: shop.example:80",
            "host: shop.example:80",
        ),
        (
            "GET http://shop.example/x HTTP/1.1\r\nhost: other",
            "host: shop.example",
        ),
        (
            "GET http://shop.example/x HTTP/1.1\r\nhost:",
            "host: shop.example",
        ),
    ];
    for (request, host) in passed {
        let whole = format!("{request}\r\nconnection: close\r\n\r\n");
        let heard = say(balancer.listen, whole.as_bytes(), PATIENCE).await;
        assert!(heard.ends_with(host), "{request}: {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_and_with_news_before_them_pass() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\nconnection: close\r\n\r\n";
    let cases: [(&str, &[u8], &str); 5] = [
        ("HEAD", head, "content-length: 4000"),
        ("GET", b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", "204 No Content"),
        (
            "GET",
            b"HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 9\r\n\r\n",
            "304 Not Modified",
        ),
        (
            "GET",
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
        (
            "GET",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
        ),
    ];
    for (method, bytes, says) in cases {
        let (balancer, target) = start(answering(bytes).await, |_| ()).await;
        let request = format!("{method} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let heard = say(balancer.listen, request.as_bytes(), PATIENCE).await;
        assert!(heard.contains(says), "{method} {says}: {heard}");
        assert_eq!(seen(&target).await, (1, 0, 0), "{method} {says}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    let address = upstream(crate::support::clients::good).await;
    let (balancer, _target) = start(address, |_| ()).await;
    let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.expect("open");
    let mut bytes = [0; 25];
    stream.read_exact(&mut bytes).await.expect("told");
    assert!(bytes.starts_with(b"HTTP/1.1 100 Continue"));
    stream.write_all(b"abc").await.expect("open");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("answered");
    assert!(rest.contains("HTTP/1.1 200"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_may_be_as_large_as_behind_a_load_balancer_of_aws() {
    let fields: String = (0..500)
        .map(|n| format!("x-{n}: {}\r\n", "y".repeat(80)))
        .collect();
    let kept: &'static str = fields.clone().leak();
    let address = upstream(move |mut stream: TcpStream, head: String| {
        let many = head.lines().filter(|l| l.starts_with("x-")).count();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\nx-got: {many}\r\n{kept}content-length: 0\r\n\r\n"
        );
        async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n");
    let heard = say(balancer.listen, request.as_bytes(), PATIENCE).await;
    // The engine's own field is one of them.
    assert!(
        heard.contains("x-got: 502") || heard.contains("x-got: 500"),
        "{}",
        &heard[..200]
    );
    assert!(heard.contains("x-499: yyy"), "the answer's fields came too");
    assert_eq!(seen(&target).await, (1, 0, 0));
    // And over HTTP/2.
    let address = http2(move |head| {
        let mut answer = plain(head.headers.len().to_string());
        for n in 0..300 {
            let name: hyper::header::HeaderName = format!("x-{n}").parse().expect("a name");
            answer.headers_mut().insert(
                name,
                HeaderValue::from_static("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
            );
        }
        answer
    })
    .await;
    let (balancer, target) = start(address, |spec| spec.upstream_http2 = true).await;
    healthy(&target, "stable", 1).await;
    let (head, ..) = ask(balancer.listen, "shop.example", "/x").await;
    assert!(head.headers.contains_key("x-299"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_http_2_cannot_carry_is_an_ordinary_request() {
    let address = http2(|head| plain(format!("{:?}", head.version))).await;
    let (balancer, target) = start(address, |spec| spec.upstream_http2 = true).await;
    healthy(&target, "stable", 1).await;
    let request =
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n";
    let heard = say(balancer.listen, request, PATIENCE).await;
    assert!(heard.ends_with("HTTP/2.0"), "{heard}");
    assert_eq!(seen(&target).await, (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_speak_what_the_traffic_speaks() {
    let address = http2(|head| plain(format!("{:?}", head.version))).await;
    let mut spec = spec([url(address), url(address)]);
    spec.upstream_http2 = true;
    let (balancer, target) = crate::support::balancer::start(&spec).await;
    let probe = engine::model::query::Probe {
        name: "version".to_owned(),
        path: "/v".to_owned(),
        status: 200,
        contains: Some("HTTP/2.0".to_owned()),
        attempts: 1,
        timeout_ms: 5_000,
    };
    let report = target.probe("stable", &probe).await.expect("known");
    assert!(report.ok, "{report:?}");
    drop(balancer);
}
