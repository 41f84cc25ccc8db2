//! The farm's web pages, rendered on the server, and the same as JSON for scripts.
//!
//! A request is admitted ([`access`]: a session, a token or a certificate; the host and the origin that it may have), becomes calls of the
//! farm's own services ([`calls`]), and their answers become a page ([`pages`]).
//!
//! Invariants: whatever a page shows came through the gate in front of the gRPC services, as the visitor. What comes from builds is data and
//! never markup. No script and no style is in a page.

mod access;
mod answer;
mod api;
mod assets;
mod blobs;
mod calls;
mod layers;
mod live;
mod log;
mod markup;
mod outputs;
mod pages;
mod profiles;
mod routes;
mod site;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use kiln_auth::audit::Audit;
use kiln_auth::listener::{self, Versions};
use kiln_auth::tls;
use kiln_auth::{Authenticator, Shelf};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use access::Links;
pub use calls::Calls;

/// Options of the pages.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Serve the farm's web pages on this address, such as `0.0.0.0:8982`, with the coordinator's certificate and authentication; default: off.
    /// `kiln web` opens them.
    #[arg(id = "web_listen", long = "web-listen", env = "KILN_WEB_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// URL at which browsers reach that address, if it is not the coordinator's own host with that port, such as `https://farm.example`.
    #[arg(id = "web_url", long = "web-url", env = "KILN_WEB_URL", value_name = "URL", requires = "web_listen")]
    pub url: Option<url::Url>,
}

impl Options {
    /// Where the pages are for people elsewhere, if this is known: not if they are served on every address of the machine and nobody says
    /// under which name.
    pub fn base(&self, is_tls: bool) -> Option<url::Url> {
        let address = self.listen?;
        let scheme = if is_tls { "https" } else { "http" };
        let own = || format!("{scheme}://{address}/").parse().ok().filter(|_| !address.ip().is_unspecified());
        self.url.clone().or_else(own)
    }
}

/// The farm that is shown.
#[derive(Debug)]
pub struct Farm {
    /// The coordinator's certificate, if it has one.
    pub tls: Option<tls::Files>,
    /// Who visits.
    pub authenticator: Authenticator,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// The farm's services, behind their gate.
    pub calls: Calls,
    /// Links that log a browser in.
    pub links: Links,
    /// Where sessions are kept, if the farm has several coordinators.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// Maximum concurrent connections.
    pub max_connections: usize,
}

/// Binds the listener, and puts the port that it got into the options.
///
/// # Errors
/// If the address cannot be bound.
pub async fn bind(options: &mut Options) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = options.listen else { return Ok(None) };
    let wrong = || format!("cannot serve the web pages on `{address}`; choose another address with `--web-listen`");
    let listener = TcpListener::bind(address).await.with_context(wrong)?;
    options.listen = Some(listener.local_addr().with_context(wrong)?);
    Ok(Some(listener))
}

/// Serves until `stopping`.
///
/// # Errors
/// If the certificate cannot be used.
pub fn serve(
    listener: TcpListener,
    options: &Options,
    farm: Farm,
    stopping: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let files = farm.tls.map(|files| tls::Files { protocols: tls::HTTP_2_OR_1, ..files });
    let served = files.map(tls::open).transpose()?;
    let address = listener.local_addr()?;
    let is_https = served.is_some() || options.url.as_ref().is_some_and(|url| url.scheme() == "https");
    tracing::info!(%address, tls = served.is_some(), "serving the web pages");
    let doors = access::Doors::new(access::Settings {
        authenticator: farm.authenticator,
        audit: farm.audit,
        links: farm.links,
        shelf: farm.shelf,
        is_https,
        // The same for all coordinators of a farm that browsers reach at one address.
        port: options.url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or(address.port()),
        host: options.url.as_ref().and_then(|url| url.host_str()).map(str::to_owned),
    });
    let router = routes::router(doors, farm.calls, stopping.clone());
    Ok(listener::serve(listener, served, router, Versions::Both, farm.max_connections, stopping))
}
