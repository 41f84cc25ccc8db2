//! REAPI's request metadata: the tool and invocation that a call belongs to. Optional.

use kiln_proto::reapi::RequestMetadata;
use prost::Message;
use tonic::Request;

const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The origin of a call, for fairness and logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// The share that it is charged to: the correlated invocations, or else the tool.
    pub(super) tenant: String,
    /// The invocation; its actions are one build.
    pub(super) invocation: String,
    /// The kind of action and its target, if the tool says them.
    pub(super) mnemonic: String,
    pub(super) target: String,
}

/// Reads the header; absent or malformed values are empty.
pub(super) fn read<T>(request: &Request<T>) -> Who {
    let value = request.metadata().get_bin(HEADER).and_then(|value| value.to_bytes().ok());
    let Some(metadata) = value.and_then(|bytes| RequestMetadata::decode(bytes).ok()) else { return Who::default() };
    let tool = metadata.tool_details.map(|tool| tool.tool_name).unwrap_or_default();
    tracing::debug!(tool, invocation = metadata.tool_invocation_id, action = metadata.action_id, "request");
    let correlated = metadata.correlated_invocations_id;
    Who {
        tenant: if correlated.is_empty() { tool } else { correlated },
        invocation: metadata.tool_invocation_id,
        mnemonic: metadata.action_mnemonic,
        target: metadata.target_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::reapi::ToolDetails;
    use tonic::metadata::MetadataValue;

    fn with(bytes: &[u8]) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert_bin(HEADER, MetadataValue::from_bytes(bytes));
        request
    }

    #[test]
    fn request_metadata_names_tool_and_invocation() {
        let tool = ToolDetails { tool_name: "bazel".into(), tool_version: "4.2.3".into() };
        let mut metadata =
            RequestMetadata { tool_details: Some(tool), tool_invocation_id: "invocation".into(), ..Default::default() };
        let alone = read(&with(&metadata.encode_to_vec()));
        let expected = Who { tenant: "bazel".into(), invocation: "invocation".into(), ..Who::default() };
        assert_eq!(alone, expected);
        metadata.correlated_invocations_id = "ci-7".into();
        assert_eq!(read(&with(&metadata.encode_to_vec())).tenant, "ci-7", "invocations that belong together share");
    }

    #[test]
    fn request_metadata_is_optional_and_a_malformed_one_does_no_harm() {
        assert_eq!(read(&Request::new(())), Who::default());
        assert_eq!(read(&with(b"\xff\xff no message")), Who::default());
    }
}
