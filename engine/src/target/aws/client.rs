//! Clients of the AWS services, and error messages that say what to do.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideFuture;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ecs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use super::calls::Api;
use super::credentials::{Asked, HUNG, UNFIT};
use crate::clock::{Clock, SystemClock};
use crate::model::aws::Access;
use crate::model::network::{AwsVariables, Network};
use crate::model::{ErrorKind, HostError, Millis};

/// The region if neither an argument nor the configuration names one.
const REGION_DEFAULT: &str = "us-east-1";

/// Timeouts, retries and rate of the calls to AWS.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Timeout for the connection.
    pub connect: Duration,
    /// Timeout for one attempt of a call.
    pub attempt: Duration,
    /// Timeout for a call with all its attempts. Well below the life of a lease,
    /// so that no write is under way when another process takes over.
    pub operation: Duration,
    /// Attempts of a call, with jittered delays between them.
    pub attempts: u32,
    /// Longest delay before the second attempt; it doubles with each attempt.
    pub backoff: Duration,
    /// Calls per second, after a burst of as many; 0 for no limit.
    pub rate: u32,
    /// Another address for all services, for emulators; `None` for the usual one
    /// (or `AWS_ENDPOINT_URL`).
    pub endpoint: Option<String>,
    /// Proxies and certificates.
    pub network: Network,
    /// Use fixed credentials, for emulators, instead of the usual chain.
    pub fake_credentials: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(8),
            operation: Duration::from_secs(20),
            attempts: 4,
            backoff: Duration::from_millis(500),
            rate: 10,
            endpoint: None,
            network: Network::default(),
            fake_credentials: false,
        }
    }
}

/// The clients of one account and region.
#[derive(Debug, Clone)]
pub struct Clients {
    pub(super) elb: aws_sdk_elasticloadbalancingv2::Client,
    pub(super) ecs: aws_sdk_ecs::Client,
    pub(super) autoscaling: aws_sdk_applicationautoscaling::Client,
    pub(super) cloudwatch: aws_sdk_cloudwatch::Client,
    pub(super) cloudformation: aws_sdk_cloudformation::Client,
    /// The region of all calls.
    pub region: String,
    /// The account and region, and who calls.
    access: Access,
    /// How whatever gives credentials reaches other machines.
    surroundings: ProviderConfig,
    /// Timeout for one attempt of a call.
    pub(super) attempt: Duration,
    /// How probes and queries reach other machines.
    pub(super) network: Network,
    /// How any other service is reached.
    config: SdkConfig,
    pace: Arc<Pace>,
}

/// Who calls AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The ARN of the user or of the session of a role.
    pub arn: String,
    /// Where the credentials came from, in words; `None` if they do not say.
    pub source: Option<&'static str>,
}

impl Clients {
    /// Reads the usual configuration (environment, files, profile) and makes
    /// the clients. It sends no call.
    pub async fn connect(access: &Access, patience: &Patience) -> Self {
        let pace = Arc::new(Pace::new(patience.rate));
        let (config, surroundings) = configure(access, patience, pace.clone()).await;
        Self {
            pace,
            surroundings,
            attempt: patience.attempt,
            network: patience.network.clone(),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            ecs: aws_sdk_ecs::Client::new(&config),
            autoscaling: aws_sdk_applicationautoscaling::Client::new(&config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            cloudformation: aws_sdk_cloudformation::Client::new(&config),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
            access: access.clone(),
            config,
        }
    }

    /// Asks AWS who calls. That needs no permission.
    ///
    /// # Errors
    /// There are no credentials, AWS does not accept them, or it does not answer.
    pub async fn caller(&self) -> Result<Caller, HostError> {
        let sts = aws_sdk_sts::Client::new(&self.config);
        let answer = self
            .ask(Api::GetCallerIdentity, "", sts.get_caller_identity().send())
            .await?;
        let source = match self.config.credentials_provider() {
            Some(provider) => provider.provide_credentials().await.ok(),
            None => None,
        };
        let features = source
            .as_ref()
            .and_then(|credentials| credentials.get_property::<Vec<AwsCredentialFeature>>());
        Ok(Caller {
            arn: answer.arn.unwrap_or_default(),
            source: features.and_then(|all| all.iter().find_map(in_words)),
        })
    }

    /// How far the clock of this machine is ahead of that of AWS, ms, by the last answer;
    /// `None` before the first one.
    #[must_use]
    pub fn ahead_ms(&self) -> Option<i64> {
        *self
            .pace
            .ahead_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where credentials came from.
fn in_words(feature: &AwsCredentialFeature) -> Option<&'static str> {
    use AwsCredentialFeature as From;
    Some(match feature {
        From::CredentialsEnvVars => "the environment",
        From::CredentialsEnvVarsStsWebIdToken | From::CredentialsStsAssumeRoleWebId => {
            "a web identity token"
        }
        From::CredentialsStsAssumeRole => "a role",
        From::CredentialsProfileSso | From::CredentialsSso => "IAM Identity Center",
        From::CredentialsProfileProcess | From::CredentialsProcess => "a credential_process",
        From::CredentialsProfile
        | From::CredentialsProfileSourceProfile
        | From::CredentialsProfileNamedProvider
        | From::CredentialsProfileStsWebIdToken => "a profile",
        From::CredentialsHttp => "the container",
        From::CredentialsImds => "the instance",
        _ => return None,
    })
}

/// The region that is configured: by an argument or file, else by the environment or a
/// profile. It asks no machine: a region that nobody wrote down contradicts nothing.
pub async fn configured_region(access: &Access, told: &AwsVariables) -> Option<String> {
    let named = access.region.clone().or_else(|| told.region.clone());
    match named {
        Some(region) => Some(region),
        None => region_of_profile(access).await,
    }
}

async fn region_of_profile(access: &Access) -> Option<String> {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &access.profile {
        profile = profile.profile_name(name);
    }
    let region = profile.build().region().await;
    region.map(|region| region.to_string())
}

impl Clients {
    /// Sends one call when the rate limit permits it, and explains its error. It is on the
    /// heap: the SDK's futures are large, and those of whoever waits for them would be too.
    pub(super) fn ask<'a, T, E>(
        &'a self,
        api: Api,
        resource: &'a str,
        sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, HostError>> + Send + 'a>>
    where
        T: Send + 'a,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        Box::pin(async move {
            // The wait for the rate limit is outside the call's own timeouts.
            self.pace.wait().await;
            match PAID.scope(Cell::new(true), sending).await {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    if error.code().is_none()
                        && let Some(none) = self.no_credentials(&call(api, resource), &error).await
                    {
                        return Err(none);
                    }
                    Err(explain(api, resource, &self.region, &error))
                }
            }
        })
    }
}

impl Clients {
    /// The error of a call that had no credentials; `None` if it failed otherwise. The
    /// SDK says why a profile cannot be used the first time only, so a fresh provider is
    /// asked; one that cannot even be built sends nothing.
    async fn no_credentials<E>(
        &self,
        what: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> Option<HostError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (mut whole, mut cause) = (DisplayErrorContext(error).to_string(), innermost(error));
        let lower = whole.to_lowercase();
        let about = ["credentials", "token provider", HUNG];
        if !about.iter().any(|words| lower.contains(words)) {
            return None;
        }
        let asked = Asked {
            profile: self.access.profile.as_deref(),
            role: self.access.role.as_deref(),
            variables: &self.network.aws,
        };
        if whole.contains("initialization error already taken") {
            let mut again = ProfileFileCredentialsProvider::builder().configure(&self.surroundings);
            if let Some(name) = &self.access.profile {
                again = again.profile_name(name);
            }
            let again = Signable(SharedCredentialsProvider::new(again.build()));
            if let Err(why) = again.provide_credentials().await {
                cause = innermost(&why);
                whole = DisplayErrorContext(why).to_string();
            }
        }
        let (why, hint) = asked.why(&whole, &cause);
        let message =
            format!("there are no usable AWS credentials for {what}: {why}\n\nhint: {hint}");
        Some(match asked.was_unreachable(&whole) {
            true => HostError::new(ErrorKind::Unavailable, "no-credentials", message).retryable(),
            false => HostError::new(ErrorKind::Denied, "no-credentials", message),
        })
    }
}

tokio::task_local! {
    /// Whether this attempt has waited for the rate limit already.
    static PAID: Cell<bool>;
}

/// What calls are sent with, and how whatever gives their credentials reaches other
/// machines.
async fn configure(
    access: &Access,
    patience: &Patience,
    pace: Arc<Pace>,
) -> (SdkConfig, ProviderConfig) {
    let http = Paced {
        inner: Lazy {
            plain: HttpBuilder::new().build_http(),
            secure: through(patience.network.clone()),
        },
        pace,
    };
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(patience.connect)
        .operation_attempt_timeout(patience.attempt)
        .operation_timeout(patience.operation)
        .build();
    // A profile may name a program that never ends. Where the attempt of a call ends first,
    // nobody knows what took so long.
    let credentials_within = patience.attempt * 7 / 8;
    let told = &patience.network.aws;
    let retries = if told.is_adaptive() {
        RetryConfig::adaptive()
    } else {
        RetryConfig::standard()
    };
    let retries = retries
        .with_max_attempts(told.attempts().unwrap_or(patience.attempts))
        .with_initial_backoff(patience.backoff);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .timeout_config(timeouts.clone())
        .retry_config(retries.clone())
        .identity_cache(
            IdentityCache::lazy()
                .load_timeout(credentials_within)
                .build(),
        );
    if let Ok(name) = AppName::new("engine") {
        loader = loader.app_name(name);
    }
    if let Some(region) = access.region.as_ref().or(told.region.as_ref()) {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &patience.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if patience.fake_credentials {
        loader = loader.credentials_provider(aws_credential_types::Credentials::new(
            "testing", "testing", None, None, "emulator",
        ));
    }
    let mut config = loader.load().await;
    // The SDK takes an empty AWS_REGION for one.
    let region = config.region().map_or("", AsRef::as_ref);
    if region.is_empty() {
        let region = region_of_profile(access).await;
        let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
        config = config.into_builder().region(Region::new(region)).build();
    }
    let surroundings = ProviderConfig::without_region()
        .with_http_client(http)
        .with_region(config.region().cloned())
        .with_retry_config(retries)
        .with_timeout_config(timeouts)
        .with_use_fips(config.use_fips())
        .with_use_dual_stack(config.use_dual_stack());
    if let Some(profile) = access
        .profile
        .as_ref()
        .filter(|_| !patience.fake_credentials)
    {
        // A profile that was asked for takes precedence over keys in the environment.
        let named = ProfileFileCredentialsProvider::builder()
            .configure(&surroundings)
            .profile_name(profile)
            .build();
        config = config
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(named))
            .build();
    }
    config = signable(config);
    if let Some(role) = &access.role {
        let provider = aws_config::sts::AssumeRoleProvider::builder(role)
            .session_name("engine")
            .configure(&config)
            .build()
            .await;
        let provider = SharedCredentialsProvider::new(provider);
        config = signable(config.into_builder().credentials_provider(provider).build());
    }
    (config, surroundings)
}

/// The same configuration, whose credentials are looked at before a request is signed with
/// them.
fn signable(config: SdkConfig) -> SdkConfig {
    let Some(provider) = config.credentials_provider() else {
        return config;
    };
    let provider = SharedCredentialsProvider::new(Signable(provider));
    config.into_builder().credentials_provider(provider).build()
}

/// Gives credentials only if requests can be signed with them. The SDK puts them into a header
/// as they are, and panics where they are no value of one.
#[derive(Debug)]
struct Signable(SharedCredentialsProvider);

impl ProvideCredentials for Signable {
    fn provide_credentials<'a>(&'a self) -> ProvideFuture<'a>
    where
        Self: 'a,
    {
        ProvideFuture::new(async move {
            let mut giving = Box::pin(self.0.provide_credentials());
            // A profile signs the request for its role by itself, with what nobody else sees.
            let given = poll_fn(|cx| {
                let poll = catch_unwind(AssertUnwindSafe(|| giving.as_mut().poll(cx)));
                match poll {
                    Ok(poll) => poll.map(Ok),
                    Err(panic) => Poll::Ready(Err(panic)),
                }
            });
            let given = match given.await {
                Ok(given) => given?,
                Err(panic) if is_about_a_header(panic.as_ref()) => {
                    return Err(unfit("a key with which a role is assumed", None));
                }
                Err(panic) => resume_unwind(panic),
            };
            let (id, secret) = (given.access_key_id(), given.secret_access_key());
            let token = given.session_token().unwrap_or_default();
            let of = given.get_property::<Vec<AwsCredentialFeature>>();
            let source = of.and_then(|all| all.iter().find_map(in_words));
            let goes = |c: char| matches!(c, ' '..='~' | '\t');
            match (id.chars().all(goes), token.chars().all(goes)) {
                (false, _) => Err(unfit("the access key id", source)),
                (_, false) => Err(unfit("the session token", source)),
                // It signs, but never what AWS expects.
                _ if secret.contains(char::is_control) => {
                    Err(unfit("the secret access key", source))
                }
                _ => Ok(given),
            }
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt()
    }
}

/// Whether the SDK panicked because something was no value of a header.
fn is_about_a_header(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>();
    text.is_some_and(|text| text.contains("InvalidHeaderValue"))
}

/// The error of credentials that nothing can be signed with. It never has them in it.
fn unfit(what: &str, source: Option<&str>) -> CredentialsError {
    let source = source.map_or_else(String::new, |source| {
        format!(", which comes from {source},")
    });
    CredentialsError::invalid_configuration(format!("{what}{source} {UNFIT}"))
}

/// A client for `https://` addresses that goes through the proxy, and trusts the
/// certificates of the network.
fn through(network: Network) -> SharedHttpClient {
    HttpBuilder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder();
        builder
            .set_connector_settings(settings.cloned())
            .set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        let proxy = network.https_proxy.as_deref().map(ProxyConfig::https);
        // One that cannot be read was left out before, with a note.
        if let Some(Ok(proxy)) = proxy {
            builder = builder.proxy_config(proxy.no_proxy(network.direct()));
        }
        let mut builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
        let more = network.ca_bundle.as_ref().map(std::fs::read);
        if let Some(Ok(pem)) = more {
            let trusted = TrustStore::empty().with_native_roots(true);
            let trusted = trusted.with_pem_certificate(pem);
            if let Ok(context) = TlsContext::builder().with_trust_store(trusted).build() {
                builder = builder.tls_context(context);
            }
        }
        builder.build()
    })
}

/// What sends requests without TLS, and what sends them with it. The latter reads every
/// certificate that the machine trusts, so it is made for the first `https://` address. Plain
/// HTTP, which only emulators and the services on the same machine speak, goes without a proxy.
#[derive(Debug, Clone)]
struct Lazy<T, S = T> {
    plain: T,
    secure: S,
}

/// A connector that is made when it is first used.
#[derive(Debug, Clone)]
struct Unmade {
    client: SharedHttpClient,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
    made: Arc<OnceLock<SharedHttpConnector>>,
}

impl Lazy<SharedHttpConnector, Unmade> {
    /// What sends a request to that address.
    fn connector(&self, uri: &str) -> &SharedHttpConnector {
        let Unmade {
            client,
            settings,
            components,
            made,
        } = &self.secure;
        match uri.starts_with("http://") {
            true => &self.plain,
            false => made.get_or_init(|| client.http_connector(settings, components)),
        }
    }
}

/// Limits the rate of requests: so many per second, after a burst of as many.
#[derive(Debug)]
struct Pace {
    interval_ms: Millis,
    burst_ms: Millis,
    /// When the next request would be due if all had come evenly, ms.
    next: Mutex<Millis>,
    /// How far the clock of this machine was ahead of that of the last answer, ms.
    ahead_ms: Mutex<Option<i64>>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self {
            interval_ms: 1_000_u64.checked_div(u64::from(rate)).unwrap_or(0),
            burst_ms: 1_000,
            next: Mutex::new(0),
            ahead_ms: Mutex::new(None),
        }
    }

    async fn wait(&self) {
        let now = SystemClock.now();
        let turn = self.turn(now);
        if turn > now {
            SystemClock.sleep_until(turn).await;
        }
    }

    /// Compares the `Date` of an answer with the present time.
    fn compare(&self, date: &str, now: Millis) {
        let Ok(date) = DateTime::from_str(date, Format::HttpDate) else {
            return;
        };
        let (Ok(theirs), Ok(ours)) = (date.to_millis(), i64::try_from(now)) else {
            return;
        };
        // A date has no parts of a second.
        let ahead = match ours - theirs {
            0..1_000 => 0,
            ahead => ahead,
        };
        *self.ahead_ms.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }

    /// When a request that comes at `now` may be sent.
    fn turn(&self, now: Millis) -> Millis {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = (*next).max(now.saturating_sub(self.burst_ms));
        *next = due + self.interval_ms;
        now.max(due)
    }
}

/// Delays every attempt of every call until the rate limit permits it.
#[derive(Debug, Clone)]
struct Paced<T> {
    inner: T,
    pace: Arc<Pace>,
}

impl HttpClient for Paced<Lazy<SharedHttpClient>> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let secure = Unmade {
            client: self.inner.secure.clone(),
            settings: settings.clone(),
            components: components.clone(),
            made: Arc::default(),
        };
        SharedHttpConnector::new(Paced {
            inner: Lazy {
                plain: self.inner.plain.http_connector(settings, components),
                secure,
            },
            pace: self.pace.clone(),
        })
    }
}

impl HttpConnector for Paced<Lazy<SharedHttpConnector, Unmade>> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            if !PAID.try_with(|paid| paid.replace(false)).unwrap_or(false) {
                this.pace.wait().await;
            }
            crate::target::may_leave().map_err(|late| ConnectorError::timeout(late.into()))?;
            let answer = this.inner.connector(request.uri()).call(request).await?;
            if let Some(date) = answer.headers().get("date") {
                this.pace.compare(date, SystemClock.now());
            }
            Ok(answer)
        })
    }
}

fn call(api: Api, resource: &str) -> String {
    if resource.is_empty() {
        return api.name().to_owned();
    }
    format!("{} on {resource}", api.name())
}

/// Says which call failed, on which resource, and what to do.
fn explain<E>(
    api: Api,
    resource: &str,
    region: &str,
    error: &SdkError<E, HttpResponse>,
) -> HostError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let what = call(api, resource);
    let said = error.message().unwrap_or("no reason given");
    let Some(code) = error.code() else {
        return unanswered(&what, region, error);
    };
    let status = error.raw_response().map_or(0, |r| r.status().as_u16());
    let one_of = |codes: &[&str]| codes.contains(&code);
    if one_of(&[
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
    ]) {
        return HostError::new(
            ErrorKind::Denied,
            "no-permission",
            format!(
                "AWS does not permit {what}: {said}\n\nhint: the caller needs the IAM action {}; `engine plan --policy` prints all that a rollout needs",
                api.action()
            ),
        );
    }
    if one_of(&[
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "IncompleteSignature",
        "AuthFailure",
    ]) {
        return HostError::new(
            ErrorKind::Denied,
            "bad-credentials",
            format!(
                "AWS does not accept the credentials for {what} ({code}): {said}\n\nhint: see `aws sts get-caller-identity`, --profile, --region and --role"
            ),
        );
    }
    if code.contains("Throttl")
        || one_of(&[
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "SlowDown",
        ])
    {
        let message = format!("AWS throttled {what} ({code}): {said}; try again later");
        return HostError::new(ErrorKind::Throttled, "throttled", message).retryable();
    }
    if status >= 500 {
        let message = format!("AWS failed at {what} ({code}, {status}): {said}");
        return HostError::new(ErrorKind::Unavailable, "aws-failed", message).retryable();
    }
    let missing = code.contains("NotFound") || said.contains("does not exist");
    if missing {
        // What is missing here may well exist in another region.
        let message = format!("AWS refused {what} in {region} ({code}): {said}");
        return HostError::new(ErrorKind::NotFound, "not-found", message);
    }
    let message = format!("AWS refused {what} ({code}): {said}");
    HostError::new(ErrorKind::Invalid, "refused", message)
}

fn unanswered<E>(what: &str, region: &str, error: &SdkError<E, HttpResponse>) -> HostError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let why = match error {
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        _ => innermost(error),
    };
    let status = error.raw_response().map_or_else(String::new, |r| {
        format!(" (status {})", r.status().as_u16())
    });
    HostError::new(
        ErrorKind::Unavailable,
        "aws-unreachable",
        format!("AWS in {region} gave no usable answer to {what}: {why}{status}"),
    )
    .retryable()
}

/// The innermost cause, which says most, such as "connection refused".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The error for an answer of AWS that lacks something it must have.
pub(super) fn incomplete(api: Api, what: &str) -> HostError {
    HostError::new(
        ErrorKind::Internal,
        "incomplete-answer",
        format!("the answer to {} has no {what}", api.name()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_requests_pass_at_once_and_then_ten_a_second() {
        let pace = Pace::new(10);
        let turns: Vec<Millis> = (0..20).map(|_| pace.turn(100_000)).collect();
        // A burst, then one each tenth of a second.
        assert!(turns[..11].iter().all(|t| *t == 100_000), "{turns:?}");
        assert_eq!(turns[11..14], [100_100, 100_200, 100_300]);
        let free = Pace::new(0);
        assert_eq!(*free.ahead_ms.lock().expect("no panic"), None);
        for (date, now, ahead) in [
            ("Thu, 01 Jan 1970 00:00:10 GMT", 10_700, 0),
            ("Thu, 01 Jan 1970 00:00:10 GMT", 310_000, 300_000),
            ("Thu, 01 Jan 1970 00:05:10 GMT", 10_000, -300_000),
            ("nonsense", 10_000, -300_000),
        ] {
            free.compare(date, now);
            assert_eq!(
                *free.ahead_ms.lock().expect("no panic"),
                Some(ahead),
                "{date}"
            );
        }
        assert!((0..1_000).all(|_| free.turn(100_000) == 100_000));
    }
}
