//! Bazel's results and blobs: those of the Remote Execution services, asked for by their hash alone.
//!
//! Bazel names no sizes, and every digest here has one. The size of a blob is known from when it was stored, or from the
//! result that named it; that of an action from a pointer, an entry that is written with the action's result, or from a
//! result on this coordinator's disk.

use hashlink::LruCache;
use kiln_dialects::{Entry, Pieces, Refusal, Room, Tool, WORKER};
use kiln_proto::digest::Digest;
use kiln_proto::{made, reapi};
use parking_lot::Mutex;
use prost::Message;

use crate::body::{self, FUNCTION};
use crate::caller::Caller;
use crate::entries::{self, Drawer, INSTANCE};
use crate::refusal::failed;

/// Number of sizes that are remembered.
const REMEMBERED: usize = 500_000;
/// Largest result that is taken, in bytes.
const MAX_RESULT: usize = 8 << 20;
/// Number of elements of such a result.
const MAX_ELEMENTS: usize = 200_000;

type Hash = [u8; 32];

/// The sizes of blobs by tenant and hash.
#[derive(Debug)]
pub(crate) struct Sizes(Mutex<LruCache<(String, Hash), u64>>);

impl Default for Sizes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Sizes {
    fn note(&self, tenant: &str, digests: impl IntoIterator<Item = Digest>) {
        let mut sizes = self.0.lock();
        for digest in digests {
            sizes.insert((tenant.to_owned(), digest.hash), digest.size);
        }
    }

    fn digest(&self, tenant: &str, hash: &Hash) -> Option<Digest> {
        let empty = Digest::empty(FUNCTION);
        if empty.hash == *hash {
            return Some(empty);
        }
        let size = *self.0.lock().get(&(tenant.to_owned(), *hash))?;
        Some(Digest { function: FUNCTION, hash: *hash, size })
    }

    /// A blob that is stored.
    pub(crate) async fn blob(&self, caller: &Caller, hash: &Hash) -> Result<Digest, Refusal> {
        let digest = self.digest(&caller.identity.tenant, hash).ok_or(Refusal::Missing)?;
        let missing = caller.stores.blobs.find_missing(&[digest]).await.map_err(failed)?;
        if missing.is_empty() { Ok(digest) } else { Err(Refusal::Missing) }
    }

    /// Stores a blob, which must have this hash.
    pub(crate) async fn put_blob(
        &self,
        caller: &Caller,
        room: &Room,
        hash: &Hash,
        pieces: &mut Pieces,
    ) -> Result<(), Refusal> {
        let stores = &caller.stores;
        let digest = match pieces.announced {
            Some(size) => {
                room.admit(size)?;
                let digest = Digest { function: FUNCTION, hash: *hash, size };
                if !stores.blobs.find_missing(&[digest]).await.map_err(failed)?.is_empty() {
                    body::store_as(&digest, pieces, stores).await?;
                }
                digest
            }
            None => {
                let received = room.receive(pieces).await?;
                if received.digest.hash != *hash {
                    let words = format!("the body's SHA-256 is {}; nothing was stored", received.digest.hex());
                    return Err(Refusal::Mismatch(words));
                }
                body::store(received, stores).await?
            }
        };
        self.note(&caller.identity.tenant, [digest]);
        Ok(())
    }

    /// A complete result, encoded: the caller's scope's, or else the base's.
    pub(crate) async fn result(&self, caller: &Caller, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let (stores, key) = (&caller.stores, hex::encode(hash));
        for drawer in results(caller).searched() {
            if drawer.scope.is_none()
                && let Some(action) = self.action(caller, hash).await?
                && let Some(result) = stores.cached_result(INSTANCE, &action).await.map_err(failed)?
            {
                return self.named(caller, &action, result).await;
            }
            let digest = drawer.digest(&key);
            if let Some(result) = stores.cached_result(INSTANCE, &digest).await.map_err(failed)? {
                return self.named(caller, &digest, result).await;
            }
        }
        Err(Refusal::Missing)
    }

    /// Remembers what a result names: its blobs are asked for next.
    async fn named(&self, caller: &Caller, key: &Digest, result: reapi::ActionResult) -> Result<Vec<u8>, Refusal> {
        let own = result.output_files.iter().map(|file| file.digest.as_ref());
        let streams = [result.stdout_digest.as_ref(), result.stderr_digest.as_ref()];
        let own = own.chain(streams).flatten().filter_map(|digest| Digest::from_wire(FUNCTION, digest).ok());
        let mut named: Vec<Digest> = own.collect();
        if !result.output_directories.is_empty() {
            named.extend(caller.stores.collector.named_by(key, &result).await.map_err(failed)?);
        }
        self.note(&caller.identity.tenant, named);
        Ok(result.encode_to_vec())
    }

    /// The action with this hash, if it is known.
    async fn action(&self, caller: &Caller, hash: &Hash) -> Result<Option<Digest>, Refusal> {
        if let Some(known) = self.digest(&caller.identity.tenant, hash) {
            return Ok(Some(known));
        }
        let pointer = entries::find(&caller.stores, POINTERS, &hex::encode(hash)).await?;
        let digest = match pointer.map(|pointer| pointer.body).filter(|action| action.hash == *hash) {
            // It was built, or stored by gRPC, on this coordinator.
            None => caller.stores.actions.by_hash(INSTANCE, FUNCTION, hash).await.map_err(failed)?,
            known => known,
        };
        self.note(&caller.identity.tenant, digest);
        Ok(digest)
    }

    /// Stores a result: in the base it is the action's, if that was stored before it, as Bazel does.
    pub(crate) async fn put_result(&self, caller: &Caller, hash: &Hash, pieces: &mut Pieces) -> Result<(), Refusal> {
        let (stores, key) = (&caller.stores, hex::encode(hash));
        let mut result = decode(&pieces.whole(MAX_RESULT).await?)?;
        let metadata = result.execution_metadata.get_or_insert_default();
        if metadata.worker.is_empty() {
            metadata.worker = WORKER.to_owned();
        }
        made::written_by(metadata, &caller.identity.name);
        let drawer = results(caller);
        if drawer.scope.is_none()
            && let Some(action) = self.digest(&caller.identity.tenant, hash)
            && stores.blobs.find_missing(&[action]).await.map_err(failed)?.is_empty()
        {
            let pointer = Entry { body: action, headers: Default::default() };
            entries::keep(caller, POINTERS, &key, &pointer).await?;
            return stores.actions.put(INSTANCE, &action, result).await.map_err(failed);
        }
        stores.actions.put(INSTANCE, &drawer.digest(&key), result).await.map_err(failed)
    }
}

/// Where an action's size is found by its hash.
const POINTERS: Drawer<'static> = Drawer { tool: Tool::Bazel, kind: "action", scope: None };

/// Where results are that are not in the base under their action's digest.
fn results(caller: &Caller) -> Drawer<'_> {
    Drawer { tool: Tool::Bazel, kind: "result", scope: caller.scope.as_deref() }
}

fn decode(data: &[u8]) -> Result<reapi::ActionResult, Refusal> {
    let wrong = |words: String| Refusal::Malformed(format!("the body is no result of an action: {words}"));
    let result = reapi::ActionResult::decode(data).map_err(|error| wrong(error.to_string()))?;
    let lengths = [result.output_files.len(), result.output_directories.len(), result.output_symlinks.len()];
    let elements = lengths.into_iter().fold(0, usize::saturating_add);
    if elements > MAX_ELEMENTS {
        return Err(wrong(format!("it has more than {MAX_ELEMENTS} outputs")));
    }
    for file in &result.output_files {
        Digest::required(FUNCTION, file.digest.as_ref()).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(result)
}
