//! From an address to a blob.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use kiln_images::registry::{Clients, Reach};
use kiln_proto::digest::{Digest, DigestFunction};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Response, redirect};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use url::Url;

/// Downloads at once.
const AT_ONCE: usize = 16;
/// Largest file: 4 GiB.
const MAX_BYTES: u64 = 4 << 30;
/// Time without a byte.
const STALL: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there: the next address may have it.
    #[error("{0}")]
    Absent(String),
    /// The coordinator may not ask there.
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}")]
    Failed(String),
}

/// Fetches files on behalf of clients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downloads {
    reach: Reach,
    /// Made at the first download: most farms in a command never have one.
    clients: Arc<OnceLock<Clients>>,
    places: Arc<Semaphore>,
    directory: PathBuf,
}

/// A file that was downloaded.
#[derive(Debug)]
pub(crate) struct Downloaded {
    pub(crate) file: tokio::fs::File,
    pub(crate) sha256: [u8; 32],
    /// By the function that was asked for.
    pub(crate) digest: Digest,
}

impl Downloads {
    /// Downloads within this reach; files are kept in the directory until they are whole.
    pub fn new(reach: Reach, directory: PathBuf) -> Self {
        Self { clients: Arc::default(), reach, places: Arc::new(Semaphore::new(AT_ONCE)), directory }
    }

    fn clients(&self) -> Result<&Clients, Error> {
        if let Some(clients) = self.clients.get() {
            return Ok(clients);
        }
        let client = || {
            let agent = concat!("kiln/", env!("CARGO_PKG_VERSION"));
            let builder = Client::builder().user_agent(agent).redirect(redirect::Policy::none());
            builder.connect_timeout(Duration::from_secs(20))
        };
        let made =
            Clients::new(&self.reach, client).map_err(|error| Error::Failed(format!("cannot set up HTTP: {error}")))?;
        Ok(self.clients.get_or_init(|| made))
    }

    /// Downloads a file, with these headers for its server.
    pub(crate) async fn fetch(
        &self,
        url: &Url,
        headers: impl Iterator<Item = (&str, &str)>,
        function: DigestFunction,
    ) -> Result<Downloaded, Error> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| Error::Failed(format!("`{}` is no header", name.escape_default())))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| Error::Failed(format!("the value of the header `{name}` is not valid")))?;
            map.append(name, value);
        }
        let _place = self.places.acquire().await.map_err(|error| Error::Failed(error.to_string()))?;
        let response = self.follow(url.clone(), map).await?;
        let host = shown(response.url());
        if !response.status().is_success() {
            return Err(Error::Absent(format!("`{host}` answers {}", response.status())));
        }
        self.receive(response, &host, function).await
    }

    /// Asks, and follows redirects under the same rules. Headers are for the first server only.
    async fn follow(&self, mut url: Url, mut headers: HeaderMap) -> Result<Response, Error> {
        let clients = self.clients()?;
        for _ in 0..=REDIRECTS {
            let refused = |refused: kiln_images::registry::Refused| {
                Error::NotAllowed(format!("{refused}; the coordinator's `--allow-download` allows others"))
            };
            let client = clients.at(&url).map_err(refused)?;
            let asking = tokio::time::timeout(STALL, client.get(url.clone()).headers(headers.clone()).send());
            let failed = |words: String| Error::Failed(format!("cannot ask `{}`: {words}", shown(&url)));
            let response = asking.await.map_err(|_| failed("no answer".to_owned()))?;
            let response = response.map_err(|error| failed(kiln_images::registry::words(&error)))?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let to = response.headers().get(LOCATION).filter(|_| is_redirect);
            let Some(to) = to.and_then(|to| url.join(to.to_str().ok()?).ok()) else { return Ok(response) };
            if !matches!(to.scheme(), "http" | "https") || url.scheme() == "https" && to.scheme() == "http" {
                return Err(Error::NotAllowed(format!("`{}` redirects to `{}:`", shown(&url), to.scheme())));
            }
            if to.origin() != url.origin() {
                headers.clear();
            }
            url = to;
        }
        Err(Error::Failed(format!("`{}` redirects more than {REDIRECTS} times", shown(&url))))
    }

    async fn receive(&self, response: Response, host: &str, function: DigestFunction) -> Result<Downloaded, Error> {
        let failed = |words: String| Error::Failed(format!("cannot fetch from `{host}`: {words}"));
        let disk = |error: std::io::Error| {
            tracing::error!(%error, "cannot keep a download");
            Error::Failed("the coordinator cannot write to its disk; see its log".to_owned())
        };
        let large = || Error::Failed(format!("the file at `{host}` has more than {} GiB", MAX_BYTES >> 30));
        let announced = response.content_length();
        if announced.is_some_and(|bytes| bytes > MAX_BYTES) {
            return Err(large());
        }
        let file = tokio::fs::File::from_std(tempfile::tempfile_in(&self.directory).map_err(disk)?);
        let mut file = tokio::io::BufWriter::with_capacity(256 << 10, file);
        let (mut own, mut sha256) = (function.hasher(), DigestFunction::Sha256.hasher());
        let mut stream = response.bytes_stream();
        loop {
            let next = tokio::time::timeout(STALL, stream.next()).await;
            let Some(piece) = next.map_err(|_| failed(format!("nothing arrived for {} s", STALL.as_secs())))? else {
                break;
            };
            let piece = piece.map_err(|error| failed(kiln_images::registry::words(&error)))?;
            own.update(&piece);
            if function != DigestFunction::Sha256 {
                sha256.update(&piece);
            }
            if own.size() > MAX_BYTES {
                return Err(large());
            }
            file.write_all(&piece).await.map_err(disk)?;
        }
        let digest = own.finish();
        let sha256 = if function == DigestFunction::Sha256 { digest.hash } else { sha256.finish().hash };
        file.rewind().await.map_err(disk)?;
        Ok(Downloaded { file: file.into_inner(), sha256, digest })
    }
}

/// An address without what may be secret in it.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}
