//! Names of the farm's services: for reflection, health, metrics and authorisation.
//!
//! Invariant: [`methods`] contains every method of every service that the coordinator offers.

use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

/// Descriptors of `kiln.v1`, an encoded `FileDescriptorSet`. Of REAPI's messages it contains the names, and the fields
/// that a caller by hand needs.
pub const KILN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kiln.bin"));

/// The methods of Remote Execution's services and of the Remote Asset API's, by path. `bazel-remote-apis` has no descriptors for them.
pub const REMOTE_EXECUTION: &[&str] = &[
    "/build.bazel.remote.asset.v1.Fetch/FetchBlob",
    "/build.bazel.remote.asset.v1.Fetch/FetchDirectory",
    "/build.bazel.remote.asset.v1.Push/PushBlob",
    "/build.bazel.remote.asset.v1.Push/PushDirectory",
    "/build.bazel.remote.execution.v2.ActionCache/GetActionResult",
    "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult",
    "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetChunkMapping",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob",
    "/build.bazel.remote.execution.v2.Execution/Execute",
    "/build.bazel.remote.execution.v2.Execution/WaitExecution",
    "/google.bytestream.ByteStream/QueryWriteStatus",
    "/google.bytestream.ByteStream/Read",
    "/google.bytestream.ByteStream/Write",
    "/google.longrunning.Operations/CancelOperation",
    "/google.longrunning.Operations/DeleteOperation",
    "/google.longrunning.Operations/GetOperation",
    "/google.longrunning.Operations/ListOperations",
    "/google.longrunning.Operations/WaitOperation",
];

/// The path of every method in a descriptor set, such as `/kiln.v1.Builds/Submit`.
///
/// # Errors
/// If the bytes are not a descriptor set.
pub fn methods_of(encoded: &[u8]) -> Result<Vec<String>, prost::DecodeError> {
    let mut paths = Vec::new();
    for file in FileDescriptorSet::decode(encoded)?.file {
        for service in &file.service {
            let of = |method: &prost_types::MethodDescriptorProto| {
                format!("/{}.{}/{}", file.package(), service.name(), method.name())
            };
            paths.extend(service.method.iter().map(of));
        }
    }
    Ok(paths)
}

/// Whether a method's requests are a stream, by its path.
pub fn streams_requests(path: &str) -> bool {
    static PATHS: LazyLock<Vec<String>> = LazyLock::new(client_streams);
    PATHS.iter().any(|known| known == path)
}

/// The methods whose requests are a stream, by path.
fn client_streams() -> Vec<String> {
    const OTHERS: [&str; 2] = [
        "/google.bytestream.ByteStream/Write",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping",
    ];
    let mut paths = OTHERS.map(str::to_owned).to_vec();
    for file in FileDescriptorSet::decode(KILN).unwrap_or_default().file {
        for service in &file.service {
            let streams = service.method.iter().filter(|method| method.client_streaming());
            paths.extend(streams.map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name())));
        }
    }
    paths
}

/// The paths of all methods of Kiln's own services and of Remote Execution's.
pub fn methods() -> Vec<String> {
    // Written by this crate's build script, so it is always valid.
    let mut paths = methods_of(KILN).unwrap_or_default();
    paths.extend(REMOTE_EXECUTION.iter().map(|path| (*path).to_owned()));
    paths
}

/// The services of [`methods`], each once.
pub fn services() -> Vec<String> {
    let mut services: Vec<String> =
        methods().iter().filter_map(|path| Some(path.trim_start_matches('/').split_once('/')?.0.to_owned())).collect();
    services.sort();
    services.dedup();
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilns_own_methods_and_remote_executions_are_named() {
        let methods = methods();
        for path in ["/kiln.v1.Builds/Submit", "/kiln.v1.Workers/Link", "/google.bytestream.ByteStream/Write"] {
            assert!(methods.iter().any(|method| method == path), "expected `{path}` among {methods:?}");
        }
        assert_eq!(services().len(), 23, "{:?}", services());
    }

    #[test]
    fn methods_that_take_streams_are_told_from_those_that_take_one_message() {
        let streams = client_streams();
        let has = |path: &str| streams.iter().any(|known| known == path);
        for path in [
            "/kiln.v1.Workers/Link",
            "/kiln.v1.Shells/Open",
            "/google.bytestream.ByteStream/Write",
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping",
            "/google.devtools.build.v1.PublishBuildEvent/PublishBuildToolEventStream",
        ] {
            assert!(has(path), "expected `{path}` among {streams:?}");
        }
        for path in ["/kiln.v1.Builds/Submit", "/kiln.v1.Builds/Watch", "/google.bytestream.ByteStream/Read"] {
            assert!(!has(path), "expected `{path}` not to be among {streams:?}");
        }
        assert!(streams.iter().all(|path| methods().contains(path)));
    }
}
