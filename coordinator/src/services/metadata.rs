//! REAPI's request metadata: which tool and which invocation a call belongs to. Optional.

use kiln_proto::reapi::RequestMetadata;
use prost::Message;
use tonic::Request;

const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Who asks, for fairness and for logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// Whose share of the farm: the correlated invocations, else the tool.
    pub(super) tenant: String,
    /// The invocation; its actions are one build.
    pub(super) invocation: String,
}

/// Reads the header; what is absent or malformed is empty.
pub(super) fn read<T>(request: &Request<T>) -> Who {
    let value = request.metadata().get_bin(HEADER).and_then(|value| value.to_bytes().ok());
    let Some(metadata) = value.and_then(|bytes| RequestMetadata::decode(bytes).ok()) else { return Who::default() };
    let tool = metadata.tool_details.map(|tool| tool.tool_name).unwrap_or_default();
    tracing::debug!(tool, invocation = metadata.tool_invocation_id, action = metadata.action_id, "request");
    let correlated = metadata.correlated_invocations_id;
    Who { tenant: if correlated.is_empty() { tool } else { correlated }, invocation: metadata.tool_invocation_id }
}
