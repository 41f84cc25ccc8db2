//! Join tokens: what a worker needs to become a member of a farm, and to distinguish the farm from an impostor.
//!
//! Form: `kiln-join.FINGERPRINT.SECRET`. The fingerprint is the SHA-256, in hex, of the certificate of the farm's
//! authority, which the coordinator sends at the end of its chain.
//! Invariant: the secret is only sent to a coordinator whose chain leads to the authority with that fingerprint.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PREFIX: &str = "kiln-join";
/// How long each address of a name may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a token cannot be used, or not with this farm.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid join token; expected `kiln-join.…` as printed by `kiln farm init` and `kiln farm token --join`")]
    Malformed,
    #[error("invalid URL to join at: `{url}`; expected `https://HOST:PORT`")]
    Address { url: String },
    #[error("cannot reach the farm at `{url}` to join it: {reason}")]
    Unreachable { url: String, reason: String },
    #[error(
        "the coordinator at `{url}` does not belong to the farm that the join token is for: none of its certificates has the authority's fingerprint"
    )]
    Impostor { url: String },
}

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    fingerprint: String,
    secret: String,
}

impl Token {
    /// A token for the farm with this authority.
    pub fn new(authority: &CertificateDer<'_>, secret: String) -> Self {
        Self { fingerprint: fingerprint(authority), secret }
    }

    /// The part that the coordinator checks.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.fingerprint, self.secret)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, fingerprint, secret] = parts[..] else { return Err(Error::Malformed) };
        let is_hash = fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hash || secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Malformed);
        }
        Ok(Self { fingerprint: fingerprint.to_ascii_lowercase(), secret: secret.to_owned() })
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate))
}

/// The authority of the farm at `url`, in PEM: the certificate with the token's fingerprint. Only a handshake is sent;
/// a second connection that trusts this authority is sure to reach the farm.
///
/// # Errors
/// If the server does not respond, or belongs to another farm.
pub async fn authority(url: &str, token: &Token) -> Result<String, Error> {
    let chain = chain(url).await?;
    let authority = chain.iter().find(|certificate| fingerprint(certificate) == token.fingerprint);
    authority.map(|certificate| pem(certificate)).ok_or_else(|| Error::Impostor { url: url.to_owned() })
}

/// The certificates that the server at `url` presents, its own first. None of them is trusted by that.
///
/// # Errors
/// If the server does not respond, or does not speak TLS.
pub async fn chain(url: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreachable = |reason: String| Error::Unreachable { url: url.to_owned(), reason };
    let bad = || Error::Address { url: url.to_owned() };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("grpcs://")).ok_or_else(bad)?;
    let address = rest.trim_end_matches('/');
    let host = address.rsplit_once(':').ok_or_else(bad)?.0.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| bad())?;
    let seen = Arc::new(Seen { provider: Arc::new(rustls::crypto::ring::default_provider()), chain: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(seen.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(address).await.map_err(|error| unreachable(error.to_string()))?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    if chain.is_empty() {
        let reason = shaken.err().map_or_else(|| "it presented no certificate".to_owned(), |error| error.to_string());
        return Err(unreachable(reason));
    }
    Ok(chain)
}

/// Connects to the first of a name's addresses that accepts it: one of several coordinators may be gone without a word.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Records a server's chain without trusting it: it is compared with the fingerprint before anything is sent.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(intermediates).map(|one| one.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_keeps_its_secret() {
        let token = Token::new(&CertificateDer::from(vec![1, 2, 3]), "kiln_xyz".into());
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert!(!format!("{token:?}").contains("xyz"), "expected no secret in {token:?}");
        for bad in ["", "kiln-join", "kiln-join.12.x", "kiln-join..", "other.0.x", "kiln-join.é.x"] {
            assert!(bad.parse::<Token>().is_err(), "expected `{bad}` to be none");
        }
    }
}
