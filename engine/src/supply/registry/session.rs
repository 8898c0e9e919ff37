//! One conversation with one registry about one repository: credentials,
//! retries, limits, and the meaning of what goes wrong.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::header::{ACCEPT, HeaderValue};
use oci_client::client::{Certificate, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError as Oci, OciErrorCode as Code};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use tokio::io::AsyncWrite;

use super::Options;
use super::credentials::{self, Credentials};
use super::error::{RegistryError, Rejected};
use super::manifest::{self, Descriptor};
use super::reference::{Reference, is_digest};
use crate::clock::Clock;

/// Before the second, third and fourth try.
const BACKOFF_MS: [u64; 3] = [200, 800, 2_000];

/// Slower ones are given up.
const BYTES_PER_SECOND_MIN: u64 = 32 << 10;

/// Registries themselves take none above 4 MiB.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Nobody can listen on port 0. The client is told that this is its proxy for
/// plain HTTP, so wherever a registry, a redirect or a token server sends it,
/// nothing leaves this machine unencrypted.
const NOWHERE: &str = "http://127.0.0.1:0";
const NOWHERE_ADDRESS: &str = "127.0.0.1:0,";
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// What every conversation needs.
pub(super) struct Means {
    pub(super) client: Client,
    /// For manifests: the client above would read one to its end, however far
    /// away that is.
    pub(super) http: reqwest::Client,
    pub(super) docker_config: Option<PathBuf>,
    pub(super) plain_http: bool,
    pub(super) stall_timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

/// See the module.
pub(super) struct Session<'a> {
    means: &'a Means,
    reference: &'a Reference,
    credentials: Credentials,
    token: Option<String>,
}

/// Why one try failed.
enum Failure {
    Exchange(Oci),
    /// It took longer than this.
    Late(Duration),
    Content(Rejected),
}

impl From<Oci> for Failure {
    fn from(error: Oci) -> Self {
        Self::Exchange(error)
    }
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        means: &'a Means,
        reference: &'a Reference,
        operation: RegistryOperation,
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
        // A thread of its own: a helper that hangs must not keep the process.
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
        let repository = session.place(String::new());
        let log_in = || async {
            let auth = &session.credentials.auth;
            Ok(means.client.auth(&repository, auth, operation).await?)
        };
        session.token = session.attempt("token", 0, log_in).await?;
        Ok(session)
    }

    /// The registry's own digest of what a tag means now.
    pub(super) async fn resolve(&self, tag: &str) -> Result<String, RegistryError> {
        let place = self.place(tag.to_owned());
        let (client, auth) = (&self.means.client, &self.credentials.auth);
        let ask = || async { Ok(client.fetch_manifest_digest(&place, auth).await?) };
        let digest = self.attempt("manifest", 0, ask).await?;
        if is_digest(&digest) {
            return Ok(digest);
        }
        Err(self.rejected(Rejected::Kind {
            found: format!("the registry gave {digest:?} as its digest"),
            hint: "push it again with a tool that uses sha256",
        }))
    }

    /// The bytes of a manifest, by tag or digest; those of a digest have it.
    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<Vec<u8>, RegistryError> {
        let ask = || self.get_manifest(tag_or_digest);
        self.attempt("manifest", 0, ask).await
    }

    async fn get_manifest(&self, tag_or_digest: &str) -> Result<Vec<u8>, Failure> {
        let place = self.place(String::new());
        let url = format!(
            "{}://{}/v2/{}/manifests/{tag_or_digest}",
            if self.means.plain_http {
                "http"
            } else {
                "https"
            },
            place.resolve_registry(),
            place.repository(),
        );
        let accepted = manifest::ACCEPTED.join(", ");
        let request = self.means.http.get(&url).header(ACCEPT, accepted);
        let request = match (&self.token, &self.credentials.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(name, password)) => request.basic_auth(name, Some(password)),
            _ => request,
        };
        let mut answer = request.send().await.map_err(Oci::from)?;
        let mut bytes: Vec<u8> = vec![];
        while let Some(more) = answer.chunk().await.map_err(Oci::from)? {
            if bytes.len() + more.len() > MANIFEST_BYTES_MAX {
                return Err(Failure::Content(Rejected::Endless {
                    what: "manifest",
                    max: MANIFEST_BYTES_MAX,
                }));
            }
            bytes.extend_from_slice(&more);
        }
        let found = manifest::digest(&bytes);
        match answer.status().as_u16() {
            200..300 if is_digest(tag_or_digest) && found != tag_or_digest => {
                Err(Failure::Content(Rejected::Digest {
                    what: "manifest",
                    expected: tag_or_digest.to_owned(),
                    found,
                }))
            }
            200..300 => Ok(bytes),
            401 => Err(Oci::UnauthorizedError { url }.into()),
            code => Err(match serde_json::from_slice(&bytes) {
                Ok(envelope) if code < 500 => Oci::RegistryError { envelope, url },
                _ => Oci::ServerError {
                    code,
                    url,
                    message: String::from_utf8_lossy(&bytes).into_owned(),
                },
            }
            .into()),
        }
    }

    /// A blob, at most as long as its manifest says, and exactly what it says.
    pub(super) async fn blob(
        &self,
        of: &Descriptor,
        what: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        let place = self.place(of.digest.clone());
        let fetch = || async {
            let mut sink = Bounded::new(of.size);
            let client = &self.means.client;
            let pulled = client
                .pull_blob(&place, of.digest.as_str(), &mut sink)
                .await;
            if sink.overflowed {
                return Err(Failure::Content(Rejected::Overlong {
                    what,
                    expected: of.size,
                }));
            }
            let found = sink.bytes.len() as u64;
            match pulled {
                Ok(()) | Err(Oci::DigestError(_)) if found < of.size => {
                    Err(Failure::Content(Rejected::Truncated {
                        what,
                        expected: of.size,
                        found,
                    }))
                }
                pulled => Ok(pulled.map(|()| sink.bytes)?),
            }
        };
        self.attempt(what, of.size, fetch).await
    }

    pub(super) async fn put_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let place = self.place(String::new());
        let digest = manifest::digest(bytes);
        let send = || async {
            let client = &self.means.client;
            let pushed = client.push_blob(&place, bytes.to_vec(), &digest).await;
            Ok(pushed.map(|_| ())?)
        };
        self.attempt("layer", bytes.len() as u64, send).await
    }

    pub(super) async fn put_manifest(&self, bytes: &[u8], tag: &str) -> Result<(), RegistryError> {
        let place = self.place(tag.to_owned());
        let send = || async {
            let client = &self.means.client;
            let kind = HeaderValue::from_static(manifest::MANIFEST);
            let pushed = client.push_manifest_raw(&place, bytes.to_vec(), kind).await;
            Ok(pushed.map(|_| ())?)
        };
        self.attempt("manifest", 0, send).await
    }

    pub(super) fn rejected(&self, content: Rejected) -> RegistryError {
        RegistryError::Rejected {
            reference: self.reference.to_string(),
            content,
        }
    }

    /// The repository with a tag or digest, as the client wants it.
    fn place(&self, tag_or_digest: String) -> oci_client::Reference {
        let registry = self.reference.registry().to_owned();
        let repository = self.reference.repository().to_owned();
        if is_digest(&tag_or_digest) {
            oci_client::Reference::with_digest(registry, repository, tag_or_digest)
        } else {
            oci_client::Reference::with_tag(registry, repository, tag_or_digest)
        }
    }

    /// Tries again if that may help. Each try has its time, by the bytes that
    /// are to be moved: the client itself would read an endless answer for
    /// ever.
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
                Err(Failure::Exchange(error)) if meaning(&error) == Meaning::Passing => {
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
        let error = match failure {
            Failure::Content(content) => return self.rejected(content),
            Failure::Late(time) => {
                let seconds = time.as_secs_f64();
                return network(format!("no {what} within {seconds} s"), AGAIN);
            }
            Failure::Exchange(error) => error,
        };
        match meaning(&error) {
            Meaning::Missing => RegistryError::NotFound {
                reference,
                answer: said(&error),
            },
            Meaning::Denied => RegistryError::Denied {
                reference,
                answer: said(&error),
                asked: self.credentials.asked.clone(),
                registry,
            },
            Meaning::Passing | Meaning::Other => match error {
                Oci::DigestError(DigestError::VerificationError { expected, actual }) => self
                    .rejected(Rejected::Digest {
                        what,
                        expected: with_algorithm(&expected),
                        found: with_algorithm(&actual),
                    }),
                Oci::RequestError(error) if is_nowhere(&error) => network(
                    format!("{registry} sends us on over plain HTTP, which was not followed"),
                    "the plugin must be reachable over HTTPS all the way",
                ),
                Oci::RequestError(error) if error.is_connect() => network(
                    innermost(&error),
                    "check the name and the port of the registry, and its certificate",
                ),
                Oci::RequestError(error) => network(
                    format!("{registry} fell silent: {}", innermost(&error)),
                    AGAIN,
                ),
                error => network(said(&error), AGAIN),
            },
        }
    }
}

const AGAIN: &str = "try again later, or ask whoever runs the registry";

/// The clients for all conversations; they keep connections and tokens.
pub(super) fn clients(
    options: &Options,
    certificates: Vec<Certificate>,
) -> Result<(Client, reqwest::Client), Oci> {
    let agent = concat!("engine/", env!("CARGO_PKG_VERSION"));
    let no_proxy = options.plain_http.then_some(LOOPBACK);
    let no_proxy = no_proxy.and_then(reqwest::NoProxy::from_string);
    let mut roots = vec![];
    for certificate in &certificates {
        roots.push(reqwest::Certificate::from_der(&certificate.data)?);
    }
    let http = reqwest::Client::builder()
        .proxy(reqwest::Proxy::http(NOWHERE)?.no_proxy(no_proxy))
        .tls_certs_merge(roots)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.stall_timeout)
        .user_agent(agent)
        .build()?;
    let client = Client::try_from(ClientConfig {
        protocol: if options.plain_http {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        },
        http_proxy: Some(NOWHERE.to_owned()),
        no_proxy: options.plain_http.then(|| LOOPBACK.to_owned()),
        extra_root_certificates: certificates,
        connect_timeout: Some(options.connect_timeout),
        read_timeout: Some(options.stall_timeout),
        user_agent: agent,
        ..ClientConfig::default()
    })?;
    Ok((client, http))
}

/// What an error says about the thing that was asked for.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    Missing,
    Denied,
    /// Try again.
    Passing,
    Other,
}

fn meaning(error: &Oci) -> Meaning {
    match error {
        Oci::UnauthorizedError { .. } | Oci::AuthenticationFailure(_) => Meaning::Denied,
        Oci::ServerError { code, .. } => match code {
            401 | 403 => Meaning::Denied,
            404 => Meaning::Missing,
            429 | 500.. => Meaning::Passing,
            _ => Meaning::Other,
        },
        Oci::RegistryError { envelope, .. } => {
            let code = envelope.errors.first().map(|e| &e.code);
            match code {
                Some(Code::Unauthorized | Code::Denied) => Meaning::Denied,
                Some(
                    Code::NameUnknown
                    | Code::ManifestUnknown
                    | Code::NotFound
                    | Code::BlobUnknown
                    | Code::ManifestBlobUnknown,
                ) => Meaning::Missing,
                Some(Code::Toomanyrequests) => Meaning::Passing,
                _ => Meaning::Other,
            }
        }
        // A lost connection. One that was never made is more often a typing
        // error, and a stall has taken long enough.
        Oci::RequestError(e) if !e.is_timeout() && !e.is_connect() && !e.is_builder() => {
            Meaning::Passing
        }
        _ => Meaning::Other,
    }
}

/// What the registry said, in one short line: it may be hostile.
fn said(error: &Oci) -> String {
    let text = match error {
        Oci::ServerError { code, message, .. } => format!("{code}: {message}"),
        Oci::UnauthorizedError { .. } => "401: not authorized".to_owned(),
        Oci::AuthenticationFailure(reason) => format!("no token: {reason}"),
        Oci::RegistryError { envelope, .. } => {
            let messages = envelope.errors.iter().map(|e| e.message.as_str());
            messages.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(printable).take(200).collect()
}

/// The innermost cause says most: "connection refused".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Only the debugging form names the address that was not reached.
fn is_nowhere(error: &impl std::fmt::Debug) -> bool {
    format!("{error:?}").contains(NOWHERE_ADDRESS)
}

fn with_algorithm(digest: &str) -> String {
    if digest.contains(':') {
        digest.to_owned()
    } else {
        format!("sha256:{digest}")
    }
}

/// Takes so many bytes and refuses the next one, which ends the download.
struct Bounded {
    bytes: Vec<u8>,
    max: u64,
    overflowed: bool,
}

impl Bounded {
    fn new(max: u64) -> Self {
        Self {
            bytes: vec![],
            max,
            overflowed: false,
        }
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if (self.bytes.len() + more.len()) as u64 > self.max {
            self.overflowed = true;
            return Poll::Ready(Err(std::io::ErrorKind::FileTooLarge.into()));
        }
        self.bytes.extend_from_slice(more);
        Poll::Ready(Ok(more.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
