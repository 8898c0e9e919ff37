//! What clients of the local balancer do is no evidence about an arm, and what an
//! arm does is, whatever its clients do.

use std::time::Duration;

use engine::model::{MetricsQuery, Source, Weights};
use engine::target::Target;
use engine::target::http::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::clients::{answer, good, hear, say, seen, start, upstream};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_broke_is_no_evidence() {
    let (balancer, target) = start(upstream(good).await, |_| ()).await;
    let short = Duration::from_millis(50);
    let post = "POST / HTTP/1.1\r\nhost: x\r\n";
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(80 << 10)
    );
    // What is said, how long the client waits, what it hears, whether an arm was meant.
    let cases = [
        (
            format!("{post}transfer-encoding: chunked\r\n\r\nZZ\r\n"),
            PATIENCE,
            "400",
            true,
        ),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\n5\r\nab"),
            short,
            "",
            true,
        ),
        (
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            PATIENCE,
            "400",
            true,
        ),
        (
            format!("{post}content-length: 100\r\n\r\nten bytes."),
            short,
            "",
            true,
        ),
        (
            format!("{post}content-length: 100\r\n\r\nten bytes."),
            PATIENCE,
            "408",
            true,
        ),
        (
            format!("{post}content-length: 9\r\nexpect: 100-continue\r\n\r\n"),
            PATIENCE,
            "408",
            true,
        ),
        (
            format!("{post}content-length: x\r\n\r\n"),
            PATIENCE,
            "400",
            false,
        ),
        (
            format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n"),
            PATIENCE,
            "400",
            false,
        ),
        ("GET / HTTP/9\r\n\r\n".to_owned(), PATIENCE, "400", false),
        (
            "\u{16}\u{3}\u{1}\r\n\r\n".to_owned(),
            PATIENCE,
            "400",
            false,
        ),
        (huge, PATIENCE, "431", false),
        ("GET / HTT".to_owned(), short, "", false),
        (
            "CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n".to_owned(),
            PATIENCE,
            "405",
            false,
        ),
    ];
    let mut meant = 0;
    for (said, patience, hears, at_an_arm) in &cases {
        let heard = say(balancer.listen, said.as_bytes(), *patience).await;
        let head: String = said.chars().take(90).collect();
        assert!(heard.contains(hears), "{head:?}: {heard:?}");
        meant += u64::from(*at_an_arm);
    }
    assert_eq!(seen(&target).await, (0, 0, meant));
    // And the next whole request is one.
    let whole = format!("{post}content-length: 3\r\nconnection: close\r\n\r\nabc");
    let heard = say(balancer.listen, whole.as_bytes(), PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert_eq!(seen(&target).await, (1, 0, meant));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_before_the_answer_is_no_evidence_whatever_the_arm_would_have_said() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let address = upstream(move |stream, _| {
        let arrived = arrived.clone();
        async move {
            arrived.send(()).expect("awaited");
            // It never answers.
            let _held = stream;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    for reset in [false, true, false] {
        let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("open");
        arrivals.recv().await.expect("it arrives");
        if reset {
            stream.set_zero_linger().expect("ours");
        }
        drop(stream);
    }
    assert_eq!(seen(&target).await, (0, 0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_arm_broke_is_its_error_whatever_the_client_does() {
    // What the arm does, by the path of the request.
    let address = upstream(|mut stream, head| async move {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/garbage" => {
                let _ = stream.write_all(b"smtp 220 hello\r\n\r\n").await;
            }
            "/500" => answer(&mut stream, "500 Oh").await,
            // It takes nothing more and says nothing.
            "/hangs" => std::future::pending().await,
            "/half" => {
                let mut some = [0; 3];
                let _ = stream.read_exact(&mut some).await;
            }
            _ => {}
        }
    })
    .await;
    let (balancer, target) = start(address, |spec| spec.response_timeout_ms = 700).await;
    let mut errors = 0;
    for (path, hears) in [
        ("/closes", "502"),
        ("/half", "502"),
        ("/garbage", "502"),
        ("/500", "500"),
        ("/hangs", "504"),
    ] {
        // With a body that is whole, and with one that is still being sent.
        for length in [3, 8 << 20] {
            let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            let (mut read, mut write) = stream.split();
            let sending = async {
                let _ = write.write_all(head.as_bytes()).await;
                let _ = write.write_all(&vec![b'x'; length]).await;
                std::future::pending::<()>().await;
            };
            let mut heard = [0; 12];
            let hearing = tokio::time::timeout(PATIENCE, read.read_exact(&mut heard));
            let heard = tokio::select! {
                _ = hearing => String::from_utf8_lossy(&heard).into_owned(),
                () = sending => String::new(),
            };
            errors += 1;
            assert!(heard.ends_with(hears), "{path} {length}: {heard:?}");
        }
    }
    let (requests, found, spoiled) = seen(&target).await;
    assert_eq!((requests, found, spoiled), (errors, errors, 0));
}

/// What an application says to a bad request counts as a request and as no error,
/// also if it does not read the request to its end.
#[tokio::test(flavor = "multi_thread")]
async fn an_arm_that_refuses_a_body_is_no_error() {
    let address = upstream(|mut stream, _| async move {
        answer(&mut stream, "413 Too Large").await;
    })
    .await;
    let (balancer, target) = start(address, |_| ()).await;
    for length in [3_usize, 100_000] {
        let said = format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{}",
            "x".repeat(length)
        );
        let heard = say(balancer.listen, said.as_bytes(), PATIENCE).await;
        assert!(heard.contains("413"), "{length}: {heard}");
    }
    let (requests, errors, _) = seen(&target).await;
    assert_eq!((requests, errors), (2, 0));
}

/// Requests that are odd and whole: no word of a client makes an error of an arm.
#[tokio::test(flavor = "multi_thread")]
async fn an_odd_request_is_no_error() {
    let (balancer, target) = start(upstream(good).await, |_| ()).await;
    let many: String = (0..80).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "y".repeat(50 << 10);
    for said in [
        "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET http://elsewhere.example/x HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "BREW / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: \u{e9} @/\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: content-length, host\r\ncontent-length: 0\r\n\r\n"
            .to_owned(),
        "POST / HTTP/1.1\r\nhost: x\r\nexpect: a-miracle\r\ncontent-length: 1\r\n\r\na".to_owned(),
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: x\r\nte: trailers, deflate\r\ntrailer: x\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        format!("GET /?{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let heard = hear(balancer.listen, said.as_bytes()).await;
        let head: String = said.chars().take(90).collect();
        assert!(heard.starts_with("HTTP/1."), "{head:?}: {heard:?}");
        assert_eq!(heard.split(' ').nth(1).map(|s| &s[..1] == "5"), Some(false), "{head:?}: {heard:?}");
    }
    let (_, errors, _) = seen(&target).await;
    assert_eq!(errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_not_the_arms_latency() {
    let (balancer, target) = start(upstream(good).await, |spec| {
        spec.clients.body_ms = 20_000;
        spec.response_timeout_ms = 1_500;
    })
    .await;
    let mut stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("open");
    // Longer than an arm may take, and no fault of its.
    for part in ["a", "b"] {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        stream.write_all(part.as_bytes()).await.expect("open");
    }
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("answered");
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert_eq!(seen(&target).await, (1, 0, 0));
    let query = MetricsQuery {
        over_ms: vec![3_000.0],
        ..MetricsQuery::default()
    };
    let samples = target.samples(&query).await.expect("open");
    assert_eq!(
        samples.iter().map(|s| s.over[0]).sum::<u32>(),
        0,
        "{samples:?}"
    );
}

/// Servers have read timeouts: what they say to a client that owes its body, or
/// that they close, is the client's doing.
#[tokio::test(flavor = "multi_thread")]
async fn an_arm_may_give_up_on_a_client_that_sends_nothing() {
    let address = upstream(|mut stream, head| async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if head.starts_with("POST /500") {
            answer(&mut stream, "500 Timeout").await;
        }
    })
    .await;
    let (balancer, target) = start(address, |spec| spec.clients.body_ms = 20_000).await;
    let ask = async |path: &str| {
        let said = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc");
        say(balancer.listen, said.as_bytes(), PATIENCE).await
    };
    let (closed, refused) = tokio::join!(ask("/closes"), ask("/500"));
    assert!(closed.contains(" 400 "), "{closed}");
    assert!(refused.contains(" 500 "), "{refused}");
    assert_eq!(seen(&target).await, (0, 0, 2));
}

/// 2,000 requests of strangers move neither arm's numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_broken_requests_changes_no_number() {
    let (one, other) = (upstream(good).await, upstream(good).await);
    let (balancer, target) = start(one, |spec| {
        let url = Source::Urls(vec![format!("http://{other}")]);
        spec.arms[1].release.source = url;
    })
    .await;
    let half = Weights::of([("stable", 1), ("canary", 1)]);
    target.set_weights(&half).await.expect("valid");
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..20 {
        let address = balancer.listen;
        tasks.spawn(async move {
            for turn in 0..100 {
                let said = match (lane + turn) % 3 {
                    0 => "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
                    1 => "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab",
                    _ => "CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n",
                };
                say(address, said.as_bytes(), Duration::from_millis(5)).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    for _ in 0..20 {
        let url = format!("http://{}/", balancer.listen);
        let answer = Client::default().send("GET", &url, None, PATIENCE).await;
        assert_eq!(answer.expect("answered").status, 200);
    }
    seen(&target).await;
    let samples = target
        .samples(&MetricsQuery::default())
        .await
        .expect("open");
    assert_eq!(samples.iter().map(|s| s.requests).sum::<u32>(), 20);
    let bad = samples.iter().map(|s| s.errors + s.client_errors);
    assert_eq!(bad.sum::<u32>(), 0, "{samples:?}");
}

/// Streams of HTTP/2 whose answers nobody reads: they keep their places, and no
/// more ways to the arm are open than there are places.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_bounded_and_no_evidence() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    const PLACES: u32 = 8;
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (open.clone(), most.clone());
    let large = upstream(move |mut stream, _| {
        let (open, most) = counts.clone();
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b'x'; 3_000_000]).await;
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let (balancer, target) = start(large, |spec| spec.clients.connections = PLACES).await;
    let stream = TcpStream::connect(balancer.listen).await.expect("listens");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(0)
            .handshake(io)
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut held = vec![];
    let mut refused = 0;
    for _ in 0..60 {
        let request = hyper::Request::get(format!("http://{}/big", balancer.listen))
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .expect("a request");
        sender.ready().await.expect("open");
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request));
        let answer = answer.await.expect("a head").expect("an answer");
        refused += u32::from(answer.status() == 503);
        held.push(answer);
    }
    assert_eq!(refused, 60 - PLACES, "each place holds one answer");
    assert!(most.load(Ordering::SeqCst) <= usize::try_from(PLACES).expect("small"));
    // The balancer can still be steered, and no arm has an error.
    let (_, errors, _) = seen(&target).await;
    assert_eq!(errors, 0);
    let all = Weights::of([("stable", 100), ("canary", 0)]);
    target.set_weights(&all).await.expect("the door is open");
    drop(held);
    balancer.stop().await;
}
