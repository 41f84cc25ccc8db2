//! The farm's cache, as helpers call it: over HTTP, never for long, and not at all while it does not respond.
//!
//! Of a farm with several coordinators, each of which serves the cache, helpers keep to one for as long as it responds.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_proto::channel::{Access, TokenPlace, addresses, is_exposed};
use reqwest::header::{ACCEPT, CONTENT_LENGTH};
use reqwest::{Body, Certificate, Client, Identity, Method, RequestBuilder, Response, StatusCode};
use tokio_util::io::ReaderStream;

use crate::Error;

/// How long to connect.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an upload or a download may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Failures in a row after which the farm counts as down.
const FAILURES: u32 = 3;
/// How long a farm that is down is left alone.
const PAUSE: Duration = Duration::from_secs(20);
/// What a response may be whose content is not looked at.
const ANY: &str = "*/*";
/// A token from a file is read again after this time.
const FRESH: Duration = Duration::from_secs(5);

/// A tool's cache of a farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    places: Vec<Place>,
    /// Which of them is used.
    current: AtomicUsize,
    failures: AtomicU32,
    down: Mutex<Option<Instant>>,
    said: AtomicBool,
    read_only: AtomicBool,
}

/// Where a coordinator serves the cache, and the token for it.
#[derive(Debug)]
struct Place {
    url: String,
    token: Option<TokenPlace>,
    held: Mutex<Option<(Instant, String)>>,
}

impl Place {
    fn new(url: &str, access: &Access) -> Result<Self, Error> {
        let url = url.trim_end_matches('/').to_owned();
        let token = access.token_place(&url);
        if token.is_some() && is_exposed(&url) {
            return Err(Error::Exposed { url });
        }
        Ok(Self { url, token, held: Mutex::default() })
    }

    /// The token, read again now and then: short-lived ones are replaced in their file.
    fn token(&self) -> Option<String> {
        let place = self.token.as_ref()?;
        let mut held = lock(&self.held);
        if held.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            match place.read() {
                Ok(token) => *held = Some((Instant::now(), token)),
                Err(error) => tracing::debug!(%error, "no token"),
            }
        }
        held.as_ref().map(|(_, token)| token.clone())
    }
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is stored.
    Stored,
    /// The farm does not take it, and says why not.
    Refused,
    /// The farm does not respond.
    Failed,
}

impl Remote {
    /// A tool's cache at this URL, or at several, separated by commas.
    ///
    /// # Errors
    /// If the URLs or the credentials cannot be used.
    pub fn open(urls: &str, access: &Access) -> Result<Self, Error> {
        // The client would panic if several TLS providers are linked; a provider that was installed earlier is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |reason: String| Error::Client { url: urls.to_owned(), reason };
        let each = addresses(urls).map_err(|error| wrong(error.to_string()))?;
        let places = each.iter().map(|url| Place::new(url, access)).collect::<Result<_, _>>()?;
        let read = |path: &Path| {
            let file = |source| Error::File { doing: "read", path: path.to_owned(), source };
            std::fs::read(path).map_err(file)
        };
        let mut client = Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE);
        if let Some(ca) = &access.ca {
            let authority = Certificate::from_pem(&read(ca)?).map_err(|error| wrong(error.to_string()))?;
            client = client.tls_certs_only([authority]);
        }
        if let (Some(certificate), Some(key)) = (&access.cert, &access.key) {
            let both = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            client = client.identity(Identity::from_pem(&both).map_err(|error| wrong(error.to_string()))?);
        }
        let client = client.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            client,
            places,
            current: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            down: Mutex::default(),
            said: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
        })))
    }

    /// Whether the farm is left alone at the moment.
    pub fn is_down(&self) -> bool {
        lock(&self.0.down).is_some_and(|until| Instant::now() < until)
    }

    /// Whether entries may be sent.
    pub fn takes(&self) -> bool {
        !self.0.read_only.load(Ordering::Acquire) && !self.is_down()
    }

    fn place(&self) -> &Place {
        let places = &self.0.places;
        &places[self.0.current.load(Ordering::Acquire) % places.len()]
    }

    fn request(&self, method: Method, key: &str) -> RequestBuilder {
        let place = self.place();
        let request = self.0.client.request(method, format!("{}/{key}", place.url));
        match place.token() {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The response to a request, or why the coordinator does not respond, which is then not asked next.
    async fn send(&self, request: RequestBuilder) -> Result<Response, String> {
        let failed = match request.send().await {
            Ok(response) if response.status().is_server_error() => response.status().to_string(),
            Ok(response) => {
                self.0.failures.store(0, Ordering::Release);
                return Ok(response);
            }
            Err(error) => reason(&error),
        };
        self.0.current.fetch_add(1, Ordering::AcqRel);
        Err(failed)
    }

    /// The response of the first coordinator that has one.
    async fn ask(&self, method: Method, key: &str, accept: &'static str) -> Option<Response> {
        let mut failed = String::new();
        for _ in &self.0.places {
            match self.send(self.request(method.clone(), key).header(ACCEPT, accept)).await {
                Ok(response) => return Some(response),
                Err(reason) => failed = reason,
            }
        }
        self.failed(&failed);
        None
    }

    /// Records that the farm did not respond.
    pub fn failed(&self, reason: &str) {
        if self.0.failures.fetch_add(1, Ordering::AcqRel) + 1 >= FAILURES {
            *lock(&self.0.down) = Some(Instant::now() + PAUSE);
        }
        self.say(&format!("the farm's cache at {} failed ({reason}); going on without it", self.place().url));
    }

    /// Says something to the user, the first time only.
    fn say(&self, words: &str) {
        tracing::debug!("{words}");
        if !self.0.said.swap(true, Ordering::AcqRel) {
            eprintln!("kiln: {words}");
        }
    }

    /// An entry, if there is one and the farm responds.
    pub async fn get(&self, key: &str) -> Option<Response> {
        let response = self.ask(Method::GET, key, "application/octet-stream").await?;
        match response.status() {
            status if status.is_success() => Some(response),
            StatusCode::NOT_FOUND => None,
            status => {
                self.refused(status, response).await;
                None
            }
        }
    }

    /// Whether there is an entry, as far as the farm says.
    pub async fn has(&self, key: &str) -> bool {
        !self.is_down() && self.ask(Method::HEAD, key, ANY).await.is_some_and(|response| response.status().is_success())
    }

    /// Removes an entry; `false` if that was not done.
    pub async fn remove(&self, key: &str) -> bool {
        self.takes() && self.ask(Method::DELETE, key, ANY).await.is_some_and(|response| response.status().is_success())
    }

    /// Stores an entry from a file of this size.
    pub async fn put(&self, key: &str, file: &Path, size: u64) -> io::Result<Sent> {
        let body = Body::wrap_stream(ReaderStream::new(tokio::fs::File::open(file).await?));
        let request = self.request(Method::PUT, key).header(CONTENT_LENGTH, size).body(body);
        // What was sent is gone: the next upload goes to another coordinator.
        let response = match self.send(request).await {
            Ok(response) => response,
            Err(reason) => {
                self.failed(&reason);
                return Ok(Sent::Failed);
            }
        };
        match response.status() {
            status if status.is_success() => Ok(Sent::Stored),
            // What is too large, or finds no room, says nothing about the next one.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE => Ok(Sent::Refused),
            status => {
                self.0.read_only.store(true, Ordering::Release);
                // Many may read only; that is as it should be.
                if status != StatusCode::FORBIDDEN {
                    self.refused(status, response).await;
                }
                Ok(Sent::Refused)
            }
        }
    }

    async fn refused(&self, status: StatusCode, response: Response) {
        let words = response.text().await.unwrap_or_default();
        let words = words.lines().next().unwrap_or_default().trim();
        self.say(&format!("the farm's cache at {} refused ({status}: {words}); going on without it", self.place().url));
        if status == StatusCode::UNAUTHORIZED {
            *lock(&self.0.down) = Some(Instant::now() + PAUSE);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An error with its innermost cause, which says most.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if error.is_timeout() { "timed out".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers every request with this status; its URL.
    async fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    fn remote(urls: &[&str]) -> Remote {
        Remote::open(&urls.join(","), &Access::default()).unwrap()
    }

    #[tokio::test]
    async fn the_next_coordinator_is_asked_after_one_that_is_gone_or_fails() {
        let (gone, failing) = (nobody().await, answering("503 Service Unavailable").await);
        let (good, lacking) = (answering("200 OK").await, answering("404 Not Found").await);
        let cache = remote(&[&gone, &failing, &good]);
        for _ in 0..2 * FAILURES {
            assert!(cache.get("key").await.is_some() && cache.has("key").await);
        }
        assert!(!cache.is_down());
        // That there is no entry is an answer.
        assert!(remote(&[&lacking, &good]).get("key").await.is_none());
        // The first upload is lost with its coordinator, and the next ones are not.
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = remote(&[&gone, &good]);
        let sent = [cache.put("key", file.path(), 0).await.unwrap(), cache.put("key", file.path(), 0).await.unwrap()];
        assert_eq!(sent, [Sent::Failed, Sent::Stored]);
    }

    #[tokio::test]
    async fn a_farm_whose_coordinators_are_all_gone_is_left_alone() {
        let cache = remote(&[&nobody().await, &nobody().await]);
        for _ in 0..FAILURES {
            assert!(!cache.is_down() && cache.get("key").await.is_none());
        }
        assert!(cache.is_down());
    }

    #[test]
    fn urls_that_make_no_sense_are_refused() {
        for urls in ["http://a:1,", "http://a:1,https://b:1", "http://a:1,http://a:1"] {
            assert!(Remote::open(urls, &Access::default()).is_err(), "{urls}");
        }
    }
}
