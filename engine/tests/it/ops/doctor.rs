//! `doctor`: what is wrong with this machine and its access to AWS, with what to do.

use std::sync::Mutex;

use engine::ops::doctor::{examine, examine_aloud};
use engine::ops::examined::{Examined, Found, Look};
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::store::Journals as _;

use crate::support::app::{TestApp, in_file, local, on, on_aws, rollout};
use crate::support::aws::bottle::{REGION, Wish, make};
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::balancer::{demo, spec, start};

/// The examined about a thing.
fn of<'a>(examined: &'a [Examined], about: &str) -> Vec<&'a Found> {
    let all = examined.iter().filter(|one| one.about == about);
    all.map(|one| &one.found).collect()
}

/// What is wrong, by what it is about.
fn wrong(examined: &[Examined]) -> Vec<&'static str> {
    let wrong = examined.iter().filter(|one| one.is_wrong());
    wrong.map(|one| one.about).collect()
}

/// A target on AWS, where one API is in trouble.
async fn troubled(api: &'static str, trouble: Trouble) -> (Proxy, TestApp, TargetRequest) {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    proxy.plot(move |_, call| match call == api {
        true => trouble.clone(),
        false => Trouble::None,
    });
    (proxy, test, on_aws(on(&made)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_well_has_no_problem() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let examined = examine(&test.app, &on_aws(on(&made))).await;
    assert_eq!(wrong(&examined), [""; 0], "{examined:#?}");
    let about: Vec<_> = examined.iter().map(|one| one.about).collect();
    assert_eq!(
        about,
        [
            "store",
            "rollouts",
            "region",
            "credentials",
            "clock",
            "target",
            "permissions"
        ]
    );
    let [Found::Fine(region)] = of(&examined, "region")[..] else {
        panic!("{examined:#?}");
    };
    assert!(region.starts_with(REGION), "{region}");
    let [Found::Fine(caller)] = of(&examined, "credentials")[..] else {
        panic!("{examined:#?}");
    };
    assert!(caller.starts_with("arn:aws:"), "{caller}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_a_problem_only_where_aws_is_meant() {
    let proxy = Proxy::start().await;
    proxy.plot(|_, _| Trouble::Refused(403, "InvalidClientTokenId"));
    let test = TestApp::through(&proxy.endpoint);
    let nowhere = local("127.0.0.1:1".parse().expect("an address"));
    let examined = examine(&test.app, &nowhere).await;
    assert_eq!(wrong(&examined), [""; 0], "{examined:#?}");
    assert!(matches!(
        of(&examined, "credentials")[..],
        [Found::Skipped(_)]
    ));
    let somewhere = on_aws(AwsRequest {
        region: Some("eu-west-1".to_owned()),
        ..AwsRequest::default()
    });
    // A region alone names no target, and says that AWS is meant.
    let examined = examine(&test.app, &somewhere).await;
    assert_eq!(wrong(&examined), ["credentials"], "{examined:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_missing_is_told_with_its_action() {
    let refused = Trouble::Refused(403, "AccessDeniedException");
    let (_proxy, test, at) = troubled("DescribeServices", refused).await;
    let examined = examine(&test.app, &at).await;
    assert!(!wrong(&examined).is_empty(), "{examined:#?}");
    let said = format!("{examined:?}");
    assert!(said.contains("IAM action ecs:DescribeServices"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_a_file_that_cannot_be_used_are_problems() {
    let test = TestApp::new();
    let mut app = test.within(|_| ());
    app.state_dir = test.write("no-folder", "");
    let file = in_file(&test.write("rollout.toml", "[target]\nkid = 1\n"));
    let examined = examine(&app, &file).await;
    assert_eq!(wrong(&examined), ["store", "file"], "{examined:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_rollout_is_told_and_that_nobody_does() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::new();
    let at = || local(balancer.admin);
    let id = test.begin_and_leave(&rollout("canary", at(), &[])).await;
    let examined = examine(&test.app, &TargetRequest::default()).await;
    let of_rollout = of(&examined, "rollouts");
    let [found] = of_rollout[..] else {
        panic!("{examined:#?}");
    };
    let said = format!("{found:?}");
    assert!(said.contains(&id), "{said}");
    let (header, ..) = test.app.journal(&id).await.expect("it is there");
    let driven = test.app.living_owner(&header).await.expect("memory");
    assert_eq!(matches!(found, Found::Wrong(_)), driven.is_none(), "{said}");
    assert!(test.store.header(&id).await.expect("memory").is_some());
}

/// Calls that hang take their time, and whoever waits sees what was found so far and what is
/// looked at.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_told_before_a_call_that_hangs() {
    let late = Trouble::Late(std::time::Duration::from_secs(40));
    let (_proxy, test, at) = troubled("GetMetricData", late).await;
    let told: Mutex<Vec<String>> = Mutex::default();
    let tell = |look: Look<'_>| {
        told.lock().expect("no panic").push(match look {
            Look::Begins(what) => format!("{what}?"),
            Look::Ends(one) => one.about.to_owned(),
        });
    };
    let looking = examine_aloud(&test.app, &at, &tell);
    let hangs = tokio::time::timeout(std::time::Duration::from_secs(3), looking).await;
    assert!(hangs.is_err(), "it waits for the metrics");
    let told = std::mem::take(&mut *told.lock().expect("no panic"));
    let found: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(found.last(), Some(&"metrics?"), "{found:?}");
    for one in [
        "store",
        "rollouts",
        "region",
        "credentials",
        "clock",
        "target",
    ] {
        assert!(found.contains(&one), "{one}: {found:?}");
    }
}
