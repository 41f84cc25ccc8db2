//! One of several coordinators of a farm, and the connection to it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Uri};

use super::{Access, Bearer, Error, credentials, endpoint, health, refusal};

/// How long a coordinator may take to accept a connection and to answer a first call on it.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a silent connection is tried, and how long the answer may take. A coordinator whose machine has gone
/// without a word is given up after both.
const ALIVE: Duration = Duration::from_secs(3);
/// How long a coordinator that failed is asked last: this after the first failure, and twice as long after each other.
const AVOIDED: Duration = Duration::from_millis(500);
const AVOIDED_LONGEST: Duration = Duration::from_secs(30);

/// A connection whose calls carry the credentials.
pub(super) type Bare = InterceptedService<transport::Channel, Bearer>;

/// A connection, and which of this process's it is.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) channel: Bare,
    number: u64,
}

/// One coordinator.
pub(super) struct Member {
    /// Its address as written.
    pub(super) url: String,
    /// Which of the addresses that its name has.
    pub(super) ip: Option<SocketAddr>,
    live: Mutex<Option<Live>>,
    avoided: Mutex<Option<(Instant, Duration)>>,
    /// Held while a connection is made.
    connecting: tokio::sync::Mutex<()>,
    /// Attempts to connect that failed.
    failures: AtomicU64,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.to_string()).finish()
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{} ({})", self.url, ip.ip()),
            None => f.write_str(&self.url),
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    pub(super) fn new(url: String, ip: Option<SocketAddr>) -> Self {
        let (live, avoided, connecting) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { url, ip, live, avoided, connecting, failures: AtomicU64::new(0) }
    }

    /// The connection, if there is one.
    pub(super) fn live(&self) -> Option<Live> {
        lock(&self.live).clone()
    }

    /// The connection, made if there is none.
    pub(super) async fn connect(&self, access: &Access) -> Result<Live, Error> {
        let failures = self.failures.load(Ordering::Acquire);
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        // Whoever waited for an attempt that failed does not make the next one wait as well.
        if self.failures.load(Ordering::Acquire) != failures {
            return Err(Error::Unhealthy { url: self.to_string(), reason: "it did not answer just now".to_owned() });
        }
        let made = tokio::time::timeout(ANSWER, self.dial(access)).await;
        match made.unwrap_or_else(|_| Err(Error::Silent { url: self.to_string(), seconds: ANSWER.as_secs() })) {
            Ok(channel) => {
                static COUNT: AtomicU64 = AtomicU64::new(0);
                let live = Live { channel, number: COUNT.fetch_add(1, Ordering::Relaxed) };
                *lock(&self.live) = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::AcqRel);
                self.failed();
                Err(error)
            }
        }
    }

    /// Connects, and sees whether a coordinator answers: something may well accept a connection and then do nothing.
    async fn dial(&self, access: &Access) -> Result<Bare, Error> {
        let endpoint = endpoint(&self.url, access)?
            .connect_timeout(ANSWER)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE);
        let bearer = credentials(endpoint.uri(), access)?;
        let connected = match self.ip {
            None => endpoint.connect().await,
            Some(ip) => {
                let connect = tower::service_fn(move |_: Uri| async move {
                    let stream = TcpStream::connect(ip).await?;
                    stream.set_nodelay(true)?;
                    Ok::<_, io::Error>(TokioIo::new(stream))
                });
                endpoint.connect_with_connector(connect).await
            }
        };
        let channel = match connected {
            Ok(channel) => InterceptedService::new(channel, bearer),
            Err(source) => return Err(Error::of_connection(&self.to_string(), source)),
        };
        match health::check(channel.clone()).await {
            Ok(()) => Ok(channel),
            Err(status) => Err(match refusal(&status) {
                Some(reason) => Error::Refused { url: self.to_string(), reason },
                None => Error::Unhealthy { url: self.to_string(), reason: status.message().to_owned() },
            }),
        }
    }

    /// Gives up a connection that broke. Another that was made meanwhile is kept.
    pub(super) fn lost(&self, live: &Live) {
        let mut held = lock(&self.live);
        if held.as_ref().is_some_and(|held| held.number == live.number) {
            *held = None;
        }
    }

    /// Whether it has failed so recently that others are asked first.
    pub(super) fn is_avoided(&self) -> bool {
        lock(&self.avoided).is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Has others asked first for a while.
    pub(super) fn failed(&self) {
        let mut avoided = lock(&self.avoided);
        let pause = avoided.map_or(AVOIDED, |(_, before)| before.saturating_mul(2).min(AVOIDED_LONGEST));
        *avoided = Instant::now().checked_add(pause).map(|until| (until, pause));
    }

    /// It answers as it should.
    pub(super) fn worked(&self) {
        *lock(&self.avoided) = None;
    }
}
