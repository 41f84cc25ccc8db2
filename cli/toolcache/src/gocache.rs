//! `kiln gocache`: the helper that `go` starts with `GOCACHEPROG`, for a build cache on this machine's disk and the farm.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use kiln_gocache::{Body, Cache, Disk, Farm, Found, Kept};
use kiln_proto::channel::Access;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::farm::Remote;

/// How long entries that nobody used stay on this machine's disk.
const LIFE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// `kiln gocache`.
#[derive(Debug, Clone, clap::Args)]
pub struct Gocache {
    /// The farm's cache for Go, or several separated by commas, as `kiln cache env go` prints it; without it, entries are kept on this machine only.
    #[arg(long, env = "KILN_GOCACHE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// Directory for entries on this machine; default: `kiln/gocache` in the user's cache directory.
    #[arg(long, env = "KILN_GOCACHE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long `go` may wait for the farm to answer for one entry; after that it builds it.
    #[arg(long, default_value = "1s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub wait: Duration,
    /// How long the end of a `go` command may wait until what it built has been sent to the farm.
    #[arg(long, default_value = "30s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub flush: Duration,
}

/// Serves `go` on standard input and output until it closes the cache.
///
/// # Errors
/// If the directory or the credentials cannot be used, or `go` breaks off.
pub async fn run(args: Gocache, directory: PathBuf, access: &Access) -> Result<(), Error> {
    let remote = args.url.as_deref().map(|url| Remote::open(url, access)).transpose()?;
    let disk = Arc::new(Disk::open(args.dir.unwrap_or(directory))?);
    let cache = Cache {
        disks: vec![disk.clone()],
        sends: remote.is_some(),
        farm: remote.map(|remote| Arc::new(remote) as Arc<dyn Farm>),
        wait: args.wait,
        flush: args.flush,
        kept: Kept::All,
        unkept: Vec::new(),
        noted: None,
        show: None,
        sending: TaskTracker::new(),
    };
    kiln_gocache::serve(cache, tokio::io::stdin(), tokio::io::stdout()).await?;
    disk.trim(LIFE);
    Ok(())
}

#[async_trait]
impl Farm for Remote {
    fn is_down(&self) -> bool {
        Self::is_down(self)
    }

    fn is_late(&self) {
        self.failed("it did not answer in time");
    }

    async fn get(&self, actions: &[Vec<u8>], body: &mut Body) -> Option<(Vec<u8>, String)> {
        let action = actions.first()?;
        let response = Self::get(self, &hex::encode(action)).await?;
        let promised = response.headers().get(reqwest::header::ETAG)?.to_str().ok()?.trim_matches('"').to_owned();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            body.push(&piece.ok()?).ok()?;
        }
        Some((action.clone(), promised))
    }

    async fn put(&self, action: &[u8], found: &Found) {
        if !self.takes() {
            return;
        }
        if let Err(error) = Self::put(self, &hex::encode(action), &found.path, found.size).await {
            tracing::debug!(%error, "an entry was not sent");
        }
    }
}
