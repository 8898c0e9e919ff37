//! A session with one registry about one repository: credentials, retries, limits, and
//! what the answers of a registry mean when something goes wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder};
use rustls::pki_types::CertificateDer;

use super::Options;
use super::credentials::{self, Credentials};
use super::error::{RegistryError, Rejected};
use super::manifest::{self, Descriptor};
use super::reference::{Reference, is_digest};
use crate::clock::Clock;

/// Pauses before the second, third and fourth try.
const BACKOFF_MS: [u64; 3] = [200, 800, 2_000];

/// Transfers that are slower than this are given up.
const BYTES_PER_SECOND_MIN: u64 = 32 << 10;

/// Registries do not accept larger manifests either.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Largest answer with a token; usual ones have a few kilobytes.
const TOKEN_BYTES_MAX: usize = 256 << 10;
/// How much is read of an answer in which a registry refuses a request.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// An address at which nothing can listen: port 0. It is the client's proxy for plain
/// HTTP, so wherever a registry, a redirect or a token server sends the client, nothing
/// leaves this machine unencrypted.
const NOWHERE: &str = "http://127.0.0.1:0";
const NOWHERE_ADDRESS: &str = "127.0.0.1:0,";
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// What every session needs.
pub(super) struct Means {
    pub(super) client: Client,
    pub(super) docker_config: Option<PathBuf>,
    pub(super) plain_http: bool,
    pub(super) stall_timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a session is for. The token is asked for just that.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Pull,
    Push,
}

/// A session about one repository, with the credentials that its registry asks for.
pub(super) struct Session<'a> {
    means: &'a Means,
    reference: &'a Reference,
    credentials: Credentials,
    token: Option<String>,
}

/// Why one try failed.
enum Failure {
    /// The request could not be sent, or its answer is missing or incomplete.
    Request(reqwest::Error),
    /// The registry refused: what that means, and the text of its answer.
    Answer(Meaning, String),
    /// The try took longer than this.
    Late(Duration),
    Content(Rejected),
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error)
    }
}

/// What a refusal says about the thing that was asked for.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    Missing,
    Denied,
    /// Another try may succeed.
    Passing,
    Other,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        means: &'a Means,
        reference: &'a Reference,
        purpose: Purpose,
    ) -> Result<Self, RegistryError> {
        let complain = |found: String, hint| RegistryError::Reference {
            reference: reference.to_string(),
            found,
            hint,
        };
        if means.plain_http && !reference.is_loopback() {
            return Err(complain(
                format!(
                    "plain HTTP is for this machine only, not for {}",
                    reference.registry()
                ),
                "only a registry on this machine may do without TLS; for a private certificate authority give its certificate",
            ));
        }
        let (folder, registry) = (means.docker_config.clone(), reference.registry().to_owned());
        let (sender, found) = tokio::sync::oneshot::channel();
        // On a thread of its own, because a credential helper that hangs must not keep
        // the process from ending.
        std::thread::spawn(move || {
            let _ = sender.send(credentials::find(folder.as_deref(), &registry));
        });
        let found = tokio::time::timeout(means.stall_timeout, found).await;
        let found = found.map_err(|_| RegistryError::Network {
            reference: reference.to_string(),
            found: format!(
                "the credential helper of Docker's configuration does not answer within {} s",
                means.stall_timeout.as_secs_f64()
            ),
            hint: "run it by hand (docker-credential-...), or `docker login` again",
        })?;
        let credentials =
            found.map_err(|e| complain(e.to_string(), "this is a bug of the engine"))??;
        let mut session = Self {
            means,
            reference,
            credentials,
            token: None,
        };
        let log_in = || session.get_token(purpose);
        session.token = session.attempt("token", 0, log_in).await?;
        Ok(session)
    }

    /// Asks the registry how it authenticates, and gets a token if it wants one. `None` if
    /// it accepts a name and a password, or anybody.
    async fn get_token(&self, purpose: Purpose) -> Result<Option<String>, Failure> {
        let url = format!("{}/v2/", self.origin());
        let door = self.means.client.get(url).send().await?;
        let Some((realm, service)) = challenge(door.headers()) else {
            return Ok(None);
        };
        let actions = match purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let mut query = vec![("scope", scope)];
        query.extend(service.map(|service| ("service", service)));
        let request = self.means.client.get(&realm).query(&query);
        let answer = self.logged_in(request).send().await?;
        let status = answer.status();
        let limit = if status.is_success() {
            TOKEN_BYTES_MAX
        } else {
            WORDS_BYTES_MAX
        };
        let (bytes, ended) = read(answer, limit).await?;
        if !status.is_success() {
            let words = String::from_utf8_lossy(&bytes);
            return Err(Failure::Answer(
                Meaning::Denied,
                format!("no token: {words}"),
            ));
        }
        if !ended {
            return Err(Failure::Content(Rejected::Endless {
                what: "token",
                max: TOKEN_BYTES_MAX,
            }));
        }
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let wrong = |why: String| {
            Failure::Answer(Meaning::Other, format!("its token cannot be read: {why}"))
        };
        let read: Token = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let token = read.token.or(read.access_token);
        let token = token.ok_or_else(|| wrong("there is none in the answer".to_owned()))?;
        Ok(Some(token))
    }

    /// The digest of the manifest that a tag means now, as the registry gives it.
    pub(super) async fn resolve(&self, tag: &str) -> Result<String, RegistryError> {
        let ask = || self.get_digest(tag);
        let digest = self.attempt("manifest", 0, ask).await?;
        if is_digest(&digest) {
            return Ok(digest);
        }
        Err(self.rejected(Rejected::Kind {
            found: format!("the registry gave {digest:?} as its digest"),
            hint: "push it again with a tool that uses sha256",
        }))
    }

    async fn get_digest(&self, tag: &str) -> Result<String, Failure> {
        let url = self.url(&format!("manifests/{tag}"));
        let request = self.means.client.head(url);
        let request = request.header(ACCEPT, manifest::ACCEPTED.join(", "));
        let answer = self.authorized(request).send().await?;
        let digest = answer.headers().get("docker-content-digest");
        match digest.and_then(|d| d.to_str().ok()) {
            Some(digest) if answer.status().is_success() => Ok(digest.to_owned()),
            // The answer has no digest, or is a refusal, whose text a HEAD does not have.
            _ => Ok(manifest::digest(&self.get_manifest(tag).await?)),
        }
    }

    /// The bytes of a manifest, by tag or digest; by digest, they are checked against it.
    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<Vec<u8>, RegistryError> {
        let ask = || self.get_manifest(tag_or_digest);
        self.attempt("manifest", 0, ask).await
    }

    async fn get_manifest(&self, tag_or_digest: &str) -> Result<Vec<u8>, Failure> {
        let url = self.url(&format!("manifests/{tag_or_digest}"));
        let request = self.means.client.get(url);
        let request = request.header(ACCEPT, manifest::ACCEPTED.join(", "));
        let answer = self.send(request).await?;
        let (bytes, ended) = read(answer, MANIFEST_BYTES_MAX).await?;
        if !ended {
            return Err(Failure::Content(Rejected::Endless {
                what: "manifest",
                max: MANIFEST_BYTES_MAX,
            }));
        }
        let found = manifest::digest(&bytes);
        if is_digest(tag_or_digest) && found != tag_or_digest {
            return Err(Failure::Content(Rejected::Digest {
                what: "manifest",
                expected: tag_or_digest.to_owned(),
                found,
            }));
        }
        Ok(bytes)
    }

    /// The bytes of a blob. They have the length and the digest that its manifest says, and
    /// no more than that is read.
    pub(super) async fn blob(
        &self,
        of: &Descriptor,
        what: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        let fetch = || self.get_blob(of, what);
        self.attempt(what, of.size, fetch).await
    }

    async fn get_blob(&self, of: &Descriptor, what: &'static str) -> Result<Vec<u8>, Failure> {
        let url = self.url(&format!("blobs/{}", of.digest));
        let answer = self.send(self.means.client.get(url)).await?;
        let expected = of.size;
        let limit = usize::try_from(expected).unwrap_or(usize::MAX);
        let (bytes, ended) = read(answer, limit).await?;
        let found = bytes.len() as u64;
        let digest = manifest::digest(&bytes);
        let content = if !ended {
            Rejected::Overlong { what, expected }
        } else if found < expected {
            Rejected::Truncated {
                what,
                expected,
                found,
            }
        } else if digest != of.digest {
            Rejected::Digest {
                what,
                expected: of.digest.clone(),
                found: digest,
            }
        } else {
            return Ok(bytes);
        };
        Err(Failure::Content(content))
    }

    pub(super) async fn put_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let send = || self.upload(bytes);
        self.attempt("layer", bytes.len() as u64, send).await
    }

    async fn upload(&self, bytes: &[u8]) -> Result<(), Failure> {
        let url = self.url("blobs/uploads/");
        // Without this header some servers wait for a body.
        let request = self.means.client.post(url).header(CONTENT_LENGTH, 0);
        let begun = self.send(request).await?;
        // The place may be on another host, which must not get our credentials.
        let place = begun.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let place = place.and_then(|place| begun.url().join(place).ok());
        let mut place = place.ok_or_else(|| {
            let said = "it did not return a location for the upload";
            Failure::Answer(Meaning::Other, said.to_owned())
        })?;
        let digest = manifest::digest(bytes);
        place.query_pairs_mut().append_pair("digest", &digest);
        let at_home = place.origin() == begun.url().origin();
        let request = self.means.client.put(place);
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let request = request.body(bytes.to_vec());
        let request = if at_home {
            self.authorized(request)
        } else {
            request
        };
        checked(request.send().await?).await.map(|_| ())
    }

    pub(super) async fn put_manifest(&self, bytes: &[u8], tag: &str) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{tag}"));
        let send = || async {
            let request = self.means.client.put(&url);
            let request = request.header(CONTENT_TYPE, manifest::MANIFEST);
            let request = request.body(bytes.to_vec());
            self.send(request).await.map(|_| ())
        };
        self.attempt("manifest", 0, send).await
    }

    fn origin(&self) -> String {
        let scheme = if self.means.plain_http {
            "http"
        } else {
            "https"
        };
        // Docker's own registry answers at another name than the one in references.
        let registry = match self.reference.registry() {
            "docker.io" => "index.docker.io",
            other => other,
        };
        format!("{scheme}://{registry}")
    }

    /// The address of something in the repository.
    fn url(&self, what: &str) -> String {
        let repository = self.reference.repository();
        format!("{}/v2/{repository}/{what}", self.origin())
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => self.logged_in(request),
        }
    }

    /// The request with name and password, if there are any.
    fn logged_in(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials.login {
            Some(login) => request.basic_auth(&login.name, Some(&login.password)),
            None => request,
        }
    }

    /// Sends a request. Fails if the registry refuses it; the body of any other answer is
    /// not read yet.
    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, Failure> {
        checked(self.authorized(request).send().await?).await
    }

    pub(super) fn rejected(&self, content: Rejected) -> RegistryError {
        RegistryError::Rejected {
            reference: self.reference.to_string(),
            content,
        }
    }

    /// Tries again if that may help. The time for each try depends on the bytes that are
    /// to be sent or received.
    async fn attempt<T, Try: Future<Output = Result<T, Failure>>>(
        &self,
        what: &'static str,
        bytes: u64,
        ask: impl Fn() -> Try,
    ) -> Result<T, RegistryError> {
        let time = self.means.stall_timeout + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let in_time = async || {
            let answer = tokio::time::timeout(time, ask()).await;
            answer.unwrap_or(Err(Failure::Late(time)))
        };
        for wait_ms in BACKOFF_MS {
            match in_time().await {
                Err(failure) if failure.is_passing() => {
                    let clock = &self.means.clock;
                    clock.sleep_until(clock.now() + wait_ms).await;
                }
                other => return other.map_err(|f| self.explain(what, f)),
            }
        }
        in_time().await.map_err(|f| self.explain(what, f))
    }

    fn explain(&self, what: &'static str, failure: Failure) -> RegistryError {
        let reference = self.reference.to_string();
        let registry = self.reference.registry().to_owned();
        let network = |found, hint| RegistryError::Network {
            reference: reference.clone(),
            found,
            hint,
        };
        match failure {
            Failure::Content(content) => self.rejected(content),
            Failure::Late(time) => {
                let seconds = time.as_secs_f64();
                network(format!("no {what} within {seconds} s"), AGAIN)
            }
            Failure::Answer(Meaning::Missing, said) => RegistryError::NotFound {
                reference,
                answer: one_line(&said),
            },
            Failure::Answer(Meaning::Denied, said) => RegistryError::Denied {
                reference,
                answer: one_line(&said),
                asked: self.credentials.asked.clone(),
                registry,
            },
            Failure::Answer(Meaning::Passing | Meaning::Other, said) => {
                network(one_line(&said), AGAIN)
            }
            Failure::Request(error) if is_nowhere(&error) => network(
                format!(
                    "{registry} redirects to an address with plain HTTP, which the engine does not follow"
                ),
                "the plugin must be reachable over HTTPS all the way",
            ),
            Failure::Request(error) if error.is_connect() => network(
                innermost(&error),
                "check the name and the port of the registry, and its certificate",
            ),
            Failure::Request(error) => network(
                format!("{registry} stopped answering: {}", innermost(&error)),
                AGAIN,
            ),
        }
    }
}

impl Failure {
    /// Whether another try may help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Answer(meaning, _) => *meaning == Meaning::Passing,
            // A connection that was lost. One that could not be made is more often a typing
            // error, and after a timeout another try would take too long.
            Self::Request(e) => !e.is_timeout() && !e.is_connect() && !e.is_builder(),
            Self::Late(_) | Self::Content(_) => false,
        }
    }
}

const AGAIN: &str = "try again later, or ask the people who run the registry";

/// Reads the body of an answer, up to `max` bytes, and says whether it ended there.
async fn read(mut answer: reqwest::Response, max: usize) -> Result<(Vec<u8>, bool), Failure> {
    let mut bytes: Vec<u8> = vec![];
    while let Some(more) = answer.chunk().await? {
        let room = max - bytes.len();
        if more.len() > room {
            bytes.extend_from_slice(&more[..room]);
            return Ok((bytes, false));
        }
        bytes.extend_from_slice(&more);
    }
    Ok((bytes, true))
}

/// The answer, unless the registry refuses; then what the refusal means, with the
/// beginning of its text.
async fn checked(answer: reqwest::Response) -> Result<reqwest::Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    if status == StatusCode::UNAUTHORIZED {
        let said = "401: not authorized".to_owned();
        return Err(Failure::Answer(Meaning::Denied, said));
    }
    let (bytes, _) = read(answer, WORDS_BYTES_MAX).await?;
    let refusal = serde_json::from_slice::<Refusal>(&bytes);
    Err(match refusal {
        Ok(refusal) if !status.is_server_error() => {
            let messages = refusal.errors.iter().map(|e| e.message.as_str());
            let said = messages.collect::<Vec<_>>().join("; ");
            Failure::Answer(refusal.meaning(), said)
        }
        _ => {
            let meaning = match status.as_u16() {
                403 => Meaning::Denied,
                404 => Meaning::Missing,
                429 | 500.. => Meaning::Passing,
                _ => Meaning::Other,
            };
            let code = status.as_u16();
            let words = String::from_utf8_lossy(&bytes);
            Failure::Answer(meaning, format!("{code}: {words}"))
        }
    })
}

/// The body of a refusal, as the OCI distribution specification describes it.
#[derive(serde::Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(serde::Deserialize)]
struct Reason {
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// What the refusal means, by its first reason.
    fn meaning(&self) -> Meaning {
        match self.errors.first().map(|reason| reason.code.as_str()) {
            Some("UNAUTHORIZED" | "DENIED") => Meaning::Denied,
            Some(
                "NAME_UNKNOWN"
                | "MANIFEST_UNKNOWN"
                | "NOT_FOUND"
                | "BLOB_UNKNOWN"
                | "MANIFEST_BLOB_UNKNOWN",
            ) => Meaning::Missing,
            Some("TOOMANYREQUESTS") => Meaning::Passing,
            _ => Meaning::Other,
        }
    }
}

/// The address that gives tokens, and for which service, if the registry wants a token.
fn challenge(headers: &HeaderMap) -> Option<(String, Option<String>)> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter();
    let all = all.filter_map(|value| http_auth::parse_challenges(value.to_str().ok()?).ok());
    let mut all = all.flatten();
    all.find_map(|challenge| {
        let named = |name: &str| {
            let mut all = challenge.params.iter();
            let (_, value) = all.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.to_unescaped())
        };
        let is_bearer = challenge.scheme.eq_ignore_ascii_case("Bearer");
        is_bearer.then(|| Some((named("realm")?, named("service"))))?
    })
}

/// The HTTP client for all sessions; it keeps connections.
pub(super) fn client(
    options: &Options,
    certificates: &[CertificateDer<'_>],
) -> Result<Client, reqwest::Error> {
    let no_proxy = options.plain_http.then_some(LOOPBACK);
    let no_proxy = no_proxy.and_then(reqwest::NoProxy::from_string);
    let mut roots = vec![];
    for certificate in certificates {
        roots.push(reqwest::Certificate::from_der(certificate)?);
    }
    let mut builder = Client::builder();
    if let Some(proxy) = &options.network.https_proxy {
        let direct = reqwest::NoProxy::from_string(&options.network.direct());
        builder = builder.proxy(reqwest::Proxy::https(proxy)?.no_proxy(direct));
    }
    builder
        .proxy(reqwest::Proxy::http(NOWHERE)?.no_proxy(no_proxy))
        .tls_certs_merge(roots)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.stall_timeout)
        .user_agent(concat!("engine/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// What the registry said, in one short line without control characters: it may be
/// hostile.
fn one_line(said: &str) -> String {
    let printable = |c: char| if crate::model::is_hidden(c) { ' ' } else { c };
    said.trim().chars().map(printable).take(200).collect()
}

/// The innermost cause of an error, which says most, such as "connection refused".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether a request was sent to [`NOWHERE`]. Only the debugging form of an error names
/// the address that was not reached.
fn is_nowhere(error: &impl std::fmt::Debug) -> bool {
    format!("{error:?}").contains(NOWHERE_ADDRESS)
}
