//! Actions to execute, and the Execute call, shared by all measurements of it.

use bytes::Bytes;
use kiln_proto::channel::Channel;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::longrunning::operation::Result as OperationResult;
use kiln_proto::reapi::command::EnvironmentVariable;
use kiln_proto::reapi::execution_client::ExecutionClient;
use kiln_proto::reapi::{self, platform::Property};
use kiln_proto::transfer::Blob;
use prost::Message;
use tonic::Status;

/// The digest function, which every endpoint supports.
pub const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// A message as a blob to upload.
pub fn blob(message: &impl Message) -> (Digest, Blob) {
    bytes_blob(message.encode_to_vec().into())
}

/// Bytes as a blob to upload.
pub fn bytes_blob(data: Bytes) -> (Digest, Blob) {
    (FUNCTION.digest(&data), Blob::Bytes(data))
}

/// An action: its command, inputs and platform.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The command's arguments.
    pub arguments: Vec<String>,
    /// REAPI's `output_paths`.
    pub outputs: Vec<String>,
    /// The input tree; the endpoint must have it.
    pub root: Digest,
    /// Platform properties.
    pub platform: Vec<(String, String)>,
}

impl Recipe {
    /// `/bin/true` on this tree.
    pub fn noop(root: Digest, platform: Vec<(String, String)>) -> Self {
        Self { arguments: vec!["/bin/true".into()], outputs: Vec::new(), root, platform }
    }

    /// The action's digest, with the blobs to upload before it is executed. A different `distinct` yields a different
    /// action: it is the value of an environment variable, which every platform accepts.
    pub fn action(&self, distinct: &str) -> (Digest, [(Digest, Blob); 2]) {
        let properties =
            self.platform.iter().map(|(name, value)| Property { name: name.clone(), value: value.clone() }).collect();
        let platform = Some(reapi::Platform { properties });
        #[allow(deprecated)]
        let command = reapi::Command {
            arguments: self.arguments.clone(),
            environment_variables: vec![EnvironmentVariable {
                name: "KILN_BENCH_DISTINCT".into(),
                value: distinct.into(),
            }],
            output_paths: self.outputs.clone(),
            // Servers older than REAPI 2.2 look here.
            platform: platform.clone(),
            ..Default::default()
        };
        let action = reapi::Action {
            command_digest: Some(FUNCTION.digest_message(&command).to_wire()),
            input_root_digest: Some(self.root.to_wire()),
            platform,
            ..Default::default()
        };
        let action = blob(&action);
        (action.0, [blob(&command), action])
    }
}

/// Executes an action and waits for its end; a response other than OK is an error.
///
/// # Errors
/// The call's status, or the one in the operation's response.
pub async fn execute(channel: Channel, instance: &str, action: &Digest) -> Result<reapi::ExecuteResponse, Status> {
    let request = reapi::ExecuteRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(action.to_wire()),
        digest_function: FUNCTION.to_wire(),
        ..Default::default()
    };
    let mut operations = ExecutionClient::new(channel).execute(request).await?.into_inner();
    while let Some(operation) = operations.message().await? {
        if !operation.done {
            continue;
        }
        let any = match operation.result {
            Some(OperationResult::Response(any)) => any,
            Some(OperationResult::Error(status)) => return Err(Status::new(status.code.into(), status.message)),
            None => return Err(Status::internal("an operation ended without response")),
        };
        let response = reapi::ExecuteResponse::decode(any.value.as_slice())
            .map_err(|error| Status::internal(format!("cannot read an operation's response: {error}")))?;
        return match &response.status {
            Some(status) if status.code != 0 => Err(Status::new(status.code.into(), status.message.clone())),
            _ => Ok(response),
        };
    }
    Err(Status::internal("the stream of an operation ended before it was done"))
}

/// The result of an action that was not cached and exited with 0.
///
/// # Errors
/// What was found instead.
pub fn fresh(response: reapi::ExecuteResponse) -> Result<reapi::ActionResult, Status> {
    let cached = response.cached_result;
    let result = response.result.ok_or_else(|| Status::internal("a response without result"))?;
    if result.exit_code != 0 || cached {
        let words = format!("expected a fresh exit code 0, found {} (cached: {cached})", result.exit_code);
        return Err(Status::failed_precondition(words));
    }
    Ok(result)
}
