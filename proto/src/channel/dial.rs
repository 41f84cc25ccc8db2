//! How a farm is reached: its address, the credentials, and the network.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Uri;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::several::Several;
use super::{Access, Channel, Error, credentials, endpoint};

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connector = BoxCloneSyncService<Uri, TokioIo<Box<dyn Stream>>, io::Error>;

/// Connects to one farm, repeatedly. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The farm's address, or several.
    pub url: String,
    access: Access,
    /// A network other than this machine's own.
    connector: Option<Connector>,
    /// Which of several coordinators is called first.
    first: usize,
    /// The coordinators, if there are several. Connections to them outlive a call of [`connect`](Self::connect).
    several: Arc<Mutex<Option<Arc<Several>>>>,
}

impl Dial {
    /// Over this machine's network.
    pub fn new(url: impl Into<String>, access: Access) -> Self {
        Self { url: url.into(), access, connector: None, first: 0, several: Arc::default() }
    }

    /// Of several coordinators, calls this one first. The number may be larger than theirs.
    #[must_use]
    pub fn beginning_with(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Over connections that `connect` makes.
    pub fn over<F, S>(url: impl Into<String>, connect: impl Fn(Uri) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        let connector =
            tower::service_fn(connect).map_response(|stream| TokioIo::new(Box::new(stream) as Box<dyn Stream>));
        let connector = Some(BoxCloneSyncService::new(connector));
        Self { connector, ..Self::new(url, Access::default()) }
    }

    /// Connects. Credentials are read each time.
    ///
    /// # Errors
    /// If an address is invalid, the credentials cannot be read, or no coordinator responds or is trusted.
    pub async fn connect(&self) -> Result<Channel, Error> {
        if let Some(connector) = &self.connector {
            let endpoint = endpoint(&self.url, &self.access)?;
            let connected = endpoint.connect_with_connector(connector.clone()).await;
            let channel = connected.map_err(|source| Error::of_connection(&self.url, source))?;
            let bearer = self.access.bearer()?;
            return Ok(Channel::one(&self.url, InterceptedService::new(channel, bearer)));
        }
        if let Some(several) = self.several().await? {
            several.working(&[]).await?;
            return Ok(Channel::any(several));
        }
        let url = self.url.trim();
        let endpoint = endpoint(url, &self.access)?;
        let bearer = credentials(endpoint.uri(), &self.access)?;
        let channel = endpoint.connect().await.map_err(|source| Error::of_connection(url, source))?;
        Ok(Channel::one(url, InterceptedService::new(channel, bearer)))
    }

    /// The farm's coordinators, if there are several.
    async fn several(&self) -> Result<Option<Arc<Several>>, Error> {
        let known = || self.several.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(several) = known().clone() {
            return Ok(Some(several));
        }
        let Some(found) = Several::find(&self.url, &self.access, self.first).await? else { return Ok(None) };
        Ok(Some(known().get_or_insert_with(|| Arc::new(found)).clone()))
    }
}
