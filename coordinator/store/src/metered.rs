//! Decorator: measures a store's latency and counts its failures.
//!
//! Invariant: it does not change the behaviour of the store. A missing blob is not a failure.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::clock::Stamp;
use super::{ActionStore, BlobStore, BlobStream, BlobWriter, Error};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    store: &'static str,
    operation: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lookup {
    result: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // From a blob in memory to a bucket on another continent.
        Histogram::new([0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0])
    }
}

/// Metrics of the stores. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    seconds: Family<Operation, Histogram, Seconds>,
    errors: Family<Operation, Counter>,
    lookups: Family<Lookup, Counter>,
}

impl Metrics {
    /// Registers the metrics with `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            seconds: Family::new_with_constructor(Seconds),
            errors: Family::default(),
            lookups: Family::default(),
        };
        // Created at the start, so that the first event counts as an increase.
        for result in ["hit", "miss"] {
            drop(metrics.lookups.get_or_create(&Lookup { result }));
        }
        let help = "Time that a store took for an operation";
        registry.register("store_operation_seconds", help, metrics.seconds.clone());
        registry.register("store_errors", "Failed operations of a store", metrics.errors.clone());
        let help = "Lookups of action results, by outcome";
        registry.register("action_cache_lookups", help, metrics.lookups.clone());
        metrics
    }

    /// Counts a lookup of a result.
    pub(super) fn looked_up(&self, is_hit: bool) {
        self.lookups.get_or_create(&Lookup { result: if is_hit { "hit" } else { "miss" } }).inc();
    }
}

/// The store, measured if metrics are enabled.
pub(super) fn blobs(metrics: Option<&Metrics>, name: &'static str, store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    match metrics {
        Some(metrics) => Arc::new(Metered::new(metrics.clone(), name, store)),
        None => store,
    }
}

/// The store, measured if metrics are enabled.
pub(super) fn actions(
    metrics: Option<&Metrics>,
    name: &'static str,
    store: Arc<dyn ActionStore>,
) -> Arc<dyn ActionStore> {
    match metrics {
        Some(metrics) => {
            let meter = Meter::new(metrics.clone(), name, &["get_result", "put_result", "remove_result"]);
            Arc::new(MeteredActions { meter, store })
        }
        None => store,
    }
}

/// The name of the measured store, and its metrics.
#[derive(Debug, Clone)]
struct Meter {
    metrics: Metrics,
    store: &'static str,
}

impl Meter {
    fn new(metrics: Metrics, store: &'static str, operations: &[&'static str]) -> Self {
        // Created at the start, so that the first failure counts as an increase.
        for operation in operations {
            drop(metrics.errors.get_or_create(&Operation { store, operation }));
        }
        Self { metrics, store }
    }

    async fn measure<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let result = work.await;
        self.took(operation, began);
        self.failed(operation, result.as_ref().err());
        result
    }

    fn took(&self, operation: &'static str, began: Instant) {
        let operation = Operation { store: self.store, operation };
        self.metrics.seconds.get_or_create(&operation).observe(began.elapsed().as_secs_f64());
    }

    fn failed(&self, operation: &'static str, error: Option<&Error>) {
        if error.is_some_and(is_stores) {
            self.metrics.errors.get_or_create(&Operation { store: self.store, operation }).inc();
        }
    }
}

/// Whether the store is to blame, rather than the request.
fn is_stores(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::Mismatch { .. }
            | Error::TooLong { .. }
            | Error::OutOfRange { .. }
            | Error::TooLarge { .. }
            | Error::Abandoned { .. }
    )
}

/// A blob store that is measured.
#[derive(Debug)]
pub struct Metered {
    meter: Meter,
    store: Arc<dyn BlobStore>,
}

impl Metered {
    /// Measures `store` under this name.
    pub fn new(metrics: Metrics, name: &'static str, store: Arc<dyn BlobStore>) -> Self {
        let operations = ["find_missing", "get", "get_many", "read", "put", "put_many", "write", "commit"];
        Self { meter: Meter::new(metrics, name, &operations), store }
    }
}

#[async_trait]
impl BlobStore for Metered {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.meter.measure("find_missing", self.store.find_missing(digests)).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, Error> {
        self.meter.measure("get", self.store.get(digest)).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let began = Instant::now();
        let results = self.store.get_many(digests).await;
        self.meter.took("get_many", began);
        results.iter().for_each(|result| self.meter.failed("get_many", result.as_ref().err()));
        results
    }

    /// The measured time ends when the first piece is available; later failures are counted as well.
    async fn read(&self, digest: &Digest, offset: u64, limit: Option<u64>) -> Result<BlobStream, Error> {
        let pieces = self.meter.measure("read", self.store.read(digest, offset, limit)).await?;
        let meter = self.meter.clone();
        Ok(pieces.inspect(move |piece| meter.failed("read", piece.as_ref().err())).boxed())
    }

    async fn put(&self, digest: &Digest, data: Bytes) -> Result<(), Error> {
        self.meter.measure("put", self.store.put(digest, data)).await
    }

    async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let began = Instant::now();
        let results = self.store.put_many(blobs).await;
        self.meter.took("put_many", began);
        results.iter().for_each(|result| self.meter.failed("put_many", result.as_ref().err()));
        results
    }

    async fn write(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, Error> {
        let writer = self.meter.measure("write", self.store.write(digest)).await?;
        Ok(Box::new(Writer { meter: self.meter.clone(), writer }))
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    fn capacity(&self) -> u64 {
        self.store.capacity()
    }
}

struct Writer {
    meter: Meter,
    writer: Box<dyn BlobWriter>,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let result = self.writer.write(data).await;
        self.meter.failed("write", result.as_ref().err());
        result
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        self.meter.measure("commit", self.writer.commit()).await
    }
}

/// An action store that is measured.
#[derive(Debug)]
pub struct MeteredActions {
    meter: Meter,
    store: Arc<dyn ActionStore>,
}

#[async_trait]
impl ActionStore for MeteredActions {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        self.meter.measure("get_result", self.store.get(instance, action)).await
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        self.meter.measure("put_result", self.store.put(instance, action, result)).await
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        self.meter.measure("remove_result", self.store.remove(instance, action)).await
    }

    async fn by_hash(
        &self,
        instance: &str,
        function: DigestFunction,
        hash: &[u8; 32],
    ) -> Result<Option<Digest>, Error> {
        self.store.by_hash(instance, function, hash).await
    }

    fn used(&self, instance: &str, action: &Digest, at: Stamp) {
        self.store.used(instance, action, at);
    }
}
