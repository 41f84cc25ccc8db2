//! For tests: cache mounts in memory, behind a real gRPC server.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_proto::v1::cache_mounts_server::CacheMounts;
use kiln_proto::v1::{self, CacheSharing};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::F;

type Name = (String, String);
type Lock = Arc<tokio::sync::Mutex<()>>;

/// What was published under each name.
#[derive(Clone, Default)]
pub struct Caches {
    published: Arc<Mutex<HashMap<Name, (Digest, Digest)>>>,
    locks: Arc<Mutex<HashMap<Name, Lock>>>,
}

fn key(name: Option<v1::CacheName>) -> Name {
    let name = name.unwrap_or_default();
    (name.project, name.id)
}

impl Caches {
    /// The tree and the times that were published last under an id.
    pub fn get(&self, project: &str, id: &str) -> Option<(Digest, Digest)> {
        self.published.lock().get(&(project.to_owned(), id.to_owned())).copied()
    }

    /// Publishes something, as another worker does.
    pub fn put(&self, project: &str, id: &str, published: (Digest, Digest)) {
        self.published.lock().insert((project.to_owned(), id.to_owned()), published);
    }
}

#[tonic::async_trait]
impl CacheMounts for Caches {
    type TakeStream = Pin<Box<dyn Stream<Item = Result<v1::TakenCache, Status>> + Send>>;

    async fn take(&self, request: Request<v1::TakeCacheRequest>) -> Result<Response<Self::TakeStream>, Status> {
        let request = request.into_inner();
        let (sharing, key) = (request.sharing(), key(request.name));
        let lock = self.locks.lock().entry(key.clone()).or_default().clone();
        let alone = match sharing {
            CacheSharing::CacheShared => None,
            CacheSharing::CacheLocked => Some(lock.lock_owned().await),
            CacheSharing::CachePrivate => match lock.try_lock_owned() {
                Ok(alone) => Some(alone),
                Err(_) => {
                    let discard = Ok(v1::TakenCache { discard: true, ..Default::default() });
                    return Ok(Response::new(Box::pin(stream::iter([discard]))));
                }
            },
        };
        let found = self.published.lock().get(&key).copied();
        let taken = v1::TakenCache {
            tree: found.map(|(tree, _)| tree.to_wire()),
            times: found.map(|(_, times)| times.to_wire()),
            discard: false,
        };
        let first = stream::iter([Ok(taken)]);
        Ok(Response::new(match alone {
            None => Box::pin(first),
            Some(alone) => Box::pin(first.chain(stream::once(async move {
                let _alone = alone;
                std::future::pending().await
            }))),
        }))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishCacheRequest>,
    ) -> Result<Response<v1::PublishCacheResponse>, Status> {
        let request = request.into_inner();
        let digest = |wire: Option<&kiln_proto::reapi::Digest>| Digest::required(F, wire).unwrap();
        let published = (digest(request.tree.as_ref()), digest(request.times.as_ref()));
        self.published.lock().insert(key(request.name), published);
        Ok(Response::new(v1::PublishCacheResponse {}))
    }
}
