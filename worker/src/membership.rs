//! The worker's own certificate: obtained with a join token, stored in the state directory, renewed before it expires.
//!
//! Invariant: the key is created here and never leaves this machine, and the token is sent only to a coordinator whose
//! authority has the fingerprint in the token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_proto::channel::{self, Access};
use kiln_proto::join;
use kiln_proto::v1::membership_client::MembershipClient;
use kiln_proto::v1::{JoinRequest, RenewRequest};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::link::Backoff;

/// Pause before a failed renewal is retried.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// How long a coordinator may take to show its certificates.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// The file of the key that the worker joins with, until it has joined.
const FIRST_KEY: &str = "joining.key";

/// Why a worker has no certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot store the worker's certificate in `{}`", .path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Token(#[from] join::Error),
    #[error(transparent)]
    Channel(#[from] channel::Error),
    #[error("cannot create a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("cannot reach the farm at `{url}` to join it: {reason}")]
    Away { url: String, reason: String },
    #[error("worker `{worker}` was refused: {reason}")]
    Refused { worker: String, reason: String },
    #[error("cannot read the certificate that the farm issued for this worker")]
    Unreadable,
}

impl Error {
    /// Whether the farm was unavailable, so that a retry may succeed.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Token(join::Error::Unreachable { .. }))
            || matches!(self, Self::Channel(error) if error.is_away())
    }
}

/// A worker's membership of a farm.
#[derive(Debug, Clone)]
pub struct Membership {
    directory: PathBuf,
    url: String,
}

impl Membership {
    /// Like [`open_once`](Self::open_once), but retries while the farm cannot be reached: it may be started after its
    /// workers.
    ///
    /// # Errors
    /// If the coordinator rejects the token or cannot be trusted.
    pub async fn open(
        state: &Path,
        url: &str,
        worker: &str,
        token: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let mut pause = Backoff::default();
        loop {
            match Self::open_once(state, url, worker, token).await {
                Err(error) if error.may_pass() => {
                    if pause.is_fresh() {
                        tracing::warn!(%error, "cannot join the farm yet; retrying");
                    }
                    tokio::select! {
                        () = pause.wait() => {}
                        () = stop.cancelled() => return Err(error),
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Opens the membership stored in `state`, or else joins with the token. `None` if there is neither.
    async fn open_once(state: &Path, url: &str, worker: &str, token: Option<&str>) -> Result<Option<Self>, Error> {
        let membership = Self { directory: state.join("membership"), url: url.to_owned() };
        if membership.left().is_ok_and(|left| !left.is_zero()) {
            return Ok(Some(membership));
        }
        let Some(token) = token else { return Ok(None) };
        let token: join::Token = token.parse()?;
        let authority = authority(url, &token).await?;
        membership.keep("ca.pem", authority.as_bytes())?;
        let (key, request) = membership.first_key()?;
        let access = Access { ca: Some(membership.path("ca.pem")), ..Access::default() };
        let mut client = MembershipClient::new(channel::connect(url, &access).await?);
        let asked =
            JoinRequest { token: token.secret().to_owned(), worker: worker.to_owned(), certificate_request: request };
        let refused = |status: tonic::Status| {
            let reason = status.message().to_owned();
            match status.code() {
                Code::Unavailable | Code::Unknown | Code::Cancelled => Error::Away { url: url.to_owned(), reason },
                _ => Error::Refused { worker: worker.to_owned(), reason },
            }
        };
        let answer = client.join(asked).await.map_err(refused)?.into_inner();
        membership.keep_pair(&key, &answer.chain)?;
        let _ = std::fs::remove_file(membership.path(FIRST_KEY));
        tracing::info!(worker, url, "joined the farm");
        Ok(Some(membership))
    }

    /// The key that the worker joins with. It is kept until it has a certificate: if the farm's answer is lost, the
    /// farm recognises the repeated request by the key.
    fn first_key(&self) -> Result<(KeyPair, String), Error> {
        let kept = std::fs::read_to_string(self.path(FIRST_KEY)).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = match kept {
            Some(key) => key,
            None => {
                let key = KeyPair::generate()?;
                self.keep(FIRST_KEY, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let request = request(&key)?;
        Ok((key, request))
    }

    /// The credentials that the worker presents.
    pub fn access(&self) -> Access {
        Access {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("worker.pem")),
            key: Some(self.path("worker.pem")),
            token_file: None,
        }
    }

    /// Renews the certificate at half of its lifetime, until `stop`.
    pub async fn renew(self, stop: CancellationToken) {
        let mut wait = self.left().unwrap_or_default() / 2;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            wait = match self.renew_once().await {
                Ok(()) => {
                    tracing::info!("renewed the worker's certificate");
                    self.left().unwrap_or_default() / 2
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the worker's certificate yet; retrying");
                    RETRY_DELAY.min(self.left().unwrap_or_default() / 4).max(Duration::from_millis(500))
                }
            };
        }
    }

    async fn renew_once(&self) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        let request = request(&key)?;
        let mut client = MembershipClient::new(channel::connect(&self.url, &self.access()).await?);
        let refused =
            |status: tonic::Status| Error::Refused { worker: String::new(), reason: status.message().to_owned() };
        let answer = client.renew(RenewRequest { certificate_request: request }).await.map_err(refused)?.into_inner();
        self.keep_pair(&key, &answer.chain)
    }

    /// How long the stored certificate is still valid.
    fn left(&self) -> Result<Duration, Error> {
        let pem = std::fs::read(self.path("worker.pem")).map_err(|_| Error::Unreadable)?;
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| Error::Unreadable)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| Error::Unreadable)?;
        let end = u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_| Error::Unreadable)?;
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        Ok(end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Stores certificate and key in one file, so that both are replaced at once.
    fn keep_pair(&self, key: &KeyPair, chain: &str) -> Result<(), Error> {
        self.keep("worker.pem", format!("{chain}{}", key.serialize_pem()).as_bytes())
    }

    fn keep(&self, name: &str, data: &[u8]) -> Result<(), Error> {
        use std::io::Write;
        let path = self.path(name);
        let kept = (|| {
            std::fs::create_dir_all(&self.directory)?;
            // Readable only by this user from the start.
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(data)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        })();
        kept.map_err(|source| Error::Keep { path, source })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The authority of the farm, from the first of its coordinators that answers.
async fn authority(urls: &str, token: &join::Token) -> Result<String, Error> {
    let mut last = None;
    for url in channel::addresses(urls).map_err(channel::Error::from)? {
        let answer = tokio::time::timeout(FIRST_ANSWER, join::authority(&url, token)).await;
        let silent = || join::Error::Unreachable { url: url.clone(), reason: "it does not answer".to_owned() };
        match answer.unwrap_or_else(|_| Err(silent())) {
            Err(error @ join::Error::Unreachable { .. }) => last = Some(error),
            ended => return Ok(ended?),
        }
    }
    Err(last.unwrap_or_else(|| join::Error::Address { url: urls.to_owned() }).into())
}

fn request(key: &KeyPair) -> Result<String, Error> {
    Ok(CertificateParams::default().serialize_request(key)?.pem()?)
}
