//! Being a good citizen: what is said when AWS says no, how often it is asked,
//! and what must never be written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::clock::SystemClock;
use engine::model::aws::Access;
use engine::model::{ErrorKind, Weights};
use engine::ops::Kind;
use engine::ops::status::overview;
use engine::target::Target as _;
use engine::target::aws::client::{Clients, Patience};

use crate::support::app::{TestApp, on_aws, on_stack, refused};
use crate::support::aws::bottle::{self, REGION, Wish, find, impatient, make};
use crate::support::aws::emulator;
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::binary::{engine, stderr};
use crate::support::folder;

/// Refuses one API with one code.
fn refuse(proxy: &Proxy, api: &'static str, status: u16, code: &'static str) {
    proxy.plot(move |_, name| {
        if name == api {
            Trouble::Refused(status, code)
        } else {
            Trouble::None
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_in_every_protocol() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), Arc::new(SystemClock)).await;
    let weights = Weights::of([("stable", 50), ("canary", 50)]);

    refuse(&proxy, "ModifyListener", 403, "AccessDenied");
    let error = target
        .set_weights(&weights)
        .await
        .expect_err("no permission");
    assert_eq!((error.kind, error.retryable), (ErrorKind::Denied, false));
    for text in [
        "elasticloadbalancing:ModifyListener",
        &made.listener,
        "said the test",
    ] {
        assert!(error.message.contains(text), "{error}");
    }
    refuse(&proxy, "UpdateService", 400, "AccessDeniedException");
    let error = target
        .set_tasks("canary", 2)
        .await
        .expect_err("no permission");
    assert!(error.message.contains("ecs:UpdateService"), "{error}");
    refuse(&proxy, "GetMetricData", 403, "AccessDenied");
    let error = target
        .samples(&Default::default())
        .await
        .expect_err("no permission");
    assert!(
        error.message.contains("cloudwatch:GetMetricData"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_whether_they_may_pass() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let target = bottle::reach(&proxy, find(&made), Arc::new(SystemClock)).await;
    for (status, code, kind, retryable) in [
        (400, "ThrottlingException", ErrorKind::Throttled, true),
        (500, "InternalFailure", ErrorKind::Unavailable, true),
        (403, "ExpiredToken", ErrorKind::Denied, false),
        (400, "ListenerNotFound", ErrorKind::NotFound, false),
        (400, "ValidationError", ErrorKind::Invalid, false),
    ] {
        refuse(&proxy, "DescribeListeners", status, code);
        let error = target.traffic().await.expect_err("refused");
        assert_eq!(
            (error.kind, error.retryable),
            (kind, retryable),
            "{code}: {error}"
        );
        let tries = proxy.take().len();
        // Only what may pass is tried again.
        assert_eq!(tries, if retryable { 3 } else { 1 }, "{code}");
    }
    proxy.plot(|_, _| Trouble::Reset);
    let error = target.traffic().await.expect_err("reset");
    assert_eq!(
        (error.kind, error.retryable),
        (ErrorKind::Unavailable, true),
        "{error}"
    );
    proxy.plot(|_, _| Trouble::Late(Duration::from_secs(4)));
    let begun = Instant::now();
    let error = target.traffic().await.expect_err("late");
    assert!(error.message.contains("no answer in time"), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_calls_a_second_and_no_more() {
    let made = make(&Wish::default()).await;
    let access = Access {
        region: Some(REGION.to_owned()),
        ..Access::default()
    };
    let patience = Patience {
        rate: Patience::default().rate,
        ..impatient(&emulator::endpoint())
    };
    let clients = Clients::connect(&access, &patience).await;
    let found = engine::target::aws::discover(&clients, &find(&made))
        .await
        .expect("found");
    let spec = engine::model::aws::looked_for(access, find(&made));
    let clock = Arc::new(SystemClock);
    let target = Arc::new(engine::target::aws::AwsTarget::new(
        clients, spec, found, clock,
    ));
    let begun = Instant::now();
    let asked = (0..40).map(|_| {
        let target = target.clone();
        tokio::spawn(async move { target.traffic().await.expect("read") })
    });
    for one in asked.collect::<Vec<_>>() {
        one.await.expect("no panic");
    }
    // At most a burst of ten is free.
    assert!(
        begun.elapsed() >= Duration::from_millis(2_900),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_answers_is_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let test = TestApp::through(&address);
    refused(
        overview(&test.app, &on_aws(on_stack(REGION, "x")), None).await,
        Kind::Unreachable,
        &["DescribeStacks"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_written_down() {
    let made = make(&Wish::default()).await;
    let folder = folder();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let arguments = ["set-weights", "90", "10", "--listener", &made.listener];
    let mut command = engine(folder.path(), &arguments);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    command
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_SESSION_TOKEN", secret);
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains(secret));
    for entry in std::fs::read_dir(folder.path().join("state"))
        .expect("a folder")
        .flatten()
    {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).expect("readable");
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{}", entry.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_and_roles_are_used_and_without_credentials_it_says_so() {
    let made = make(&Wish::default()).await;
    let folder = folder();
    let config = folder.path().join("config");
    let text = "[profile base]\nregion = us-east-1\naws_access_key_id = a\naws_secret_access_key = b\n[profile deployer]\nregion = us-east-1\nsource_profile = base\nrole_arn = arn:aws:iam::123456789012:role/deployer\n";
    std::fs::write(&config, text).expect("writable");
    let by = |arguments: &[&str]| {
        let all = [&["status", "--listener", made.listener.as_str()], arguments].concat();
        let mut command = engine(folder.path(), &all);
        emulator::environment(&mut command, &emulator::endpoint(), "eu-north-1");
        command
            .env("AWS_CONFIG_FILE", &config)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION");
        command.output().expect("the binary runs")
    };
    for arguments in [
        &["--profile", "base"][..],
        &["--profile", "deployer"],
        &[
            "--profile",
            "base",
            "--role",
            "arn:aws:iam::123456789012:role/other",
        ],
    ] {
        let output = by(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let output = by(&["--profile", "nobody"]);
    assert_ne!(output.status.code(), Some(0));
    // A profile that is named wins over keys in the environment, as in the CLI.
    let arguments = [
        "status",
        "--listener",
        made.listener.as_str(),
        "--profile",
        "nobody",
    ];
    let mut command = engine(folder.path(), &arguments);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    let output = command
        .env("AWS_CONFIG_FILE", &config)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    // Nobody has any.
    let mut command = engine(folder.path(), &["status", "--stack", "x"]);
    emulator::environment(&mut command, &emulator::endpoint(), REGION);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    let output = command.output().expect("the binary runs");
    let says = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{says}");
    assert!(says.contains("no usable AWS credentials"), "{says}");
}
