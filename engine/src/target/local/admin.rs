//! The loopback admin API: what `engine` in another process talks to.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/state` | arms, weights, releases, health |
//! | `PUT /v1/weights` | sets the whole weights |
//! | `PUT /v1/arms/{arm}/release` | puts a release into an arm |
//! | `POST /v1/metrics` | closed samples |
//! | `POST /v1/arms/{arm}/probe` | one probe, past the weights |
//!
//! Bodies are JSON and must say so, which keeps web pages out. Errors are a
//! `HostError`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::balancer::Control;
use crate::model::{ErrorKind, HostError, MetricsQuery, Observed, Release, Weights};
use crate::spec::Probe;

/// Serves until told to stop.
pub(super) async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    mut stopped: watch::Receiver<bool>,
) {
    let app = Router::new()
        .route("/v1/state", get(state))
        .route("/v1/weights", put(weights))
        .route("/v1/metrics", post(metrics))
        .route("/v1/arms/{arm}/release", put(release))
        .route("/v1/arms/{arm}/probe", post(probe))
        .with_state(control)
        .layer(axum::middleware::from_fn(only_loopback));
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let _ = axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await;
}

/// A web page can make a browser send requests here under a name of its own
/// choosing (DNS rebinding); its host header gives it away.
async fn only_loopback(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let literal = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    if name == "localhost" || literal.is_ok_and(|ip| ip.is_loopback()) {
        return next.run(request).await;
    }
    let error = HostError::new(
        ErrorKind::Denied,
        "not-loopback",
        format!("the admin API answers on a loopback address only, not as {host:?}"),
    );
    (StatusCode::FORBIDDEN, Json(error)).into_response()
}

async fn state(State(control): State<Arc<Control>>) -> Json<Observed> {
    Json(control.observe())
}

async fn weights(State(control): State<Arc<Control>>, Json(weights): Json<Weights>) -> Response {
    answer(control.set_weights(&weights).await)
}

async fn release(
    State(control): State<Arc<Control>>,
    Path(arm): Path<String>,
    Json(release): Json<Release>,
) -> Response {
    answer(control.set_release(&arm, release).await)
}

async fn metrics(State(control): State<Arc<Control>>, Json(query): Json<MetricsQuery>) -> Response {
    Json(control.samples(&query)).into_response()
}

async fn probe(
    State(control): State<Arc<Control>>,
    Path(arm): Path<String>,
    Json(probe): Json<Probe>,
) -> Response {
    answer(control.probe(&arm, &probe).await)
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
