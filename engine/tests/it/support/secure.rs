//! Servers at any address, with TLS or without, over HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::registry::server::Authority;

/// Shows the certificate of the authority's `localhost`.
pub fn acceptor(authority: &Authority, protocols: &[&str]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(authority.file("server.pem"));
    let key = PrivateKeyDer::from_pem_file(authority.file("server.key"));
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
        .expect("a certificate");
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// What it was asked, as JSON; `/broken` is answered with 500.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|v| v.to_str().ok()).map(ToOwned::to_owned)
    };
    let seen = serde_json::json!({
        "version": format!("{:?}", request.version()),
        "uri": request.uri().to_string(),
        "host": header("host"),
        "for": header("x-forwarded-for"),
    });
    let status = if request.uri().path() == "/broken" {
        500
    } else {
        200
    };
    let answer = Response::builder().status(status);
    Ok(answer.body(Full::from(seen.to_string())).expect("valid"))
}

/// Listens there until the test ends.
pub async fn serve(address: &str, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind(address).await.expect("free");
    let bound = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                let answer = service_fn(answer);
                let _ = match tls {
                    None => http.serve_connection(TokioIo::new(stream), answer).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => http.serve_connection(TokioIo::new(stream), answer).await,
                        Err(_) => Ok(()),
                    },
                };
            });
        }
    });
    bound
}
