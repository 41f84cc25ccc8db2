//! What is in the layers of an image, or in an archive: read once as it is stored, with a bound on everything.

use std::io::{self, Read};
use std::sync::Arc;

use futures::TryStreamExt;
use hashlink::LruCache;
use kiln_proto::bytestream::ReadRequest;
use kiln_proto::reapi;
use kiln_web_contents::Listing;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::answer::Failure;
use crate::blobs::Space;
use crate::calls::Client;

/// Bytes of one unpacked layer that are read.
const BYTES: u64 = 8 << 30;
/// Layers that are kept, and that are read at the same time.
const KEPT: usize = 16;
const AT_ONCE: usize = 2;

/// Tenant, instance and hash.
type Key = (String, String, String);

/// The layers that were looked at lately. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    known: Arc<Mutex<LruCache<Key, Arc<Listing>>>>,
    places: Arc<Semaphore>,
}

impl Default for Layers {
    fn default() -> Self {
        Self { known: Arc::new(Mutex::new(LruCache::new(KEPT))), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Layers {
    /// What is in a blob of this media type that a visitor of this tenant has reached by name.
    pub(crate) async fn read(
        &self,
        (client, tenant): (&Client, &str),
        space: &Space,
        digest: &reapi::Digest,
        media_type: &str,
    ) -> Result<Arc<Listing>, Failure> {
        let key = (tenant.to_owned(), space.instance.clone(), digest.hash.clone());
        let known = self.known.lock().get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let closed = |_| Failure::bad("The farm is shutting down.");
        let place = self.places.clone().acquire_owned().await.map_err(closed)?;
        let request = ReadRequest { resource_name: space.name(digest), ..ReadRequest::default() };
        let pieces = client.bytes().read(request).await?.into_inner();
        let pieces = pieces.map_ok(|piece| bytes::Bytes::from(piece.data)).map_err(io::Error::other);
        let (reader, media_type) = (SyncIoBridge::new(StreamReader::new(Box::pin(pieces))), media_type.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            // However long it takes, nobody reads more layers meanwhile, also if its visitor has left.
            let _place = place;
            let plain = kiln_images::layer::unpacked(&media_type, reader)?;
            Ok::<_, io::Error>(Listing::of(plain.take(BYTES)))
        });
        let failed = |error: String| Failure::bad(format!("It cannot be read: {error}"));
        let listing = read.await.map_err(|error| failed(error.to_string()))?;
        let listing = Arc::new(listing.map_err(|error| failed(error.to_string()))?);
        self.known.lock().insert(key, listing.clone());
        Ok(listing)
    }
}
