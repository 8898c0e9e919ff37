//! Whose certificates a connection trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Largest file of certificates, bytes.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

/// Every way to sign that a server may have a key for.
const EVERY_SCHEME: [SignatureScheme; 13] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

/// Whose certificates count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those of the authorities that this machine trusts, and of those in that file (PEM).
    Machine(Option<PathBuf>),
    /// Everybody's: the connection is encrypted, and nobody says with whom. So do load
    /// balancers on AWS speak to their targets.
    Anybody,
    /// Those of the authorities in a file (PEM), and of no others.
    Authority {
        /// The file.
        file: PathBuf,
        /// Whether a certificate must also be made for the host that is asked.
        names: bool,
    },
}

/// The certificates (PEM) in a file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    // Reading a pipe or a device might never end.
    match std::fs::metadata(file) {
        Ok(meta) if !meta.is_file() || meta.len() > CERTIFICATES_BYTES_MAX => {
            return Err(format!("{shown} is not a file of certificates"));
        }
        Ok(_) => {}
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    }
    let pem = std::fs::read(file).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{shown} has no certificates in PEM")),
    }
}

/// How a client speaks TLS.
///
/// # Errors
/// The file of an authority cannot be used. Where a file only adds to what the machine
/// trusts, one that cannot be used adds nothing: `main` has said so.
pub fn client(trust: &Trust) -> Result<ClientConfig, String> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    // ring has every suite of the default protocol versions, so this cannot fail.
    let builder = ClientConfig::builder_with_provider(ring.clone())
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|e| unreachable!("{e}"));
    let mut roots = RootCertStore::empty();
    let checks = match trust {
        Trust::Machine(more) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if let Some(Ok(more)) = more.as_deref().map(certificates) {
                roots.add_parsable_certificates(more);
            }
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        Trust::Anybody => None,
        Trust::Authority { file, names } => {
            let given = certificates(file)?;
            if roots.add_parsable_certificates(given).0 == 0 {
                return Err(format!(
                    "{} has no certificate of an authority",
                    file.display()
                ));
            }
            if *names {
                return Ok(builder.with_root_certificates(roots).with_no_client_auth());
            }
            let checks = WebPkiServerVerifier::builder_with_provider(roots.into(), ring.clone());
            Some(
                checks
                    .build()
                    .map_err(|e| format!("{}: {e}", file.display()))?,
            )
        }
    };
    let lenient = Lenient { checks, ring };
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(lenient));
    Ok(builder.with_no_client_auth())
}

/// Takes certificates whatever host they are made for, from an authority or from anybody.
#[derive(Debug)]
struct Lenient {
    checks: Option<Arc<WebPkiServerVerifier>>,
    ring: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(checks) = &self.checks else {
            return Ok(ServerCertVerified::assertion());
        };
        match checks.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            // The name is compared last, so all the rest is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.checks.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let known = &self.ring.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.checks.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let known = &self.ring.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.checks {
            Some(_) => self
                .ring
                .signature_verification_algorithms
                .supported_schemes(),
            // Nothing is verified, so a server may sign with what ring does not know.
            None => EVERY_SCHEME.to_vec(),
        }
    }
}
