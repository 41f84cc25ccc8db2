//! Accepts any client certificate whose key the client has; the gate decides whether it is valid.
//!
//! With TLS 1.3, a client learns of a refused handshake only when its first call fails, often without a reason. So the
//! handshake only proves possession of the key. The gate verifies the chain before any call and reports what is wrong
//! with it.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// The verifier of the farm's authorities.
pub(super) type Authorities = Arc<dyn ClientCertVerifier>;

/// Accepts every chain and leaves its verification to the gate.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Authorities);

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Empty, so that a client with several certificates sends one anyway and learns what is wrong with it.
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

/// Verifies a chain with the farm's authorities.
///
/// # Errors
/// Why the chain is not accepted.
pub(super) fn verify(authorities: &Authorities, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let Some((certificate, others)) = chain.split_first() else {
        return Err("the client has no certificate".to_owned());
    };
    let Err(error) = authorities.verify_client_cert(certificate, others, UnixTime::now()) else { return Ok(()) };
    Err(match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the client's certificate has expired; get a new one".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the client's certificate is not valid yet; is the coordinator's clock right?".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the client's certificate is not signed by the farm's authority".to_owned()
        }
        other => format!("cannot use the client's certificate: {other}"),
    })
}
