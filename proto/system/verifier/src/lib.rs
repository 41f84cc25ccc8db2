//! Verifies servers' certificates by authorities that are files; see the README for why it stands in for the published crate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Trusts the system's authorities, as they were when it was made.
#[derive(Debug)]
pub struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// Trusts the system's authorities.
    ///
    /// # Errors
    /// If there is not one.
    pub fn new(provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        Self::new_with_extra_roots([], provider)
    }

    /// Trusts the system's authorities and these.
    ///
    /// # Errors
    /// If one of these is no certificate, or if there is none at all.
    pub fn new_with_extra_roots(
        extra: impl IntoIterator<Item = CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in extra {
            roots.add(certificate)?;
        }
        // Systems carry certificates that no library reads: one of them must not be the end of all connections.
        let (_, ignored) = roots.add_parsable_certificates(of_system());
        if ignored > 0 {
            tracing::debug!(ignored, "the system has certificate authorities that cannot be read");
        }
        if roots.is_empty() {
            let lacking = "this system has no certificate authorities: install them (Debian, Ubuntu: `apt-get install ca-certificates`), or name \
                           a file of them in `SSL_CERT_FILE`";
            return Err(Error::General(lacking.into()));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        Ok(Self { inner: inner.map_err(|error| Error::General(error.to_string()))? })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(target_vendor = "apple")]
fn of_system() -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    let pem = kiln_system::authorities();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
}

#[cfg(not(target_vendor = "apple"))]
fn of_system() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "certificate authorities cannot be read");
    }
    found.certs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn verify(verifier: &Verifier, certificate: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn an_authority_of_ones_own_is_trusted_beside_the_systems_and_for_the_servers_name_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut of_authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = of_authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(of_authority, key);
        let own = rcgen::KeyPair::generate().unwrap();
        let of_server = rcgen::CertificateParams::new(vec!["farm.example".to_owned()]).unwrap();
        let server = of_server.signed_by(&own, &issuer).unwrap();
        let with = Verifier::new_with_extra_roots([authority.der().clone()], provider()).unwrap();
        verify(&with, server.der(), "farm.example").unwrap();
        let wrong = verify(&with, server.der(), "other.example").unwrap_err();
        assert!(matches!(wrong, Error::InvalidCertificate(_)), "{wrong}");
        if let Ok(without) = Verifier::new(provider()) {
            let unknown = verify(&without, server.der(), "farm.example").unwrap_err();
            assert!(matches!(unknown, Error::InvalidCertificate(_)), "{unknown}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        Verifier::new_with_extra_roots([CertificateDer::from(vec![1, 2, 3])], provider()).unwrap_err();
    }
}
