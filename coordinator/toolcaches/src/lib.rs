//! The caches of build tools, over HTTP on the farm's own store: Bazel, ccache, Gradle, Turborepo, Nx, sccache (WebDAV),
//! Maven and Go.
//!
//! A request's path says which tool speaks and in which branch scope; its dialect ([`kiln_dialects`]) turns it into a question of
//! "get, put or remove by key"; one engine ([`entries`], [`results`]) answers from the tenant's stores.
//!
//! Invariants: an entry is a result in the action cache whose body is a blob, under a digest that no action can have, so
//! it is complete or absent, and counted, evicted and shared like everything else. A body that did not arrive whole is
//! not stored. A tenant's entries are in its own stores. What is written in a scope is read in that scope only.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod body;
mod caller;
mod entries;
mod handle;
mod metrics;
mod refusal;
mod results;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use kiln_auth::Authenticator;
use kiln_auth::audit::Audit;
use kiln_auth::listener::{self, Versions};
use kiln_auth::tls;
use kiln_dialects::Room;
use kiln_store::Stores;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use caller::writes;
pub use metrics::ToolCacheMetrics;

/// Options of the caches.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Serve the caches of build tools (Bazel, ccache, Gradle, Turborepo, Nx, sccache, Maven, Go) over HTTP on this address, such as
    /// `0.0.0.0:8981`, with the coordinator's certificate and authentication; default: off. `kiln cache env TOOL` prints a tool's settings.
    #[arg(id = "cache_listen", long = "cache-listen", env = "KILN_CACHE_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// URL at which tools reach that address, if it is not the coordinator's own host with that port, such as
    /// `https://cache.farm.example`.
    #[arg(id = "cache_url", long = "cache-url", env = "KILN_CACHE_URL", value_name = "URL", requires = "cache_listen")]
    pub url: Option<url::Url>,
    /// Maximum size of one entry; a tool that sends a larger one is told so, and goes on without caching it.
    #[arg(id = "cache_entry_limit", long = "cache-entry-limit", env = "KILN_CACHE_ENTRY_LIMIT", default_value = "1GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub entry_bytes: u64,
}

/// Default maximum size of one entry.
const ENTRY_BYTES: u64 = 1 << 30;

impl Default for Options {
    fn default() -> Self {
        Self { listen: None, url: None, entry_bytes: ENTRY_BYTES }
    }
}

/// The tenants of a farm.
#[tonic::async_trait]
pub trait Tenants: std::fmt::Debug + Send + Sync {
    /// The stores of a tenant by its name; an empty name means the default tenant.
    ///
    /// # Errors
    /// If they cannot be opened.
    async fn stores(&self, name: &str) -> Result<Stores, tonic::Status>;
}

/// The farm whose stores are served.
#[derive(Debug)]
pub struct Farm {
    /// Bodies that are being received are kept in this directory.
    pub data_dir: PathBuf,
    /// The coordinator's certificate, if it has one.
    pub tls: Option<tls::Files>,
    /// Who calls.
    pub authenticator: Authenticator,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// The tenants that own the entries.
    pub tenants: Arc<dyn Tenants>,
    /// Metrics, if they are collected.
    pub metrics: Option<ToolCacheMetrics>,
    /// Maximum concurrent connections.
    pub max_connections: usize,
}

/// Binds the listener, and puts the port that it got into the options.
///
/// # Errors
/// If the address cannot be bound.
pub async fn bind(options: &mut Options) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = options.listen else { return Ok(None) };
    let wrong = || format!("cannot serve the caches of build tools on `{address}`");
    let listener = TcpListener::bind(address).await.with_context(wrong)?;
    options.listen = Some(listener.local_addr().with_context(wrong)?);
    Ok(Some(listener))
}

/// Serves until `stopping`.
///
/// # Errors
/// If the certificate or the data directory cannot be used.
pub fn serve(
    listener: TcpListener,
    options: &Options,
    farm: Farm,
    stopping: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let directory = farm.data_dir.join("cache-uploads");
    std::fs::create_dir_all(&directory)?;
    let files = farm.tls.map(|files| tls::Files { protocols: tls::HTTP_1, ..files });
    let served = files.map(tls::open).transpose()?;
    tracing::info!(address = %listener.local_addr()?, tls = served.is_some(), "serving the caches of build tools");
    let caches = handle::Caches::new(handle::Shared {
        room: Room::new(directory, body::FUNCTION, options.entry_bytes, "`--cache-entry-limit`"),
        authenticator: farm.authenticator,
        audit: farm.audit,
        tenants: farm.tenants,
        metrics: farm.metrics,
        sizes: results::Sizes::default(),
    });
    Ok(listener::serve(listener, served, caches.router(), Versions::Http1, farm.max_connections, stopping))
}
