//! Takes whatever certificate a client shows, if it has the key to it; whether the certificate is worth anything is the gate's to find out.
//!
//! With TLS 1.3 a client learns of a refused handshake only when its first call fails, and often without a reason. So the handshake proves
//! that the client has the key, and the gate checks the chain before any call is let through, and says what is wrong with it.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// The verifier of the farm's authorities.
pub(super) type Authorities = Arc<dyn ClientCertVerifier>;

/// Leaves the chain to the gate.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Authorities);

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client with several certificates shows the one that it has, and hears what is wrong with it.
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

/// Checks a chain against the farm's authorities.
///
/// # Errors
/// In words.
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
            "the client's certificate is signed by another authority than the farm's".to_owned()
        }
        other => format!("the client's certificate cannot be used: {other}"),
    })
}
