//! The coordinator's process: opens what it has on disk, serves, and stops in order.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use kiln_core::scheduler;
use kiln_proto::bytestream::byte_stream_server::ByteStreamServer;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::longrunning::operations_server::OperationsServer;
use kiln_proto::reapi::action_cache_server::ActionCacheServer;
use kiln_proto::reapi::capabilities_server::CapabilitiesServer;
use kiln_proto::reapi::execution_server::ExecutionServer;
use kiln_proto::v1::artifacts_server::ArtifactsServer;
use kiln_proto::v1::builds_server::BuildsServer;
use kiln_proto::v1::cache_server::CacheServer;
use kiln_proto::v1::farm_server::FarmServer;
use kiln_proto::v1::workers_server::WorkersServer;
use kiln_telemetry::calls::Calls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::Config;
use crate::builds::Builds;
use crate::execution::ExecutionHandle;
use crate::layers::{self, LayerStore, Layers, RedbLayers, SharedLayers};
use crate::metrics::Metrics;
use crate::services::{action_cache, builds, bytestream, cache, capabilities, cas, execution, farm, health, workers};
use crate::store::{self, Stores};

/// How long calls may go on after the coordinator was asked to stop. Streams that never end are cut then.
const GRACE: Duration = Duration::from_secs(3);
/// How long after a start an action waits for a worker that matches: they dial within seconds.
const MATCH_GRACE_MS: u64 = 15_000;
/// Calls that begin work: they are traced also where their caller is not.
const BEGIN: [&str; 2] = ["/kiln.v1.Builds/Submit", "/build.bazel.remote.execution.v2.Execution/Execute"];
/// Records of layers that are kept: one for each step, target and shard of a project.
const MAX_LAYER_RECORDS: u64 = 20_000;

/// Serves on `listener` until `shutdown`.
///
/// # Errors
/// Where the data directory cannot be opened, or the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let mut kept = config.stores()?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    kept.metrics = metrics.as_ref().map(|metrics| metrics.store.clone());
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the data directory `{}`", config.data_dir.display()))?;
    let stores = Stores::open(&kept).await?;
    let collecting = tokio::spawn(stores.collector.clone().run(config.collect_every));
    let _collecting = tokio_util::task::AbortOnDropHandle::new(collecting);
    let execution = ExecutionHandle::spawn(stores.clone(), scheduling());
    let records = RedbLayers::open(&config.data_dir.join("layers.redb"), MAX_LAYER_RECORDS)
        .context("cannot open the index of layers; does another coordinator use this data directory?")?;
    let records = shared_layers(records, &kept, &stores).await?;
    let layers = Layers::spawn(records, stores.clone());
    let builds = Builds::open(
        config.data_dir.join("builds"),
        stores.clone(),
        execution.clone(),
        layers.clone(),
        config.allow_emulation,
        config.registries(),
        metrics.as_ref().map(|metrics| metrics.builds.clone()),
    )
    .context("cannot open the index of builds; does another coordinator use this data directory?")?;

    let stopping = CancellationToken::new();
    let counted = metrics.as_ref().map(|metrics| metrics.calls.clone());
    let methods = kiln_proto::descriptors::methods().into_iter().chain(health::methods()?);
    let calls = Calls::new(methods, &BEGIN, counted);
    if let Some(metrics) = metrics {
        metrics.serve(execution.clone(), stopping.clone())?;
    }
    let (health, health_server) = health::serving().await;
    let operations = execution::Execution::new(execution.clone(), config.abandoned_after, stopping.clone());
    let served = builds::Builds::new(builds);
    macro_rules! sized {
        ($service:expr) => {
            $service.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .layer(calls)
        .add_service(health_server)
        .add_service(health::reflection()?)
        .add_service(sized!(CapabilitiesServer::new(capabilities::Capabilities)))
        .add_service(cas::ContentAddressableStorage::server(stores.clone()))
        .add_service(sized!(ByteStreamServer::new(bytestream::ByteStream::new(stores.clone(), execution.logs()))))
        .add_service(sized!(ActionCacheServer::new(action_cache::ActionCache::new(stores))))
        .add_service(sized!(ExecutionServer::new(operations.clone())))
        .add_service(sized!(OperationsServer::new(operations)))
        .add_service(sized!(WorkersServer::new(workers::Workers::new(execution.clone()))))
        .add_service(sized!(FarmServer::new(farm::Farm::new(execution))))
        .add_service(sized!(CacheServer::new(cache::Cache::new(layers.clone()))))
        .add_service(sized!(BuildsServer::new(served.clone())))
        .add_service(sized!(ArtifactsServer::new(served)));
    let address = listener.local_addr()?;
    tracing::info!(%address, data_dir = %config.data_dir.display(), "ready");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stop = stopping.clone();
    let serving = server.serve_with_incoming_shutdown(incoming, async move {
        shutdown.await;
        stop.cancel();
        health::stopping(&health).await;
    });
    let cut = async move {
        stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        result = serving => result.context("the server failed"),
        () = cut => Ok(()),
    };
    layers.settle().await;
    served
}

/// Records of layers beside those of the coordinators that share a Redis with this one, where there is one.
async fn shared_layers(
    own: RedbLayers,
    config: &store::Config,
    stores: &Stores,
) -> Result<Arc<dyn LayerStore>, layers::Error> {
    let (Some(link), Some(redis)) = (&stores.redis, &config.redis) else { return Ok(Arc::new(own)) };
    let keys = store::redis::Keys::new(&redis.prefix, config.life);
    let parts = store::redis::Parts::new(link.clone(), keys, MAX_LAYER_RECORDS as usize);
    Ok(SharedLayers::open(own, parts, stores.blobs.clone()).await?)
}

/// Leases are numbered from the time of the start, so that those of an earlier run are told apart.
fn scheduling() -> scheduler::Config {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    scheduler::Config {
        first_lease: (now.as_millis() as u64) << 16,
        match_grace: MATCH_GRACE_MS,
        ..scheduler::Config::default()
    }
}
