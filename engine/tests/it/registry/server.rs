//! A real registry: Debian's docker-registry on a port of this machine, its
//! store in a temporary folder.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use engine::supply::registry::manifest::digest;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;

use crate::support::target_folder;

/// The name and the password that a locked registry knows.
pub const NAME: &str = "canary";
pub const PASSWORD: &str = "opensesame";
/// The same, as bcrypt at its cheapest.
const HTPASSWD: &str = "canary:$2b$04$8QB4R95CKf/p5zD8pKBz8.VLKrxwE65LTf64vregOsSNCeESaZGGW\n";

/// A registry that runs until this is dropped.
pub struct Server {
    /// `127.0.0.1:PORT`
    pub address: String,
    process: Child,
    _store: TempDir,
}

impl Server {
    /// Lets everybody in.
    pub fn open() -> Self {
        Self::start("", "")
    }

    /// Lets only [`NAME`] in.
    pub fn locked() -> Self {
        Self::start("auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}", "")
    }

    /// Speaks TLS.
    pub fn secure(authority: &Authority) -> Self {
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            authority.file("server.pem").display(),
            authority.file("server.key").display()
        );
        Self::start("", &tls)
    }

    fn start(auth: &str, tls: &str) -> Self {
        let place = target_folder().join("registry/docker-registry");
        assert!(
            place.exists(),
            "{}: `make registry` makes it",
            place.display()
        );
        let store = TempDir::new().expect("a folder");
        let folder = store.path().display().to_string();
        let config = [
            "version: 0.1",
            "log: {level: info, accesslog: {disabled: true}}",
            "storage: {filesystem: {rootdirectory: FOLDER/store}}",
            &format!("http: {{addr: '127.0.0.1:0'{tls}}}"),
            auth,
        ];
        let config = config.join("\n").replace("FOLDER", &folder);
        let file = store.path().join("config.yml");
        std::fs::write(&file, config).expect("written");
        std::fs::write(store.path().join("htpasswd"), HTPASSWD).expect("written");
        let mut process = Command::new(place)
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let mut log = BufReader::new(process.stderr.take().expect("piped")).lines();
        let port = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            Some(rest[..end].to_owned())
        });
        let port = port.expect("it says where it listens");
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            address: format!("127.0.0.1:{port}"),
            process,
            _store: store,
        }
    }

    /// Puts bytes there as they are; gives their digest.
    pub async fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let uploads = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = send("POST", &uploads, "", vec![]).await;
        let place = begun.headers()["location"].to_str().expect("text");
        let digest = digest(bytes);
        let place = format!("{place}&digest={digest}");
        let kind = "application/octet-stream";
        let answer = send("PUT", &place, kind, bytes.to_vec()).await;
        assert_eq!(answer.status(), 201, "{:?}", answer.body());
        digest
    }

    /// Puts a manifest there as it is; gives its digest.
    pub async fn put_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> String {
        let place = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let manifest: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        let kind = manifest["mediaType"].as_str().expect("a media type");
        let answer = send("PUT", &place, kind, bytes.to_vec()).await;
        assert_eq!(answer.status(), 201, "{:?}", answer.body());
        digest(bytes)
    }

    /// What lies there.
    pub async fn get(&self, repository: &str, path: &str) -> Bytes {
        let place = format!("http://{}/v2/{repository}/{path}", self.address);
        send("GET", &place, "", vec![]).await.into_body()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn send(method: &str, place: &str, kind: &str, body: Vec<u8>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(place)
        .header("content-type", kind)
        .header("accept", "application/vnd.oci.image.manifest.v1+json")
        .body(Full::<Bytes>::from(body))
        .expect("a request");
    let answer = client.request(request).await.expect("it answers");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("whole").to_bytes();
    Response::from_parts(head, body)
}

/// A certificate authority of our own, and a certificate for `localhost`.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let made = Self(TempDir::new().expect("a folder"));
        made.openssl(
            "ca",
            "/CN=test authority",
            &["-addext", "keyUsage=keyCertSign"],
        );
        made.openssl(
            "server",
            "/CN=localhost",
            &[
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-addext",
                "subjectAltName=DNS:localhost,DNS:service.test",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        );
        made
    }

    fn openssl(&self, name: &str, subject: &str, more: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(self.0.path())
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", subject])
            .args([
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.pem"),
            ])
            .args(more)
            .output()
            .expect("openssl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    pub fn file(&self, name: &str) -> PathBuf {
        Path::join(self.0.path(), name)
    }
}
