//! How a backend is asked whether it is well.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, TE};
use rustls::ClientConfig;

use super::upstream::Connector;
use crate::model::address::server;
use crate::model::target::{HealthCheck, HealthProtocol, LocalSpec};
use crate::target::http::{Answer, Client};
use crate::target::tls::{self, Trust};

/// The method of the gRPC health protocol.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.status`: the service works.
const SERVING: u64 = 1;
/// The gRPC status of a method that a server does not have.
const UNIMPLEMENTED: u32 = 12;

/// How backends are spoken to and checked.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// Whether they speak HTTP/2, and HTTP/1.1 otherwise.
    pub(super) http2: bool,
    /// How those that have an `https://` address are spoken to.
    pub(super) tls: ClientConfig,
    /// Their health checks.
    pub(super) health: HealthCheck,
}

impl Manners {
    /// Those of a balancer that is set up like this.
    ///
    /// # Errors
    /// The file of certificates cannot be used.
    pub(super) fn of(spec: &LocalSpec) -> Result<Self, String> {
        let trust = match &spec.upstream_ca {
            None => Trust::Anybody,
            Some(file) => Trust::Authority {
                file: file.into(),
                names: true,
            },
        };
        Ok(Self {
            http2: spec.upstream_http2,
            tls: tls::client(&trust)?,
            health: spec.health.clone(),
        })
    }

    /// A client that speaks to backends what the traffic speaks.
    pub(super) fn client(&self) -> Client {
        Client::to_backends(self.http2, self.tls.clone())
    }

    /// Makes the connections on which the traffic goes.
    pub(super) fn connector(&self) -> Connector {
        Connector::new(self.http2, self.tls.clone())
    }
}

/// Asks a server what a balancer that is set up like this would ask it, before there is one.
///
/// # Errors
/// It would not count as healthy; says why.
pub async fn try_out(spec: &LocalSpec, url: &str) -> Result<(), String> {
    let manners = Manners::of(spec)?;
    let base = server(url)?.to_string();
    let timeout = Duration::from_millis(u64::from(spec.health.timeout_ms));
    ask(
        &manners.client(),
        base.trim_end_matches('/'),
        &manners,
        timeout,
    )
    .await
}

/// Asks whether a backend is well: by the gRPC health protocol where that is asked for, and
/// else by its path, which answers 2xx or 3xx then. The error says what was asked and what
/// came instead.
///
/// A gRPC server refuses the path itself. Then it is asked by the health protocol, and
/// one that does not have it is taken for well because it answered, as on an AWS load
/// balancer (whose success code for gRPC is 12 if nobody says another).
pub(super) async fn ask(
    client: &Client,
    base: &str,
    manners: &Manners,
    timeout: Duration,
) -> Result<(), String> {
    let health = &manners.health;
    if let HealthProtocol::Grpc { service } = &health.protocol {
        return match grpc(client, base, service, timeout).await {
            Some(Grpc::Status(SERVING)) => Ok(()),
            other => Err(format!("{CHECK} {service:?}: {}", in_words(other.as_ref()))),
        };
    }
    let path = &health.path;
    let answer = client
        .send("GET", &format!("{base}{path}"), None, timeout)
        .await;
    let refused = match answer {
        Ok(answer) if !is_grpc(&answer) && is_good(answer.status) => return Ok(()),
        Ok(answer) if !manners.http2 || !refuses_the_path(&answer) => {
            let status = answer.status.as_u16();
            return Err(format!("GET {path}: {status}, not 2xx or 3xx"));
        }
        Err(error) if !manners.http2 => return Err(format!("GET {path}: {error}")),
        Ok(answer) => format!("GET {path}: {}", answer.status.as_u16()),
        Err(error) => format!("GET {path}: {error}"),
    };
    match grpc(client, base, "", timeout).await {
        Some(Grpc::Status(SERVING) | Grpc::Failed(UNIMPLEMENTED)) => Ok(()),
        other => Err(format!("{refused}; {CHECK}: {}", in_words(other.as_ref()))),
    }
}

fn in_words(answer: Option<&Grpc>) -> String {
    match answer {
        Some(Grpc::Status(status)) => format!("status {status}, not SERVING"),
        Some(Grpc::Failed(code)) => format!("gRPC status {code}"),
        None => "no answer of this protocol".to_owned(),
    }
}

fn is_good(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

fn is_grpc(answer: &Answer) -> bool {
    let kind = answer.head.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the server knows no plain requests: gRPC servers answer such a request with
/// a status of their own, these HTTP statuses, or a reset stream.
fn refuses_the_path(answer: &Answer) -> bool {
    is_grpc(answer)
        || matches!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE
        )
}

/// What the gRPC health protocol says.
#[derive(Debug, PartialEq, Eq)]
enum Grpc {
    /// The status of the service.
    Status(u64),
    /// The gRPC status of a call that failed.
    Failed(u32),
}

async fn grpc(client: &Client, base: &str, service: &str, timeout: Duration) -> Option<Grpc> {
    let headers = [
        (CONTENT_TYPE.as_str(), "application/grpc".to_owned()),
        (TE.as_str(), "trailers".to_owned()),
    ];
    let url = format!("{base}{CHECK}");
    let answer = client
        .send_with("POST", &url, &headers, Some(request(service)), timeout)
        .await
        .ok()?;
    // Without a message the status is in the head.
    let fields = answer.trailers.as_ref().unwrap_or(&answer.head);
    let status: u32 = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    match status {
        0 => serving_status(&answer.body).map(Grpc::Status),
        failed => Some(Grpc::Failed(failed)),
    }
}

/// A `HealthCheckRequest` as a gRPC message: a byte for "not compressed", its length,
/// and the service's name as field 1.
fn request(service: &str) -> Vec<u8> {
    let mut message = vec![];
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len() as u64, &mut message);
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// `status` of a `HealthCheckResponse` (field 1, an enum; 0 if it is absent).
fn serving_status(framed: &[u8]) -> Option<u64> {
    let message = match framed.split_at_checked(5)? {
        ([0, ..], message) => message,
        // Nobody asked for a compressed one.
        _ => return None,
    };
    let Some((0x08, rest)) = message.split_first().map(|(tag, rest)| (*tag, rest)) else {
        return message.is_empty().then_some(0);
    };
    let mut value = 0_u64;
    for (n, byte) in rest.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_and_the_answer_are_in_the_protocol_s_bytes() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(200);
        assert_eq!(request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        for odd in [
            &[][..],
            &[0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 1, 9],
        ] {
            assert_eq!(serving_status(odd), None, "{odd:?}");
        }
    }
}
