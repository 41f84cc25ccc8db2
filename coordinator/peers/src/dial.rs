//! How connections to other coordinators are made, and how many calls there may be.
//!
//! Invariant: with TLS, both ends show a certificate of the farm's authority. A coordinator issues itself one for each connection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kiln_auth::tls::Files;
use kiln_auth::{Authenticator, FarmKey, Role, authority};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::network::Network;

/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(3);
/// How often the other end is pinged, and how long its answer may take.
const PING: Duration = Duration::from_secs(3);
/// How long a certificate for a connection is valid. It is shown again whenever that connects again.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What connections and calls need.
#[derive(Debug)]
pub(crate) struct Dial {
    authenticator: Authenticator,
    /// What calls are sealed with.
    key: FarmKey,
    tls: Option<Tls>,
    network: Network,
    /// For the calls in progress.
    room: Arc<Semaphore>,
    most: usize,
}

/// What connections to other coordinators are verified with.
#[derive(Debug, Clone)]
struct Tls {
    /// A host that this coordinator's certificate is for: coordinators of one farm share it, wherever they run.
    host: String,
    authority: String,
}

/// Who calls when a coordinator calls on its own behalf.
pub fn myself() -> kiln_auth::Identity {
    kiln_auth::Identity {
        name: "coordinator".to_owned(),
        roles: [Role::Coordinator].into(),
        ..kiln_auth::Identity::anonymous()
    }
}

impl Dial {
    /// Over this network, with so many calls at a time; with TLS where the farm has these certificates.
    ///
    /// # Errors
    /// If coordinators could not authenticate each other.
    pub(crate) fn open(
        authenticator: Authenticator,
        key: FarmKey,
        files: Option<&Files>,
        network: Network,
        most: usize,
    ) -> anyhow::Result<Self> {
        let tls = files.map(|files| Tls::of(&authenticator, files)).transpose()?;
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Ok(Self { authenticator, key, tls, network, room, most })
    }

    pub(crate) fn key(&self) -> &FarmKey {
        &self.key
    }

    /// Room for a call.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if there are too many.
    pub(crate) fn room(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.room.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "this coordinator passes {} calls on to others, and no more at a time (`--max-connections`); try again when some have \
                 ended, or at another coordinator",
                self.most
            ))
        })
    }

    /// Connects to the coordinator at this URL when there are calls.
    ///
    /// # Errors
    /// If the URL or the certificates cannot be used.
    pub(crate) fn connect(&self, address: &str) -> anyhow::Result<Channel> {
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .with_context(|| format!("invalid address `{address}` of another coordinator"))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        if let Some(Tls { host, authority }) = &self.tls {
            let me = myself();
            let Some((issuer, _)) = self.authenticator.authority() else {
                anyhow::bail!("the farm's authority is gone")
            };
            let made = issuer.issue(&authority::Subject::Client(&me), LIFE)?;
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(authority))
                .domain_name(host)
                .identity(Identity::from_pem(made.chain, made.key));
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(self.network.connect(&endpoint))
    }
}

impl Tls {
    fn of(authenticator: &Authenticator, files: &Files) -> anyhow::Result<Self> {
        let Some((authority, _)) = authenticator.authority() else {
            anyhow::bail!(
                "coordinators with TLS authenticate each other with the farm's authority: give each of them the farm's directory with its \
                 key (`--farm-dir`), and use the same one for all"
            );
        };
        let authority = authority.certificate().to_owned();
        let host = files.own_host().context("cannot tell by which name other coordinators are verified")?;
        Ok(Self { host, authority })
    }
}
