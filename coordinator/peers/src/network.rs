//! The network between the coordinators of a farm, where it is not this machine's.

use std::fmt;
use std::future::Future;
use std::io;

use hyper_util::rt::TokioIo;
use kiln_proto::channel::Stream;
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
    pub(crate) fn connect(&self, endpoint: &Endpoint) -> Channel {
        match &self.0 {
            None => endpoint.connect_lazy(),
            Some(connector) => endpoint.connect_with_connector_lazy(connector.clone()),
        }
    }
}
