//! The farm's own certificate authority: issues certificates that identify their holder, and reads them.
//!
//! The identity is in a URI among the certificate's alternative names: `kiln://identity/NAME?tenant=T&role=R&role=…`.
//! Sources: RFC 5280 (certificates), RFC 2986 (requests).
//! Invariant: of a certificate request, only the public key is used.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Identity, Role, check_name};

/// How far certificates are backdated, because the clocks of a farm's machines differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
const SCHEME: &str = "kiln://identity/";

/// Why no certificate could be issued.
#[derive(Debug, thiserror::Error)]
#[error("cannot issue a certificate: {0}")]
pub struct Error(String);

fn failed(error: impl std::fmt::Display) -> Error {
    Error(error.to_string())
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Made {
    /// The certificate, followed by the authority's.
    pub chain: String,
    /// The key.
    pub key: String,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The holder of a certificate.
#[derive(Debug, Clone)]
pub enum Subject<'a> {
    /// A coordinator with these host names and addresses.
    Server(&'a [String]),
    /// A person or a worker.
    Client(&'a Identity),
}

impl Authority {
    /// Creates an authority: its certificate and key in PEM.
    ///
    /// # Errors
    /// If no key can be created.
    pub fn create(name: &str, life: Duration) -> Result<Made, Error> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        valid_for(&mut params, life);
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Made { chain: certificate.pem(), key: key.serialize_pem() })
    }

    /// Opens an authority from its certificate and key in PEM.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn open(certificate: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(failed)?;
        Ok(Self { certificate: certificate.to_owned(), issuer })
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// If a name is invalid.
    pub fn issue(&self, subject: &Subject<'_>, life: Duration) -> Result<Made, Error> {
        let key = KeyPair::generate().map_err(failed)?;
        Ok(Made { chain: self.sign(subject, life, &key)?, key: key.serialize_pem() })
    }

    /// Issues a certificate for the key in a PEM request, after verifying the proof of possession.
    ///
    /// # Errors
    /// If the request is invalid.
    pub fn answer(&self, request: &str, subject: &Subject<'_>, life: Duration) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(request).map_err(failed)?;
        self.sign(subject, life, &request.public_key)
    }

    fn sign(&self, subject: &Subject<'_>, life: Duration, key: &impl PublicKeyData) -> Result<String, Error> {
        let mut params = match subject {
            Subject::Server(hosts) => {
                let mut params = CertificateParams::new(hosts.to_vec()).map_err(failed)?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.distinguished_name.push(DnType::CommonName, "kiln-coordinator");
                params
            }
            Subject::Client(identity) => {
                let mut params = CertificateParams::default();
                let uri = uri(identity).try_into().map_err(failed)?;
                params.subject_alt_names = vec![SanType::URI(uri)];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
                params
            }
        };
        let serial: [u8; 16] = rand::random();
        // Positive, and of full length.
        let serial: Vec<u8> = std::iter::once((serial[0] & 0x7f) | 0x40).chain(serial[1..].iter().copied()).collect();
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, life);
        let certificate = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(format!("{}{}", certificate.pem(), self.certificate))
    }
}

fn valid_for(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
}

fn uri(identity: &Identity) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if !identity.tenant.is_empty() {
        query.append_pair("tenant", &identity.tenant);
    }
    for role in &identity.roles {
        query.append_pair("role", role.name());
    }
    let more = [("pool", &identity.pool), ("family", &identity.family)];
    for (key, value) in more.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        query.append_pair(key, value);
    }
    format!("{SCHEME}{}?{}", identity.name, query.finish())
}

/// A certificate's fingerprint: SHA-256 of its DER, in hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate))
}

/// SHA-256 of a certificate's public key, in hex.
///
/// # Errors
/// If it is not a certificate.
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "cannot read the certificate".to_owned())?;
    Ok(hex::encode(Sha256::digest(parsed.public_key().raw)))
}

/// The hosts that a certificate is for, without patterns.
pub(crate) fn hosts(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Some(names) = parsed.subject_alternative_name().ok().flatten() else { return Vec::new() };
    let hosts = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    });
    hosts.filter(|host| !host.contains('*')).collect()
}

/// The identity of a certificate's holder. Signature and validity were checked when the connection was made.
///
/// # Errors
/// If it contains no identity.
pub fn identify(certificate: &CertificateDer<'_>) -> Result<Identity, String> {
    let unreadable = |_| "cannot read the client's certificate".to_owned();
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
    let nobody = || {
        format!(
            "the client's certificate (`{}`) contains no identity; `kiln farm certificate` issues one that does",
            parsed.subject()
        )
    };
    let names = parsed.subject_alternative_name().ok().flatten().ok_or_else(nobody)?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
        _ => None,
    });
    let (name, query) = uri.ok_or_else(nobody)?.split_once('?').ok_or_else(nobody)?;
    check_name("person or worker", name)?;
    let mut identity = Identity { name: name.to_owned(), roles: Default::default(), ..Identity::anonymous() };
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            // A program that uses the other value would see a different identity.
            "tenant" if identity.tenant.is_empty() => identity.tenant = value.into_owned(),
            "pool" if identity.pool.is_none() => identity.pool = Some(value.into_owned()),
            "family" if identity.family.is_none() => identity.family = Some(value.into_owned()),
            "role" if value == Role::Coordinator.name() => drop(identity.roles.insert(Role::Coordinator)),
            "role" => drop(identity.roles.insert(value.parse().map_err(|error: super::Unknown| error.to_string())?)),
            _ => return Err(nobody()),
        }
    }
    if !identity.tenant.is_empty() {
        check_name("tenant", &identity.tenant)?;
    }
    let serial = hex::encode(parsed.raw_serial());
    identity.family.get_or_insert_with(|| serial.clone());
    identity.serial = Some(serial);
    let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    identity.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(expires));
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::Role;

    fn authority() -> Authority {
        let made = Authority::create("test", Duration::from_secs(3600)).unwrap();
        Authority::open(&made.chain, &made.key).unwrap()
    }

    fn ann() -> Identity {
        let roles = [Role::Builder, Role::CacheWriter].into();
        Identity { name: "ann@example".into(), tenant: "shop-1".into(), roles, ..Identity::anonymous() }
    }

    #[test]
    fn a_certificate_says_who_it_is_for() {
        let made = authority().issue(&Subject::Client(&ann()), Duration::from_secs(60)).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        let read = identify(&certificate).unwrap();
        assert_eq!((&read.name, &read.tenant, &read.roles), (&ann().name, &ann().tenant, &ann().roles));
        assert!(read.serial.is_some_and(|serial| serial.len() == 32), "expected a serial number of 16 bytes");
        let left = read.expires.unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(60), "expected it to end in a minute, and not in {left:?}");
    }

    #[test]
    fn of_a_request_only_the_key_is_taken() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("kiln://identity/root?role=admin".try_into().unwrap())];
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let worker = Identity { name: "one".into(), roles: [Role::Worker].into(), ..Identity::anonymous() };
        let chain = authority().answer(&request, &Subject::Client(&worker), Duration::from_secs(60)).unwrap();
        let read = identify(&CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
        assert_eq!((read.name.as_str(), read.roles), ("one", [Role::Worker].into()));
        assert!(authority().answer("nothing", &Subject::Client(&worker), Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_renewed_certificate_is_of_its_first_ones_family_and_names_one_tenant() {
        let authority = authority();
        let read = |identity: &Identity| {
            let made = authority.issue(&Subject::Client(identity), Duration::from_secs(60)).unwrap();
            identify(&CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap())
        };
        let first = read(&ann()).unwrap();
        assert_eq!(first.family, first.serial);
        let second = read(&first).unwrap();
        let third = read(&second).unwrap();
        assert!(third.serial != first.serial && third.family == first.serial, "{third:?}");
        let mut revoked = crate::revoked::File::default();
        revoked.add_serial(first.serial.as_deref().unwrap());
        assert!(revoked.has(&first) && revoked.has(&third), "expected a renewal not to outlive its revocation");
        // A name that smuggles in a second tenant is invalid.
        let twice = Identity { name: "ann?tenant=bank&role=admin".into(), ..ann() };
        assert!(read(&twice).is_err());
    }

    #[test]
    fn a_certificate_that_is_for_a_server_is_nobodys() {
        let made = authority().issue(&Subject::Server(&["farm.example".into()]), Duration::from_secs(60)).unwrap();
        let refused = identify(&CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap()).unwrap_err();
        assert!(refused.contains("contains no identity"), "{refused}");
    }
}
