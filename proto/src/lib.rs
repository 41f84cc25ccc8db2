//! The contract between Kiln's processes, byte for byte: messages, digests, Merkle trees,
//! resource names, platform property names and the transfer client.
//!
//! Invariant: nothing here knows about scheduling, languages or storage engines.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod agent;
pub mod calls;
pub mod channel;
pub mod chunking;
pub mod clock;
pub mod conditions;
pub mod descriptors;
pub mod digest;
pub mod elements;
#[doc(hidden)]
pub mod fuzzing;
pub mod join;
pub mod local;
pub mod made;
pub mod meter;
pub mod possession;
pub mod precondition;
pub mod property;
pub mod protocol;
pub mod resource_name;
pub mod root;
pub mod scope;
pub mod secret;
pub mod transfer;
pub mod usage;

/// The Remote Asset API.
pub use bazel_remote_apis::build::bazel::remote::asset::v1 as asset;
/// REAPI v2 messages and services.
pub use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
/// REAPI's version message.
pub use bazel_remote_apis::build::bazel::semver;
/// `google.bytestream`.
pub use bazel_remote_apis::google::bytestream;
/// `google.longrunning`.
pub use bazel_remote_apis::google::longrunning;
/// The well-known types in REAPI's messages. Kiln's own messages use `prost_types`.
pub use bazel_remote_apis::google::protobuf;
/// `google.rpc`.
pub use bazel_remote_apis::google::rpc;

/// Kiln's own messages and services, `kiln.v1`.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod v1 {
    tonic::include_proto!("kiln.v1");
}

/// `google.devtools.build.v1`: the Build Event Service.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod bes {
    tonic::include_proto!("google.devtools.build.v1");
}

/// Bazel's Build Event Protocol, as far as it is read here.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant, clippy::enum_variant_names)]
pub mod build_events {
    tonic::include_proto!("build_event_stream");
}
