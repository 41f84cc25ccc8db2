//! A file at a URL.

use std::path::PathBuf;
use std::time::Duration;

use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::Error;
use crate::git::without_password;

const CONNECT: Duration = Duration::from_secs(10);
/// Maximum pause within a response.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether a text is a URL of this kind.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Downloads a file. Blocks; the runtime must be entered.
pub(crate) fn fetch(url: &str) -> Result<(TempDir, PathBuf), Error> {
    let failed = |reason: String| Error::Fetch { remote: without_password(url), reason };
    let kept = tempfile::Builder::new().prefix("kiln-context-").tempdir().map_err(Error::Temporary)?;
    let path = kept.path().join("file");
    // The client would panic if several TLS providers are linked; a provider that was installed earlier is kept.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| failed(error.to_string()))?;
    let fetching = async {
        let client = reqwest::Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()?;
        let response = client.get(url).send().await?.error_for_status()?;
        Ok::<_, reqwest::Error>(response)
    };
    let response = runtime.block_on(fetching).map_err(|error| failed(words(&error)))?;
    let writing = async {
        let mut file = tokio::fs::File::create(&path).await.map_err(Error::Temporary)?;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.try_next().await.map_err(|error| failed(words(&error)))? {
            file.write_all(&piece).await.map_err(Error::Temporary)?;
        }
        file.flush().await.map_err(Error::Temporary)
    };
    runtime.block_on(writing)?;
    Ok((kept, path))
}

/// An error with its causes, without the URL, which may have a password.
fn words(error: &reqwest::Error) -> String {
    if let Some(status) = error.status() {
        return format!("the server answers {status}");
    }
    let mut words = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        words.push(error.to_string());
        next = error.source();
    }
    if words.is_empty() { "the server does not answer".to_owned() } else { words.join(": ") }
}
