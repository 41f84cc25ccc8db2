//! Private keys, in PKCS#8.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::Error;
use crate::key::{Algorithm, PublicKey, pem};

enum Pair {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
    der: Zeroizing<Vec<u8>>,
    random: SystemRandom,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id())
    }
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let made = match algorithm {
            Algorithm::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
            Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
        };
        Self::from_der(made.map_err(|_| Error::Signing("a system without random numbers"))?.as_ref())
    }

    /// From PKCS#8 in DER.
    ///
    /// # Errors
    /// If it is malformed or unsupported.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let (pair, algorithm, point) = match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random) {
            Ok(pair) => {
                let point = pair.public_key().as_ref().to_vec();
                (Pair::EcdsaP256(pair), Algorithm::EcdsaP256, point)
            }
            Err(refused) => {
                // RFC 8410 allows a key without its public half, which OpenSSL writes.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                    .map_err(|_| Error::Unsupported(format!("no PKCS#8 of a supported kind ({refused})")))?;
                let point = pair.public_key().as_ref().to_vec();
                (Pair::Ed25519(pair), Algorithm::Ed25519, point)
            }
        };
        let public = PublicKey::of_point(algorithm, &point)?;
        Ok(Self { pair, public, der: Zeroizing::new(der.to_vec()), random })
    }

    /// From a PEM block `PRIVATE KEY`.
    ///
    /// # Errors
    /// If there is none, or it is unsupported.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
            Error::malformed("private key", format!("{error}; expected unencrypted PKCS#8 in PEM, `BEGIN PRIVATE KEY`"))
        })?;
        Self::from_der(der.secret_pkcs8_der())
    }

    /// As a PEM block.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", &self.der))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => {
                let signed = pair.sign(&self.random, message);
                Ok(signed.map_err(|_| Error::Signing("a system without random numbers"))?.as_ref().to_vec())
            }
        }
    }
}
