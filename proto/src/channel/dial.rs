//! How a farm is reached: its address, the credentials, and the network.

use std::future::Future;
use std::io;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Uri;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::{Access, Bearer, Channel, Error, endpoint, refusal};
use crate::local;

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connector = BoxCloneSyncService<Uri, TokioIo<Box<dyn Stream>>, io::Error>;

/// Connects to one farm, repeatedly. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The farm's address.
    pub url: String,
    access: Access,
    /// A network other than this machine's own.
    connector: Option<Connector>,
}

impl Dial {
    /// Over this machine's network.
    pub fn new(url: impl Into<String>, access: Access) -> Self {
        Self { url: url.into(), access, connector: None }
    }

    /// Over connections that `connect` makes.
    pub fn over<F, S>(url: impl Into<String>, connect: impl Fn(Uri) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        let connector =
            tower::service_fn(connect).map_response(|stream| TokioIo::new(Box::new(stream) as Box<dyn Stream>));
        Self { url: url.into(), access: Access::default(), connector: Some(BoxCloneSyncService::new(connector)) }
    }

    /// Connects. Credentials are read each time.
    ///
    /// # Errors
    /// If the address is invalid, the credentials cannot be read, or the server does not respond or is not trusted.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let endpoint = endpoint(&self.url, &self.access)?;
        let bearer = match local::place(endpoint.uri()).filter(|_| !self.access.is_given()) {
            Some(place) if self.connector.is_none() => Bearer::local(place),
            _ => self.access.bearer()?,
        };
        let connected = match &self.connector {
            None => endpoint.connect().await,
            Some(connector) => endpoint.connect_with_connector(connector.clone()).await,
        };
        match connected {
            Ok(channel) => Ok(InterceptedService::new(channel, bearer)),
            Err(source) => Err(match refusal(&source) {
                Some(reason) => Error::Refused { url: self.url.clone(), reason },
                None => Error::Connect { url: self.url.clone(), source },
            }),
        }
    }
}
