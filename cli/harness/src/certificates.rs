//! Certificates trusted only by the tests, generated for each.

use tempfile::TempDir;

/// An authority and a certificate for 127.0.0.1 and `localhost`: `ca.pem`, `server.pem`, `server.key`.
pub fn certificates() -> TempDir {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let dir = tempfile::tempdir().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("server.pem"), server.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(dir.path().join("server.key"), key.serialize_pem()).unwrap();
    dir
}
