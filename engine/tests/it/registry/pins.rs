//! Names, locks and signatures with a real registry.

use std::path::{Path, PathBuf};

use engine::ops::Kind;
use engine::ops::plugin::registry::PushRequest;
use engine::supply::registry::manifest::Layout;

use super::proxy::{Proxy, Trouble};
use super::server::{Authority, NAME, PASSWORD, Server};
use super::whenever;
use crate::support::app::refused;
use crate::support::guests::guest_path;
use crate::support::project::{GATE, Project, done};

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

    /// A guest, to be pushed to the tag.
    fn pushing(&self, guest: &str) -> PushRequest {
        PushRequest {
            file: guest_path(guest),
            reference: self.source.clone(),
            annotations: vec![],
            key: None,
            layout: Layout::Cncf,
            ca_files: vec![],
        }
    }

    /// Pushes a guest to the tag; the manifest's digest.
    async fn push(&self, guest: &str) -> String {
        let exact = done(self.publish(self.pushing(guest)).await);
        exact.split_once('@').expect("a digest").1.to_owned()
    }

    /// The same project where nothing is fetched.
    fn offline(&self) -> Project {
        self.project.clone().offline()
    }

    /// The same project where nothing is fetched or changed.
    fn frozen(&self) -> Project {
        self.project.clone().frozen()
    }

    /// Nothing of the cache is left.
    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.at("state/plugins"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_push_to_run_without_a_network() {
    let server = Server::open();
    let project = Client::of(&server.address);
    let manifest = project.push("canary").await;
    assert_eq!(
        project.push("canary").await,
        manifest,
        "the same plugin, the same digest"
    );
    done(project.lock().await);
    let lock = project.lock_file();
    assert!(lock.contains(&manifest), "{lock}");
    done(project.verify().await);
    done(project.vendor().await);
    drop(server);
    // The cache has it, and so has the vendor folder.
    done(project.offline().look().await);
    project.forget();
    done(project.frozen().check().await);
    // Without either there is nothing to run, and that is said.
    std::fs::remove_dir_all(project.at("plugins.vendor")).expect("it was there");
    refused(
        project.offline().get_ready(Some(GATE.as_ref())).await,
        Kind::Usage,
        &["neither in the cache", "engine plugin vendor"],
    );
    refused(project.look().await, Kind::Internal, &["127.0.0.1"]);
    assert_eq!(project.lock_file(), lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_changes_nothing_until_somebody_says_so() {
    let server = Server::open();
    let project = Client::of(&server.address);
    let first = project.push("blue-green").await;
    done(project.lock().await);
    let second = project.push("canary").await;
    project.forget();
    // What is pinned still runs, from the registry.
    assert_eq!(project.looks_like().await, "blue-green");
    let says = [
        first.as_str(),
        second.as_str(),
        "moved the tag",
        "engine plugin update gate",
    ];
    refused(project.verify().await, Kind::Rejected, &says);
    done(project.update().await);
    assert_eq!(project.looks_like().await, "canary");
    done(project.verify().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_plugin_is_rejected_and_leaves_nothing_behind() {
    let server = Server::open();
    let writer = Client::of(&server.address);
    writer.push("canary").await;
    let size = std::fs::metadata(guest_path("canary"))
        .expect("a guest")
        .len();
    let size = usize::try_from(size).expect("small");
    let wrong = |size| move || Trouble::Other(vec![7; size]);
    for (trouble, kind, says) in [
        (
            Box::new(wrong(size)) as Box<dyn Fn() -> Trouble + Send>,
            Kind::Rejected,
            "expected: sha256:",
        ),
        (Box::new(wrong(size - 1)), Kind::Rejected, "ends after"),
        (
            Box::new(|| Trouble::Endless),
            Kind::Rejected,
            "goes on after",
        ),
        (
            Box::new(|| Trouble::Cut(1_000)),
            Kind::Internal,
            "127.0.0.1",
        ),
    ] {
        let layer =
            engine::model::sha256_hex(&std::fs::read(guest_path("canary")).expect("a guest"));
        let layer: &'static str = Box::leak(layer.into_boxed_str());
        let proxy = Proxy::start(&server.address, whenever(layer, trouble)).await;
        let project = Client::of(&proxy.address);
        refused(project.look().await, kind, &[says]);
        assert_eq!(project.lock_file(), "", "{says}");
        assert!(!project.at("state/plugins").exists(), "{says}");
    }
    // No manifest is that long, whatever its registry says.
    let endless = whenever("/manifests/", || Trouble::Endless);
    let proxy = Proxy::start(&server.address, endless).await;
    let project = Client::of(&proxy.address);
    refused(
        project.look().await,
        Kind::Rejected,
        &["the manifest has more than 4194304 bytes"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_tampered_with_is_not_believed() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.push("canary").await;
    done(project.lock().await);
    let cached = || {
        let all = std::fs::read_dir(project.at("state/plugins"))
            .expect("a cache")
            .flatten();
        let mut all = all.map(|e| e.path());
        all.find(|p| p.extension().is_some_and(|e| e == "wasm"))
            .expect("bytes")
    };
    std::fs::copy(guest_path("blue-green"), cached()).expect("writable");
    refused(
        project.offline().look().await,
        Kind::Usage,
        &["neither in the cache"],
    );
    assert_eq!(project.looks_like().await, "canary", "fetched again");
    done(project.offline().look().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_signed_plugins_run_where_that_is_asked() {
    let server = Server::open();
    let project = Client::of(&server.address);
    done(project.keys("team"));
    done(project.keys("stranger"));
    let rule = format!(
        "[signatures.\"oci://{}/team/\"]\nkeys = [\"team.pub\"]\n",
        server.address
    );
    project.name(&rule);
    let manifest = project.push("canary").await;
    refused(
        project.look().await,
        Kind::Rejected,
        &["gate must be signed: it is not signed", "team.pub"],
    );
    done(project.sign(&project.source, "stranger.key").await);
    refused(project.look().await, Kind::Rejected, &["none of the keys"]);
    let signed = done(project.sign(&project.source, "team.key").await).place;
    assert!(signed.ends_with(&manifest), "{signed}");
    done(project.look().await);
    assert!(
        project.lock_file().contains("signed-by"),
        "{}",
        project.lock_file()
    );
    done(project.verify().await);
    // The proof is kept with the plugin, and checked offline too.
    done(project.vendor().await);
    project.forget();
    drop(server);
    done(project.frozen().look().await);
    project.name(&rule.replace("team.pub", "stranger2.pub"));
    std::fs::copy(project.at("stranger.pub"), project.at("stranger2.pub")).expect("there");
    done(project.frozen().look().await);
    done(project.keys("third"));
    project.name(&rule.replace("team.pub", "third.pub"));
    refused(
        project.frozen().look().await,
        Kind::Rejected,
        &["none of the keys"],
    );
    forged(&project, &rule).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendored_plugin_that_was_changed_is_seen() {
    let server = Server::open();
    let project = Client::of(&server.address);
    project.push("canary").await;
    done(project.lock().await);
    done(project.vendor().await);
    let lock = project.lock_file();
    let digest = lock.split("wasm = \"sha256:").nth(1).expect("a digest");
    let file = project.at(&format!("plugins.vendor/{}.wasm", &digest[..64]));
    std::fs::write(&file, b"changed").expect("writable");
    // The cache and the network have the right one.
    let says = ["its vendored file", &digest[..64]];
    refused(project.look().await, Kind::Rejected, &says);
    refused(project.verify().await, Kind::Rejected, &says);
    refused(project.frozen().verify().await, Kind::Rejected, &says);
    done(project.vendor().await);
    done(project.frozen().verify().await);
    // So is what proves who has signed it.
    let proofs = std::fs::read_dir(project.at("plugins.vendor")).expect("a folder");
    for proof in proofs.map(|e| e.expect("a file").path()) {
        if proof.extension().is_some_and(|e| e == "json") {
            std::fs::write(proof, "{").expect("writable");
        }
    }
    refused(
        project.look().await,
        Kind::Rejected,
        &["the proof of its vendored file"],
    );
    done(project.vendor().await);
    done(project.look().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_later_is_not_fetched_by_hand() {
    let server = Server::open();
    let project = Client::of(&server.address);
    done(project.keys("team"));
    project.push("canary").await;
    done(project.look().await);
    project.name(&format!(
        "[signatures.\"oci://{}/team/\"]\nkeys = [\"team.pub\"]\n",
        server.address
    ));
    refused(project.look().await, Kind::Rejected, &["it is not signed"]);
    done(project.sign(GATE, "team.key").await);
    // The cache has it without the signature.
    refused(
        project.offline().check().await,
        Kind::Rejected,
        &["it is not signed"],
    );
    done(project.look().await);
    // An operator asks for another one.
    done(project.keys("operator"));
    project.write("policy.toml", "signers = [\"operator.pub\"]\n");
    let operated = project.project.clone().under("policy.toml");
    refused(
        operated.look().await,
        Kind::Rejected,
        &["none of the keys", "policy.toml"],
    );
    done(project.sign(GATE, "operator.key").await);
    done(operated.look().await);
    drop(server);
    done(operated.look().await);
}

/// A manifest that is signed, with other bytes beside it.
async fn forged(project: &Client, rule: &str) {
    project.name(rule);
    let bytes = std::fs::read(guest_path("blue-green")).expect("a guest");
    let sha256 = engine::model::sha256_hex(&bytes);
    let vendor = project.at("plugins.vendor");
    std::fs::write(vendor.join(format!("{sha256}.wasm")), &bytes).expect("writable");
    let old = format!(
        "sha256:{}",
        engine::model::sha256_hex(&std::fs::read(guest_path("canary")).expect("a guest"))
    );
    let lock = project
        .lock_file()
        .replace(&old, &format!("sha256:{sha256}"));
    assert!(lock.contains(&sha256));
    project.write("plugins.lock", &lock);
    refused(
        project.frozen().look().await,
        Kind::Rejected,
        &["its manifest is not about sha256:"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_docker_are_used() {
    let server = Server::locked();
    let project = Client::of(&server.address);
    refused(
        project.publish(project.pushing("canary")).await,
        Kind::Usage,
        &["does not allow this", "docker login"],
    );
    std::fs::create_dir(project.at("docker")).expect("a folder");
    let secret = {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(format!("{NAME}:{PASSWORD}"))
    };
    let config = serde_json::json!({"auths": {&server.address: {"auth": secret}}});
    project.write("docker/config.json", &config.to_string());
    project.push("canary").await;
    done(project.lock().await);
    done(project.verify().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_named_in_the_file() {
    let authority = Authority::new();
    let server = Server::secure(&authority);
    let port = server.address.split_once(':').expect("a port").1.to_owned();
    let project = Client::of(&format!("localhost:{port}"));
    let ca = authority.file("ca.pem");
    let pushed = PushRequest {
        ca_files: vec![ca.clone()],
        ..project.pushing("canary")
    };
    done(project.publish(pushed).await);
    project.name(&format!("ca-files = [{ca:?}]"));
    done(project.lock().await);
    done(project.verify().await);
    let stranger = Authority::new();
    let ca = stranger.file("ca.pem");
    project.name(&format!("ca-files = [{ca:?}]"));
    refused(project.verify().await, Kind::Internal, &["localhost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_older_layouts_come_out_as_they_went_in() {
    let server = Server::open();
    let project = Client::of(&server.address);
    let older = |file: PathBuf| PushRequest {
        file,
        layout: Layout::Older,
        ..project.pushing("canary")
    };
    done(project.publish(older(guest_path("canary"))).await);
    done(project.pull(&project.source, "out.wasm").await);
    let read = |path: &Path| std::fs::read(path).expect("a file");
    assert_eq!(read(&project.at("out.wasm")), read(&guest_path("canary")));
    done(project.pull(GATE, "again.wasm").await);
    assert_eq!(read(&project.at("again.wasm")), read(&guest_path("canary")));
    // What is no plugin is not published.
    project.write("junk.wasm", "junk");
    refused(
        project.publish(older(project.at("junk.wasm"))).await,
        Kind::Rejected,
        &["not a WebAssembly component"],
    );
    let untagged = PushRequest {
        reference: "oci://registry.example/x".to_owned(),
        ..older(project.at("out.wasm"))
    };
    refused(project.publish(untagged).await, Kind::Usage, &["tag"]);
}

/// The stable thing about a running rollout is its plugin.
#[tokio::test(flavor = "multi_thread")]
async fn two_versions_of_one_name_lie_side_by_side() {
    let server = Server::open();
    let (old, mut new) = (Client::of(&server.address), Client::of(&server.address));
    old.push("blue-green").await;
    done(old.lock().await);
    new.push("canary").await;
    // Both use one state folder, and so one cache.
    new.project.app.state_dir.clone_from(&old.app.state_dir);
    for _ in 0..2 {
        assert_eq!(new.looks_like().await, "canary");
        assert_eq!(old.looks_like().await, "blue-green");
    }
}
