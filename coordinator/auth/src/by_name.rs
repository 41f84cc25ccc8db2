//! Which of two certificates a client is shown: the operator's, or the farm's own.
//!
//! People may trust a public authority, while workers join a farm whose own authority their token names. So a client that
//! asks (by SNI, RFC 6066) for a name that only the farm's certificate has is shown that one, and everyone else the operator's.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Two certificates of one server.
#[derive(Debug)]
pub struct ByName {
    /// The operator's.
    pub first: Arc<CertifiedKey>,
    /// The farm's own.
    pub own: Arc<CertifiedKey>,
}

impl ByName {
    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let has = |key: &CertifiedKey| name.is_some_and(|name| names(key, name));
        if has(&self.own) && !has(&self.first) { &self.own } else { &self.first }
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).clone())
    }
}

/// Whether a certificate is for this name.
fn names(key: &CertifiedKey, name: &str) -> bool {
    key.cert.first().is_some_and(|leaf| is_for(leaf, name))
}

/// The same of its first part.
pub(super) fn is_for(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certified(names: &[&str]) -> Arc<CertifiedKey> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(CertifiedKey::from_der(vec![made.der().clone()], private, &provider).unwrap())
    }

    #[test]
    fn the_farms_own_is_shown_for_names_that_only_it_has() {
        let both = ByName {
            first: certified(&["farm.example", "*.builds.example"]),
            own: certified(&["kiln-coordinator", "farm.example", "localhost"]),
        };
        for (name, own) in [
            (Some("kiln-coordinator"), true),
            (Some("localhost"), true),
            (Some("farm.example"), false),
            (Some("a.builds.example"), false),
            (Some("elsewhere.example"), false),
            (Some("not a name"), false),
            (None, false),
        ] {
            assert_eq!(Arc::ptr_eq(both.of(name), &both.own), own, "{name:?}");
        }
    }
}
