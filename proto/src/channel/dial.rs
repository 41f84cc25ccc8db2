//! How a farm is reached: its address, what it is shown, and the network in between.

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

/// A connection, whatever it is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connector = BoxCloneSyncService<Uri, TokioIo<Box<dyn Stream>>, io::Error>;

/// Reaches one farm again and again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The farm's address.
    pub url: String,
    access: Access,
    /// Another network than this machine's own.
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

    /// Connects, or says why that cannot be. Credentials are read anew.
    ///
    /// # Errors
    /// Where the address is none, the credentials cannot be read, nothing answers there, or what answers is not trusted.
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
