//! The demo service, in versions with and without a fault.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::model::DemoFault;

/// Time that a request takes without a fault: 4 to 12 ms.
const LATENCY_MS: std::ops::Range<u64> = 4..12;

#[derive(Debug)]
struct Service {
    version: String,
    fault: DemoFault,
}

/// Starts the service on a free port.
pub(super) async fn start(
    version: &str,
    fault: DemoFault,
) -> Result<(SocketAddr, JoinHandle<()>), std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = Arc::new(Service {
        version: version.to_owned(),
        fault,
    });
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/whoami", get(whoami))
        .fallback(hello)
        .with_state(service);
    let task = tokio::spawn(async move {
        // It ends when the task is aborted, or with the process.
        let _ = axum::serve(listener, app).await;
    });
    Ok((address, task))
}

async fn whoami(State(service): State<Arc<Service>>) -> Response {
    // With a line end, for terminals.
    let body = serde_json::json!({ "version": service.version }).to_string() + "\n";
    let head = [(axum::http::header::CONTENT_TYPE, "application/json")];
    service.answer((head, body).into_response()).await
}

async fn hello(State(service): State<Arc<Service>>) -> Response {
    let body = format!("hello from {}\n", service.version);
    service.answer(body.into_response()).await
}

impl Service {
    #[expect(clippy::disallowed_methods, reason = "the service's own latency")]
    async fn answer(&self, response: Response) -> Response {
        let ms = rand::random_range(LATENCY_MS) + u64::from(self.fault.latency_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if rand::random_bool(self.fault.error_rate.clamp(0.0, 1.0)) {
            return (StatusCode::INTERNAL_SERVER_ERROR, "the demo fault\n").into_response();
        }
        response
    }
}
