//! Which rollout and which target are meant.

use engine::journal::Header;
use engine::model::aws::{Access, AwsSpec, Find, Found, looked_for};
use engine::model::network::Network;
use engine::model::target::TargetSpec;
use engine::ops::Kind;
use engine::ops::app::Surroundings;
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::deploy::doomed;
use engine::ops::find::Purpose;
use engine::ops::history::get;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::status::overview;
use engine::ops::traffic::set_weights;
use engine::ops::way_back::{TakenBack, abort, rollback};
use engine::rollout::{Options, Ran};
use serde_json::json;

use crate::aws::routes::weights;
use crate::support::app::{
    TestApp, code_of, in_file, local, on, on_aws, on_stack, refused, rollout,
};
use crate::support::aws::bottle::{Made, REGION, Wish, direct, forward, make};
use crate::support::aws::emulator::unique;
use crate::support::aws::proxy::{Proxy, Trouble};
use crate::support::balancer::{demo, demo_target, healthy, spec, start};
use crate::support::binary::{code, plugin, run, stderr};
use crate::support::folder;
use crate::support::lab::{Lab, Scripted, good};
use crate::support::shop::{IMAGES, Shop};

/// A rollout of that id begins on a target of that name.
async fn begin(test: &TestApp, id: &str, target: &str) {
    begin_on(test, id, target, None).await;
}

/// The same on a target that is described.
async fn begin_on(test: &TestApp, id: &str, identity: &str, target: Option<AwsSpec>) {
    let never = Scripted(|_| async { Ran::Interrupted });
    let mut header = Lab::new(std::sync::Arc::new(never), good(), json!({})).header;
    header.rollout = id.to_owned();
    header.identity = identity.to_owned();
    if let Some(target) = target {
        header.target = TargetSpec::Aws(Box::new(target));
    }
    let driver = test.app.driver(Options::default());
    driver.begin(header).await.expect("it begins");
}

/// The stack shop, found in a region of the account 111111111111.
fn shop(region: &str) -> AwsSpec {
    let find = Find {
        stack: Some("shop".to_owned()),
        ..Find::default()
    };
    let mut spec = looked_for(Access::default(), find);
    spec.found = Some(Found {
        route: format!("arn:aws:elasticloadbalancing:{region}:111111111111:listener/app/shop/1/2"),
        ..Found::default()
    });
    spec
}

const SHOP: &str = "[target]\nkind = \"aws\"\n\n[target.aws]\nstack = \"shop\"\n\n[strategy]\nplugin = \"canary\"\n";

/// Surroundings that name a region.
fn in_region(region: &str) -> Surroundings {
    let named = |name: &str| (name == "AWS_REGION").then(|| region.to_owned());
    Surroundings {
        network: Network::read(named),
        ..Surroundings::default()
    }
}

const ALL: [Purpose; 3] = [Purpose::WayBack, Purpose::Standstill, Purpose::GoOn];

#[tokio::test]
async fn a_file_means_the_rollout_in_the_region_that_it_means_now() {
    let test = TestApp::surrounded(<_>::default());
    for region in ["us-east-1", "eu-west-1"] {
        begin_on(&test, &format!("in-{region}"), region, Some(shop(region))).await;
    }
    let mut request = in_file(&test.write("rollout.toml", SHOP));
    for region in ["us-east-1", "eu-west-1"] {
        request.aws.region = Some(region.to_owned());
        let meant = test.app.meant(&request, None, Purpose::Standstill).await;
        assert_eq!(meant.expect("it").0.rollout, format!("in-{region}"));
    }
    request.aws.region = Some("ap-south-1".to_owned());
    for purpose in ALL {
        refused(
            test.app.meant(&request, None, purpose).await,
            Kind::Usage,
            &["of the rollout file", "in-us-east-1 on", "in-eu-west-1 on"],
        );
    }
    let (named, _) = test
        .app
        .meant(&request, Some("in-eu-west-1"), Purpose::GoOn)
        .await
        .expect("who names it means it");
    assert_eq!(named.rollout, "in-eu-west-1");
}

#[tokio::test]
async fn the_only_rollout_is_not_meant_where_the_surroundings_name_another_region() {
    let test = TestApp::surrounded(in_region("eu-west-1"));
    begin_on(&test, "far", "far", Some(shop("us-east-1"))).await;
    let anything = TargetRequest::default();
    for purpose in [Purpose::Standstill, Purpose::GoOn] {
        refused(
            test.app.meant(&anything, None, purpose).await,
            Kind::Usage,
            &[
                "rollout far is in us-east-1",
                "eu-west-1 is what is meant",
                "name it",
            ],
        );
    }
    let back = test.app.meant(&anything, None, Purpose::WayBack).await;
    assert_eq!(back.expect("it").0.rollout, "far");

    // Who began it has said where it is, whatever the surroundings are.
    for pinned in [
        AwsSpec {
            access: Access {
                region: Some("us-east-1".to_owned()),
                ..Access::default()
            },
            ..shop("us-east-1")
        },
        AwsSpec {
            find: Find {
                listener: shop("us-east-1").found.map(|found| found.route),
                ..Find::default()
            },
            ..shop("us-east-1")
        },
    ] {
        let test = TestApp::surrounded(in_region("eu-west-1"));
        begin_on(&test, "far", "far", Some(pinned)).await;
        let meant = test.app.meant(&anything, None, Purpose::Standstill).await;
        assert_eq!(meant.expect("it").0.rollout, "far");
    }
}

#[tokio::test]
async fn what_goes_on_is_in_the_account_that_is_meant() {
    let role = |account: &str| Access {
        role: Some(format!("arn:aws:iam::{account}:role/deploy")),
        ..Access::default()
    };
    let anything = TargetRequest::default();
    for (account, fits) in [("111111111111", true), ("222222222222", false)] {
        let test = TestApp::surrounded(<_>::default());
        let pinned = AwsSpec {
            access: role(account),
            ..shop("us-east-1")
        };
        begin_on(&test, "only", "only", Some(pinned)).await;
        let file = SHOP.replace(
            "[strategy]",
            &format!("role = \"arn:aws:iam::{account}:role/deploy\"\n\n[strategy]"),
        );
        let file = in_file(&test.write("rollout.toml", file));
        for request in [&anything, &file] {
            let meant = test.app.meant(request, None, Purpose::GoOn).await;
            match fits {
                true => assert_eq!(meant.expect("no call is needed").0.rollout, "only"),
                false => {
                    refused(
                        meant,
                        Kind::Usage,
                        &["in the account 111111111111", account],
                    );
                }
            }
        }
    }
    // Nobody answers who could say whose credentials these are.
    let test = TestApp::surrounded(<_>::default());
    begin_on(&test, "only", "only", Some(shop("us-east-1"))).await;
    let file = in_file(&test.write("rollout.toml", SHOP));
    for request in [&anything, &file] {
        refused(
            test.app.meant(request, None, Purpose::GoOn).await,
            Kind::Unreachable,
            &["cannot be told", "name only if it is the one"],
        );
        for purpose in [Purpose::WayBack, Purpose::Standstill] {
            let meant = test.app.meant(request, None, purpose).await;
            assert_eq!(meant.expect("it").0.rollout, "only");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_means_no_rollout_but_to_the_way_back() {
    let test = TestApp::surrounded(<_>::default());
    begin(&test, "alone", "a").await;
    let nowhere = test.at("nowhere.toml");
    std::os::unix::fs::symlink("gone", &nowhere).expect("a link");
    for (file, says) in [
        (
            test.write("key.toml", SHOP.replace("stack", "stak")),
            "stak",
        ),
        (test.write("bytes.toml", b"\xff\xfe[target"), "UTF-8"),
        (test.write("toml.toml", "[target"), "toml.toml"),
        (nowhere, "nowhere.toml"),
    ] {
        let request = in_file(&file);
        for purpose in [Purpose::Standstill, Purpose::GoOn] {
            refused(
                test.app.meant(&request, None, purpose).await,
                Kind::Usage,
                &[says],
            );
        }
        let back = test.app.meant(&request, None, Purpose::WayBack).await;
        assert_eq!(back.expect("it").0.rollout, "alone");
        let named = test.app.meant(&request, Some("alone"), Purpose::GoOn).await;
        assert_eq!(named.expect("it").0.rollout, "alone");
    }
}

/// A `rollout.toml` that leads nowhere is there, and no verb takes it for none.
#[test]
fn a_link_that_leads_nowhere_is_no_absence() {
    for to in ["gone", "rollout.toml"] {
        let folder = folder();
        std::os::unix::fs::symlink(to, folder.path().join("rollout.toml")).expect("a link");
        for arguments in [
            &["promote", "--full"][..],
            &["pause"],
            &["approve"],
            &["resume"],
            &["status"],
        ] {
            let output = run(folder.path(), arguments);
            assert_eq!(code(&output), Some(2), "{arguments:?}");
            let said = stderr(&output);
            assert!(said.contains("failed to read rollout.toml"), "{said}");
        }
    }
    let folder = folder();
    std::os::unix::fs::symlink("gone", folder.path().join("plugins.toml")).expect("a link");
    let output = run(folder.path(), &["plugin", "verify"]);
    assert!(
        stderr(&output).contains("plugins.toml"),
        "{}",
        stderr(&output)
    );
    assert_eq!(code(&output), Some(2));
}

#[tokio::test]
async fn a_rollout_is_named_or_the_only_one() {
    let test = TestApp::surrounded(<_>::default());
    let anywhere = TargetRequest::default();
    refused(
        test.app.meant(&anywhere, None, Purpose::GoOn).await,
        Kind::Usage,
        &["no rollout is under way"],
    );
    begin(&test, "first", "a").await;
    let (header, status) = test
        .app
        .meant(&anywhere, None, Purpose::GoOn)
        .await
        .expect("one");
    assert_eq!((&*header.rollout, &*status.rollout), ("first", "first"));
    begin(&test, "second", "b").await;
    refused(
        test.app.meant(&anywhere, None, Purpose::GoOn).await,
        Kind::Usage,
        &["several rollouts", "first on a", "second on b"],
    );
    let (header, _) = test
        .app
        .meant(&anywhere, Some("second"), Purpose::GoOn)
        .await
        .expect("it");
    assert_eq!(header.rollout, "second");
    refused(
        test.app
            .meant(&anywhere, Some("nobody"), Purpose::GoOn)
            .await,
        Kind::Usage,
        &["no rollout \"nobody\""],
    );
}

#[tokio::test]
async fn a_target_that_is_named_has_its_own_rollout() {
    let test = TestApp::surrounded(<_>::default());
    let at = |port: u16| local(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let identity = at(7001).identity(&test.app).await.expect("an address");
    begin(&test, "first", &identity.expect("named")).await;
    begin(&test, "second", "b").await;
    let (header, _) = test
        .app
        .meant(&at(7001), None, Purpose::GoOn)
        .await
        .expect("on it");
    assert_eq!(header.rollout, "first");
    refused(
        test.app.meant(&at(7002), None, Purpose::GoOn).await,
        Kind::Usage,
        &["no rollout is under way on"],
    );
    let (newest, _) = get(&test.app, &at(7001), None).await.expect("one");
    assert_eq!(newest.rollout, "first");
    let newest = get(&test.app, &at(7002), None).await;
    refused(newest, Kind::Usage, &["there are no rollouts on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_the_one_that_is_named() {
    let (balancer, _) = start(&spec([demo(), demo()])).await;
    let test = TestApp::surrounded(<_>::default());
    let (spec, target) = test.app.target(&local(balancer.admin)).await.expect("it");
    assert!(matches!(spec, TargetSpec::Local { admin } if admin == balancer.admin));
    assert_eq!(target.observe().await.expect("reachable").arms.len(), 2);
    let nobody = local("127.0.0.1:1".parse().expect("an address"));
    let error = refused(
        test.app.target(&nobody).await.map(|_| ()),
        Kind::Unreachable,
        &["start one with `engine local`"],
    );
    assert_eq!(code_of(&error), Some("admin-unreachable"));
}

#[tokio::test]
async fn flags_that_name_no_target_are_told() {
    let some = |text: &str| Some(text.to_owned());
    let one = |text: &str| vec![text.to_owned()];
    let named = AwsRequest {
        stack: some("x"),
        ..AwsRequest::default()
    };
    for (aws, says) in [
        (
            AwsRequest {
                rule: some("foo"),
                ..AwsRequest::default()
            },
            "--rule foo is not the ARN of a listener-rule",
        ),
        (
            AwsRequest {
                cluster: some("prod"),
                ..AwsRequest::default()
            },
            "--stack, --listener or --rule",
        ),
        (
            AwsRequest {
                services: one("canary"),
                ..named.clone()
            },
            "is not ARM=CLUSTER/SERVICE",
        ),
        (
            AwsRequest {
                arms: one("canary"),
                ..named.clone()
            },
            "is not ARM=TARGET-GROUP",
        ),
        (
            AwsRequest {
                test_listeners: one("8080"),
                ..named
            },
            "--test-listener 8080 is not the ARN",
        ),
    ] {
        refused(on_aws(aws).named(), Kind::Usage, &[says]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_on_aws_is_not_found() {
    let test = TestApp::new();
    let region = "eu-west-1";
    let stack = on_stack(region, "nothing-here");
    refused(
        test.app.target(&on_aws(stack.clone())).await.map(|_| ()),
        Kind::NotFound,
        &["there is no stack nothing-here in eu-west-1"],
    );
    refused(
        test.app.meant(&on_aws(stack), None, Purpose::GoOn).await,
        Kind::NotFound,
        &["there is no stack nothing-here"],
    );
    // One that is nearly so is meant, where AWS says which there are.
    let name = unique("nearly-there");
    let shop = Shop::named(region, &name);
    shop.deploy(shop.request(&IMAGES)).await.expect("made");
    for wrong in [name.replacen("nearly", "naerly", 1), name[..9].to_owned()] {
        let misspelt = on_aws(on_stack(region, &wrong));
        let error = refused(
            test.app.target(&misspelt).await.map(|_| ()),
            Kind::NotFound,
            &["there is no stack ", "did you mean ", &name, "--region"],
        );
        assert!(!error.to_string().contains("engine deploy"), "{error}");
        refused(
            doomed(&test.app, &misspelt).await,
            Kind::Usage,
            &["there is no stack ", "did you mean ", &name],
        );
    }
    // Nobody needs the permission for that, and nothing is said of it.
    let proxy = Proxy::start().await;
    let mut looks = 0;
    proxy.plot(move |_, call| {
        looks += usize::from(call == "DescribeStacks");
        match call == "DescribeStacks" && looks > 1 {
            true => Trouble::Refused(403, "AccessDenied"),
            false => Trouble::None,
        }
    });
    let denied = TestApp::through(&proxy.endpoint);
    let misspelt = on_aws(on_stack(region, &name[..9]));
    let error = refused(
        denied.app.target(&misspelt).await.map(|_| ()),
        Kind::NotFound,
        &[
            "there is no stack nearly-th",
            "engine deploy canary --stack",
        ],
    );
    assert!(!error.to_string().contains("IAM"), "{error}");
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/b/c";
    let listener = AwsRequest {
        listener: Some(arn.to_owned()),
        region: Some(region.to_owned()),
        ..AwsRequest::default()
    };
    let error = test.app.target(&on_aws(listener)).await.map(|_| ());
    let error = refused(error, Kind::NotFound, &["ListenerNotFound"]);
    assert!(error.target.is_some_and(|target| !target.retryable));
}

/// A file whose balancer gets a free port, in a folder of its own.
fn on_a_free_port(test: &TestApp, name: &str, rps: u32) -> TargetRequest {
    let folder = test.at(name);
    std::fs::create_dir_all(&folder).expect("writable");
    let text = format!(
        "{}[strategy]\nplugin = {:?}\n",
        demo_target(rps),
        plugin("canary")
    );
    in_file(&test.write(&format!("{name}/rollout.toml"), text))
}

/// Port 0 is whichever is free, and no name of a balancer: each file means its own rollout, the
/// same text in another folder none.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_free_port_means_no_other_balancer_than_its_own() {
    let test = TestApp::new();
    let (own, same) = (
        on_a_free_port(&test, "own", 0),
        on_a_free_port(&test, "same", 0),
    );
    let id = test
        .begin_and_leave(&BeginRequest {
            target: own.clone(),
            ..BeginRequest::default()
        })
        .await;
    // One of somebody else, at an address of its own.
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let other = rollout("canary", local(balancer.admin), &[]);
    let other = test.begin_and_leave(&other).await;
    for purpose in ALL {
        let meant = test.app.meant(&own, None, purpose).await;
        assert_eq!(meant.expect("its own").0.rollout, id);
        refused(
            test.app.meant(&same, None, purpose).await,
            Kind::Usage,
            &["of the rollout file", &id, &other],
        );
    }
    refused(
        abort(&test.app, &same, None, "").await,
        Kind::Usage,
        &["name one"],
    );
    let seen = overview(&test.app, &own, None).await.expect("seen");
    assert_eq!(seen.rollout.expect("its own").header.rollout, id);
    let back = rollback(&test.app, &own, None).await.expect("done");
    let TakenBack::Aborted(aborted) = back else {
        panic!("{back:?}");
    };
    assert_eq!(aborted.0.rollout, id);
    let anywhere = TargetRequest::default();
    let left = test.app.meant(&anywhere, None, Purpose::GoOn);
    assert_eq!(left.await.expect("it goes on").0.rollout, other);
}

/// Journals of an older engine do not say with which file they began.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_port_of_a_journal_without_a_file_is_told_by_what_is_set_up() {
    let test = TestApp::new();
    let own = on_a_free_port(&test, "own", 0);
    let changed = on_a_free_port(&test, "changed", 0);
    let text = std::fs::read_to_string(test.at("changed/rollout.toml")).expect("written");
    let text = text.replace("version = \"v2\"", "version = \"v3\"");
    test.write("changed/rollout.toml", text);
    let request = BeginRequest {
        target: own.clone(),
        ..BeginRequest::default()
    };
    let ready = make_ready(&test.app, &request).await.expect("it could");
    let header = Header {
        file: None,
        ..ready.header
    };
    let id = header.rollout.clone();
    let driver = test.app.driver(Options::default());
    driver.begin(header).await.expect("it begins");
    let meant = test.app.meant(&own, None, Purpose::WayBack).await;
    assert_eq!(meant.expect("it").0.rollout, id);
    refused(
        test.app.meant(&changed, None, Purpose::WayBack).await,
        Kind::Usage,
        &[&id],
    );
}

/// Flags may say more than the file, or something else: a verb without them means the rollout
/// that began with this file, or names it, and never takes back another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_flags_led_elsewhere_is_still_the_one_of_its_file() {
    let (named, flagged) = (make(&Wish::default()).await, make(&Wish::default()).await);
    let half = |made: &Made| {
        let [stable, canary] = &made.groups;
        let action = forward(&[(stable, 50), (canary, 50)]);
        let route = made.listener.clone();
        async move {
            let modify = direct().await.elb.modify_listener().listener_arn(route);
            modify.default_actions(action).send().await.expect("ok");
        }
    };
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Flags {
        Refine,
        Lead,
    }
    for flags in [Flags::Refine, Flags::Lead] {
        for verb in ["abort", "rollback"] {
            let at = format!("{flags:?} {verb}");
            let test = TestApp::new();
            let text = format!(
                "[target]\nkind = \"aws\"\n[target.aws]\nlistener = {:?}\n[strategy]\nplugin = {:?}\n",
                named.listener,
                plugin("canary")
            );
            let file = in_file(&test.write("rollout.toml", text));
            let made = match flags {
                Flags::Refine => &named,
                Flags::Lead => &flagged,
            };
            let more = AwsRequest {
                listener: (flags == Flags::Lead).then(|| flagged.listener.clone()),
                cluster: Some(made.cluster.clone()),
                region: Some(REGION.to_owned()),
                ..AwsRequest::default()
            };
            let begun = BeginRequest {
                target: TargetRequest {
                    aws: more,
                    ..file.clone()
                },
                ..BeginRequest::default()
            };
            let id = test.begin_and_leave(&begun).await;
            half(made).await;
            let seen = overview(&test.app, &file, None).await.expect("seen");
            let known = seen.rollout.expect("it is under way");
            assert_eq!(known.header.rollout, id, "{at}");
            assert_eq!(seen.identity, made.listener, "{at}");
            let back = match verb {
                "abort" => abort(&test.app, &file, None, "").await,
                _ => rollback(&test.app, &file, None).await,
            };
            let TakenBack::Aborted(aborted) = back.expect("done") else {
                panic!("{at}: it was under way");
            };
            assert_eq!(aborted.0.rollout, id, "{at}");
            for made in [&named, &flagged] {
                assert_eq!(weights(&made.listener), [100, 0], "{at}");
            }
        }
    }
    // The file in another folder is another one, and one that is under way where the file
    // says comes first.
    let test = TestApp::new();
    let of = |made: &Made| {
        format!(
            "[target]\nkind = \"aws\"\n[target.aws]\nlistener = {:?}\n[strategy]\nplugin = {:?}\n",
            made.listener,
            plugin("canary")
        )
    };
    let file = in_file(&test.write("rollout.toml", of(&named)));
    let other = in_file(&test.write("other.toml", of(&named)));
    let led = BeginRequest {
        target: TargetRequest {
            aws: on(&flagged),
            ..file.clone()
        },
        ..BeginRequest::default()
    };
    let led = test.begin_and_leave(&led).await;
    half(&flagged).await;
    refused(
        abort(&test.app, &other, None, "").await,
        Kind::Usage,
        &["of the rollout file", &led],
    );
    let back = rollback(&test.app, &other, None).await.expect("done");
    assert!(matches!(back, TakenBack::Moved(moved) if !moved.changed()));
    assert_eq!(weights(&flagged.listener), [50, 50], "not of that file");
    let here = BeginRequest {
        target: TargetRequest {
            aws: AwsRequest {
                cluster: Some(named.cluster.clone()),
                ..AwsRequest::default()
            },
            ..other.clone()
        },
        ..BeginRequest::default()
    };
    let here = test.begin_and_leave(&here).await;
    refused(
        abort(&test.app, &file, None, "").await,
        Kind::Usage,
        &["several rollouts", &led, &here],
    );
    let back = rollback(&test.app, &file, None).await.expect("done");
    let TakenBack::Aborted(aborted) = back else {
        panic!("{back:?}");
    };
    assert_eq!(aborted.0.rollout, here, "where the file says");
    abort(&test.app, &file, None, "").await.expect("the other");
    assert_eq!(weights(&flagged.listener), [100, 0]);
}

/// A part of an id stands for all of it, wherever a rollout is named, if it is no other's.
#[tokio::test]
async fn a_part_of_an_id_will_do() {
    let test = TestApp::surrounded(<_>::default());
    for id in ["canary-x7k2m9qa", "canary-x9h2b4sa", "blue-green-x7zzm9q8"] {
        begin(&test, id, &format!("on {id}")).await;
    }
    let nowhere = TargetRequest::default();
    for part in [
        "canary-x7k2m9qa",
        "canary-x7",
        "x7k2",
        "x7k2m9qa",
        "m9qa",
        "…k2m9qa",
    ] {
        let (header, _) = get(&test.app, &nowhere, Some(part)).await.expect("it");
        assert_eq!(header.rollout, "canary-x7k2m9qa", "{part}");
        for purpose in ALL {
            let meant = test.app.meant(&nowhere, Some(part), purpose).await;
            assert_eq!(meant.expect("it").0.rollout, "canary-x7k2m9qa", "{part}");
        }
    }
    let several = get(&test.app, &nowhere, Some("canary-x")).await;
    let error = refused(
        several.map(|_| ()),
        Kind::Usage,
        &[
            "\"canary-x\" fits several rollouts",
            "canary-x7k2m9qa on on canary-x7k2m9qa: ",
            "canary-x9h2b4sa on ",
        ],
    );
    assert!(!error.to_string().contains("blue-green"), "{error}");
    // Three letters are a slip, and so is what is in the middle.
    for none in ["9qa", "7k2m9", "CANARY-X7", "canary-x7%"] {
        let found = get(&test.app, &nowhere, Some(none)).await;
        refused(found.map(|_| ()), Kind::Usage, &["there is no rollout"]);
    }
}

/// Whoever stops a rollout in a hurry means one that is under way, and is told which.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_id_means_what_is_under_way_before_what_has_ended() {
    let (balancer, target) = start(&spec([demo(), demo()])).await;
    healthy(&target, "canary", 1).await;
    let test = TestApp::surrounded(<_>::default());
    let weights = ["75", "25"].map(str::to_owned);
    let ended = set_weights(&test.app, &local(balancer.admin), &weights).await;
    let ended = ended.expect("done").rollout;
    assert!(ended.starts_with("set-weights-"), "{ended}");
    let nowhere = TargetRequest::default();
    let meant = || get(&test.app, &nowhere, Some("set-w"));
    assert_eq!(meant().await.expect("alone").0.rollout, ended);
    begin(&test, "set-weights-zzzzzzzz", "elsewhere").await;
    assert_eq!(meant().await.expect("it").0.rollout, "set-weights-zzzzzzzz");
    let said = test.heard();
    let told = "set-w is set-weights-zzzzzzzz, the only one under way that fits";
    assert!(said.contains(told), "{said}");
    // Of two that are under way neither is meant.
    begin(&test, "set-weights-yyyyyyyy", "there").await;
    let error = refused(meant().await.map(|_| ()), Kind::Usage, &["fits several"]);
    assert!(error.to_string().contains(&ended), "{error}");
}

/// Where nothing names a target, the error says what can.
#[test]
fn who_names_nothing_is_told_what_names_a_target() {
    let folder = folder();
    // Whoever balances at the usual address on this machine would be meant.
    if std::net::TcpListener::bind("127.0.0.1:7900").is_err() {
        return;
    }
    for verb in [&["rollback"][..], &["status"], &["switch", "stable"]] {
        let output = run(folder.path(), verb);
        assert_ne!(code(&output), Some(0), "{verb:?}");
        let said = stderr(&output);
        for part in [
            "nothing names a target",
            "--stack NAME, --listener ARN or --rule ARN",
            "--local ADDRESS",
            "for example --stack shop",
            "`engine init` writes a rollout file",
        ] {
            assert!(said.contains(part), "{verb:?}: {part}: {said}");
        }
    }
}
