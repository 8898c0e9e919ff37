//! Names, digests, permissions, signatures and policies, as a user meets them.

use crate::support::binary::{engine, stderr, stdout};
use crate::support::guests::guest_path;
use crate::support::project::{Project, expect};

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
        &["other.wasm has no name in plugins.toml"],
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
fn locked_means_nothing_without_names() {
    let project = with("canary");
    put(&project, "other.wasm", "canary");
    project.done(&["plugin", "lock"]);
    // From a folder below, the names are those above.
    std::fs::create_dir(project.at("deep")).expect("a folder");
    let below = |arguments: &[&str], ci: &str| {
        let mut command = engine(project.path(), arguments);
        command.current_dir(project.at("deep")).env("CI", ci);
        command.output().expect("the binary runs")
    };
    expect(&below(LOOK, "true"), 0, &[]);
    expect(
        &below(&["plan", "../other.wasm"], "true"),
        6,
        &["has no name in ../plugins.toml"],
    );
    // Who is just writing one may look at it, also in CI.
    let look = ["plugin", "inspect", "../other.wasm"];
    expect(&below(&look, "true"), 0, &[]);
    let locked = ["plugin", "inspect", "../other.wasm", "--locked"];
    expect(&below(&locked, ""), 6, &["has no name"]);
    project.refused(
        &["plugin", "inspect", "gate.wasm", "--plugins", "gone.toml"],
        2,
        &["there is no gone.toml"],
    );
    std::fs::remove_file(project.at("plugins.toml")).expect("it was there");
    project.refused(
        &["plugin", "inspect", "gate.wasm", "--locked"],
        2,
        &["nothing that --locked could keep to"],
    );
    // CI alone does not ask for names, but says so.
    let plan = project.run_with(&["plan", "gate.wasm"], &[("CI", "true")]);
    assert!(
        stderr(&plan).contains("nothing pins gate.wasm"),
        "{}",
        stderr(&plan)
    );
}

#[test]
fn nothing_is_written_where_nothing_may_change() {
    let project = Project::empty();
    project.write("plugins.toml", "[plugins]\n");
    project.done(&["plugin", "lock", "--frozen"]);
    assert!(!project.at("plugins.lock").exists());
    for verb in [
        &["plugin", "pull", "oci://r.example/x:1", "--output", "x"][..],
        &["plugin", "sign", "oci://r.example/x:1", "--key", "team.key"],
    ] {
        project.done(&["plugin", "keys", "keys/team"]);
        std::fs::rename(project.at("keys/team.key"), project.at("team.key")).expect("a key");
        std::fs::remove_dir_all(project.at("keys")).expect("a folder");
        let mut arguments = verb.to_vec();
        arguments.push("--offline");
        project.refused(&arguments, 2, &["is in a registry, and --offline"]);
    }
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
        let mut command = engine(project.path(), &["plugin", "inspect", name]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().expect("the binary runs")
    };
    for mut child in [start("gate"), start("other")] {
        assert!(child.wait().expect("it ends").success());
    }
    let lock = project.lock();
    assert!(
        lock.contains(&digest("canary")) && lock.contains(&digest("blue-green")),
        "{lock}"
    );
}

#[test]
fn one_file_with_two_names_is_neither() {
    let project = with("canary");
    project.write(
        "plugins.toml",
        "[plugins]\na = \"gate.wasm\"\nb = { source = \"./gate.wasm\", signed-by = [\"x.pub\"] }\n",
    );
    project.refused(
        &["plugin", "inspect", "gate.wasm"],
        2,
        &["several names", "a, b"],
    );
}

#[test]
fn a_rule_is_not_avoided_by_another_spelling() {
    let project = with("canary");
    project.done(&["plugin", "keys", "team"]);
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
        project.write("plugins.toml", &text);
        project.refused(LOOK, 6, &["gate must be signed"]);
        let rule = text.replace("signatures.\"plugins\"", "signatures.\"./plugins/\"");
        project.write("plugins.toml", &rule);
        project.refused(LOOK, 6, &["gate must be signed"]);
        // Also without a name.
        project.write("plugins.toml", &text.replace("gate =", "# gate ="));
        project.refused(
            &[
                "plugin",
                "inspect",
                &format!("./{source}").replace(".//", "/"),
            ],
            6,
            &["must be signed"],
        );
    }
}

#[test]
fn a_rule_does_not_depend_on_where_one_stands() {
    let project = Project::empty();
    project.done(&["plugin", "keys", "team"]);
    for folder in ["open", "sub/open"] {
        std::fs::create_dir_all(project.at(folder)).expect("a folder");
        put(&project, &format!("{folder}/x.wasm"), "canary");
    }
    project.write(
        "plugins.toml",
        "[signatures.\".\"]\nkeys = [\"team.pub\"]\n[signatures.\"open\"]\nkeys = []\n",
    );
    // Only the folder that is named is open, not each that is called so.
    project.done(&["plugin", "inspect", "open/x.wasm"]);
    let mut below = engine(project.path(), &["plugin", "inspect", "open/x.wasm"]);
    let below = below.current_dir(project.at("sub")).output();
    expect(&below.expect("the binary runs"), 6, &["must be signed"]);
    // A link in it does not open what it leads to.
    std::os::unix::fs::symlink("../sub/open/x.wasm", project.at("open/link.wasm")).expect("a link");
    project.refused(
        &["plugin", "inspect", "open/link.wasm"],
        6,
        &["must be signed"],
    );
}

#[test]
fn a_pin_of_the_rollout_file_counts_for_its_file_however_it_is_named() {
    let project = Project::empty();
    put(&project, "gate.wasm", "canary");
    put(&project, "other.wasm", "canary");
    let sha256 = "0".repeat(64);
    project.write(
        "rollout.toml",
        &format!(
            "[target]\nkind = \"local\"\n[strategy]\nplugin = \"gate.wasm\"\nsha256 = \"sha256:{sha256}\"\n"
        ),
    );
    for arguments in [&["plan"][..], &["plan", "./gate.wasm"]] {
        project.refused(arguments, 6, &[&digest("canary")[7..], &sha256]);
    }
    let other = project.run(&["plan", "other.wasm"]);
    assert_ne!(other.status.code(), Some(6), "{}", stderr(&other));
}

#[test]
fn only_the_pinned_bytes_are_signed_by_name() {
    let project = with("canary");
    project.done(&["plugin", "keys", "team"]);
    project.done(&["plugin", "lock"]);
    put(&project, "gate.wasm", "blue-green");
    project.refused(
        &["plugin", "sign", "gate", "--key", "team.key"],
        6,
        &[&digest("canary"), &digest("blue-green")],
    );
    assert!(!project.at("gate.wasm.sig").exists());
    // A path in plugins.toml is that of the file's folder.
    put(&project, "gate.wasm", "canary");
    std::fs::create_dir(project.at("deep")).expect("a folder");
    let sign = ["plugin", "sign", "gate", "--key", "../team.key"];
    let mut command = engine(project.path(), &sign);
    command.current_dir(project.at("deep"));
    let signed = command.env("COSIGN_PASSWORD", "secret").output();
    expect(&signed.expect("the binary runs"), 0, &[]);
    assert!(project.at("gate.wasm.sig").exists());
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
    project.refused(
        &["run", "gate"],
        2,
        &["no plugins.toml here has it", "./gate"],
    );
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
        &with("deny-imports = [\"wasi:sockets\", \"traffic.set-weights\"]"),
        6,
        &["#set-weights"],
    );
    // As plugins.lock spells it.
    expect(
        &with("deny-imports = [\"rollout:traffic/traffic@0.1.0#set-weights\"]"),
        6,
        &["the policy forbids gate"],
    );
    expect(
        &with("deny-imports = [\"trafic\"]"),
        2,
        &["has \"trafic\"", "traffic, metrics, control"],
    );
    assert_eq!(project.lock(), "", "what is forbidden is not pinned");
    expect(
        &with(&format!("digests = [{:?}]", digest("blue-green"))),
        6,
        &[&digest("canary"), "not in the list"],
    );
    // Nor is it pinned, or even compiled.
    let policy = [("ENGINE_POLICY", "policy.toml")];
    expect(
        &project.run_with(&["plugin", "lock"], &policy),
        6,
        &["not in the list"],
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
        assert!(ill.contains("rolling back"), "{policy}: {ill}");
    }
}

#[test]
fn a_journal_does_not_grow_without_end() {
    // By large answers, and by many questions.
    for (act, amount) in [("history", "100000"), ("flood", "49999")] {
        let story = capped("journal-mib = 1", act, amount);
        let full = story.contains("its calls and their answers fill 1 MiB of the journal");
        assert!(full, "{act}: {story}");
    }
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
