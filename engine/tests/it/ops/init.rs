//! `init`: a rollout file that `check` accepts, and nothing half-written.

use engine::ops::Kind;
use engine::ops::begin::BeginRequest;
use engine::ops::check::check;
use engine::ops::examined::wrong;
use engine::ops::init::{InitRequest, Place, init};

use crate::support::app::{TestApp, in_file, on, on_aws, refused};
use crate::support::aws::bottle::{Wish, make};
use crate::support::aws::proxy::Proxy;
use crate::support::binary::{plugin, run, spawn, stderr, wait};
use crate::support::folder;

fn here(test: &TestApp, place: Place) -> InitRequest {
    InitRequest {
        file: test.at("rollout.toml"),
        force: false,
        place,
        plugin: Some(plugin("canary")),
        image: None,
    }
}

fn local() -> Place {
    Place::Local("127.0.0.1:0".parse().expect("an address"))
}

/// Fails if `check` finds a problem with what was written.
async fn accepted(test: &TestApp, request: &InitRequest) {
    let request = BeginRequest {
        target: in_file(&request.file),
        ..BeginRequest::default()
    };
    let checked = check(&test.app, &request).await.expect("it is there");
    let of_ports = |one: &&engine::ops::examined::Examined| {
        // Another test of this machine may have the usual port.
        let said = format!("{one:?}");
        !said.contains("cannot be used")
    };
    let examined: Vec<_> = checked.examined.iter().filter(of_ports).cloned().collect();
    assert_eq!(wrong(&examined), 0, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_this_machine_is_accepted_and_never_replaced_unasked() {
    let test = TestApp::new();
    let request = here(&test, local());
    let written = init(&test.app, &request).await.expect("written");
    assert_eq!(written.arms, ["stable", "canary"]);
    accepted(&test, &request).await;
    let before = std::fs::read(&request.file).expect("there");
    std::fs::write(&request.file, "# mine").expect("writable");
    refused(
        init(&test.app, &request).await,
        Kind::Usage,
        &["there is a file", "--force replaces it"],
    );
    let kept = std::fs::read_to_string(&request.file).expect("there");
    assert_eq!(kept, "# mine");
    let forced = InitRequest {
        force: true,
        ..request.clone()
    };
    init(&test.app, &forced).await.expect("replaced");
    assert_eq!(std::fs::read(&request.file).expect("there"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_aws_is_found_read_and_named() {
    let made = make(&Wish::default()).await;
    let proxy = Proxy::start().await;
    let test = TestApp::through(&proxy.endpoint);
    let target = Place::Aws(Box::new(on_aws(on(&made))));
    let request = InitRequest {
        image: Some("app:v2".to_owned()),
        ..here(&test, target)
    };
    let written = init(&test.app, &request).await.expect("written");
    assert_eq!(written.arms.len(), 2);
    let calls = proxy.take();
    let reads = |call: &String| {
        ["Describe", "List", "Get"]
            .iter()
            .any(|r| call.starts_with(r))
    };
    assert!(!calls.is_empty() && calls.iter().all(reads), "{calls:?}");
    let text = std::fs::read_to_string(&request.file).expect("there");
    assert!(text.contains(&made.listener), "{text}");
    assert!(text.contains("image = \"app:v2\""), "{text}");
    accepted(&test, &request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind_where_the_target_is_not_found() {
    let made = make(&Wish::default()).await;
    let test = TestApp::new();
    let mut nowhere = on(&made);
    nowhere.listener = nowhere.listener.map(|arn| arn + "0");
    let request = here(&test, Place::Aws(Box::new(on_aws(nowhere))));
    let files = || std::fs::read_dir(test.at(".")).expect("a folder").count();
    let before = files();
    assert!(init(&test.app, &request).await.is_err());
    let elsewhere = InitRequest {
        file: test.at("no/such/folder/rollout.toml"),
        ..here(&test, local())
    };
    refused(
        init(&test.app, &elsewhere).await,
        Kind::Usage,
        &["failed to write"],
    );
    let image = InitRequest {
        image: Some("app:v2".to_owned()),
        ..here(&test, local())
    };
    refused(
        init(&test.app, &image).await,
        Kind::Usage,
        &["needs a target on AWS"],
    );
    assert_eq!(files(), before);
}

/// What lies there by the name of the plugins file may be no file: reading it would never end.
#[test]
fn a_plugins_file_that_is_no_file_keeps_nobody() {
    for kind in ["pipe", "device"] {
        let folder = folder();
        let file = folder.path().join("plugins.toml");
        match kind {
            "pipe" => {
                let made = std::process::Command::new("mkfifo").arg(&file).status();
                assert!(made.expect("mkfifo").success());
            }
            _ => std::os::unix::fs::symlink("/dev/zero", &file).expect("a link"),
        }
        let output = wait(spawn(folder.path(), &["init", "--local"]));
        assert_eq!(output.status.code(), Some(0), "{kind}: {}", stderr(&output));
        assert!(folder.path().join("rollout.toml").exists(), "{kind}");
    }
}

#[test]
fn a_strategy_without_a_name_is_refused() {
    let folder = folder();
    for name in ["", " "] {
        let output = run(folder.path(), &["init", "--local", "--plugin", name]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("the strategy"),
            "{}",
            stderr(&output)
        );
        assert!(!folder.path().join("rollout.toml").exists());
    }
}

/// What nothing names is the engine's own strategy, where it is; a file that names what is
/// nowhere would be wrong from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_that_nothing_names_is_found_or_left_open() {
    let test = TestApp::new();
    let request = InitRequest {
        plugin: None,
        ..here(&test, local())
    };
    let written = init(&test.app, &request).await.expect("written");
    assert_eq!(written.plugin, None);
    let text = std::fs::read_to_string(&request.file).expect("there");
    assert!(text.contains("\n# plugin = "), "{text}");
    for way in [
        "`make plugins`",
        "`engine plugin pull",
        "`engine plugin new`",
    ] {
        assert!(text.contains(way), "{way}: {text}");
    }
    accepted(&test, &request).await;
    // Where the binary came with it.
    let own = std::path::PathBuf::from(plugin("canary"));
    let app = test.within(|surroundings| {
        surroundings.plugins = vec![own.parent().expect("a folder").to_owned()];
    });
    let forced = InitRequest {
        force: true,
        ..request.clone()
    };
    let written = init(&app, &forced).await.expect("written");
    assert_eq!(written.plugin, Some(plugin("canary")));
    accepted(&test, &request).await;
    // Who names it where it is not is told where it is.
    let begun = BeginRequest {
        target: in_file(&request.file),
        plugin: Some("elsewhere/canary.wasm".into()),
        ..BeginRequest::default()
    };
    let checked = check(&app, &begun).await.expect("a file");
    let said = format!("{checked:?}");
    assert!(
        said.contains(&format!("{} is the engine's own", plugin("canary"))),
        "{said}"
    );
}

/// The binary of this build is in `target`, beside which the sources have the strategies.
#[test]
fn the_binary_finds_the_strategies_that_it_was_built_with() {
    let folder = folder();
    let output = run(folder.path(), &["init", "--local"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(folder.path().join("rollout.toml")).expect("there");
    let named = text.lines().find(|line| line.starts_with("plugin = "));
    let named = named.unwrap_or_else(|| panic!("{text}"));
    let place = named.split('"').nth(1).expect("quoted");
    assert!(std::path::Path::new(place).is_file(), "{named}");
    let told = stderr(&output);
    assert!(told.contains("on this machine alone"), "{told}");
}

/// A file that names a strategy which is not there is written, and that is said at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_that_is_not_there_is_told() {
    let test = TestApp::new();
    let place = test.at("canary.wasm");
    let request = InitRequest {
        plugin: Some(place.display().to_string()),
        ..here(&test, local())
    };
    init(&test.app, &request).await.expect("written");
    let said = test.heard();
    assert!(
        said.contains("canary.wasm here, and a rollout needs it"),
        "{said}"
    );
    assert!(said.contains("make plugins"), "{said}");
    for known in [plugin("canary"), "canary".to_owned()] {
        let request = InitRequest {
            plugin: Some(known),
            force: true,
            ..request.clone()
        };
        init(&test.app, &request).await.expect("written");
        assert_eq!(test.heard(), "", "a file that is there, or a name");
    }
}
