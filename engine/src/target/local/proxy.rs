//! The data path: picks an arm for each request and passes it through.
//!
//! hyper speaks HTTP on both sides and keeps the connections; this file only
//! chooses, forwards and measures.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::arm::{Arm, InFlight};
use super::samples::Class;
use crate::clock::{Clock, SystemClock};
use crate::model::Weights;
use crate::spec::LocalSpec;

/// Name of the cookie that keeps a client on its arm.
const COOKIE_NAME: &str = "engine-arm";
/// Headers that belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ARM: HeaderName = HeaderName::from_static("x-engine-arm");

type Body = BoxBody<Bytes, hyper::Error>;

/// Passes requests to arms by weight.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) arms: Vec<Arm>,
    weights: RwLock<Weights>,
    sticky_seconds: u32,
    response_timeout: Duration,
    http2: bool,
    client: Client<HttpConnector, Incoming>,
}

impl Proxy {
    pub(super) fn new(arms: Vec<Arm>, weights: Weights, spec: &LocalSpec) -> Self {
        let http2 = spec.upstream_http2;
        Self {
            arms,
            weights: RwLock::new(weights),
            sticky_seconds: spec.sticky_seconds,
            response_timeout: Duration::from_millis(u64::from(spec.response_timeout_ms)),
            http2,
            client: Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .pool_idle_timeout(Duration::from_secs(30))
                .build(crate::target::http::connector()),
        }
    }

    pub(super) fn is_sticky(&self) -> bool {
        self.sticky_seconds > 0
    }

    pub(super) fn weights(&self) -> Weights {
        self.weights
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_weights(&self, weights: Weights) {
        *self.weights.write().unwrap_or_else(PoisonError::into_inner) = weights;
    }

    /// The arm for a request, and whether the client must be told to stay.
    fn choose(&self, headers: &HeaderMap) -> (&Arm, bool) {
        let weights = self.weights.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_sticky()
            && let Some(name) = cookie(headers)
            // An arm that was taken out of service keeps nobody.
            && weights.weight(name) > 0
            && let Some(arm) = self.arms.iter().find(|a| a.name == name)
        {
            return (arm, false);
        }
        let sum: u32 = weights.0.iter().map(|w| w.weight).sum();
        let mut ticket = rand::random_range(0..sum.max(1));
        for (arm, weight) in self.arms.iter().zip(&weights.0) {
            if ticket < weight.weight {
                return (arm, self.is_sticky());
            }
            ticket -= weight.weight;
        }
        (&self.arms[0], self.is_sticky())
    }

    /// One request, from its head to the head of its answer. Bodies flow on.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Infallible> {
        let (arm, stick) = self.choose(request.headers());
        let mut measured = Measured {
            arm,
            begun: tokio::time::Instant::now(),
            class: Class::Error,
        };
        let mut response = match arm.running().pick() {
            _ if request.method() == Method::CONNECT => {
                problem(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy")
            }
            Some((in_flight, authority)) => {
                let answer = self.forward(request, peer, authority, in_flight);
                let late = |_| problem(StatusCode::GATEWAY_TIMEOUT, "the target takes too long");
                let answer = tokio::time::timeout(self.response_timeout, answer).await;
                answer.unwrap_or_else(late)
            }
            None => problem(StatusCode::SERVICE_UNAVAILABLE, "the arm has no target"),
        };
        measured.class = match response.status() {
            s if s.is_server_error() => Class::Error,
            s if s.is_client_error() => Class::ClientError,
            _ => Class::Fine,
        };
        drop(measured);
        let headers = response.headers_mut();
        if let Ok(name) = HeaderValue::from_str(&arm.name) {
            headers.insert(ARM, name);
        }
        if stick {
            let cookie = format!(
                "{COOKIE_NAME}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax",
                arm.name, self.sticky_seconds
            );
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(SET_COOKIE, cookie);
            }
        }
        Ok(response)
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        authority: Authority,
        in_flight: InFlight,
    ) -> Response<Body> {
        let upgrade = upgrade_of(request.headers());
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        if let Err(why) = self.prepare(&mut request, peer, authority, upgrade.as_ref()) {
            return problem(StatusCode::BAD_REQUEST, &why);
        }
        let mut response = match self.client.request(request).await {
            Ok(response) => response,
            Err(_) => return problem(StatusCode::BAD_GATEWAY, "the target does not answer"),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_side) = client_side else {
                return problem(
                    StatusCode::BAD_GATEWAY,
                    "the target switched protocols unasked",
                );
            };
            let target_side = hyper::upgrade::on(&mut response);
            // From here on it is a tunnel: WebSocket or whatever they agreed on.
            tokio::spawn(async move {
                let _counted = in_flight;
                if let (Ok(a), Ok(b)) = tokio::join!(client_side, target_side) {
                    let (mut a, mut b) = (TokioIo::new(a), TokioIo::new(b));
                    let _ = tokio::io::copy_bidirectional(&mut a, &mut b).await;
                }
            });
            return response.map(|body| body.boxed());
        }
        strip(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        response.map(|body| {
            body.map_frame(move |frame| {
                let _counted = &in_flight;
                frame
            })
            .boxed()
        })
    }

    /// Rewrites a request for its target.
    fn prepare(
        &self,
        request: &mut Request<Incoming>,
        peer: SocketAddr,
        authority: Authority,
        upgrade: Option<&HeaderValue>,
    ) -> Result<(), String> {
        let host = request.uri().authority().map(ToString::to_string);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        if parts.path_and_query.is_none() {
            parts.path_and_query = "/".parse().ok();
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|e| e.to_string())?;
        *request.version_mut() = if self.http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let trailers = request.headers().get(TE).is_some_and(|te| te == "trailers");
        let headers = request.headers_mut();
        strip(headers);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        // HTTP/2 carries the host in its own field.
        if !headers.contains_key(HOST)
            && let Some(host) = host.and_then(|h| HeaderValue::from_str(&h).ok())
        {
            headers.insert(HOST, host);
        }
        // HTTP/2 may split cookies over several fields; HTTP/1.1 has one.
        if let Some(cookies) = joined(headers, &COOKIE, "; ") {
            headers.insert(COOKIE, cookies);
        }
        if let Ok(hop) = HeaderValue::from_str(&peer.ip().to_string()) {
            headers.append(FORWARDED_FOR, hop);
        }
        if let Some(path) = joined(headers, &FORWARDED_FOR, ", ") {
            headers.insert(FORWARDED_FOR, path);
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        Ok(())
    }
}

/// Counts a request when it is dropped. A client that gave up waiting drops it
/// early, and that is an error of the arm that let it wait.
struct Measured<'a> {
    arm: &'a Arm,
    begun: tokio::time::Instant,
    class: Class,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.arm
            .recorder()
            .record(SystemClock.now(), self.begun.elapsed(), self.class);
    }
}

/// The protocol that the client wants to switch to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(CONNECTION)?.to_str().ok()?;
    let asks = wanted
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(UPGRADE).cloned())?
}

/// Removes what belongs to one connection, named ones too.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        // Naming it there must not take the host away.
        .filter(|name| *name != HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// All fields of a name as one.
fn joined(headers: &HeaderMap, name: &HeaderName, between: &str) -> Option<HeaderValue> {
    let parts: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    (!parts.is_empty())
        .then(|| HeaderValue::from_str(&parts.join(between)).ok())
        .flatten()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

fn problem(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::from(format!("{message}\n")).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        pairs.collect()
    }

    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut given = headers(&[
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("x-public", "2"),
        ]);
        strip(&mut given);
        assert_eq!(given, headers(&[("x-public", "2")]));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let given = headers(&[("cookie", "a=b; engine-arm=canary; c=d")]);
        assert_eq!(cookie(&given), Some("canary"));
        assert_eq!(cookie(&headers(&[("cookie", "engine-armx=1")])), None);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(
            upgrade_of(&asked),
            Some(HeaderValue::from_static("websocket"))
        );
        assert_eq!(upgrade_of(&headers(&[("upgrade", "h2c")])), None);
    }
}
