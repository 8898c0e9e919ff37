//! Names, locks and signatures with a real registry, through the binary.

use std::path::Path;

use super::proxy::{Proxy, Trouble};
use super::server::{Authority, NAME, PASSWORD, Server};
use super::whenever;
use crate::support::binary::stdout;
use crate::support::guests::guest_path;
use crate::support::project::{Project, expect};

/// A project whose `gate` comes from a registry.
struct Client {
    project: Project,
    /// `oci://127.0.0.1:PORT/team/gate:1`
    source: String,
}

impl std::ops::Deref for Client {
    type Target = Project;

    fn deref(&self) -> &Project {
        &self.project
    }
}

impl Client {
    fn of(address: &str) -> Self {
        let client = Self {
            project: Project::empty(),
            source: format!("oci://{address}/team/gate:1"),
        };
        client.name("");
        client
    }

    /// Names the plugin, with more of the file.
    fn name(&self, more: &str) {
        let text = format!("{more}\n[plugins]\ngate = {:?}\n", self.source);
        self.write("plugins.toml", &text);
    }

    fn says(&self, arguments: &[&str]) -> String {
        stdout(&self.done(arguments)).trim().to_owned()
    }

    /// Pushes a guest to the tag; the manifest's digest.
    fn push(&self, guest: &str, more: &[&str]) -> String {
        self.push_to(&self.source, guest, more)
    }

    fn push_to(&self, place: &str, guest: &str, more: &[&str]) -> String {
        let file = guest_path(guest).display().to_string();
        let mut arguments = vec!["plugin", "push", &file, place];
        arguments.extend(more);
        let exact = self.says(&arguments);
        exact.split_once('@').expect("a digest").1.to_owned()
    }

    /// Nothing of the cache is left.
    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.at("state/plugins"));
    }
}

const LOOK: &[&str] = &["plugin", "inspect", "gate"];

#[tokio::test(flavor = "multi_thread")]
async fn from_push_to_run_without_a_network() {
    let server = Server::open();
    let project = Client::of(&server.address);
    let manifest = project.push("canary", &[]);
    assert_eq!(
        project.push("canary", &[]),
        manifest,
        "the same plugin, the same digest"
    );
    project.done(&["plugin", "lock"]);
    let lock = project.lock();
    assert!(lock.contains(&manifest), "{lock}");
    project.done(&["plugin", "verify"]);
    project.done(&["plugin", "vendor"]);
    drop(server);
    // The cache has it, and so has the vendor folder.
    project.done(&["plugin", "inspect", "gate", "--offline"]);
    project.forget();
    project.done(&["plugin", "check", "gate", "--frozen"]);
    // Without either there is nothing to run, and that is said.
    std::fs::remove_dir_all(project.at("plugins.vendor")).expect("it was there");
    project.refused(
        &["run", "gate", "--offline"],
        2,
        &["neither in the cache", "engine plugin vendor"],
    );
    project.refused(LOOK, 1, &["127.0.0.1"]);
    assert_eq!(project.lock(), lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_changes_nothing_until_somebody_says_so() {
    let server = Server::open();
    let project = Client::of(&server.address);
    let first = project.push("blue-green", &[]);
    project.done(&["plugin", "lock"]);
    let second = project.push("canary", &[]);
    project.forget();
    // What is pinned still runs, from the registry.
    assert!(project.says(LOOK).starts_with("blue-green "));
    let says = [
        first.as_str(),
        second.as_str(),
        "moved the tag",
        "engine plugin update gate",
    ];
    project.refused(&["plugin", "verify"], 6, &says);
    project.done(&["plugin", "update", "--accept-imports"]);
    assert!(project.says(LOOK).starts_with("canary "));
    project.done(&["plugin", "verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_plugin_is_a_6_and_leaves_nothing_behind() {
    let server = Server::open();
    let writer = Client::of(&server.address);
    writer.push("canary", &[]);
    let size = std::fs::metadata(guest_path("canary"))
        .expect("a guest")
        .len();
    let size = usize::try_from(size).expect("small");
    let wrong = |size| move || Trouble::Other(vec![7; size]);
    for (trouble, code, says) in [
        (
            Box::new(wrong(size)) as Box<dyn Fn() -> Trouble + Send>,
            6,
            "expected: sha256:",
        ),
        (Box::new(wrong(size - 1)), 6, "ends after"),
        (Box::new(|| Trouble::Endless), 6, "goes on after"),
        (Box::new(|| Trouble::Cut(1_000)), 1, "127.0.0.1"),
    ] {
        let layer =
            engine::model::sha256_hex(&std::fs::read(guest_path("canary")).expect("a guest"));
        let layer: &'static str = Box::leak(layer.into_boxed_str());
        let proxy = Proxy::start(&server.address, whenever(layer, trouble)).await;
        let project = Client::of(&proxy.address);
        project.refused(LOOK, code, &[says]);
        assert_eq!(project.lock(), "", "{says}");
        assert!(!project.at("state/plugins").exists(), "{says}");
    }
    // No manifest is that long, whatever its registry says.
    let endless = whenever("/manifests/", || Trouble::Endless);
    let proxy = Proxy::start(&server.address, endless).await;
    let project = Client::of(&proxy.address);
    project.refused(LOOK, 6, &["the manifest has more than 4194304 bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_tampered_with_is_not_believed() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.push("canary", &[]);
    project.done(&["plugin", "lock"]);
    let cached = || {
        let all = std::fs::read_dir(project.at("state/plugins"))
            .expect("a cache")
            .flatten();
        let mut all = all.map(|e| e.path());
        all.find(|p| p.extension().is_some_and(|e| e == "wasm"))
            .expect("bytes")
    };
    std::fs::copy(guest_path("blue-green"), cached()).expect("writable");
    project.refused(
        &["plugin", "inspect", "gate", "--offline"],
        2,
        &["neither in the cache"],
    );
    assert!(project.says(LOOK).starts_with("canary "), "fetched again");
    project.done(&["plugin", "inspect", "gate", "--offline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_signed_plugins_run_where_that_is_asked() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.done(&["plugin", "keys", "team"]);
    project.done(&["plugin", "keys", "stranger"]);
    let rule = format!(
        "[signatures.\"oci://{}/team/\"]\nkeys = [\"team.pub\"]\n",
        server.address
    );
    project.name(&rule);
    let manifest = project.push("canary", &[]);
    project.refused(
        LOOK,
        6,
        &["gate must be signed: it is not signed", "team.pub"],
    );
    project.done(&["plugin", "sign", &project.source, "--key", "stranger.key"]);
    project.refused(LOOK, 6, &["none of the keys"]);
    let signed = project.says(&["plugin", "sign", &project.source, "--key", "team.key"]);
    assert!(signed.ends_with(&manifest), "{signed}");
    project.done(LOOK);
    assert!(project.lock().contains("signed-by"), "{}", project.lock());
    project.done(&["plugin", "verify"]);
    // The proof is kept with the plugin, and checked offline too.
    project.done(&["plugin", "vendor"]);
    project.forget();
    drop(server);
    project.done(&["plugin", "inspect", "gate", "--frozen"]);
    project.name(&rule.replace("team.pub", "stranger2.pub"));
    std::fs::copy(project.at("stranger.pub"), project.at("stranger2.pub")).expect("there");
    project.done(&["plugin", "inspect", "gate", "--frozen"]);
    project.done(&["plugin", "keys", "third"]);
    project.name(&rule.replace("team.pub", "third.pub"));
    project.refused(
        &["plugin", "inspect", "gate", "--frozen"],
        6,
        &["none of the keys"],
    );
    forged(&project, &rule);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendored_plugin_that_was_changed_is_seen() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.push("canary", &[]);
    project.done(&["plugin", "lock"]);
    project.done(&["plugin", "vendor"]);
    let lock = project.lock();
    let digest = lock.split("wasm = \"sha256:").nth(1).expect("a digest");
    let file = project.at(&format!("plugins.vendor/{}.wasm", &digest[..64]));
    std::fs::write(&file, b"changed").expect("writable");
    // The cache and the network have the right one.
    for arguments in [
        LOOK,
        &["plugin", "verify"],
        &["plugin", "verify", "--frozen"],
    ] {
        project.refused(arguments, 6, &["its vendored file", &digest[..64]]);
    }
    project.done(&["plugin", "vendor"]);
    project.done(&["plugin", "verify", "--frozen"]);
    // So is what proves who has signed it.
    let proofs = std::fs::read_dir(project.at("plugins.vendor")).expect("a folder");
    for proof in proofs.map(|e| e.expect("a file").path()) {
        if proof.extension().is_some_and(|e| e == "json") {
            std::fs::write(proof, "{").expect("writable");
        }
    }
    project.refused(LOOK, 6, &["the proof of its vendored file"]);
    project.done(&["plugin", "vendor"]);
    project.done(LOOK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_later_is_not_fetched_by_hand() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.done(&["plugin", "keys", "team"]);
    project.push("canary", &[]);
    project.done(LOOK);
    project.name(&format!(
        "[signatures.\"oci://{}/team/\"]\nkeys = [\"team.pub\"]\n",
        server.address
    ));
    project.refused(LOOK, 6, &["it is not signed"]);
    project.done(&["plugin", "sign", "gate", "--key", "team.key"]);
    // The cache has it without the signature.
    project.refused(
        &["plugin", "check", "gate", "--offline"],
        6,
        &["it is not signed"],
    );
    project.done(LOOK);
    // An operator asks for another one.
    project.done(&["plugin", "keys", "operator"]);
    project.write("policy.toml", "signers = [\"operator.pub\"]\n");
    let policy = project.at("policy.toml").display().to_string();
    let policy = [("ENGINE_POLICY", policy.as_str())];
    expect(
        &project.run_with(LOOK, &policy),
        6,
        &["none of the keys", "policy.toml"],
    );
    project.done(&["plugin", "sign", "gate", "--key", "operator.key"]);
    expect(&project.run_with(LOOK, &policy), 0, &[]);
    drop(server);
    expect(&project.run_with(LOOK, &policy), 0, &[]);
}

/// A manifest that is signed, with other bytes beside it.
fn forged(project: &Client, rule: &str) {
    project.name(rule);
    let bytes = std::fs::read(guest_path("blue-green")).expect("a guest");
    let sha256 = engine::model::sha256_hex(&bytes);
    let vendor = project.at("plugins.vendor");
    std::fs::write(vendor.join(format!("{sha256}.wasm")), &bytes).expect("writable");
    let old = format!(
        "sha256:{}",
        engine::model::sha256_hex(&std::fs::read(guest_path("canary")).expect("a guest"))
    );
    let lock = project.lock().replace(&old, &format!("sha256:{sha256}"));
    assert!(lock.contains(&sha256));
    project.write("plugins.lock", &lock);
    project.refused(
        &["plugin", "inspect", "gate", "--frozen"],
        6,
        &["its manifest is not about sha256:"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_docker_are_used() {
    let server = Server::locked();
    let project = Client::of(&server.address);
    let file = guest_path("canary").display().to_string();
    let push = ["plugin", "push", &file, &project.source];
    project.refused(&push, 2, &["does not allow this", "docker login"]);
    std::fs::create_dir(project.at("docker")).expect("a folder");
    let secret = {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(format!("{NAME}:{PASSWORD}"))
    };
    let config = serde_json::json!({"auths": {&server.address: {"auth": secret}}});
    project.write("docker/config.json", &config.to_string());
    project.done(&push);
    project.done(&["plugin", "lock"]);
    project.done(&["plugin", "verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_named_in_the_file() {
    let authority = Authority::new();
    let server = Server::secure(&authority);
    let port = server.address.split_once(':').expect("a port").1.to_owned();
    let project = Client::of(&format!("localhost:{port}"));
    let ca = authority.file("ca.pem").display().to_string();
    project.push("canary", &["--ca", &ca]);
    project.name(&format!("ca-files = [{ca:?}]"));
    project.done(&["plugin", "lock"]);
    project.done(&["plugin", "verify"]);
    let stranger = Authority::new();
    let ca = stranger.file("ca.pem").display().to_string();
    project.name(&format!("ca-files = [{ca:?}]"));
    project.refused(&["plugin", "verify"], 1, &["localhost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_older_layouts_come_out_as_they_went_in() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.push("canary", &["--compat-media-types"]);
    project.done(&["plugin", "pull", &project.source, "--output", "out.wasm"]);
    let read = |path: &Path| std::fs::read(path).expect("a file");
    assert_eq!(read(&project.at("out.wasm")), read(&guest_path("canary")));
    project.done(&["plugin", "pull", "gate", "--output", "again.wasm"]);
    assert_eq!(read(&project.at("again.wasm")), read(&guest_path("canary")));
    // What is no plugin is not published.
    project.write("junk.wasm", "junk");
    project.refused(
        &["plugin", "push", "junk.wasm", &project.source],
        6,
        &["not a WebAssembly component"],
    );
    project.refused(
        &["plugin", "push", "out.wasm", "oci://registry.example/x"],
        2,
        &["tag"],
    );
}

/// The stable thing about a running rollout is its plugin.
#[tokio::test(flavor = "multi_thread")]
async fn two_versions_of_one_name_lie_side_by_side() {
    let server = Server::open();
    let (old, new) = (Client::of(&server.address), Client::of(&server.address));
    old.push("blue-green", &[]);
    old.done(&["plugin", "lock"]);
    new.push("canary", &[]);
    // Both use one state folder, and so one cache.
    let shared = old.at("state").display().to_string();
    let look = ["--state-dir", shared.as_str(), "plugin", "inspect", "gate"];
    let run = |project: &Project| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_engine"))
            .current_dir(project.path())
            .env_remove("CI")
            .args(look)
            .output()
            .expect("the binary runs");
        stdout(&output)
    };
    for _ in 0..2 {
        assert!(run(&new).starts_with("canary "));
        assert!(run(&old).starts_with("blue-green "));
    }
}
