//! The loopback admin API of a balancer, for `engine` in other processes.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/state` | arms, weights, releases, health |
//! | `PUT /v1/weights` | sets the weights of both arms |
//! | `PUT /v1/arms/{arm}/release` | puts a release into an arm |
//! | `POST /v1/metrics` | samples of complete periods |
//! | `POST /v1/counts` | what is counted besides, by complete period |
//! | `POST /v1/arms/{arm}/probe` | sends one probe to an arm, whatever the weights |
//!
//! Every request, reading ones too, carries the balancer's key
//! (`authorization: Bearer …`, see [`super::key`]). Requests of web pages are
//! refused: the host must be loopback, an `origin` is not allowed, and a body
//! must have the type JSON. Errors are a `HostError`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connections::{self, Flow, Limits};
use super::control::Control;
use super::key::Laid;
use crate::model::query::Probe;
use crate::model::{
    ErrorKind, HostError, MetricsQuery, Millis, Observed, Release, Source, Weights,
};

/// There are few clients, and their requests are short.
const LIMITS: Limits = Limits {
    connections: 32,
    idle: Duration::from_secs(10),
    head_bytes: 16 << 10,
};
/// Largest body of a request, bytes.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Longest list in a request.
const LIST_MAX: usize = 256;
/// Longest time that a probe may take, ms.
const PROBE_MS_MAX: u32 = 600_000;
/// How long the last requests may take when the balancer stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until `stopped` says so.
pub(super) async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    key: Arc<Laid>,
    stopped: watch::Receiver<bool>,
) {
    let app = Router::new()
        .route("/v1/state", get(state))
        .route("/v1/weights", put(weights))
        .route("/v1/metrics", post(metrics))
        .route(COUNTS, post(counts))
        .route("/v1/arms/{arm}/release", put(release))
        .route("/v1/arms/{arm}/probe", post(probe))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control);
    let app = TowerToHyperService::new(app);
    let answer = move |request: hyper::Request<hyper::body::Incoming>, _, connection| {
        let (app, key) = (app.clone(), key.clone());
        async move {
            if let Some(refused) = refusal(request.headers(), &key) {
                return Ok(refused);
            }
            // A connection without the key must not keep its place.
            let _flow = Flow::new(&connection);
            app.call(request).await
        }
    };
    connections::serve(listener, LIMITS, stopped, DRAIN, answer).await;
}

/// The answer to a request that is not allowed; `None` if it is. Whoever is
/// allowed can start programs as the balancer's owner.
fn refusal(headers: &HeaderMap, key: &Laid) -> Option<Response> {
    let refused = |status: StatusCode, code: &str, message: String| {
        let error = HostError::new(ErrorKind::Denied, code, message);
        let closing = [(axum::http::header::CONNECTION, "close")];
        Some((status, closing, Json(error)).into_response())
    };
    // A web page can make a browser send requests here under a name that it
    // chooses (DNS rebinding), but not with the host header of loopback.
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let name = host.as_ref().map_or("", Authority::host);
    let literal = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    if name != "localhost" && !literal.is_ok_and(|ip| ip.is_loopback()) {
        let message = "the admin API answers only requests to a loopback address";
        return refused(StatusCode::FORBIDDEN, "not-loopback", message.to_owned());
    }
    if headers.contains_key(ORIGIN) {
        let message = "the admin API does not answer web pages";
        return refused(StatusCode::FORBIDDEN, "web-page", message.to_owned());
    }
    let given = headers.get(AUTHORIZATION);
    if given.is_some_and(|given| key.key.opens(given.as_bytes())) {
        return None;
    }
    // The file may have been removed.
    let message = match key.lay() {
        Ok(()) => "the admin API needs the balancer's key".to_owned(),
        Err(error) => format!("the balancer's key cannot be written: {error}"),
    };
    refused(StatusCode::UNAUTHORIZED, UNAUTHORIZED, message)
}

/// Code of the error for a request without the key.
pub(super) const UNAUTHORIZED: &str = "no-key";

async fn state(State(control): State<Arc<Control>>) -> Json<Observed> {
    Json(control.observe())
}

async fn weights(State(control): State<Arc<Control>>, Json(weights): Json<Weights>) -> Response {
    if let Err(refused) = bounded("weights", weights.0.len()) {
        return refused;
    }
    answer(control.set_weights(&weights).await)
}

async fn release(
    State(control): State<Arc<Control>>,
    Path(arm): Path<String>,
    Json(release): Json<Release>,
) -> Response {
    let length = match &release.source {
        Source::Urls(list) | Source::Command(list) => list.len(),
        _ => 0,
    };
    if let Err(refused) = bounded("the release's list", length) {
        return refused;
    }
    answer(control.set_release(&arm, release).await)
}

async fn metrics(State(control): State<Arc<Control>>, Json(query): Json<MetricsQuery>) -> Response {
    if let Err(refused) = bounded("over_ms", query.over_ms.len()) {
        return refused;
    }
    Json(control.samples(&query)).into_response()
}

/// The call that asks for counts.
pub(super) const COUNTS: &str = "/v1/counts";

/// Since when counts are asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CountsQuery {
    /// Unix ms.
    pub(super) since: Millis,
}

async fn counts(State(control): State<Arc<Control>>, Json(query): Json<CountsQuery>) -> Response {
    Json(control.counted(query.since)).into_response()
}

async fn probe(
    State(control): State<Arc<Control>>,
    Path(arm): Path<String>,
    Json(probe): Json<Probe>,
) -> Response {
    // Otherwise the path could become a part of the host.
    if !probe.path.starts_with('/') {
        return invalid("the probe's path must start with /".to_owned());
    }
    if probe.timeout_ms > PROBE_MS_MAX {
        return invalid(format!("a probe may take {PROBE_MS_MAX} ms at most"));
    }
    answer(control.probe(&arm, &probe).await)
}

#[expect(clippy::result_large_err, reason = "once for each request")]
fn bounded(what: &str, length: usize) -> Result<(), Response> {
    if length <= LIST_MAX {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} has {length} items, and {LIST_MAX} are allowed"
    )))
}

fn invalid(message: String) -> Response {
    answer::<()>(Err(HostError::new(ErrorKind::Invalid, "invalid", message)))
}

fn answer<T: serde::Serialize>(result: Result<T, HostError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let status = match error.kind {
                ErrorKind::NotFound => StatusCode::NOT_FOUND,
                ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(error)).into_response()
        }
    }
}
