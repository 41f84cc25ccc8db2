//! Public keys: ECDSA with P-256 and SHA-256, and Ed25519.
//!
//! Sources: RFC 5480 (P-256), RFC 8410 (Ed25519): both have exactly one encoding as `SubjectPublicKeyInfo` that ends with the point, so
//! that a fixed beginning recognises them.

use std::fmt;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::{Error, base64};

const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Length of an uncompressed point, which begins with 4.
const POINT_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;
const LINE: usize = 64;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with the curve P-256 and SHA-256; a signature is DER.
    EcdsaP256,
    /// Ed25519; a signature is 64 bytes.
    Ed25519,
}

impl Algorithm {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// `SubjectPublicKeyInfo` in DER.
    der: Vec<u8>,
    id: String,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm.name(), self.id)
    }
}

impl PublicKey {
    /// From its `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// [`Error::Unsupported`], if it is of another kind.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let p256 = der.strip_prefix(P256).filter(|point| point.len() == POINT_BYTES && point.first() == Some(&4));
        let ed25519 = der.strip_prefix(ED25519).filter(|key| key.len() == ED25519_BYTES);
        let algorithm = match (p256, ed25519) {
            (Some(_), _) => Algorithm::EcdsaP256,
            (_, Some(_)) => Algorithm::Ed25519,
            _ => return Err(Error::Unsupported("it is of another kind, or compressed".to_owned())),
        };
        Ok(Self { algorithm, der: der.to_vec(), id: hex::encode(Sha256::digest(der)) })
    }

    /// From a PEM block `PUBLIC KEY`.
    ///
    /// # Errors
    /// If there is none, or it is unsupported.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|error| {
            Error::malformed("public key", format!("{error}; expected PEM with `BEGIN PUBLIC KEY`"))
        })?;
        Self::from_der(&der)
    }

    pub(crate) fn of_point(algorithm: Algorithm, point: &[u8]) -> Result<Self, Error> {
        let prefix = if algorithm == Algorithm::EcdsaP256 { P256 } else { ED25519 };
        Self::from_der(&[prefix, point].concat())
    }

    /// As a PEM block.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }

    /// SHA-256 of its DER, in hex.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether its owner signed this message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (prefix, algorithm): (&[u8], &dyn VerificationAlgorithm) = match self.algorithm {
            Algorithm::EcdsaP256 => (P256, &signature::ECDSA_P256_SHA256_ASN1),
            Algorithm::Ed25519 => (ED25519, &signature::ED25519),
        };
        let point = self.der.strip_prefix(prefix).unwrap_or_default();
        UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
    }
}

/// A PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = base64::encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(LINE) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
