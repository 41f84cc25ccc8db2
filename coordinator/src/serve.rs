//! The coordinator's process: opens its data, serves, and shuts down in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kiln_proto::local::Published;
use kiln_proto::v1::coordinators_server::CoordinatorsServer;
use kiln_telemetry::calls::Calls;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::Config;
use crate::files::Files;
use crate::live::{Live, Reloads};
use crate::metrics::Metrics;
use crate::seat::{self, Base, BySeat, Common, Coordinators, Counted, Hooks, Leader, Seats, Term};
use crate::services::budget::{Budget, Budgeted};
use crate::services::{health, notes};
use crate::tenants::{AllStores, Journals, Limits};
use kiln_auth::Beliefs;
use kiln_auth::audit::Audit;
use kiln_auth::layer::Gate;
use kiln_auth::relay::Reception;
use kiln_auth::{Accepted, Authenticator, FarmKey, Others};
use kiln_execution::Elsewhere;
use kiln_ledger::Pages;
use kiln_notify::Notifier;
use kiln_peers::{Network, Peers};
use kiln_replicas::{RedisRegister, Register, Replica, Replicas, Shelf, Timing};
use kiln_signing::Signer;
use kiln_state::Current;

/// How long calls may continue after a shutdown request. Streams that never end are cut off then.
const GRACE: Duration = Duration::from_secs(3);
/// Calls that begin work: they are traced even if their caller is not.
const BEGIN: [&str; 2] = ["/kiln.v1.Builds/Submit", "/build.bazel.remote.execution.v2.Execution/Execute"];

/// Maximum concurrent calls on one connection; the client has to wait with further ones.
const MAX_STREAMS: u32 = 256;
/// Maximum size of a call's headers; larger ones are refused before anything is stored.
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// Serves on `listener` until `shutdown`.
///
/// # Errors
/// If the data directory cannot be opened, or the listener fails.
pub fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> BoxFuture<'static, anyhow::Result<()>> {
    listen(config, listener, Box::pin(shutdown), Reloads::never())
}

/// The same, with configurations that replace this one as far as that is possible while the coordinator runs.
///
/// # Errors
/// As [`run`].
pub fn run_reloading(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    reloads: Reloads,
) -> BoxFuture<'static, anyhow::Result<()>> {
    listen(config, listener, Box::pin(shutdown), reloads)
}

/// Serves the connections from `incoming`, a network of any kind without TLS, until `shutdown`.
///
/// # Errors
/// As [`run`].
pub fn run_on(
    config: Config,
    incoming: impl Stream<Item = io::Result<Accepted>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> BoxFuture<'static, anyhow::Result<()>> {
    accept(config, Box::pin(incoming), Box::pin(shutdown))
}

// The types of futures and streams end here: callers do not compile the server once more.

fn listen(
    mut config: Config,
    listener: TcpListener,
    shutdown: BoxFuture<'static, ()>,
    reloads: Reloads,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        provide_tls();
        config.check().map_err(anyhow::Error::msg)?;
        let address = listener.local_addr()?;
        own(&config.data_dir)?;
        config.auth.check(address)?;
        let tls = config.auth.tls()?.map(kiln_auth::tls::open).transpose()?;
        let caches = kiln_toolcaches::bind(&mut config.tool_caches).await?;
        config.tool_caches.listen.map(|address| config.auth.check(address)).transpose()?;
        let pages = kiln_web::bind(&mut config.web).await?;
        config.web.listen.map(|address| config.auth.check(address)).transpose()?;
        let local = local_token(&config, address)?;
        let key = farm_key(&config)?;
        let farm = Farm::of(&config, &key, Some(address)).await?;
        let others = farm.as_ref().map(|farm| farm.others(&key));
        let authenticator = Authenticator::open(&config.auth, &config.data_dir, tls.clone(), local, others).await?;
        let incoming: Incoming = match tls {
            Some(tls) => {
                tracing::info!(%address, "TLS is on");
                kiln_auth::tls::incoming(listener, tls).map(|stream| stream.map(Accepted::tls)).boxed()
            }
            None => {
                let plain = |stream: TcpStream| {
                    let address = stream.peer_addr().ok();
                    Accepted::plain(stream, address)
                };
                let streams = TcpIncoming::from(listener).with_nodelay(Some(true));
                streams.map(move |stream| stream.map(plain)).boxed()
            }
        };
        let listeners = Listeners { incoming, caches, pages };
        serve(config, (authenticator, key, farm), listeners, &address.to_string(), shutdown, reloads).await
    })
}

fn accept(
    config: Config,
    incoming: Incoming,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        provide_tls();
        own(&config.data_dir)?;
        let key = farm_key(&config)?;
        let farm = Farm::of(&config, &key, None).await?;
        let others = farm.as_ref().map(|farm| farm.others(&key));
        let authenticator = Authenticator::open(&config.auth, &config.data_dir, None, None, others).await?;
        let listeners = Listeners { incoming, caches: None, pages: None };
        serve(config, (authenticator, key, farm), listeners, "another network", shutdown, Reloads::never()).await
    })
}

/// The HTTP clients here have no TLS provider of their own. A provider that was installed earlier is kept.
fn provide_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Connections as they are accepted.
type Incoming = BoxStream<'static, io::Result<Accepted>>;

/// Where the coordinator is reached.
struct Listeners {
    incoming: Incoming,
    caches: Option<TcpListener>,
    pages: Option<TcpListener>,
}

/// The farm's key, which is created if there is none.
fn farm_key(config: &Config) -> anyhow::Result<FarmKey> {
    let file = config.auth.farm_key_file(&config.data_dir);
    if config.is_replica() && config.agreement.is_none() && !file.exists() {
        anyhow::bail!(
            "`{}` does not exist, and all coordinators of one farm need the same farm key: copy it from another one (`farm.key` in the farm's \
             directory), or create it once with `kiln farm init`",
            file.display()
        );
    }
    if config.redis.is_some() && !file.exists() {
        tracing::warn!(
            file = %file.display(),
            "creating the farm's key; coordinators that share a Redis can only read each other's values with the same `--farm-key`"
        );
    }
    Ok(FarmKey::open(&file)?)
}

/// What the farm signs with. Coordinators that have no key in common sign nothing: who verifies would have to know the keys of all of them.
fn signer(config: &Config) -> anyhow::Result<Option<Signer>> {
    let file = config.signing_key_file();
    if config.is_replica() && !config.signing.are_given() && !file.exists() {
        tracing::warn!(
            file = %file.display(),
            "artifacts are not signed: all coordinators of one farm need the same signing keys; create them once with `kiln farm \
             rotate-signing-key FILE`, and name the file with `--signing-key`"
        );
        return Ok(None);
    }
    Ok(Some(Signer::open(&config.signing, &file)?))
}

/// The farm's other coordinators, and what they agree by.
struct Farm {
    register: Arc<dyn Register>,
    me: Replica,
    network: Network,
    ledger: Pages,
}

impl Farm {
    /// None for the only coordinator of a farm, which listens there.
    async fn of(config: &Config, key: &FarmKey, listens: Option<SocketAddr>) -> anyhow::Result<Option<Self>> {
        type Common = (Arc<dyn Register>, Arc<dyn Shelf>);
        let ((register, shelf), me, network): (Common, _, _) = match (&config.agreement, &config.replicas) {
            (Some(own), _) => {
                ((own.register.clone(), own.shelf.clone()), member(&own.name, own.address.clone()), own.network.clone())
            }
            (None, Some(url)) => {
                let address = match &config.advertise {
                    Some(url) => url.to_string(),
                    None => {
                        let scheme = if config.auth.tls()?.is_some() { "https" } else { "http" };
                        format!("{scheme}://{}", one_address(listens)?)
                    }
                };
                let redis = config.redis_address(url)?;
                let register = Arc::new(RedisRegister::open(redis, &config.redis_prefix, key.clone()).await?);
                ((register.clone(), register), member(&host(), address), Network::default())
            }
            (None, None) => return Ok(None),
        };
        let ledger = Pages::new(register.clone(), shelf, &config.data_dir);
        Ok(Some(Self { register, me, network, ledger }))
    }

    fn others(&self, key: &FarmKey) -> Others {
        let reception = Reception::new(key.clone(), &self.me.address);
        Others { reception, ledger: Arc::new(self.ledger.clone()) }
    }

    /// Takes part in the farm: follows, and leads when it is this coordinator's turn.
    async fn join(self, base: &Base) -> anyhow::Result<(Replicas, Seats, Coordinators)> {
        let (authenticator, tls) = (base.authenticator.clone(), base.config.auth.tls()?);
        let peers =
            Peers::open(authenticator, base.key.clone(), tls.as_ref(), self.network, base.config.max_connections)?;
        let replicas = Replicas::join(self.register, self.me, Timing::default()).await?;
        let (seats, coordinators) = seat::join(base.clone(), replicas.clone(), peers, self.ledger);
        Ok((replicas, seats, coordinators))
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A coordinator of this host that others reach at this URL.
fn member(host: &str, address: String) -> Replica {
    Replica {
        name: format!("{host}-{:08x}", rand::random::<u32>()),
        address,
        version: kiln_version::TEXT.lines().next().unwrap_or_default().to_owned(),
        protocol: kiln_proto::protocol::PROTOCOL,
    }
}

/// The address that a coordinator listens on, if others can use it.
fn one_address(listens: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let address = listens.context("other coordinators need an address of this one: `--advertise`")?;
    anyhow::ensure!(
        !address.ip().is_unspecified(),
        "this coordinator listens on all addresses (`{address}`); say at which one the farm's others reach it, such as \
         `--advertise http://10.0.0.7:{}`",
        address.port()
    );
    Ok(address)
}

async fn serve(
    config: Config,
    (authenticator, key, farm): (Authenticator, FarmKey, Option<Farm>),
    Listeners { incoming, caches, pages }: Listeners,
    address: &str,
    shutdown: BoxFuture<'static, ()>,
    reloads: Reloads,
) -> anyhow::Result<()> {
    let mut kept = config.stores(&key)?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    kept.metrics = metrics.as_ref().map(|metrics| metrics.store.clone());
    let ledger = farm.as_ref().map(|farm| Arc::new(farm.ledger.clone()) as Arc<dyn kiln_auth::ledger::Ledger>);
    let beliefs = Beliefs::open(&config.data_dir, ledger).await.map_err(anyhow::Error::msg)?;
    kept.distrusted = beliefs.known().clone();
    let budget = kept.budget.clone();
    let files = Files::read(&config)?;
    let shelf = farm.as_ref().map(|farm| Arc::new(farm.ledger.clone()) as Arc<dyn kiln_auth::Shelf>);
    let (quotas, rules) = (Limits::new(files.quotas), Current::new(files.rules));
    let (leaving, stopping) = (CancellationToken::new(), CancellationToken::new());
    let pages_url = config.web.base(config.auth.tls()?.is_some());
    let counted_notify = metrics.as_ref().map(|metrics| metrics.notify.clone());
    let (notes, noted) = notes();
    let base = Base {
        authenticator: authenticator.clone(),
        common: Common {
            stores: AllStores::open(kept, quotas.clone(), config.collect_every, notes).await?,
            elsewhere: Elsewhere::new(key.clone(), rules.clone()),
        },
        key,
        beliefs,
        quotas,
        toolchains: Current::new(files.toolchains),
        rules,
        credentials: files.credentials,
        notifier: Notifier::open(files.notify, &config.notify, pages_url.clone(), counted_notify)?,
        signer: signer(&config)?,
        hooks: Hooks::new(files.hooks),
        links: kiln_web::Links::new(shelf.clone()),
        pages: pages_url,
        counted: Counted {
            builds: metrics.as_ref().map(|metrics| metrics.builds.clone()),
            webhooks: metrics.as_ref().map(|metrics| metrics.webhooks.clone()),
        },
        others: None,
        stopping: stopping.clone(),
        config: config.clone(),
    };
    let counted = metrics.as_ref().map(|metrics| metrics.calls.clone());
    let counted_caches = metrics.as_ref().map(|metrics| metrics.tool_caches.clone());
    let methods = kiln_proto::descriptors::methods().into_iter().chain(health::methods()?);
    let calls = Calls::new(methods, &BEGIN, counted);
    let audit = config
        .auth
        .audit_log
        .as_deref()
        .map(|path| Audit::open(path).with_context(|| format!("cannot write the audit log `{}`", path.display())));
    let audit = audit.transpose()?;
    let (health, health_server) = health::serving().await;
    let (replicas, seats, coordinators) = match farm {
        None => {
            let seats = Seats::alone(Term::open(&base, Journals::Files(config.fsync)).await?);
            let me = member(&host(), address.to_owned());
            (None, seats.clone(), Coordinators::new(me, seats, authenticator.clone(), None))
        }
        Some(farm) => {
            let (replicas, seats, coordinators) = farm.join(&base).await?;
            (Some(replicas), seats, coordinators)
        }
    };
    if let Some(metrics) = metrics {
        metrics.serve(seats.clone(), budget, &config.pools, leaving.clone())?;
    }
    if let Some(listener) = caches {
        let farm = kiln_toolcaches::Farm {
            data_dir: config.data_dir.clone(),
            tls: config.auth.tls()?,
            authenticator: authenticator.clone(),
            audit: audit.clone(),
            tenants: Arc::new(base.common.stores.clone()),
            metrics: counted_caches,
            max_connections: config.max_connections,
        };
        tokio::spawn(kiln_toolcaches::serve(listener, &config.tool_caches, farm, stopping.clone())?);
    }
    let by_seat = BySeat::new(seats.clone(), base.common.clone());
    let leader = Leader::by(&by_seat);
    if let Some(served) = base.hooks.served() {
        let (leader, counted) = (Arc::new(leader.clone()), base.counted.webhooks.clone());
        tokio::spawn(kiln_webhooks::serve(served, leader, counted, stopping.clone()).await?);
    }
    tokio::spawn(leader.note(noted));
    tokio::spawn(Live::of(&base).follow(reloads));
    let gate = Gate::new(authenticator.clone(), audit.clone());
    let budgeted = Budgeted::layer(Budget::new(config.call_memory));
    if let Some(listener) = pages {
        // The pages call the services through all that stands in front of them on the network.
        let services = tower::ServiceBuilder::new()
            .layer(calls.clone())
            .layer(gate.clone())
            .layer(budgeted.clone())
            .layer(by_seat.clone())
            .service(Routes::default());
        let farm = kiln_web::Farm {
            tls: config.auth.tls()?,
            authenticator,
            audit,
            calls: kiln_web::Calls::new(services),
            links: base.links.clone(),
            shelf,
            max_connections: config.max_connections,
        };
        tokio::spawn(kiln_web::serve(listener, &config.web, farm, stopping.clone())?);
    }
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(calls)
        .layer(gate)
        .layer(budgeted)
        .layer(by_seat)
        .add_service(health_server)
        .add_service(CoordinatorsServer::new(coordinators))
        .add_service(health::reflection()?);
    tracing::info!(%address, data_dir = %config.data_dir.display(), "ready");
    let (stop, serves) = (stopping.clone(), seats.clone());
    let shutdown = async move {
        shutdown.await;
        leaving.cancel();
        health::stopping(&health).await;
        if let Some(replicas) = &replicas {
            hand_over(&serves, replicas).await;
        }
        stop.cancel();
    };
    let incoming = kiln_auth::connections::bounded(incoming, config.max_connections, "`--max-connections`");
    let serving = server.serve_with_incoming_shutdown(incoming, shutdown);
    let cut = async move {
        stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        result = serving => result.context("the server failed"),
        () = cut => Ok(()),
    };
    if let Some(held) = seats.held() {
        held.term.tenants.settle().await;
    }
    served
}

/// Has another coordinator lead, if there is one, while this one still takes calls, which it passes on to that one.
async fn hand_over(seats: &Seats, replicas: &Replicas) {
    if let Some(held) = seats.held()
        && tokio::time::timeout(GRACE, held.term.tenants.settle()).await.is_err()
    {
        tracing::error!("the last of the journal is not written: whoever leads next resumes from what is there");
    }
    replicas.resign().await;
    if replicas.all().len() > 1 {
        seats.follows(GRACE).await;
    }
}

/// The token that calls must carry if no other authentication is configured.
fn local_token(config: &Config, address: SocketAddr) -> anyhow::Result<Option<Published>> {
    if config.auth.asks() {
        return Ok(None);
    }
    if config.auth.insecure {
        tracing::warn!(%address, "INSECURE: everyone who reaches this coordinator can do everything, including every user of this machine");
        return Ok(None);
    }
    let (token, _) = kiln_auth::tokens::generate();
    let published = kiln_proto::local::publish(address.port(), token, &config.data_dir)
        .context("cannot write the token for calls from this machine")?;
    tracing::info!(token_file = %published.path().display(), "calls require the token in this file; this user's `kiln` and workers find it");
    Ok(Some(published))
}

/// Creates the data directory and restricts it to its owner, because it contains tenants' sources and artifacts. A
/// directory that belongs to another user, such as a volume, is that user's to protect.
fn own(data_dir: &Path) -> anyhow::Result<()> {
    let wrong = || format!("cannot use the data directory `{}`", data_dir.display());
    kiln_state::syncs::make_directory(data_dir, &kiln_state::syncs::Kernel).with_context(wrong)?;
    let about = std::fs::metadata(data_dir).with_context(wrong)?;
    if about.uid() == rustix::process::geteuid().as_raw() {
        return std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).with_context(wrong);
    }
    if about.mode() & 0o007 != 0 {
        tracing::warn!(data_dir = %data_dir.display(), "the data directory belongs to another user and is open to everyone; restrict it");
    }
    Ok(())
}
