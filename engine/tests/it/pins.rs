//! Names, digests, permissions, signatures and policies, as a user meets them.

use crate::cli::{engine, stderr, stdout};
use crate::lab::guest_path;
use crate::project::{Project, expect};

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

/// Looks at the plugin by its name; needs everything that `run` needs.
const LOOK: &[&str] = &["plugin", "inspect", "gate"];

#[test]
fn a_name_is_pinned_when_it_is_first_used() {
    let project = with("canary");
    let output = project.done(LOOK);
    assert!(
        stderr(&output).contains("plugins.lock is new"),
        "{}",
        stderr(&output)
    );
    let lock = project.lock();
    assert!(lock.contains(&digest("canary")), "{lock}");
    assert!(
        lock.contains("rollout:traffic/traffic@0.1.0#set-weights"),
        "{lock}"
    );
    // The second time nothing is to be said, also where nothing may change.
    let again = project.run_with(LOOK, &[("CI", "true")]);
    expect(&again, 0, &[]);
    assert_eq!((stderr(&again), project.lock()), (String::new(), lock));
    project.done(&["plugin", "verify"]);
}

#[test]
fn a_changed_file_is_a_6_with_both_digests() {
    let project = with("canary");
    project.done(&["plugin", "lock"]);
    let lock = project.lock();
    put(&project, "gate.wasm", "blue-green");
    let says = [
        &digest("canary"),
        &digest("blue-green"),
        "engine plugin update gate",
    ];
    for arguments in [
        LOOK,
        &["plugin", "verify"],
        &["plugin", "check", "gate"],
        &["run", "gate"],
        // By its path it is the same plugin.
        &["run", "./gate.wasm"],
    ] {
        project.refused(arguments, 6, &says);
    }
    assert_eq!(project.lock(), lock, "nothing is taken over silently");
    let list = project.done(&["list", "--json"]);
    assert_eq!(stdout(&list).trim(), "[]", "no rollout began");
    project.done(&["plugin", "update", "gate", "--accept-imports"]);
    assert!(project.lock().contains(&digest("blue-green")));
    project.done(LOOK);
}

#[test]
fn a_new_permission_has_to_be_accepted() {
    // The hostile guest imports less than the canary.
    let project = with("hostile");
    project.done(&["plugin", "lock"]);
    let lock = project.lock();
    put(&project, "gate.wasm", "canary");
    let says = [
        "+ may call rollout:metrics/metrics@0.1.0#query",
        "--accept-imports",
    ];
    project.refused(&["plugin", "update"], 6, &says);
    assert_eq!(project.lock(), lock);
    project.done(&["plugin", "update", "--accept-imports"]);
    assert!(project.lock().contains("#query"));
    // Fewer permissions need nobody's consent.
    put(&project, "gate.wasm", "hostile");
    let output = project.done(&["plugin", "update"]);
    assert!(
        stderr(&output).contains("- no longer calls"),
        "{}",
        stderr(&output)
    );
}

/// A lock that was edited to hide a permission.
#[test]
fn a_lock_that_says_less_than_the_plugin_can_do_is_refused() {
    let project = with("canary");
    project.done(&["plugin", "lock"]);
    let hidden = "    \"rollout:traffic/traffic@0.1.0#set-weights\",\n";
    let lock = project.lock();
    assert!(lock.contains(hidden));
    project.write("plugins.lock", &lock.replace(hidden, ""));
    project.refused(
        LOOK,
        6,
        &["+ may call rollout:traffic/traffic@0.1.0#set-weights"],
    );
}

#[test]
fn in_ci_nothing_new_is_pinned() {
    let project = with("canary");
    put(&project, "other.wasm", "canary");
    let locked = |arguments: &[&str]| project.run_with(arguments, &[("CI", "true")]);
    expect(
        &locked(LOOK),
        6,
        &["gate is not pinned as gate.wasm", "engine plugin lock"],
    );
    expect(&locked(&["plugin", "lock"]), 6, &["gate is not pinned"]);
    expect(&locked(&["plugin", "verify"]), 6, &["gate is not pinned"]);
    expect(
        &locked(&["plugin", "update"]),
        2,
        &["contradict each other"],
    );
    assert_eq!(project.lock(), "");
    project.refused(
        &["plugin", "inspect", "gate", "--frozen"],
        6,
        &["not pinned"],
    );
    project.done(&["plugin", "lock"]);
    expect(&locked(LOOK), 0, &[]);
    // A file that nobody has pinned is as bad as a name.
    expect(
        &locked(&["run", "other.wasm"]),
        6,
        &["other.wasm is not pinned"],
    );
    // Another source under the same name is another plugin.
    project.write("plugins.toml", "[plugins]\ngate = \"other.wasm\"\n");
    expect(&locked(LOOK), 6, &["not pinned as other.wasm"]);
    // And what is gone must go from the lock too.
    project.write("plugins.toml", "[plugins]\n");
    expect(&locked(&["plugin", "lock"]), 2, &["does not name any more"]);
    project.done(&["plugin", "lock"]);
    assert!(!project.lock().contains("gate"));
}

#[test]
fn names_that_mean_nothing() {
    let project = with("canary");
    project.refused(&["run", "gaet"], 2, &["no plugin \"gaet\"; it has gate"]);
    project.refused(
        &["run", "oci://registry.example/gate:1"],
        2,
        &["give it a name in plugins.toml"],
    );
    std::fs::remove_file(project.at("plugins.toml")).expect("it was there");
    project.refused(&["run", "gate"], 2, &["there is no plugins.toml", "./gate"]);
    project.refused(&["plugin", "lock"], 2, &["[plugins]"]);
}

#[test]
fn files_that_cannot_be_read_change_nothing() {
    let project = with("canary");
    project.write("plugins.toml", "[plugins]\ngate = 3\n[pluggins]\n");
    project.refused(
        LOOK,
        2,
        &[
            "plugins.toml has problems",
            "plugins.gate: is 3",
            "did you mean",
        ],
    );
    project.write("plugins.toml", "[plugins]\ngate = \"gate.wasm\"\n");
    project.write("plugins.lock", "version = 7\n");
    project.refused(LOOK, 2, &["plugins.lock cannot be read", "version 7"]);
    assert_eq!(project.lock(), "version = 7\n");
}

#[test]
fn a_rollout_file_names_plugins_too() {
    let project = with("canary");
    project.write(
        "rollout.toml",
        "[target]\nkind = \"local\"\n[strategy]\nplugin = \"gaet\"\n",
    );
    project.refused(&["run"], 2, &["no plugin \"gaet\""]);
}

/// Two guests and the key pair that one of them is signed with.
fn signed() -> Project {
    let project = with("canary");
    project.done(&["plugin", "keys", "team"]);
    project.write(
        "plugins.toml",
        "[plugins]\ngate = { source = \"gate.wasm\", signed-by = [\"team.pub\"] }\n",
    );
    project
}

#[test]
fn a_signature_is_asked_for_before_anything_is_compiled() {
    let project = signed();
    project.refused(
        LOOK,
        6,
        &[
            "gate must be signed: it is not signed",
            &digest("canary"),
            "team.pub",
        ],
    );
    // What is no plugin at all is not even looked into.
    project.write("gate.wasm", "not WebAssembly");
    project.refused(LOOK, 6, &["must be signed"]);
    put(&project, "gate.wasm", "canary");
    let output = project.done(&["plugin", "sign", "gate.wasm", "--key", "team.key"]);
    assert_eq!(stdout(&output).trim(), "gate.wasm.sig");
    project.done(LOOK);
    assert!(
        project.lock().contains("signed-by = \"sha256:"),
        "{}",
        project.lock()
    );
    // The signature of one file is none of another.
    put(&project, "gate.wasm", "blue-green");
    project.refused(
        &["plugin", "update"],
        6,
        &["none of the keys that may sign it"],
    );
    // Nor is that of another key.
    put(&project, "gate.wasm", "canary");
    project.done(&["plugin", "keys", "stranger"]);
    project.done(&["plugin", "sign", "gate.wasm", "--key", "stranger.key"]);
    project.refused(LOOK, 6, &["none of the keys"]);
}

#[test]
fn keys_are_kept_safe() {
    let project = signed();
    project.refused(&["plugin", "keys", "team"], 2, &["never overwritten"]);
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
    let sign = ["plugin", "sign", "gate.wasm", "--key", "team.key"];
    let wrong = project.run_with(&sign, &[("COSIGN_PASSWORD", "wrong")]);
    expect(&wrong, 2, &["team.key", "password"]);
    project.refused(
        &["plugin", "sign", "gate.wasm", "--key", "team.pub"],
        2,
        &["public key"],
    );
    assert!(!project.at("gate.wasm.sig").exists());
}

#[test]
fn a_host_has_the_last_word() {
    let project = with("canary");
    let with = |policy: &str| {
        project.write("policy.toml", policy);
        project.run_with(LOOK, &[("ENGINE_POLICY", "policy.toml")])
    };
    expect(
        &with("deny-imports = [\"traffic\"]"),
        6,
        &[
            "the policy forbids gate",
            "it imports rollout:traffic/traffic@0.1.0#",
            "deny-imports has \"traffic\"",
        ],
    );
    expect(
        &with("deny-imports = [\"acme:db\", \"traffic.set-weights\"]"),
        6,
        &["#set-weights"],
    );
    assert_eq!(project.lock(), "", "what is forbidden is not pinned");
    expect(
        &with(&format!("digests = [{:?}]", digest("blue-green"))),
        6,
        &[&digest("canary"), "not in the list"],
    );
    expect(
        &with(&format!("digests = [{:?}]", digest("canary"))),
        0,
        &[],
    );
    // A file that is named and not there, or wrong, must not mean "anything goes".
    let gone = project.run_with(LOOK, &[("ENGINE_POLICY", "gone.toml")]);
    expect(&gone, 2, &["policy of this host", "gone.toml"]);
    expect(
        &with("deny-import = [\"traffic\"]"),
        2,
        &["did you mean deny-imports"],
    );
    // Keys lie beside the policy that names them.
    project.done(&["plugin", "keys", "host"]);
    std::fs::create_dir(project.at("etc")).expect("a folder");
    std::fs::rename(project.at("host.pub"), project.at("etc/host.pub")).expect("there");
    project.write("etc/policy.toml", "signers = [\"host.pub\"]");
    let named = [("ENGINE_POLICY", "etc/policy.toml")];
    expect(
        &project.run_with(LOOK, &named),
        6,
        &["must be signed", "etc/host.pub"],
    );
    project.done(&["plugin", "sign", "gate.wasm", "--key", "host.key"]);
    expect(&project.run_with(LOOK, &named), 0, &[]);
}

/// Plays the hostile guest under a policy of the rollout file.
fn capped(policy: &str, act: &str, amount: &str) -> String {
    let project = with("hostile");
    project.write("rollout.toml", &format!("[policy]\n{policy}\n"));
    project.write(
        "world.json",
        r#"{"apiVersion": "simulate/v1", "scenarios": [{"name": "w", "class": "good", "summary": "w", "seed": 1,
            "replicates": 1, "clock": {"horizon": "30m"}, "traffic": {"rps": 5}, "stable": {"tasks": 2}}]}"#,
    );
    let output = project.run(&[
        "simulate",
        "gate",
        "--file",
        "rollout.toml",
        "--scenario",
        "world.json",
        "--replicate",
        "0",
        "--set",
        &format!("act={act}"),
        "--set",
        &format!("amount={amount}"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn operators_cap_what_a_run_may_use() {
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
        let well = capped(policy, act, kept);
        assert!(well.contains("did as told"), "{policy}: {well}");
        // A second policy below what the act needs.
        let policy = policy.replace("fuel-million = 400", "fuel-million = 300");
        let says = says.replace('4', if policy.contains("fuel") { "3" } else { "4" });
        let ill = capped(&policy, act, broken);
        assert!(ill.contains(&says), "{policy}: {ill}");
        assert!(ill.contains("rolled back"), "{policy}: {ill}");
    }
}

#[test]
fn a_journal_does_not_grow_without_end() {
    let story = capped("journal-mib = 1", "history", "100000");
    assert!(
        story.contains("its metrics fill 1 MiB of the journal"),
        "{story}"
    );
}

/// The name gets other bytes while the rollout is under way.
#[test]
fn a_rollout_goes_on_with_the_bytes_that_it_began_with() {
    let project = with("canary");
    project.done(&["plugin", "lock"]);
    let mut run = engine(
        project.path(),
        &[
            "run",
            "gate",
            "--set",
            "gate=limits",
            "--set",
            "steps=50,100",
            "--set",
            "bake=3s",
        ],
    )
    .env_remove("CI")
    .stderr(std::process::Stdio::null())
    .stdout(std::process::Stdio::null())
    .spawn()
    .expect("the binary runs");
    let under_way = || {
        let list = stdout(&project.run(&["list", "--json"]));
        let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_default();
        list[0]["phase"] == "progressing"
    };
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !under_way() {
        assert!(std::time::Instant::now() < give_up, "it does not begin");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status();
    assert!(interrupted.expect("kill runs").success());
    assert_eq!(run.wait().expect("it ends").code(), Some(5), "suspended");
    put(&project, "gate.wasm", "blue-green");
    project.done(&["plugin", "update", "--accept-imports"]);
    let resumed = project.done(&["resume"]);
    assert!(
        stdout(&resumed).contains("promoted"),
        "{}",
        stdout(&resumed)
    );
    let list = stdout(&project.done(&["list", "--json"]));
    assert!(list.contains("canary-"), "{list}");
    // The next one is the new one.
    assert!(stdout(&project.done(LOOK)).starts_with("blue-green "));
}
