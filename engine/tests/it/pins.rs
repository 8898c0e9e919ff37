//! Names, digests, permissions, signatures and policies, as a user meets them.

use engine::model::End;
use engine::ops::begin::BeginRequest;
use engine::ops::pin::Change;
use engine::ops::simulate::{self, SimulateRequest};
use engine::ops::{Kind, history, request::TargetRequest};
use engine::rollout::{Options, Standing};
use engine::simulate::replicate;

use crate::support::app::{refused, suspended, texts};
use crate::support::binary::{engine, stderr};
use crate::support::guests::guest_path;
use crate::support::lab::story;
use crate::support::project::{GATE, Project, done};

/// One plugin, `gate`, with the bytes of a guest.
fn with(guest: &str) -> Project {
    let project = Project::empty();
    put(&project, "gate.wasm", guest);
    project.write("plugins.toml", "[plugins]\ngate = \"gate.wasm\"\n");
    project
}

fn put(project: &Project, name: &str, guest: &str) {
    std::fs::copy(guest_path(guest), project.at(name)).expect("a guest");
}

fn digest(guest: &str) -> String {
    let bytes = std::fs::read(guest_path(guest)).expect("a guest");
    format!("sha256:{}", engine::model::sha256_hex(&bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_pinned_when_it_is_first_used() {
    let project = with("canary");
    done(project.look().await);
    let heard = project.heard();
    assert!(heard.contains("plugins.lock is new"), "{heard}");
    let lock = project.lock_file();
    assert!(lock.contains(&digest("canary")), "{lock}");
    assert!(
        lock.contains("rollout:traffic/traffic@0.1.0#set-weights"),
        "{lock}"
    );
    // The second time nothing is to be said, also where nothing may change.
    done(project.clone().in_ci().look().await);
    assert_eq!(
        (project.heard(), project.lock_file()),
        (String::new(), lock)
    );
    done(project.verify().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_rejected_with_both_digests() {
    let project = with("canary");
    done(project.lock().await);
    let lock = project.lock_file();
    put(&project, "gate.wasm", "blue-green");
    let says = [
        &*digest("canary"),
        &digest("blue-green"),
        "engine plugin update gate",
    ];
    refused(project.look().await, Kind::Rejected, &says);
    refused(project.verify().await, Kind::Rejected, &says);
    // Nor does it say that all is up to date.
    refused(project.lock().await, Kind::Rejected, &says);
    refused(project.check().await, Kind::Rejected, &says);
    // By its path it is the same plugin.
    for plugin in [GATE.into(), project.at("gate.wasm")] {
        let ready = project.get_ready(Some(&plugin)).await;
        refused(ready, Kind::Rejected, &says);
    }
    assert_eq!(project.lock_file(), lock, "nothing is taken over silently");
    let list = history::list(&project.app, &<_>::default()).await;
    assert_eq!(list, Ok(vec![]), "no rollout began");
    let updated = done(project.update().await);
    assert!(updated.written);
    let change = Change {
        name: GATE.to_owned(),
        before: Some(digest("canary")),
        now: Some(digest("blue-green")),
    };
    assert_eq!(updated.changes, [change]);
    assert!(project.lock_file().contains(&digest("blue-green")));
    done(project.verify().await);
    done(project.look().await);
}

/// A lock that was edited to hide a permission.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_says_less_than_the_plugin_can_do_is_refused() {
    let project = with("canary");
    done(project.lock().await);
    let hidden = "    \"rollout:traffic/traffic@0.1.0#set-weights\",\n";
    let lock = project.lock_file();
    assert!(lock.contains(hidden));
    project.write("plugins.lock", &lock.replace(hidden, ""));
    refused(
        project.look().await,
        Kind::Rejected,
        &["+ may call rollout:traffic/traffic@0.1.0#set-weights"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_ci_nothing_new_is_pinned() {
    let project = with("canary");
    put(&project, "other.wasm", "canary");
    let locked = project.clone().in_ci();
    refused(
        locked.look().await,
        Kind::Rejected,
        &["gate is not pinned as gate.wasm", "engine plugin lock"],
    );
    let says = &["gate is not pinned"];
    refused(locked.lock().await, Kind::Rejected, says);
    refused(locked.verify().await, Kind::Rejected, says);
    refused(locked.vendor().await, Kind::Rejected, says);
    refused(
        locked.update().await,
        Kind::Usage,
        &["contradict each other"],
    );
    assert_eq!(project.lock_file(), "");
    let frozen = project.clone().frozen();
    refused(frozen.look().await, Kind::Rejected, &["not pinned"]);
    done(project.lock().await);
    done(locked.look().await);
    // A file that nobody has pinned is as bad as a name.
    refused(
        locked.get_ready(Some(&project.at("other.wasm"))).await,
        Kind::Rejected,
        &["other.wasm has no name in ", "plugins.toml"],
    );
    // Another source under the same name is another plugin.
    project.write("plugins.toml", "[plugins]\ngate = \"other.wasm\"\n");
    let says = &["not pinned as other.wasm"];
    refused(locked.look().await, Kind::Rejected, says);
    // And what is gone must go from the lock too.
    project.write("plugins.toml", "[plugins]\n");
    let says = &["does not name any more"];
    refused(locked.lock().await, Kind::Usage, says);
    done(project.lock().await);
    assert!(!project.lock_file().contains("gate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_means_nothing_without_names() {
    let project = with("canary");
    put(&project, "other.wasm", "canary");
    done(project.lock().await);
    let other = project.at("other.wasm");
    let in_ci = project.clone().in_ci();
    done(in_ci.look().await);
    refused(
        in_ci.get_ready(Some(&other)).await,
        Kind::Rejected,
        &["has no name in "],
    );
    // Who is just writing one may look at it, also in CI.
    done(in_ci.inspect(&other).await);
    refused(
        project.clone().locked().inspect(&other).await,
        Kind::Rejected,
        &["has no name"],
    );
    let mut gone = project.clone();
    gone.pins.plugins = Some(project.at("gone.toml"));
    let gate = project.at("gate.wasm");
    refused(
        gone.inspect(&gate).await,
        Kind::Usage,
        &["there is no ", "gone.toml"],
    );
    let nameless = project.nameless();
    refused(
        nameless.clone().locked().inspect(&gate).await,
        Kind::Usage,
        &["nothing that --locked could keep to"],
    );
    // CI alone does not ask for names, but says so.
    done(nameless.clone().in_ci().get_ready(Some(&gate)).await);
    let heard = nameless.heard();
    let says = format!("nothing pins {}", gate.display());
    assert!(heard.contains(&says), "{heard}");
}

/// The folder in which somebody stands, and the environment, are those of a process.
#[test]
fn the_nearest_file_above_gives_names_and_rules() {
    let project = with("canary");
    for folder in ["deep", "open", "sub/open"] {
        std::fs::create_dir_all(project.at(folder)).expect("a folder");
    }
    for folder in ["deep", "sub"] {
        let state = project.at(folder).join("state");
        std::os::unix::fs::symlink(project.at("state"), state).expect("a link");
    }
    for file in ["other.wasm", "open/x.wasm", "sub/open/x.wasm"] {
        put(&project, file, "canary");
    }
    let below = |folder: &str, arguments: &[&str], code: i32, says: &str| {
        let mut command = engine(&project.at(folder), arguments);
        // What CI and policy say is in the environment.
        command.env("CI", "true").env("COSIGN_PASSWORD", "secret");
        let up = if folder == "." { "" } else { "../" };
        command.env("ENGINE_POLICY", format!("{up}policy.toml"));
        let output = command.output().expect("the binary runs");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{says:?} is not in: {text}");
    };
    project.write("policy.toml", "");
    below(
        "deep",
        &["plugin", "keys", "../team"],
        0,
        "team.key is secret",
    );
    let pinned = engine(&project.at("deep"), &["plugin", "lock"]).output();
    assert!(pinned.expect("the binary runs").status.success());
    below("deep", &["plugin", "inspect", "gate"], 0, "");
    // A path in plugins.toml is that of the file's folder.
    let sign = ["plugin", "sign", "gate", "--key", "../team.key"];
    below("deep", &sign, 0, "signed by sha256:");
    assert!(project.at("gate.wasm.sig").exists());
    let plan = ["plan", "../other.wasm"];
    below("deep", &plan, 6, "has no name in ../plugins.toml");
    project.write("policy.toml", "deny-imports = [\"traffic\"]");
    let look = ["plugin", "inspect", "gate"];
    below("deep", &look, 6, "the policy forbids gate");
    project.write("policy.toml", "");
    project.write(
        "plugins.toml",
        "[signatures.\".\"]\nkeys = [\"team.pub\"]\n[signatures.\"open\"]\nkeys = []\n",
    );
    // Only the folder that is named is open, not each that is called so.
    let look = ["plugin", "inspect", "open/x.wasm"];
    below(".", &look, 0, "");
    below("sub", &look, 6, "must be signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_nothing_may_change() {
    let project = Project::empty();
    project.write("plugins.toml", "[plugins]\n");
    done(project.clone().frozen().lock().await);
    assert!(!project.at("plugins.lock").exists());
    // The folder of a prefix is made.
    done(project.keys("keys/team"));
    let offline = project.offline();
    let far = "oci://r.example/x:1";
    let says = &["is in a registry, and --offline"];
    refused(offline.pull(far, "x").await, Kind::Usage, says);
    let signed = offline.sign(far, "keys/team.key").await;
    refused(signed, Kind::Usage, says);
}

#[test]
fn two_engines_pin_at_once() {
    let project = with("canary");
    put(&project, "other.wasm", "blue-green");
    project.write(
        "plugins.toml",
        "[plugins]\ngate = \"gate.wasm\"\nother = \"other.wasm\"\n",
    );
    let start = |name: &str| {
        let mut command = engine(&project.at("."), &["plugin", "inspect", name]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().expect("the binary runs")
    };
    for mut child in [start("gate"), start("other")] {
        assert!(child.wait().expect("it ends").success());
    }
    let lock = project.lock_file();
    assert!(
        lock.contains(&digest("canary")) && lock.contains(&digest("blue-green")),
        "{lock}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_with_two_names_is_neither() {
    let project = with("canary");
    project.write(
        "plugins.toml",
        "[plugins]\na = \"gate.wasm\"\nb = { source = \"./gate.wasm\", signed-by = [\"x.pub\"] }\n",
    );
    refused(
        project.inspect(project.at("gate.wasm")).await,
        Kind::Usage,
        &["several names", "a, b"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_not_avoided_by_another_spelling() {
    let project = with("canary");
    done(project.keys("team"));
    std::fs::create_dir(project.at("plugins")).expect("a folder");
    put(&project, "plugins/x.wasm", "canary");
    let absolute = project.at("plugins/x.wasm").display().to_string();
    std::os::unix::fs::symlink("plugins/x.wasm", project.at("link.wasm")).expect("a link");
    for source in [
        "plugins/x.wasm",
        "./plugins/x.wasm",
        "plugins/../plugins/x.wasm",
        "link.wasm",
        &absolute,
    ] {
        let text = format!(
            "[plugins]\ngate = {source:?}\n[signatures.\"plugins\"]\nkeys = [\"team.pub\"]\n"
        );
        let rule = text.replace("signatures.\"plugins\"", "signatures.\"./plugins/\"");
        for text in [&text, &rule] {
            project.write("plugins.toml", text);
            let says = &["gate must be signed"];
            refused(project.look().await, Kind::Rejected, says);
        }
        // Also without a name.
        project.write("plugins.toml", &text.replace("gate =", "# gate ="));
        let looked = project.inspect(project.at(source)).await;
        refused(looked, Kind::Rejected, &["must be signed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_an_open_folder_does_not_open_what_it_leads_to() {
    let project = Project::empty();
    done(project.keys("team"));
    for folder in ["open", "sub/open"] {
        std::fs::create_dir_all(project.at(folder)).expect("a folder");
        put(&project, &format!("{folder}/x.wasm"), "canary");
    }
    project.write(
        "plugins.toml",
        "[signatures.\".\"]\nkeys = [\"team.pub\"]\n[signatures.\"open\"]\nkeys = []\n",
    );
    let inspect = |file: &str| {
        let file = project.at(file);
        let project = &project;
        async move { project.inspect(file).await }
    };
    done(inspect("open/x.wasm").await);
    let says = &["must be signed"];
    refused(inspect("sub/open/x.wasm").await, Kind::Rejected, says);
    std::os::unix::fs::symlink("../sub/open/x.wasm", project.at("open/link.wasm")).expect("a link");
    refused(inspect("open/link.wasm").await, Kind::Rejected, says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_of_the_rollout_file_counts_for_its_file_however_it_is_named() {
    let project = Project::empty().nameless();
    put(&project, "gate.wasm", "canary");
    put(&project, "other.wasm", "canary");
    let gate = project.at("gate.wasm");
    let sha256 = "0".repeat(64);
    project.write(
        "rollout.toml",
        &format!(
            "[target]\nkind = \"local\"\n[strategy]\nplugin = {gate:?}\nsha256 = \"sha256:{sha256}\"\n"
        ),
    );
    let spelled = project.at("./gate.wasm");
    for plugin in [None, Some(&*gate), Some(&*spelled)] {
        let says = [&digest("canary")[7..], &sha256];
        refused(project.get_ready(plugin).await, Kind::Rejected, &says);
    }
    let other = project.get_ready(Some(&project.at("other.wasm"))).await;
    assert!(
        other.is_ok() || other.as_ref().is_err_and(|e| e.kind != Kind::Rejected),
        "{other:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pinned_bytes_are_signed_by_name() {
    let project = with("canary");
    done(project.keys("team"));
    done(project.lock().await);
    put(&project, "gate.wasm", "blue-green");
    refused(
        project.sign(GATE, "team.key").await,
        Kind::Rejected,
        &[&digest("canary"), &digest("blue-green")],
    );
    assert!(!project.at("gate.wasm.sig").exists());
    put(&project, "gate.wasm", "canary");
    done(project.sign(GATE, "team.key").await);
    assert!(project.at("gate.wasm.sig").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mean_nothing() {
    let project = with("canary");
    refused(
        project.get_ready(Some("gaet".as_ref())).await,
        Kind::Usage,
        &["no plugin \"gaet\"; it has gate"],
    );
    let far = "oci://registry.example/gate:1";
    refused(
        project.get_ready(Some(far.as_ref())).await,
        Kind::Usage,
        &["give it a name in plugins.toml"],
    );
    let nameless = project.nameless();
    refused(
        nameless.get_ready(Some(GATE.as_ref())).await,
        Kind::Usage,
        &["no plugins.toml here has it", "./gate"],
    );
    refused(nameless.lock().await, Kind::Usage, &["[plugins]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_change_nothing() {
    let project = with("canary");
    project.write("plugins.toml", "[plugins]\ngate = 3\n[pluggins]\n");
    refused(
        project.look().await,
        Kind::Usage,
        &[
            "plugins.toml has problems",
            "plugins.gate: is 3",
            "did you mean",
        ],
    );
    project.write("plugins.toml", "[plugins]\ngate = \"gate.wasm\"\n");
    project.write("plugins.lock", "version = 7\n");
    refused(
        project.look().await,
        Kind::Usage,
        &["plugins.lock cannot be read", "version 7"],
    );
    assert_eq!(project.lock_file(), "version = 7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_file_names_plugins_too() {
    let project = with("canary");
    project.write(
        "rollout.toml",
        "[target]\nkind = \"local\"\n[strategy]\nplugin = \"gaet\"\n",
    );
    let says = &["no plugin \"gaet\""];
    refused(project.get_ready(None).await, Kind::Usage, says);
}

/// Two guests and the key pair that one of them is signed with.
fn signed() -> Project {
    let project = with("canary");
    done(project.keys("team"));
    project.write(
        "plugins.toml",
        "[plugins]\ngate = { source = \"gate.wasm\", signed-by = [\"team.pub\"] }\n",
    );
    project
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_asked_for_before_anything_is_compiled() {
    let project = signed();
    refused(
        project.look().await,
        Kind::Rejected,
        &[
            "gate must be signed: it is not signed",
            &digest("canary"),
            "team.pub",
        ],
    );
    // What is no plugin at all is not even looked into.
    project.write("gate.wasm", "not WebAssembly");
    refused(project.look().await, Kind::Rejected, &["must be signed"]);
    put(&project, "gate.wasm", "canary");
    let signature = done(project.sign_file("gate.wasm", "team.key").await);
    assert_eq!(
        signature.place,
        project.at("gate.wasm.sig").display().to_string()
    );
    done(project.look().await);
    let lock = project.lock_file();
    assert!(lock.contains("signed-by = \"sha256:"), "{lock}");
    // The signature of one file is none of another.
    put(&project, "gate.wasm", "blue-green");
    let says = &["none of the keys that may sign it"];
    refused(project.update().await, Kind::Rejected, says);
    // Nor is that of another key.
    put(&project, "gate.wasm", "canary");
    done(project.keys("stranger"));
    done(project.sign_file("gate.wasm", "stranger.key").await);
    refused(project.look().await, Kind::Rejected, &["none of the keys"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_safe() {
    let project = signed();
    refused(project.keys("team"), Kind::Usage, &["never overwritten"]);
    let secret = std::fs::read_to_string(project.at("team.key")).expect("a key");
    assert!(secret.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"));
    let mode = {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(project.at("team.key"))
            .expect("a key")
            .permissions()
            .mode()
    };
    assert_eq!(mode & 0o077, 0, "nobody else may read it");
    let mut wrong = project.clone();
    wrong.app.surroundings.cosign_password = Some("wrong".to_owned());
    refused(
        wrong.sign_file("gate.wasm", "team.key").await,
        Kind::Usage,
        &["team.key", "password"],
    );
    refused(
        project.sign_file("gate.wasm", "team.pub").await,
        Kind::Usage,
        &["public key"],
    );
    assert!(!project.at("gate.wasm.sig").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_the_last_word() {
    let project = with("canary");
    let host = project.clone().under("policy.toml");
    let with = |policy: String| {
        project.write("policy.toml", &policy);
        host.look()
    };
    refused(
        with("deny-imports = [\"traffic\"]".into()).await,
        Kind::Rejected,
        &[
            "the policy forbids gate",
            "it imports rollout:traffic/traffic@0.1.0#",
            "deny-imports has \"traffic\"",
        ],
    );
    refused(
        with("deny-imports = [\"wasi:sockets\", \"traffic.set-weights\"]".into()).await,
        Kind::Rejected,
        &["#set-weights"],
    );
    // As plugins.lock spells it.
    refused(
        with("deny-imports = [\"rollout:traffic/traffic@0.1.0#set-weights\"]".into()).await,
        Kind::Rejected,
        &["the policy forbids gate"],
    );
    refused(
        with("deny-imports = [\"trafic\"]".into()).await,
        Kind::Usage,
        &["has \"trafic\"", "traffic, metrics, control"],
    );
    assert_eq!(project.lock_file(), "", "what is forbidden is not pinned");
    refused(
        with(format!("digests = [{:?}]", digest("blue-green"))).await,
        Kind::Rejected,
        &[&digest("canary"), "not in the list"],
    );
    // Nor is it pinned, or even compiled.
    refused(host.lock().await, Kind::Rejected, &["not in the list"]);
    done(with(format!("digests = [{:?}]", digest("canary"))).await);
    // A file that is named and not there, or wrong, must not mean "anything goes".
    refused(
        project.clone().under("gone.toml").look().await,
        Kind::Usage,
        &["policy of this host", "gone.toml"],
    );
    refused(
        with("deny-import = [\"traffic\"]".into()).await,
        Kind::Usage,
        &["did you mean deny-imports"],
    );
    // Keys lie beside the policy that names them.
    done(project.keys("host"));
    std::fs::create_dir(project.at("etc")).expect("a folder");
    std::fs::rename(project.at("host.pub"), project.at("etc/host.pub")).expect("there");
    project.write("etc/policy.toml", "signers = [\"host.pub\"]");
    let host = project.clone().under("etc/policy.toml");
    refused(
        host.look().await,
        Kind::Rejected,
        &["must be signed", "etc/host.pub"],
    );
    done(project.sign_file("gate.wasm", "host.key").await);
    done(host.look().await);
}

/// Plays the hostile guest under a policy of the rollout file; its story.
async fn capped(policy: &str, act: &str, amount: &str) -> String {
    let project = with("hostile");
    project.write("rollout.toml", &format!("[policy]\n{policy}\n"));
    project.write(
        "world.json",
        r#"{"apiVersion": "simulate/v1", "scenarios": [{"name": "w", "class": "good", "summary": "w", "seed": 1,
            "replicates": 1, "clock": {"horizon": "30m"}, "traffic": {"rps": 5}, "stable": {"tasks": 2}}]}"#,
    );
    let request = SimulateRequest {
        target: TargetRequest {
            file: Some(project.at("rollout.toml")),
            ..TargetRequest::default()
        },
        plugin: Some(GATE.into()),
        scenarios: vec![project.at("world.json")],
        set: vec![format!("act={act}"), format!("amount={amount}")],
        pins: project.pins.clone(),
        ..SimulateRequest::default()
    };
    let played = done(simulate::one(&project.app, &request, 0).await).played;
    assert_eq!(played.violations, Vec::<String>::new());
    story(&played.journal, replicate::ROLLOUT) + &played.reason
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_cap_what_a_run_may_use() {
    for (policy, act, kept, broken, says) in [
        ("calls = 10", "calls", "10", "11", "it has made 10 calls"),
        ("memory-mib = 8", "memory", "3", "20", "the limit is 8 MiB"),
        (
            "fuel-million = 400",
            "segments",
            "2",
            "2",
            "computed 400000000 instructions",
        ),
    ] {
        let well = capped(policy, act, kept).await;
        assert!(well.contains("did as told"), "{policy}: {well}");
        // A second policy below what the act needs.
        let policy = policy.replace("fuel-million = 400", "fuel-million = 300");
        let says = says.replace('4', if policy.contains("fuel") { "3" } else { "4" });
        let ill = capped(&policy, act, broken).await;
        assert!(ill.contains(&says), "{policy}: {ill}");
        assert!(ill.contains("rolling back"), "{policy}: {ill}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_does_not_grow_without_end() {
    // By large answers, and by many questions.
    for (act, amount) in [("history", "100000"), ("flood", "49999")] {
        let story = capped("journal-mib = 1", act, amount).await;
        let full = story.contains("its calls and their answers fill 1 MiB of the journal");
        assert!(full, "{act}: {story}");
    }
}

/// The name gets other bytes while the rollout is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_with_the_bytes_that_it_began_with() {
    let project = with("canary");
    done(project.lock().await);
    let request = BeginRequest {
        plugin: Some(GATE.into()),
        // Whatever else this machine does meanwhile.
        set: texts(&["gate=limits", "steps=50,100", "bake=3s", "max-p99=60s"]),
        pins: project.pins.clone(),
        ..BeginRequest::default()
    };
    let id = suspended(&project.app, &request, ("canary", 50.0)).await;
    assert!(id.starts_with("canary-"), "{id}");
    project.app.ports.stop().await;
    put(&project, "gate.wasm", "blue-green");
    done(project.update().await);
    // Another process has the store alone.
    let driver = project.test.restarted().driver(Options::default());
    let standing = driver.drive(&id).await.expect("the driver works");
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    // The next one is the new one.
    assert_eq!(project.looks_like().await, "blue-green");
}
