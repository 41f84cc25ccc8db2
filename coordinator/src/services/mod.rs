//! The gRPC services: thin adapters between the wire and the crates that do the work.

pub mod action_cache;
pub mod agents;
mod asked;
pub mod budget;
pub mod builds;
pub mod bytestream;
pub mod cache;
pub mod calls;
pub mod capabilities;
pub mod cas;
mod chunks;
mod compression;
pub mod execution;
pub mod farm;
pub mod health;
mod leased;
pub mod membership;
mod metadata;
pub mod mounts;
mod oversized;
pub mod possession;
pub mod shells;
mod tree;
mod uploads;
pub mod workers;

use std::sync::Arc;

use kiln_proto::bytestream::byte_stream_server::ByteStreamServer;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::action_cache_server::ActionCacheServer;
use kiln_proto::reapi::capabilities_server::CapabilitiesServer;
use kiln_store::Stores;
use tonic::service::Routes;

pub use action_cache::ActionCache;
pub(crate) use asked::{Keeps, Noted, notes};
pub use bytestream::ByteStream;
pub use capabilities::Capabilities;
pub use cas::ContentAddressableStorage;
pub use kiln_execution::log::{NoLogs, ReadLogs};

/// Advertised limit for the blobs of one batch call. Clients must stay below gRPC's usual message limit of 4 MiB with
/// the envelope; the servers' own limit is [`kiln_proto::channel::MAX_MESSAGE_BYTES`].
pub const MAX_BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// The services that need nothing but a tenant's stores. Hits of invocations of Bazel are told to whoever keeps them.
pub(crate) fn over_stores(stores: &Stores, keeps: Keeps) -> Routes {
    macro_rules! sized {
        ($service:expr) => {
            $service.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    Routes::new(sized!(CapabilitiesServer::new(Capabilities)))
        .add_service(ContentAddressableStorage::server(stores.clone()))
        .add_service(sized!(ByteStreamServer::new(ByteStream::new(stores.clone(), Arc::new(NoLogs)))))
        .add_service(sized!(ActionCacheServer::new(ActionCache::new(stores.clone()).telling(keeps))))
}

/// An action's name in the audit log.
fn action(instance: &str, action: &Digest) -> String {
    if instance.is_empty() { format!("action {action}") } else { format!("action {action} of instance {instance}") }
}
