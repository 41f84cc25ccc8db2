//! `kiln.v1.CacheMounts`: workers take and publish the caches that their leases name.
//!
//! Invariant: what a worker publishes, it may read for its lease, has sent for it, or has shown to have.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_proto::v1::cache_mounts_server;
use kiln_proto::v1::{self, CacheName, CacheSharing};
use tonic::{Request, Response, Status};

use kiln_caches::{Alone, Began, Caches, Place, Published};
use kiln_execution::LeaseAccess;

/// Serves a tenant's caches.
#[derive(Debug)]
pub struct CacheMounts {
    caches: Caches,
}

impl CacheMounts {
    /// Serves these caches.
    pub fn new(caches: Caches) -> Self {
        Self { caches }
    }

    /// What a step that takes this cache begins with: a branch that has none begins with the base's.
    async fn current(&self, place: Place<'_>) -> Result<Option<Published>, Status> {
        let published = self.caches.take(place).await?;
        if published.is_some() || place.name.scope.is_empty() {
            return Ok(published);
        }
        let base = CacheName { scope: String::new(), ..place.name.clone() };
        Ok(self.caches.take(Place { name: &base, ..place }).await?)
    }
}

/// The lease of a call.
fn lease<T>(request: &Request<T>) -> Result<LeaseAccess, Status> {
    let lease = request.extensions().get::<LeaseAccess>().cloned();
    lease.ok_or_else(|| {
        Status::permission_denied("no lease was presented; only a worker uses cache mounts, for a lease that it holds")
    })
}

/// The name of a cache that the lease may use.
fn named(lease: &LeaseAccess, name: Option<CacheName>, sharing: CacheSharing) -> Result<CacheName, Status> {
    let mut name = name.ok_or_else(|| Status::invalid_argument("the cache has no name"))?;
    lease.may_use_cache(&name)?;
    name.worker = match sharing {
        CacheSharing::CachePrivate => lease.worker().to_owned(),
        CacheSharing::CacheShared | CacheSharing::CacheLocked => String::new(),
    };
    Ok(name)
}

#[tonic::async_trait]
impl cache_mounts_server::CacheMounts for CacheMounts {
    type TakeStream = Pin<Box<dyn Stream<Item = Result<v1::TakenCache, Status>> + Send>>;

    async fn take(&self, request: Request<v1::TakeCacheRequest>) -> Result<Response<Self::TakeStream>, Status> {
        let lease = lease(&request)?;
        let asked = request.into_inner();
        let sharing = asked.sharing();
        let name = named(&lease, asked.name, sharing)?;
        let place = Place { instance: lease.instance(), function: lease.function(), name: &name };
        let alone = match sharing {
            // It publishes nothing, so steps need not wait for it.
            _ if lease.is_shell() => None,
            CacheSharing::CacheShared => None,
            CacheSharing::CacheLocked => self.caches.alone(place).await,
            CacheSharing::CachePrivate => match self.caches.try_alone(place) {
                None => return Ok(Response::new(answer(v1::TakenCache { discard: true, ..Default::default() }, None))),
                alone => alone,
            },
        };
        let mut taken = v1::TakenCache::default();
        if let Some(published) = self.current(place).await? {
            lease.add_tree(published.tree).await?;
            lease.add_blob(&published.times).await?;
            (taken.tree, taken.times) = (Some(published.tree.to_wire()), Some(published.times.to_wire()));
        }
        Ok(Response::new(answer(taken, alone)))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishCacheRequest>,
    ) -> Result<Response<v1::PublishCacheResponse>, Status> {
        let lease = lease(&request)?;
        if lease.is_shell() {
            return Err(Status::permission_denied("nothing of what happens in a shell is published"));
        }
        let asked = request.into_inner();
        let sharing = asked.sharing();
        let name = named(&lease, asked.name, sharing)?;
        let place = Place { instance: lease.instance(), function: lease.function(), name: &name };
        let required = |digest: Option<&kiln_proto::reapi::Digest>| {
            Digest::required(lease.function(), digest).map_err(crate::status::bad_digest)
        };
        let published = Published { tree: required(asked.tree.as_ref())?, times: required(asked.times.as_ref())? };
        let began = match (&asked.began, asked.began_empty) {
            (Some(_), _) => Began::With(required(asked.began.as_ref())?),
            (None, true) => Began::Nothing,
            (None, false) => Began::Unknown,
        };
        // Another coordinator may have given it what it began with.
        if let Began::With(tree) = &began
            && self.current(place).await?.is_some_and(|current| current.tree == *tree)
        {
            lease.add_tree(*tree).await?;
        }
        lease.has_all(&[published.tree, published.times]).await?;
        lease.has_tree(&published.tree).await?;
        self.caches.publish(place, published, began, lease.worker()).await?;
        Ok(Response::new(v1::PublishCacheResponse {}))
    }
}

/// One answer; the stream stays open for as long as the cache is the caller's alone.
fn answer(
    taken: v1::TakenCache,
    alone: Option<Alone>,
) -> Pin<Box<dyn Stream<Item = Result<v1::TakenCache, Status>> + Send>> {
    let first = stream::once(async { Ok(taken) });
    match alone {
        None => Box::pin(first),
        Some(alone) => Box::pin(first.chain(stream::once(async move {
            let _alone = alone;
            std::future::pending().await
        }))),
    }
}
