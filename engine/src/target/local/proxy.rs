//! The data path: chooses an arm for each request and passes it on.
//!
//! hyper speaks HTTP on both sides; `backend` has the connections to arms, and `answer`
//! judges what comes back on them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Broken;
use super::answer::{Answer, Exchange, Origin};
use super::arm::{Arm, InFlight, Upstream};
use super::backend::{Backends, Stream, never_left};
use super::connections::Flow;
use super::cookie::{ChosenBy, Cookies};
use super::samples::Class;
use super::tunnel::Tunnel;
use super::turn::{ClientBody, Turn, Whose};
use super::upstream::Connector;
use crate::clock::{Clock as _, SystemClock};
use crate::model::target::LocalSpec;
use crate::model::{Millis, Weights};

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
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ARM: HeaderName = HeaderName::from_static("x-engine-arm");

type Body = UnsyncBoxBody<Bytes, Broken>;

/// Passes requests to arms by weight.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) arms: Vec<Arm>,
    weights: RwLock<Weights>,
    cookies: Cookies,
    response_timeout: Duration,
    http2: bool,
    backends: Backends,
    body_timeout: Duration,
    /// Requests that may be under way at once.
    room: Arc<Semaphore>,
}

impl Proxy {
    pub(super) fn new(
        arms: Vec<Arm>,
        weights: Weights,
        spec: &LocalSpec,
        room: usize,
        connector: &Connector,
    ) -> Self {
        Self {
            arms,
            weights: RwLock::new(weights),
            cookies: Cookies::new(spec.sticky_seconds),
            response_timeout: Duration::from_millis(u64::from(spec.response_timeout_ms)),
            http2: spec.upstream_http2,
            backends: Backends::new(connector),
            body_timeout: Duration::from_millis(u64::from(spec.clients.body_ms)),
            room: Arc::new(Semaphore::new(room)),
        }
    }

    pub(super) fn is_sticky(&self) -> bool {
        self.cookies.are_given()
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

    /// The arm for a request that comes at `now`, and who chose it.
    fn choose(&self, headers: &HeaderMap, now: Millis) -> (&Arm, ChosenBy) {
        let weights = self.weights.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, chosen_by)) = self.cookies.read(headers, now)
            // A cookie does not count for an arm with weight 0.
            && weights.weight(name) > 0
            && let Some(arm) = self.arms.iter().find(|a| a.name == name)
        {
            return (arm, chosen_by);
        }
        let sum: u32 = weights.0.iter().map(|w| w.weight).sum();
        let mut ticket = rand::random_range(0..sum.max(1));
        for (arm, weight) in self.arms.iter().zip(&weights.0) {
            if ticket < weight.weight {
                return (arm, ChosenBy::Lot);
            }
            ticket -= weight.weight;
        }
        (&self.arms[0], ChosenBy::Lot)
    }

    /// Handles one request up to the head of its answer. Bodies are streamed.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        flow: Flow,
    ) -> Result<Response<Body>, Infallible> {
        // Refused before an arm is chosen, because they say nothing about one.
        if request.method() == Method::CONNECT {
            return Ok(problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "this balancer is not a forward proxy",
            ));
        }
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return Ok(problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once",
            ));
        };
        let host = match host_of(&request) {
            Ok(host) => host,
            Err(why) => return Ok(problem(StatusCode::BAD_REQUEST, why)),
        };
        let now = SystemClock.now();
        let (arm, chosen_by) = self.choose(request.headers(), now);
        let by_lot = chosen_by.is_lot();
        let begun = Instant::now();
        let turn = Turn::new(request.is_end_stream(), begun);
        let origin = Origin {
            chosen_by,
            has_deadline: request.headers().contains_key(GRPC_TIMEOUT),
        };
        let running = arm.running();
        let mut exchange = Exchange::new(running.tally.clone(), turn.clone(), begun, origin);
        let mut response = match running.pick() {
            Some((in_flight, upstream)) => {
                let counted = (in_flight, room, flow);
                let way = Way {
                    peer,
                    host,
                    upstream: &upstream,
                };
                let answer = self.forward(request, way, counted, &turn);
                match self.in_time(answer, &turn).await {
                    Ok(Passed::Answer(response, counted)) => {
                        let patience = self.response_timeout;
                        Answer::of(response, exchange, patience, counted).map(BodyExt::boxed_unsync)
                    }
                    Ok(Passed::Tunnel(response, tunnel)) => {
                        let silence = exchange.silence();
                        exchange.judge(Class::Fine);
                        tokio::spawn(async move {
                            if tunnel.was_silent().await {
                                silence.count();
                            }
                        });
                        response.map(|body| body.map_err(Broken::from).boxed_unsync())
                    }
                    Err(Fault::Arm(response)) => {
                        exchange.judge(Class::Error);
                        response
                    }
                    Err(Fault::Client(response)) => {
                        exchange.excuse();
                        response
                    }
                }
            }
            None => {
                exchange.judge(Class::Error);
                problem(StatusCode::SERVICE_UNAVAILABLE, "the arm has no backend")
            }
        };
        let headers = response.headers_mut();
        if let Ok(name) = HeaderValue::from_str(&arm.name) {
            headers.insert(ARM, name);
        }
        if by_lot && let Some(cookie) = self.cookies.give(&arm.name, now) {
            headers.append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Waits for an answer, for as long as the party whose turn it is may take.
    async fn in_time(
        &self,
        answer: impl Future<Output = Result<Passed, Fault>>,
        turn: &Turn,
    ) -> Result<Passed, Fault> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let (whose, since) = turn.whose();
            let patience = match whose {
                Whose::Client => self.body_timeout,
                // A broken request is answered as soon as that is noticed.
                Whose::Arm | Whose::Broken => self.response_timeout,
            };
            tokio::select! {
                answer = &mut answer => return answer,
                () = turn.changed() => {}
                () = tokio::time::sleep_until(since + patience) => match turn.whose() {
                    now if now != (whose, since) => {}
                    (Whose::Client, _) => return Err(Fault::Client(problem(
                        StatusCode::REQUEST_TIMEOUT,
                        "the rest of the request did not come in time",
                    ))),
                    _ => return Err(Fault::Arm(problem(
                        StatusCode::GATEWAY_TIMEOUT,
                        "the backend did not answer in time",
                    ))),
                },
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        way: Way<'_>,
        counted: Counted,
        turn: &Arc<Turn>,
    ) -> Result<Passed, Fault> {
        // HTTP/2 has no upgrade; a server may leave an upgrade alone (RFC 9110, 7.8).
        let upgrade = upgrade_of(request.headers()).filter(|_| !self.http2);
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let upstream = way.upstream;
        if let Err(why) = self.prepare(&mut request, way, upgrade.as_ref()) {
            return Err(Fault::Client(problem(StatusCode::BAD_REQUEST, &why)));
        }
        let request = request.map(|body| ClientBody::new(body, turn.clone()));
        let sent = match self.http2 {
            true => {
                let sent = upstream.lane.send(&upstream.address, request, turn).await;
                sent.map(|(response, stream)| (response, Some(stream)))
            }
            false => self.backends.send(request, turn).await.map(|r| (r, None)),
        };
        let (mut response, stream) = match sent {
            Ok(sent) => sent,
            Err(error) if is_request_s(error.as_ref()) || turn.is_spoiled(Instant::now()) => {
                return Err(Fault::Client(problem(
                    StatusCode::BAD_REQUEST,
                    "the request cannot be passed on, or was broken off",
                )));
            }
            // The failure is this process's, and the arm did not get the request.
            Err(error) if is_ours(error.as_ref()) => {
                return Err(Fault::Client(problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many connections at once",
                )));
            }
            Err(_) => {
                return Err(Fault::Arm(problem(
                    StatusCode::BAD_GATEWAY,
                    "the backend does not answer",
                )));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_side) = client_side else {
                return Err(Fault::Arm(problem(
                    StatusCode::BAD_GATEWAY,
                    "the backend switched protocols without being asked",
                )));
            };
            let target_side = hyper::upgrade::on(&mut response);
            // From here on it is a tunnel, such as a WebSocket. While it is silent it
            // counts as idle, as a connection without a request does.
            let (in_flight, room, flow) = counted;
            drop(flow);
            let tunnel = Tunnel {
                client: client_side,
                backend: target_side,
                counted: (in_flight, room),
            };
            return Ok(Passed::Tunnel(response, Box::new(tunnel)));
        }
        strip(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(Passed::Answer(response, (counted, stream)))
    }

    /// Rewrites a request for its backend.
    fn prepare(
        &self,
        request: &mut Request<Incoming>,
        way: Way<'_>,
        upgrade: Option<&HeaderValue>,
    ) -> Result<(), String> {
        let backend = way.upstream.address.clone().into_parts();
        // HTTP/2 has the host in a field of its own (RFC 9113, 8.3.1).
        let authority = match &way.host {
            Some(host) if self.http2 => Some(host.clone()),
            _ => backend.authority,
        };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = backend.scheme;
        parts.authority = authority;
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
        headers.remove(HOST);
        if let Some(host) = way.host.filter(|_| !self.http2) {
            let host = HeaderValue::from_str(host.as_str()).map_err(|e| e.to_string())?;
            headers.insert(HOST, host);
        }
        // HTTP/2 may split cookies over several fields; HTTP/1.1 has one.
        if let Some(cookies) = joined(headers, &COOKIE, "; ") {
            headers.insert(COOKIE, cookies);
        }
        // A socket for both families shows a client with IPv4 as one with IPv6.
        let peer = way.peer.ip().to_canonical();
        if let Ok(hop) = HeaderValue::from_str(&peer.to_string()) {
            headers.append(FORWARDED_FOR, hop);
        }
        if let Some(path) = joined(headers, &FORWARDED_FOR, ", ") {
            headers.insert(FORWARDED_FOR, path);
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        Ok(())
    }
}

/// From whom a request comes, and where it goes.
struct Way<'a> {
    peer: SocketAddr,
    /// The host that the client asked for.
    host: Option<Authority>,
    upstream: &'a Upstream,
}

/// What is counted until the answer has ended, because the connection to the arm is
/// open until then.
type Counted = (InFlight, OwnedSemaphorePermit, Flow);

/// What an arm sent back.
enum Passed {
    /// The head of an answer.
    Answer(Response<Incoming>, (Counted, Option<Stream>)),
    /// Its consent to another protocol, and the ends of what follows.
    Tunnel(
        Response<Incoming>,
        Box<Tunnel<(InFlight, OwnedSemaphorePermit)>>,
    ),
}

/// Who caused an answer with which the proxy replaces the arm's.
enum Fault {
    /// The arm: it counts as an error.
    Arm(Response<Body>),
    /// The client: it does not count for the arm, neither as good nor as bad.
    Client(Response<Body>),
}

/// The host that a request is for. It has exactly one (RFC 9112, section 3.2; RFC 9113,
/// section 8.3.1): servers behind might choose another one than this balancer.
fn host_of<B>(request: &Request<B>) -> Result<Option<Authority>, &'static str> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err("the request has more than one Host");
    }
    let named = request.uri().authority();
    let host = match field {
        None if request.version() == Version::HTTP_11 => return Err("the request has no Host"),
        None => return Ok(named.cloned()),
        // An absolute form may come with an empty one.
        Some(value) if value.is_empty() => return Ok(named.cloned()),
        Some(value) => Authority::try_from(value.as_bytes()),
    };
    let host = host.map_err(|_| "the Host of the request is not a host")?;
    if host.as_str().contains('@') {
        return Err("the Host of the request is not a host");
    }
    match named {
        // The address in the request line counts (RFC 9112, section 3.2.2).
        Some(named) if request.version() < Version::HTTP_2 => Ok(Some(named.clone())),
        Some(named) if !named.as_str().eq_ignore_ascii_case(host.as_str()) => {
            Err("the request names two different hosts")
        }
        _ => Ok(Some(host)),
    }
}

/// Whether the request itself cannot be written, to whatever backend.
fn is_request_s(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_user() && !never_left(error))
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Whether a connection failed because this process or machine lacks descriptors
/// or local ports.
fn is_ours(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustix::io::Errno;
    let own = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
    ];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if code.is_some_and(|code| own.iter().any(|own| own.raw_os_error() == code)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The protocol that the client wants to switch to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(CONNECTION)?.to_str().ok()?;
    let asks = wanted
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(UPGRADE).cloned())?
}

/// Removes the headers that belong to one connection, those that it names too.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        // The host header stays even if `connection` names it.
        .filter(|name| *name != HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// All fields of one name, joined.
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

fn problem(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::from(format!("{message}\n")).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
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
