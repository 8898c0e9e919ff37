//! Task definitions: which container gets the new image, and what a promotion by copy
//! leaves to the stable arm.

use engine::model::aws::Difference;
use engine::model::{End, Promotion};
use engine::ops::Kind;
use engine::ops::begin::{BeginRequest, Ready, make_ready};
use engine::rollout::Standing;
use serde_json::{Value, json};

use crate::support::app::{TestApp, in_file, on, on_aws, refused, rollout};
use crate::support::aws::bottle::{Bottle, GOOD, Made, REGION, Wish, make, three_steps};
use crate::support::aws::emulator::{self, script};
use crate::support::aws::run;
use crate::support::binary::{plugin, stderr, stdout};
use crate::support::{folder, guests};

/// A front that takes the requests, as the first container, and the app behind it.
const PROXY: &[(&str, &str)] = &[("proxy", "nginx:1.27")];

fn with_proxy() -> Wish {
    Wish {
        images: ["reg.example/shop:v1", "reg.example/shop:v1"],
        beside: PROXY,
        ..Wish::default()
    }
}

/// Stable is larger than the canary.
fn uneven() -> Wish {
    Wish {
        sizes: [["1024", "2048"], ["256", "512"]],
        ..Wish::default()
    }
}

/// What the service of an arm runs, as the AWS CLI shows it.
async fn runs(made: &Made, arm: &str) -> Value {
    let service = format!("{}-{arm}", made.name);
    let arguments = ["ecs", "describe-services", "--cluster"];
    let arguments = [&arguments[..], &[&made.cluster, "--services", &service]].concat();
    let service = emulator::aws(REGION, &arguments)["services"][0].clone();
    described(service["taskDefinition"].as_str().expect("an ARN"))
}

fn described(arn: &str) -> Value {
    let arguments = ["ecs", "describe-task-definition", "--task-definition", arn];
    emulator::aws(REGION, &arguments)["taskDefinition"].clone()
}

/// A value of a container.
fn of_container<'a>(definition: &'a Value, name: &str, key: &str) -> &'a Value {
    let all = definition["containerDefinitions"].as_array().expect("list");
    let own = all.iter().find(|c| c["name"] == name);
    &own.expect("a container of that name")[key]
}

/// How many revisions a family has.
fn revisions(family: &str) -> usize {
    let list = ["ecs", "list-task-definitions", "--family-prefix", family];
    let list = emulator::aws(REGION, &list)["taskDefinitionArns"].clone();
    list.as_array().expect("a list").len()
}

/// A new revision of the canary's family: what it runs with these changes.
fn revision(made: &Made, change: impl Fn(&mut Value)) -> String {
    let mut body = described(&format!("{}-canary", made.name));
    let known = body.as_object_mut().expect("an object");
    known.retain(|key, _| {
        [
            "family",
            "networkMode",
            "requiresCompatibilities",
            "cpu",
            "memory",
            "containerDefinitions",
        ]
        .contains(&key.as_str())
    });
    change(&mut body);
    let body = body.to_string();
    let register = ["ecs", "register-task-definition", "--cli-input-json", &body];
    let made = emulator::aws(REGION, &register);
    let arn = &made["taskDefinition"]["taskDefinitionArn"];
    arn.as_str().expect("an ARN").to_owned()
}

fn request(made: &Made, more: impl Fn(&mut BeginRequest)) -> BeginRequest {
    let set = ["steps=10,50,100", "gate=limits", "bake=5m"];
    let mut request = rollout("canary", on_aws(on(made)), &set);
    more(&mut request);
    request
}

fn image(name: &'static str) -> impl Fn(&mut BeginRequest) {
    move |request| request.image = Some(name.to_owned())
}

/// The rollout as the engine has made it ready, in a bottle.
async fn bottled(bottle: &mut Bottle, ready: Ready) {
    bottle.adopt(ready).await;
    for arm in 0..2 {
        bottle.traffic(arm, -10..120, GOOD).await;
    }
}

async fn canary(wish: Wish) -> Bottle {
    Bottle::new(wish, guests::plugin("canary").await, three_steps()).await
}

fn shown(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

/// The versions that the arms will have.
fn versions(ready: &Ready) -> Vec<&str> {
    let arms = ready.header.arms.iter();
    arms.map(|arm| arm.version.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_goes_into_the_container_of_its_repository() {
    let mut bottle = canary(with_proxy()).await;
    let test = TestApp::new();
    let wanted = request(&bottle.made, image("reg.example/shop:v2"));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(
        versions(&ready),
        ["reg.example/shop:v1", "reg.example/shop:v2"]
    );
    for change in &ready.changes {
        assert_eq!(change.container.as_deref(), Some("app"), "{change:?}");
        assert_eq!(
            shown(&change.differences),
            ["app.image: reg.example/shop:v1 -> reg.example/shop:v2"]
        );
    }
    assert_eq!(ready.changes.len(), 2, "both arms");
    let families = ["stable", "canary"].map(|arm| format!("{}-{arm}", bottle.made.name));
    assert_eq!(families.clone().map(|f| revisions(&f)), [1, 1], "so far");

    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    for arm in ["stable", "canary"] {
        let runs = runs(&bottle.made, arm).await;
        assert_eq!(of_container(&runs, "app", "image"), "reg.example/shop:v2");
        assert_eq!(of_container(&runs, "proxy", "image"), "nginx:1.27");
    }
    assert_eq!(families.map(|f| revisions(&f)), [2, 2], "one new each");
}

/// Siblings: the version is told by its repository however the image is written, and
/// where it cannot be told the engine asks.
#[tokio::test(flavor = "multi_thread")]
async fn the_container_is_told_by_its_repository_or_asked_for() {
    const WORKER: &[(&str, &str)] = &[("worker", "reg.example/shop:v1")];
    const MESH: &[(&str, &str)] = &[
        ("envoy", "public.ecr.aws/appmesh/envoy:v1.29"),
        ("log-router", "reg.example/tools/fluent-bit:2"),
    ];
    let digest = format!("reg.example/shop@sha256:{}", "ab".repeat(32));
    let with = |beside| Wish {
        beside,
        ..with_proxy()
    };
    let test = TestApp::new();
    let made = make(&with(MESH)).await;
    for (image, container) in [
        ("reg.example/shop:v2", "app"),
        (digest.as_str(), "app"),
        ("reg.example/tools/fluent-bit:3", "log-router"),
        ("public.ecr.aws/appmesh/envoy:v2", "envoy"),
    ] {
        let wanted = request(&made, |r| r.image = Some(image.to_owned()));
        let ready = make_ready(&test.app, &wanted).await.expect("ready");
        assert_eq!(ready.changes[0].container.as_deref(), Some(container));
    }
    let asks = [
        "envoy (public.ecr.aws/appmesh/envoy:v1.29)",
        "app (reg.example/shop:v1)",
        "--container NAME",
        "target.aws.container",
    ];
    let elsewhere = request(&made, image("other.example/shop:v2"));
    refused(make_ready(&test.app, &elsewhere).await, Kind::Usage, &asks);

    // Two containers of one image: nobody but a person can tell.
    let made = make(&with(WORKER)).await;
    let two = request(&made, image("reg.example/shop:v2"));
    let says = ["several containers that run the repository", "--container"];
    refused(make_ready(&test.app, &two).await, Kind::Usage, &says);
    let mut named = on(&made);
    named.container = Some("worker".to_owned());
    let wanted = BeginRequest {
        target: on_aws(named.clone()),
        ..two.clone()
    };
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(ready.changes[0].container.as_deref(), Some("worker"));
    let text = format!(
        "[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{}\"\ncluster = \"{}\"\nregion = \"{REGION}\"\ncontainer = \"app\"\n",
        made.listener, made.cluster
    );
    let file = test.write("rollout.toml", &text);
    let wanted = BeginRequest {
        target: in_file(&file),
        ..two.clone()
    };
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(ready.changes[0].container.as_deref(), Some("app"));
    named.container = Some("web".to_owned());
    let wanted = BeginRequest {
        target: on_aws(named),
        ..two
    };
    let says = ["no container web", "worker (reg.example/shop:v1)"];
    refused(make_ready(&test.app, &wanted).await, Kind::Usage, &says);
}

/// One container is the version, whatever its image was: a service may move to another
/// registry.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_container_gets_any_image() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let wanted = request(&made, image("other.example/shop:v2"));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(ready.changes[0].container.as_deref(), Some("app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_status_name_the_container_and_its_version() {
    let made = make(&with_proxy()).await;
    let folder = folder();
    let canary = plugin("canary");
    let target = ["--listener", &made.listener, "--cluster", &made.cluster];
    let plan = ["plan", &canary, "--image", "reg.example/shop:v2"];
    let output = run(folder.path(), REGION, &[&plan[..], &target].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output).replace(&made.name, "NAME");
    for line in [
        "canary, container app: a new revision of NAME-canary instead of NAME-canary:1",
        "stable, container app: a new revision of NAME-stable instead of NAME-stable:1",
        "app.image: reg.example/shop:v1 -> reg.example/shop:v2",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let status = run(folder.path(), REGION, &[&["status"], &target[..]].concat());
    let text = stdout(&status);
    assert!(text.contains("reg.example/shop:v1"), "{text}");
    assert!(!text.contains("nginx"), "{text}");
    let named = ["status", "--container", "proxy"];
    let status = run(folder.path(), REGION, &[&named[..], &target].concat());
    let text = stdout(&status);
    assert!(text.contains("nginx:1.27"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_by_copy_leaves_the_stable_arm_its_own() {
    let mut bottle = canary(uneven()).await;
    let test = TestApp::new();
    let wanted = request(&bottle.made, image("app:v2"));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    let stable = ready.changes.iter().find(|c| c.arm == "stable");
    let stable = stable.expect("it changes");
    assert_eq!(
        shown(&stable.differences),
        ["app.image: app:v1 -> app:v2"],
        "and nothing else"
    );
    let before = runs(&bottle.made, "stable").await;
    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let after = runs(&bottle.made, "stable").await;
    assert_eq!(of_container(&after, "app", "image"), "app:v2");
    for key in ["family", "cpu", "memory"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let variables = of_container(&after, "app", "environment");
    assert_eq!(*variables, *of_container(&before, "app", "environment"));
    assert_eq!(after["cpu"], "1024");
}

/// What `--task-definition` changes beside the image goes there too, and what the two
/// arms have of their own does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_definition_brings_its_changes_and_nothing_else() {
    let mut bottle = canary(uneven()).await;
    let new = revision(&bottle.made, |body| {
        let app = &mut body["containerDefinitions"][0];
        app["image"] = json!("app:v2");
        app["command"] = json!(["serve", "--fast"]);
        let variables = app["environment"].as_array_mut().expect("a list");
        variables.push(json!({"name": "FLAG", "value": "on"}));
        body["memory"] = json!("1024");
    });
    let test = TestApp::new();
    let wanted = request(&bottle.made, |r| r.task_definition = Some(new.clone()));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    let stable = ready.changes.iter().find(|c| c.arm == "stable");
    assert_eq!(
        shown(&stable.expect("it changes").differences),
        [
            "app.command: [\"serve\", \"--fast\"] is new",
            "app.environment.FLAG: (not shown) is new",
            "app.image: app:v1 -> app:v2",
            "memory: 2048 -> 1024",
        ]
    );
    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let after = runs(&bottle.made, "stable").await;
    assert_eq!(after["family"], format!("{}-stable", bottle.made.name));
    assert_eq!(
        (&after["cpu"], &after["memory"]),
        (&json!("1024"), &json!("1024"))
    );
    assert_eq!(of_container(&after, "app", "image"), "app:v2");
    assert_eq!(
        *of_container(&after, "app", "command"),
        json!(["serve", "--fast"])
    );
    let role = format!("{}-stable", bottle.made.name);
    assert_eq!(
        *of_container(&after, "app", "environment"),
        json!([{"name": "ROLE", "value": role}, {"name": "FLAG", "value": "on"}])
    );
    assert_eq!(
        runs(&bottle.made, "canary").await["taskDefinitionArn"],
        json!(new)
    );
}

/// The same image with other settings is another version.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_settings_alone_is_promoted_too() {
    let mut bottle = canary(uneven()).await;
    let new = revision(&bottle.made, |body| {
        let app = &mut body["containerDefinitions"][0];
        app["environment"] = json!([]);
    });
    let test = TestApp::new();
    let wanted = request(&bottle.made, |r| r.task_definition = Some(new.clone()));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    let called = format!("app:v1 ({}-canary:2)", bottle.made.name);
    assert_eq!(versions(&ready), ["app:v1", &called]);
    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let after = runs(&bottle.made, "stable").await;
    assert_eq!(*of_container(&after, "app", "environment"), json!([]));
    assert_eq!(after["memory"], "2048");
    assert_eq!(bottle.live().await.arms[0].release.version, called);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_whole_is_the_old_way_and_says_what_it_takes_along() {
    let mut bottle = canary(uneven()).await;
    let test = TestApp::new();
    let text = format!(
        "promotion = \"copy-whole\"\n[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{}\"\ncluster = \"{}\"\nregion = \"{REGION}\"\n",
        bottle.made.listener, bottle.made.cluster
    );
    let file = test.write("rollout.toml", &text);
    let wanted = BeginRequest {
        target: in_file(&file),
        ..request(&bottle.made, image("app:v2"))
    };
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(ready.header.promotion, Promotion::CopyWhole);
    let name = &bottle.made.name;
    let stable = ready.changes.iter().find(|c| c.arm == "stable");
    assert_eq!(
        shown(&stable.expect("it changes").differences),
        [
            "app.environment.ROLE: changed (not shown)".to_owned(),
            "app.image: app:v1 -> app:v2".to_owned(),
            "cpu: 1024 -> 256".to_owned(),
            format!("family: {name}-stable -> {name}-canary"),
            "memory: 2048 -> 512".to_owned(),
        ]
    );
    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let arms = [
        runs(&bottle.made, "stable").await,
        runs(&bottle.made, "canary").await,
    ];
    assert_eq!(arms[0], arms[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_registry_can_have_is_refused_before_ecs_is_asked() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    for (name, says) in [
        ("app:", "no tag follows the colon"),
        ("https://registry/app:v2", "write registry/app:v2"),
        ("app@sha256:12", "is not a digest"),
        (" ", "it is empty"),
        ("", "it is empty"),
        ("Shop:v2", "is not a repository"),
        ("reg.example:x/shop", "is not a host and port"),
        ("app:v1:v2", "is not a tag"),
    ] {
        let wanted = request(&made, |r| r.image = Some(name.to_owned()));
        let says = ["--image", says];
        refused(make_ready(&test.app, &wanted).await, Kind::Usage, &says);
        let text = format!(
            "[target]\nkind = \"aws\"\n[target.aws]\nlistener = \"{}\"\n[candidate]\nimage = \"{name}\"\n",
            made.listener
        );
        let file = test.write("rollout.toml", &text);
        let wanted = rollout("canary", in_file(&file), &[]);
        let says = ["candidate.image", says[1]];
        refused(make_ready(&test.app, &wanted).await, Kind::Usage, &says);
    }
    let families = ["stable", "canary"].map(|arm| revisions(&format!("{}-{arm}", made.name)));
    assert_eq!(families, [1, 1], "nothing was registered");
}

/// The digests of the images that the tasks of an arm run.
async fn digests(made: &Made, arm: &str) -> Vec<String> {
    let service = format!("{}-{arm}", made.name);
    let list = ["ecs", "list-tasks", "--cluster", &made.cluster];
    let list = [&list[..], &["--service-name", &service]].concat();
    let tasks = emulator::aws(REGION, &list)["taskArns"].clone();
    let tasks: Vec<&str> = tasks
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let describe = [
        "ecs",
        "describe-tasks",
        "--cluster",
        &made.cluster,
        "--tasks",
    ];
    let described = emulator::aws(REGION, &[&describe[..], &tasks].concat());
    let tasks = described["tasks"].as_array().expect("a list").clone();
    let digest = |task: Value| {
        let digest = &task["containers"][0]["imageDigest"];
        digest.as_str().unwrap_or("untold").to_owned()
    };
    let mut all: Vec<String> = tasks.into_iter().map(digest).collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_pushed_again_is_a_new_version() {
    let wish = Wish {
        images: ["pushed-again:v1", "pushed-again:v1"],
        ..Wish::default()
    };
    let mut bottle = canary(wish).await;
    let old = digests(&bottle.made, "stable").await;
    assert_eq!(old.len(), 1, "{old:?}");
    script("ecs/push", json!({"image": "pushed-again:v1"})).await;
    let test = TestApp::new();
    let wanted = request(&bottle.made, image("pushed-again:v1"));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    assert_eq!(ready.header.repeats, ["stable", "canary"]);
    let heard = test.heard();
    assert!(
        heard.contains(&old[0]) && heard.contains("started anew"),
        "{heard}"
    );
    let by_digest = format!("pushed-again@{}", old[0]);
    let stable = ready.header.stable.clone().expect("what it runs");
    assert_eq!(stable.version, by_digest, "for the way back");

    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let new = digests(&bottle.made, "canary").await;
    assert_eq!(new.len(), 1, "{new:?}");
    assert_ne!(new, old);
    assert_eq!(digests(&bottle.made, "stable").await, new, "promoted too");
    let journal = format!("{:?}", bottle.journal().await);
    let said = format!("canary runs pushed-again:v1 as {}", new[0]);
    assert!(journal.contains(&said), "which one was judged");
    let family = format!("{}-canary", bottle.made.name);
    assert_eq!(revisions(&family), 1, "the same definition");
}

/// Siblings: nothing was pushed, a digest is always the same, and a registry that tells
/// no digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_may_mean_another_image_is_said() {
    let wish = Wish {
        images: ["pushed-untold:v1", "pushed-untold:v1"],
        ..Wish::default()
    };
    script(
        "ecs/push",
        json!({"image": "pushed-untold:v1", "untold": true}),
    )
    .await;
    let mut bottle = canary(wish).await;
    let test = TestApp::new();
    let wanted = request(&bottle.made, image("pushed-untold:v1"));
    let ready = make_ready(&test.app, &wanted).await.expect("ready");
    let heard = test.heard();
    for said in [
        "do not say as which digest",
        "started anew",
        "under a new tag",
    ] {
        assert!(heard.contains(said), "{said}: {heard}");
    }
    bottled(&mut bottle, ready).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let updates = bottle.proxy.take();
    let updates = updates.iter().filter(|c| *c == "UpdateService").count();
    assert!(updates >= 2, "both arms were started anew: {updates}");
    let journal = format!("{:?}", bottle.journal().await);
    assert!(journal.contains("does not say which digest"), "{journal}");

    let wish = Wish {
        images: ["pushed-never:v1", "pushed-never:v1"],
        ..Wish::default()
    };
    let mut bottle = canary(wish).await;
    let old = digests(&bottle.made, "stable").await;
    let wanted = request(&bottle.made, image("pushed-never:v1"));
    let ready = make_ready(&TestApp::new().app, &wanted)
        .await
        .expect("ready");
    bottled(&mut bottle, ready).await;
    bottle.run().await;
    let journal = format!("{:?}", bottle.journal().await);
    let said = format!("as {}, the image that the stable arm runs as well", old[0]);
    assert!(journal.contains(&said), "{journal}");

    let digest = format!("app@sha256:{}", "cd".repeat(32));
    let made = make(&Wish::default()).await;
    let wanted = request(&made, |r| r.image = Some(digest.clone()));
    let ready = make_ready(&TestApp::new().app, &wanted)
        .await
        .expect("ready");
    assert_eq!(ready.header.repeats, [""; 0]);
}
