//! Fuzz targets, used by `coordinator/fuzz` and, in a short form, by `coordinator/tests/hostile_bytes.rs`.
//!
//! Each function accepts any bytes, and panics if an invariant is violated. They share stores and a runtime that live
//! as long as the process.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::worker_message;
use kiln_proto::{reapi, v1};
use prost::Message;
use reapi::content_addressable_storage_server::ContentAddressableStorage as _;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request, Status};

use crate::services::{ContentAddressableStorage, workers};
use kiln_execution::ExecutionHandle;
use kiln_store::{Config, Stores};

const F: DigestFunction = DigestFunction::Sha256;
/// Maximum number of messages from one worker: more would test nothing new.
const MAX_MESSAGES: usize = 64;

struct World {
    runtime: Runtime,
    stores: Stores,
    _dir: tempfile::TempDir,
}

/// The services, created once.
#[allow(clippy::expect_used)]
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime is made");
        let dir = tempfile::tempdir().expect("a directory is made");
        let config = Config::on_disk(dir.path().to_owned(), 1 << 30);
        let stores = runtime.block_on(Stores::open(&config)).expect("stores are opened");
        World { runtime, stores, _dir: dir }
    })
}

/// Messages from a worker, each with a length prefix: the farm must continue, whatever they contain.
pub fn worker_messages(mut data: &[u8]) {
    let world = world();
    let mut messages = Vec::new();
    while data.has_remaining() && messages.len() < MAX_MESSAGES {
        let Ok(message) = v1::WorkerMessage::decode_length_delimited(&mut data) else { break };
        messages.extend(message.message);
    }
    world.runtime.block_on(async {
        let execution = ExecutionHandle::spawn(world.stores.clone(), kiln_scheduler::Config::default());
        // The second worker is admitted next to the first, and refers to its leases.
        for name in ["one", "other"] {
            let (link, _heard) = mpsc::channel(MAX_MESSAGES);
            let mut register = v1::Register { worker: name.to_owned(), ..Default::default() };
            if let Some(worker_message::Message::Register(said)) = messages.first()
                && workers::check(said).is_ok()
            {
                register = v1::Register { worker: name.to_owned(), ..said.clone() };
            }
            let Ok(connection) = execution.connect(register, link).await else { continue };
            let room = std::sync::Arc::new(Semaphore::new(MAX_MESSAGES));
            for message in &messages {
                if let Ok(room) = room.clone().acquire_owned().await {
                    execution.said(name, connection, message.clone(), room);
                }
            }
        }
        let asked = tokio::time::timeout(Duration::from_secs(10), execution.farm());
        assert!(matches!(asked.await, Ok(Ok(_))), "expected the farm to go on after {messages:?}");
    });
}

/// A client's list of the chunks that form a blob.
pub fn chunk_list(data: &[u8]) {
    let Ok(request) = reapi::SpliceBlobRequest::decode(data) else { return };
    let world = world();
    world.runtime.block_on(async {
        let blobs = &world.stores.blobs;
        let chunks: [&[u8]; 2] = [b"one chunk", b"another"];
        for chunk in chunks {
            blobs.put(&F.digest(chunk), Bytes::from_static(chunk)).await.ok();
        }
        let service = ContentAddressableStorage::new(world.stores.clone());
        let named = request.blob_digest.clone();
        let spliced = service.splice_blob(Request::new(request)).await;
        if spliced.is_ok()
            && let Some(digest) = named.and_then(|digest| Digest::from_wire(F, &digest).ok())
        {
            let whole = blobs.get(&digest).await.expect("what was spliced is there");
            assert_eq!(F.digest(&whole), digest, "expected only what was hashed to be stored");
        }
    });
}

/// Calls to the content services, one message each.
pub fn content_calls(data: &[u8]) {
    let world = world();
    let service = ContentAddressableStorage::new(world.stores.clone());
    let lawful = |status: Result<(), Status>| {
        if let Err(status) = status {
            assert!(
                !matches!(status.code(), Code::Internal | Code::Unknown),
                "expected a refusal in words, found {status}"
            );
        }
    };
    world.runtime.block_on(async {
        if let Ok(request) = reapi::FindMissingBlobsRequest::decode(data) {
            lawful(service.find_missing_blobs(Request::new(request)).await.map(drop));
        }
        if let Ok(request) = reapi::BatchReadBlobsRequest::decode(data) {
            lawful(service.batch_read_blobs(Request::new(request)).await.map(drop));
        }
        if let Ok(request) = reapi::BatchUpdateBlobsRequest::decode(data) {
            lawful(service.batch_update_blobs(Request::new(request)).await.map(drop));
        }
        if let Ok(request) = reapi::GetTreeRequest::decode(data) {
            lawful(service.get_tree(Request::new(request)).await.map(drop));
        }
    });
}
