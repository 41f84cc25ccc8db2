//! The signatures of tokens are verified by `ring`, which also does TLS here, instead of a second set of cryptographic
//! crates.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, signature};
use ring::signature::{self as ring_signature, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Verifier::new(*algorithm, key)?)),
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` verify with `ring`. Every call after the first one of a process does nothing.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

/// Verifies signatures of one algorithm (RFC 7518, section 3; RFC 8037) under one key.
struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier {
    /// Fails if the key's family is not the algorithm's, and for an algorithm whose verifiers could also sign.
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        Ok(Self { algorithm, key: key.clone() })
    }

    fn is_valid(&self, message: &[u8], signed: &[u8]) -> Result<(), ring::error::Unspecified> {
        let rsa = |parameters: &'static RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            DecodingKeyKind::SecretOrDer(der) => UnparsedPublicKey::new(parameters, der).verify(message, signed),
        };
        let curve = |algorithm: &'static dyn ring_signature::VerificationAlgorithm| match self.key.kind() {
            DecodingKeyKind::SecretOrDer(point) => UnparsedPublicKey::new(algorithm, point).verify(message, signed),
            DecodingKeyKind::RsaModulusExponent { .. } => Err(ring::error::Unspecified),
        };
        match self.algorithm {
            Algorithm::RS256 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => curve(&ring_signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => curve(&ring_signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => curve(&ring_signature::ED25519),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Err(ring::error::Unspecified),
        }
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        self.is_valid(message, signed).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
