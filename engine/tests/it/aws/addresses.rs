//! Where a target on AWS is and how it is probed: IPv6, HTTPS and HTTP/2 target groups,
//! ports, test listeners with TLS, hosts and paths of rules.

use std::sync::Arc;

use aws_sdk_elasticloadbalancingv2::types::{
    Certificate, HostHeaderConditionConfig, PathPatternConditionConfig, ProtocolEnum,
    RuleCondition, TargetDescription,
};
use engine::model::aws::{Access, AwsSpec, Find, looked_for};
use engine::model::network::Network;
use engine::model::query::Probe;
use engine::model::{HostError, ProbeReport};
use engine::target::Target as _;
use engine::target::aws::AwsTarget;
use engine::target::aws::client::{Clients, Patience};

use crate::registry::server::Authority;
use crate::support::aws::bottle::{
    self, Made, REGION, Wish, direct, impatient, make, make_speaking,
};
use crate::support::aws::emulator;
use crate::support::secure::{acceptor, serve};

fn probe(contains: &str) -> Probe {
    Probe {
        name: "smoke".to_owned(),
        path: "/ok".to_owned(),
        status: 200,
        contains: Some(contains.to_owned()),
        attempts: 1,
        timeout_ms: 2_000,
    }
}

/// The target, with what a rollout file says of its probes.
async fn reach(made: &Made, network: Network, set: impl FnOnce(&mut AwsSpec)) -> AwsTarget {
    let access = Access {
        region: Some(REGION.to_owned()),
        ..Access::default()
    };
    let patience = Patience {
        network,
        ..impatient(&emulator::endpoint())
    };
    let clients = Clients::connect(&access, &patience).await;
    let find = bottle::find(made);
    let found = engine::target::aws::discover(&clients, &find).await;
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    let mut spec = looked_for(access, find);
    spec.found = Some(found.clone());
    set(&mut spec);
    AwsTarget::new(clients, spec, found, Arc::new(engine::clock::SystemClock))
}

/// The report of one try, once the candidate is healthy.
async fn probed(target: &AwsTarget, contains: &str) -> Result<ProbeReport, HostError> {
    for _ in 0..3 {
        target.health().await.expect("it answers");
    }
    target.probe("canary", &probe(contains)).await
}

/// A task is asked as its target group says, at the port of the traffic, wherever the
/// health check asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_probed_as_its_target_group_speaks() {
    let authority = Authority::new();
    for (protocol, version, speaks) in [
        (ProtocolEnum::Http, "HTTP1", "HTTP/1.1"),
        (ProtocolEnum::Https, "HTTP1", "HTTP/1.1"),
        (ProtocolEnum::Http, "HTTP2", "HTTP/2.0"),
        (ProtocolEnum::Https, "GRPC", "HTTP/2.0"),
    ] {
        let secure = protocol == ProtocolEnum::Https;
        let protocols: &[&str] = if version == "HTTP1" {
            &["http/1.1"]
        } else {
            &["h2"]
        };
        let tls = secure.then(|| acceptor(&authority, protocols));
        // The emulator's first task is at 127.0.0.1.
        let port = serve("127.0.0.1:0", tls).await.port();
        let wish = Wish {
            port: i32::from(port),
            ..Wish::default()
        };
        let made = make_speaking(&wish, (protocol.clone(), version)).await;
        let checked = direct().await;
        let checked = checked.elb.modify_target_group();
        let checked = checked.target_group_arn(&made.groups[1]);
        let checked = checked.health_check_port("9").health_check_path("/other");
        checked.send().await.expect("another port");
        let target = reach(&made, Network::default(), |_| {}).await;
        let report = probed(&target, &format!("\"version\":\"{speaks}\"")).await;
        let report = report.expect("reached");
        assert!(report.ok, "{protocol:?} {version}: {report:?}");
    }
}

/// The certificate of a task is not verified, as the load balancer verifies none; with an
/// authority it is, but for the name.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_a_task_is_held_against_a_named_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = serve("127.0.0.1:0", Some(acceptor(&authority, &[])))
        .await
        .port();
    let wish = Wish {
        port: i32::from(port),
        ..Wish::default()
    };
    let made = make_speaking(&wish, (ProtocolEnum::Https, "HTTP1")).await;
    let ca = |of: &Authority| Some(of.file("ca.pem").display().to_string());
    for (probe_ca, good) in [(None, true), (ca(&authority), true), (ca(&stranger), false)] {
        let shown = format!("{probe_ca:?}");
        let target = reach(&made, Network::default(), |spec| spec.probe_ca = probe_ca).await;
        let report = probed(&target, "version").await.expect("tried");
        assert_eq!(report.ok, good, "{shown}: {report:?}");
        assert_eq!(report.detail.contains("certificate"), !good, "{report:?}");
    }
    let none = Some("/no/such.pem".to_owned());
    let target = reach(&made, Network::default(), |spec| spec.probe_ca = none).await;
    let error = probed(&target, "version").await.expect_err("no file");
    assert_eq!(error.code, "no-authority");
    let says = "target.aws.probe-ca: /no/such.pem cannot be read";
    assert!(error.message.contains(says), "{error}");
}

/// An address that a person names has a certificate for it, and may have a path.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_address_is_verified_and_keeps_its_path() {
    let authority = Authority::new();
    let secure = serve("127.0.0.1:0", Some(acceptor(&authority, &[])))
        .await
        .port();
    let plain = serve("[::1]:0", None).await;
    let made = make(&Wish::default()).await;
    let ca = authority.file("ca.pem");
    let bundle = || Network {
        ca_bundle: Some(ca.clone()),
        ..Network::default()
    };
    let named = Some(ca.display().to_string());
    for (url, network, probe_ca, asks) in [
        (
            format!("https://localhost:{secure}/v2/"),
            bundle(),
            None,
            Ok("/v2/ok"),
        ),
        (
            format!("https://localhost:{secure}"),
            Network::default(),
            named.clone(),
            Ok("/ok"),
        ),
        (
            format!("http://{plain}/a/b"),
            Network::default(),
            None,
            Ok("/a/b/ok"),
        ),
        (
            format!("https://localhost:{secure}"),
            Network::default(),
            None,
            Err("certificate"),
        ),
        (
            format!("https://127.0.0.1:{secure}"),
            bundle(),
            named,
            Err("not valid for name"),
        ),
    ] {
        let shown = url.clone();
        let target = reach(&made, network, |spec| {
            (spec.probe_url, spec.probe_ca) = (Some(url), probe_ca);
        });
        let report = target
            .await
            .probe("canary", &probe(asks.unwrap_or_default()))
            .await;
        let report = report.expect("tried");
        assert_eq!(report.ok, asks.is_ok(), "{shown}: {report:?}");
        if let Err(why) = asks {
            assert!(report.detail.contains(why), "{shown}: {report:?}");
        }
    }
}

/// Tasks with IPv6 addresses, and a listener for tests that speaks TLS.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_at_ipv6_and_test_listeners_with_tls_are_probed() {
    let authority = Authority::new();
    let aws = direct().await;
    for (protocol, tls) in [
        (ProtocolEnum::Http, None),
        (ProtocolEnum::Https, Some(acceptor(&authority, &[]))),
    ] {
        let port = i32::from(serve("[::1]:0", tls).await.port());
        let wish = Wish {
            port,
            tasks: [2, 0],
            ..Wish::default()
        };
        let made = make_speaking(&wish, (protocol.clone(), "HTTP1")).await;
        let register = aws.elb.register_targets().target_group_arn(&made.groups[1]);
        let task = TargetDescription::builder().id("::1").port(port).build();
        register.targets(task).send().await.expect("a task");
        let target = reach(&made, Network::default(), |_| {}).await;
        let report = probed(&target, &format!("\"host\":\"[::1]:{port}\"")).await;
        let report = report.expect("reached");
        assert!(report.ok, "{protocol:?}: {report:?}");
    }

    // The emulator's load balancer is called localhost.
    let made = make(&Wish::default()).await;
    let port = serve("127.0.0.1:0", Some(acceptor(&Authority::new(), &[])))
        .await
        .port();
    // What is in it is the test's own server's alone; the emulator wants one to be there.
    let arguments = [
        "iam",
        "upload-server-certificate",
        "--server-certificate-name",
        &made.name,
        "--certificate-body",
        "x",
        "--private-key",
        "x",
    ];
    let arguments = arguments.map(ToOwned::to_owned);
    let uploaded = tokio::task::spawn_blocking(move || {
        emulator::aws(REGION, &arguments.each_ref().map(String::as_str))
    });
    let uploaded = uploaded.await.expect("CLI");
    let certificate = uploaded["ServerCertificateMetadata"]["Arn"].as_str();
    let certificate = Certificate::builder().certificate_arn(certificate.expect("ARN"));
    aws.elb
        .create_listener()
        .load_balancer_arn(&made.balancer)
        .protocol(ProtocolEnum::Https)
        .port(i32::from(port))
        .certificates(certificate.build())
        .default_actions(bottle::forward(&[(&made.groups[1], 1)]))
        .send()
        .await
        .expect("a test listener");
    let target = reach(&made, Network::default(), |_| {}).await;
    let here = format!("\"host\":\"localhost:{port}\"");
    let report = target.probe("canary", &probe(&here)).await.expect("tried");
    assert!(report.ok, "{report:?}");
}

/// The address that people are told is one at which the route is reached.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_rule_has_its_host_and_path() {
    let made = make(&Wish::default()).await;
    let aws = direct().await;
    let patience = impatient(&emulator::endpoint());
    let access = Access {
        region: Some(REGION.to_owned()),
        ..Access::default()
    };
    let clients = Clients::connect(&access, &patience).await;
    let condition = |field: &str, values: &[&str]| {
        let values = Some(values.iter().map(|v| (*v).to_owned()).collect());
        let condition = RuleCondition::builder().field(field);
        let condition = match field {
            "host-header" => {
                let hosts = HostHeaderConditionConfig::builder().set_values(values);
                condition.host_header_config(hosts.build())
            }
            _ => {
                let paths = PathPatternConditionConfig::builder().set_values(values);
                condition.path_pattern_config(paths.build())
            }
        };
        condition.build()
    };
    for (priority, conditions, address) in [
        (
            1,
            vec![condition("path-pattern", &["/api/*", "/v2/*"])],
            "http://localhost/api/*",
        ),
        (
            2,
            vec![condition(
                "host-header",
                &["*.shop.example", "api.shop.example"],
            )],
            "http://api.shop.example",
        ),
        (
            3,
            vec![
                condition("host-header", &["shop.example"]),
                condition("path-pattern", &["/cart"]),
            ],
            "http://shop.example/cart",
        ),
        (
            4,
            vec![condition("path-pattern", &["/*"])],
            "http://localhost",
        ),
    ] {
        let create = aws.elb.create_rule().listener_arn(&made.listener);
        let rule = create
            .priority(priority)
            .set_conditions(Some(conditions))
            .actions(bottle::forward(&[
                (&made.groups[0], 100),
                (&made.groups[1], 0),
            ]))
            .send()
            .await
            .expect("a rule");
        let find = Find {
            listener: None,
            rule: rule.rules()[0].rule_arn().map(ToOwned::to_owned),
            ..bottle::find(&made)
        };
        let found = engine::target::aws::discover(&clients, &find).await;
        assert_eq!(found.expect("found").address, address);
    }
}
