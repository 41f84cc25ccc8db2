//! The network between the coordinators of a farm, and what they agree by, where both are not the usual ones.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use kiln_proto::channel::Stream;
use kiln_replicas::{Register, Shelf};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type Connector = BoxCloneSyncService<Uri, TokioIo<Box<dyn Stream>>, io::Error>;

/// How coordinators are connected. Cheap to clone.
#[derive(Clone, Default)]
pub struct Network(Option<Connector>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(&self.0.is_some()).finish()
    }
}

impl Network {
    /// Over connections that `connect` makes, instead of this machine's network.
    pub fn over<F, S>(connect: impl Fn(Uri) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        let connector =
            tower::service_fn(connect).map_response(|stream| TokioIo::new(Box::new(stream) as Box<dyn Stream>));
        Self(Some(BoxCloneSyncService::new(connector)))
    }

    /// A channel that connects when it is used.
    pub(super) fn connect(&self, endpoint: &Endpoint) -> Channel {
        match &self.0 {
            None => endpoint.connect_lazy(),
            Some(connector) => endpoint.connect_with_connector_lazy(connector.clone()),
        }
    }
}

/// Coordinators of one farm that agree otherwise than in Redis.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// What they agree by.
    pub register: Arc<dyn Register>,
    /// What they keep for each other for a while.
    pub shelf: Arc<dyn Shelf>,
    /// How they reach each other.
    pub network: Network,
    /// What this one is called, such as its host.
    pub name: String,
    /// The URL at which the others reach this one.
    pub address: String,
    /// The blobs that they share.
    pub blobs: Arc<dyn kiln_store::BlobStore>,
}
