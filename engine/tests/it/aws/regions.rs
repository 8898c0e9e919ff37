//! An ARN says in which region it lies, whatever the surroundings say.

use std::path::Path;
use std::process::{Command, Output};

use engine::model::aws::region_of;
use engine::ops::Kind;
use engine::ops::status::overview;
use engine::ops::traffic::set_weights;
use serde_json::Value;

use crate::support::app::{TestApp, in_file, on, on_aws, refused};
use crate::support::aws::bottle::{Made, REGION, Wish, direct, forward, make};
use crate::support::aws::emulator;
use crate::support::binary::{engine, plugin, spawn_with, stderr, stdout};
use crate::support::{folder, target_folder};

/// Where nothing of these tests lies.
const ELSEWHERE: &str = "ap-northeast-3";

/// A shell with another region, or with none.
fn surround(command: &mut Command, region: Option<&str>) {
    emulator::environment(command, &emulator::endpoint(), region.unwrap_or(ELSEWHERE));
    if region.is_none() {
        command
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION");
    }
}

fn from(folder: &Path, region: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = engine(folder, arguments);
    surround(&mut command, region);
    let output = command.output().expect("the binary runs");
    crate::schemas::hold(arguments, &output);
    output
}

fn weights(made: &Made) -> [i64; 2] {
    let arguments = [
        "elbv2",
        "describe-listeners",
        "--listener-arns",
        &made.listener,
    ];
    let shown = emulator::aws(REGION, &arguments);
    let groups = &shown["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"];
    [0, 1].map(|n| groups[n]["Weight"].as_i64().expect("a weight"))
}

async fn rule(made: &Made) -> String {
    let condition = aws_sdk_elasticloadbalancingv2::types::RuleCondition::builder();
    let condition = condition.field("path-pattern").values("/r/*").build();
    let create = direct()
        .await
        .elb
        .create_rule()
        .listener_arn(&made.listener);
    let made = create
        .priority(1)
        .conditions(condition)
        .actions(forward(&[(&made.groups[0], 100), (&made.groups[1], 0)]));
    let made = made.send().await.expect("a rule");
    made.rules()[0].rule_arn().expect("ARN").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_listener_or_rule_is_looked_for_where_its_arn_says() {
    let made = make(&Wish::default()).await;
    let rule = rule(&made).await;
    let folder = folder();
    for named in [["--listener", &made.listener], ["--rule", &rule]] {
        let note = format!("the region {REGION} is used");
        for (region, notes) in [(Some(ELSEWHERE), 1), (None, 0), (Some(REGION), 0)] {
            let set = [&["set-weights", "80", "20"], &named[..]].concat();
            let output = from(folder.path(), region, &set);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            let said = stderr(&output);
            assert_eq!(said.matches(&note).count(), notes, "{region:?}: {said}");
            if notes > 0 {
                assert!(said.contains(ELSEWHERE), "{said}");
            }
            let shown = from(folder.path(), region, &[&["status"], &named[..]].concat());
            assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
            assert!(stdout(&shown).contains("80 %"), "{}", stdout(&shown));
        }
    }
    assert_eq!(weights(&made), [80, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_region_gives_way_to_the_arn_and_it_is_said_once() {
    let made = make(&Wish::default()).await;
    let app = TestApp::new();
    let text = format!(
        "[target]\nkind = \"aws\"\n\n[target.aws]\nregion = \"{ELSEWHERE}\"\nlistener = \"{}\"\ncluster = \"{}\"\n\n[strategy]\nplugin = \"canary\"\n",
        made.listener, made.cluster
    );
    let file = in_file(&app.write("rollout.toml", text));
    let mut by_group = on(&made);
    by_group.region = Some(ELSEWHERE.to_owned());
    by_group.arms = vec![
        format!("stable={}", made.groups[0]),
        format!("canary={}", made.groups[1]),
    ];
    for request in [file, on_aws(by_group)] {
        for _ in 0..2 {
            overview(&app.app, &request, None)
                .await
                .expect("it is found");
        }
        set_weights(&app.app, &request, &["70".to_owned(), "30".to_owned()])
            .await
            .expect("it is moved");
    }
    let heard = app.heard();
    let note = format!("not the configured {ELSEWHERE}");
    assert_eq!(heard.matches(&note).count(), 1, "{heard}");
    assert_eq!(weights(&made), [70, 30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn arns_of_two_regions_are_no_target() {
    let made = make(&Wish::default()).await;
    let app = TestApp::new();
    let mut request = on(&made);
    let stranger = made.groups[0].replace(REGION, ELSEWHERE);
    request.arms = vec![format!("stable={stranger}")];
    let error = overview(&app.app, &on_aws(request), None).await;
    let says = [REGION, ELSEWHERE, &stranger];
    refused(error.map(drop), Kind::Usage, &says);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_said_with_the_region_that_was_asked() {
    let made = make(&Wish::default()).await;
    let folder = folder();
    for kind in ["listener", "rule"] {
        let gone = match kind {
            "rule" => rule(&made).await.replace("/app/", "/app/gone-"),
            _ => made.listener.replace("/app/", "/app/gone-"),
        };
        let gone = gone.replace(REGION, "eu-north-1");
        assert_eq!(region_of(&gone), Some("eu-north-1"));
        let flag = format!("--{kind}");
        for verb in ["status", "rollback"] {
            let output = from(folder.path(), Some(REGION), &[verb, &flag, &gone]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{verb} {kind}: {said}");
            assert!(said.contains("NotFound"), "{said}");
            assert!(said.contains("in eu-north-1 ("), "{said}");
        }
    }
}

/// A rollout that began in one shell, and the verbs of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_rollout_needs_no_region_of_its_shell() {
    for (begun, then) in [
        (Some(REGION), None),
        (Some(ELSEWHERE), Some("eu-north-1")),
        (None, Some(ELSEWHERE)),
    ] {
        let made = make(&Wish {
            weights: [100, 0],
            ..Wish::default()
        })
        .await;
        let folder = folder();
        // Compiling a plugin takes seconds, and all tests have the same ones.
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("writable");
        let compiled = target_folder().join("test-compiled");
        std::fs::create_dir_all(&compiled).expect("writable");
        std::os::unix::fs::symlink(&compiled, state.join("compiled")).expect("a link");
        let arguments = [
            "run",
            &plugin("canary"),
            "--image",
            "app:v2",
            "--set",
            "steps=10,100",
            "--set",
            "gate=limits",
            "--listener",
            &made.listener,
            "--cluster",
            &made.cluster,
        ];
        let process = spawn_with(folder.path(), &arguments, |command| {
            surround(command, begun)
        });
        tokio::task::block_in_place(|| {
            for _ in 0..200 {
                if weights(&made) == [90, 10] {
                    break;
                }
            }
            assert_eq!(weights(&made), [90, 10], "{begun:?}");
            drop(process);
            let listed = from(folder.path(), then, &["list", "--json"]);
            let listed: Value = serde_json::from_str(&stdout(&listed)).expect("JSON");
            let id = listed[0]["rollout"].as_str();
            let id = id.unwrap_or_else(|| panic!("{listed}")).to_owned();
            let shown = from(folder.path(), then, &["status", &id]);
            assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
            assert!(stdout(&shown).contains("90 %"), "{}", stdout(&shown));
            let ended = from(folder.path(), then, &["abort", &id]);
            assert_eq!(weights(&made), [100, 0], "{}", stderr(&ended));
        });
    }
}

/// The stack of a rollout file has the same name in another region, and in another account.
#[tokio::test(flavor = "multi_thread")]
async fn a_verb_without_an_id_means_no_rollout_of_another_region_or_account() {
    let folder = folder();
    let folder = folder.path();
    let name = emulator::unique("who");
    let state = folder.join("state");
    std::fs::create_dir(&state).expect("writable");
    let compiled = target_folder().join("test-compiled");
    std::fs::create_dir_all(&compiled).expect("writable");
    std::os::unix::fs::symlink(&compiled, state.join("compiled")).expect("a link");
    // The same store, and no rollout file.
    let bare = folder.join("bare");
    std::fs::create_dir(&bare).expect("writable");
    std::os::unix::fs::symlink("../state", bare.join("state")).expect("a link");
    let images = ["-p", "ImageURIStable=app:v1", "-p", "ImageURICanary=app:v1"];
    let deploy = [&["deploy", "canary", "--stack", &name], &images[..]].concat();
    let deployed = from(folder, Some(REGION), &deploy);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let home = ["set-weights", "stable=100", "canary=0", "--stack", &name];
    from(folder, Some(REGION), &home);
    let file = format!(
        "promotion = \"swap\"\n[target]\nkind = \"aws\"\n[target.aws]\nstack = \"{name}\"\n[candidate]\nimage = \"app:v2\"\n"
    );
    std::fs::write(folder.join("rollout.toml"), file).expect("writable");
    let shares = || {
        let shown = from(
            folder,
            Some(REGION),
            &["status", "--stack", &name, "--json"],
        );
        let shown: Value = serde_json::from_str(&stdout(&shown)).expect("JSON");
        let arms = shown["target"]["arms"].as_array().expect("arms").clone();
        arms.iter()
            .map(|arm| arm["weight"].as_i64().expect("a weight"))
            .collect::<Vec<_>>()
    };
    let canary = plugin("canary");
    let set = ["--set", "steps=10,100", "--set", "gate=limits"];
    let begin = [&["run", &*canary], &set[..]].concat();
    let process = spawn_with(folder, &begin, |command| surround(command, Some(REGION)));
    // Credentials of another account.
    let role = "arn:aws:iam::999999999999:role/staging";
    let assume = [
        "sts",
        "assume-role",
        "--role-arn",
        role,
        "--role-session-name",
        "staging",
    ];
    let given = emulator::aws(REGION, &assume)["Credentials"].clone();
    let as_staging = |command: &mut Command| {
        surround(command, Some(REGION));
        for (variable, key) in [
            ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
            ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
            ("AWS_SESSION_TOKEN", "SessionToken"),
        ] {
            command.env(variable, given[key].as_str().expect("a text"));
        }
    };
    let as_nobody = |command: &mut Command| {
        surround(command, Some(REGION));
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
    };
    let far = |command: &mut Command| surround(command, Some(ELSEWHERE));
    let said = |place: &Path, arguments: &[&str], surround: &dyn Fn(&mut Command)| {
        let mut command = engine(place, arguments);
        surround(&mut command);
        let output = command.output().expect("the binary runs");
        (output.status.code(), stderr(&output))
    };
    let onward = [
        &["promote", "--full"][..],
        &["promote"],
        &["approve"],
        &["resume"],
    ];
    tokio::task::block_in_place(|| {
        for _ in 0..200 {
            if shares() == [90, 10] {
                break;
            }
        }
        assert_eq!(shares(), [90, 10]);
        drop(process);
        for place in [folder, &bare] {
            for arguments in onward {
                let (code, text) = said(place, arguments, &far);
                assert_eq!(code, Some(2), "{arguments:?}: {text}");
                assert!(
                    text.contains(&format!("{ELSEWHERE} is what is meant")),
                    "{text}"
                );
                let (code, text) = said(place, arguments, &as_staging);
                assert_eq!(code, Some(2), "{arguments:?}: {text}");
                assert!(text.contains("are of 999999999999"), "{text}");
                let (code, text) = said(place, arguments, &as_nobody);
                assert_eq!(code, Some(2), "{arguments:?}: {text}");
                assert!(text.contains("cannot be told"), "{text}");
            }
            let (code, text) = said(place, &["pause"], &far);
            assert_eq!(code, Some(2), "{text}");
        }
        assert_eq!(shares(), [90, 10]);
        let listed = from(folder, Some(REGION), &["list", "--json"]);
        let listed: Value = serde_json::from_str(&stdout(&listed)).expect("JSON");
        assert_eq!(listed[0]["phase"], "progressing", "{listed}");
        // Where it is meant it obeys, and the way back asks nobody who he is.
        let here = |command: &mut Command| surround(command, Some(REGION));
        for arguments in [&["pause"][..], &["pause"]] {
            let (code, text) = said(folder, arguments, &here);
            assert_eq!(code, Some(0), "{text}");
        }
        let (code, text) = said(folder, &["promote"], &here);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("is paused"), "{text}");
        let (code, text) = said(folder, &["abort"], &far);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(shares(), [100, 0]);
    });
}

/// Sessions of `aws login` are not supported, in words, whichever way the profile is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_with_a_login_session_is_named_with_a_way_round() {
    let made = make(&Wish::default()).await;
    let folder = folder();
    let config = folder.path().join("config");
    let text = "[default]\nlogin_session = arn:aws:iam::123456789012:user/Admin\n\
        [profile desk]\nlogin_session = arn:aws:iam::123456789012:user/Admin\n\
        [profile role]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = desk\n\
        [profile handed]\ncredential_process = printf \
        '{\"Version\":1,\"AccessKeyId\":\"testing\",\"SecretAccessKey\":\"testing\"}'\n";
    std::fs::write(&config, text).expect("writable");
    let status = ["status", "--listener", &made.listener];
    let as_who = |profile: Option<&str>, flag: &[&str]| {
        let arguments = [&status[..], flag].concat();
        let mut command = engine(folder.path(), &arguments);
        surround(&mut command, Some(REGION));
        command
            .env("AWS_CONFIG_FILE", &config)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        if let Some(profile) = profile {
            command.env("AWS_PROFILE", profile);
        }
        command.output().expect("the binary runs")
    };
    for output in [
        as_who(None, &[]),
        as_who(Some("desk"), &[]),
        as_who(None, &["--profile", "desk"]),
        as_who(Some("role"), &[]),
    ] {
        let said = stderr(&output);
        assert_ne!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("`aws login`"), "{said}");
        assert!(said.contains("export-credentials"), "{said}");
        assert!(!said.contains("feature"), "{said}");
    }
    for output in [
        as_who(Some("handed"), &[]),
        as_who(None, &["--profile", "handed"]),
    ] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}
