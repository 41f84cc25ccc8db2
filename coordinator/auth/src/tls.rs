//! TLS on the coordinator's port: certificates are replaced at run time, and slow handshakes do not block other clients.
//!
//! Invariant: slow or silent clients, however many, cost a bounded number of slots for a bounded time and block no
//! other client: if all slots are taken, the oldest of the address with the most is dropped.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::by_name::{self, ByName};
use super::shown::{Authorities, Shown};
use super::waiting::{Place, Waiting};
use super::{Error, authority};
use crate::peers::Peer;
use kiln_state::Watched;

/// Time limit for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit while more than half of the slots are taken.
const HANDSHAKE_TIMEOUT_UNDER_LOAD: Duration = Duration::from_secs(2);
/// Maximum number of connections that have not sent a greeting yet.
const SILENT: usize = 1024;
/// Maximum number of handshakes in progress.
const HANDSHAKES: usize = 512;
/// Pause after the system refuses a connection, for example because of too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// The ALPN protocol (RFC 7301) for gRPC.
pub const HTTP_2: &[&[u8]] = &[b"h2"];
/// The ALPN protocol for webhooks.
pub const HTTP_1: &[&[u8]] = &[b"http/1.1"];
/// The ALPN protocols for browsers.
pub const HTTP_2_OR_1: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The coordinator's own certificate, and the authorities of client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its certificate chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The farm's own certificate chain and its key, if the certificate above is another: shown for names that only it has.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Authorities for client certificates, in PEM; without them no client certificate is requested.
    pub client_ca: Option<PathBuf>,
    /// ALPN protocols.
    pub protocols: &'static [&'static [u8]],
}

impl Files {
    fn all(&self) -> Vec<PathBuf> {
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        [&self.certificate, &self.key].into_iter().chain(own).chain(&self.client_ca).cloned().collect()
    }

    /// A host that the farm's own certificate is shown for.
    ///
    /// # Errors
    /// If the certificates cannot be read, or there is no such host.
    pub fn own_host(&self) -> Result<String, Error> {
        let path = self.own.as_ref().map_or(&self.certificate, |(certificate, _)| certificate);
        let wrong = |reason: &str| Error::File { path: path.clone(), reason: reason.to_owned() };
        let hosts: Vec<String> = certificates(path)?.first().map(authority::hosts).unwrap_or_default();
        if self.own.is_none() {
            return hosts.into_iter().next().ok_or_else(|| wrong("the certificate is for no host"));
        }
        let operators = certificates(&self.certificate)?;
        let is_operators = |host: &String| operators.first().is_some_and(|first| by_name::is_for(first, host));
        hosts.into_iter().find(|host| !is_operators(host)).ok_or_else(|| {
            wrong("each of its hosts is in the operator's certificate as well, which is shown for it; add one (`kiln farm renew --host`)")
        })
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn check(&self) -> Result<(), Error> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<Served, Error> {
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            move |reason: &dyn std::fmt::Display| Error::File { path, reason: reason.to_string() }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.certificate)(&error))?;
        let mut authorities = None;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|error| wrong(path)(&error))?;
                }
                // Clients without a certificate are let in too: they may have a token, or ask for a certificate.
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).allow_unauthenticated();
                let verifier: Authorities = verifier.build().map_err(|error| wrong(path)(&error))?;
                authorities = Some(verifier.clone());
                builder.with_client_cert_verifier(Arc::new(Shown(verifier)))
            }
        };
        let first = certified(&self.certificate, &self.key, &provider)?;
        let mut config = match &self.own {
            None => builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(first))),
            Some((certificate, key)) => {
                let own = certified(certificate, key, &provider)?;
                builder.with_cert_resolver(Arc::new(ByName { first: first.into(), own: own.into() }))
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Served { config: Arc::new(config), authorities })
    }
}

/// What new connections are served with.
#[derive(Debug, Clone)]
pub struct Served {
    config: Arc<ServerConfig>,
    /// Verifies client certificates after the handshake.
    pub(super) authorities: Option<Authorities>,
}

/// A certificate with its key, which must fit.
fn certified(certificate: &PathBuf, key: &PathBuf, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let wrong = |path: &PathBuf, reason: String| Error::File { path: path.clone(), reason };
    let chain = certificates(certificate)?;
    let read = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    CertifiedKey::from_der(chain, read, provider).map_err(|error| wrong(certificate, error.to_string()))
}

/// The certificates in a file, of which there is at least one.
pub(crate) fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |reason: String| Error::File { path: path.clone(), reason };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if read.is_empty() { Err(wrong("it contains no PEM certificate".to_owned())) } else { Ok(read) }
}

/// Reads the files, and again whenever they change; later connections use the new ones. New files that cannot be used
/// are ignored.
///
/// # Errors
/// If the files cannot be used at the start.
pub fn open(files: Files) -> Result<watch::Receiver<Served>, Error> {
    let watched = Watched::begin(files.all());
    let (sender, receiver) = watch::channel(files.load()?);
    tokio::spawn(watched.follow(move || {
        sender.send_replace(files.load()?);
        tracing::info!(certificate = %files.certificate.display(), "reloaded certificates");
        Ok::<_, Error>(!sender.is_closed())
    }));
    Ok(receiver)
}

/// Connections with a completed handshake.
pub fn incoming(
    listener: TcpListener,
    served: watch::Receiver<Served>,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let (silent, shaking) = (Waiting::new(SILENT), Waiting::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let peer = Peer::of(address);
            let place = silent.enter(peer);
            let (sender, shaking, config) = (sender.clone(), shaking.clone(), served.borrow().config.clone());
            let timeout = if silent.is_pressed() { HANDSHAKE_TIMEOUT_UNDER_LOAD } else { HANDSHAKE_TIMEOUT };
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let greeted = unless(place, timeout, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
                let Some(greeted) = greeted else { return };
                let place = shaking.enter(peer);
                let timeout = if shaking.is_pressed() { HANDSHAKE_TIMEOUT_UNDER_LOAD } else { HANDSHAKE_TIMEOUT };
                if let Some(stream) = unless(place, timeout, greeted.into_stream(config)).await {
                    let _ = sender.send(Ok(stream)).await;
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

/// Runs a step of a client's handshake within its time limit, and while no other client needs its slot.
async fn unless<T>(place: Place, timeout: Duration, step: impl Future<Output = io::Result<T>>) -> Option<T> {
    tokio::select! {
        done = tokio::time::timeout(timeout, step) => match done {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a handshake timed out");
                None
            }
        },
        () = place.lost() => {
            tracing::debug!("dropped a slow handshake in favour of another client");
            None
        }
    }
}
