//! The actions that an invocation of Bazel asks for, as the records of invocations keep them.

use kiln_bazel::Invocations;
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::{ActionResult, ExecuteResponse};
use kiln_proto::v1::RemoteAction;
use tonic::Request;

use super::metadata;

/// Who asks for an action, and for which invocation.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    invocations: Invocations,
    invocation: String,
    caller: String,
    mnemonic: String,
    target: String,
}

impl Asked {
    /// What a request says of itself; none if it belongs to no invocation.
    pub(super) fn of<T>(invocations: &Invocations, request: &Request<T>) -> Option<Self> {
        let who = metadata::read(request);
        (!who.invocation.is_empty()).then(|| Self {
            invocations: invocations.clone(),
            invocation: who.invocation,
            caller: kiln_auth::identity(request).name,
            mnemonic: who.mnemonic,
            target: who.target,
        })
    }

    /// Its result was known.
    pub(super) fn hit(&self, instance: &str, digest: &Digest, result: &ActionResult) {
        let action = RemoteAction { is_hit: true, ..self.action(instance, digest, Some(result)) };
        self.invocations.ran(&self.invocation, &self.caller, action);
    }

    /// It was executed, or should have been.
    pub(super) fn ended(&self, instance: &str, digest: &Digest, response: &ExecuteResponse) {
        let mut action = self.action(instance, digest, response.result.as_ref());
        action.is_hit = response.cached_result;
        action.failure = response
            .status
            .as_ref()
            .filter(|status| status.code != 0)
            .map(|status| status.message.clone())
            .unwrap_or_default();
        let metadata = response.result.as_ref().and_then(|result| result.execution_metadata.as_ref());
        if let Some(ran) = metadata.filter(|_| !response.cached_result) {
            let (queued, started, ended) =
                (&ran.queued_timestamp, &ran.worker_start_timestamp, &ran.worker_completed_timestamp);
            action.queued_ms = clock::milliseconds_between(queued.as_ref(), started.as_ref());
            action.run_ms = clock::milliseconds_between(started.as_ref(), ended.as_ref());
        }
        self.invocations.ran(&self.invocation, &self.caller, action);
    }

    fn action(&self, instance: &str, digest: &Digest, result: Option<&ActionResult>) -> RemoteAction {
        let result = result.cloned().unwrap_or_default();
        let files = result.output_files.iter().map(|file| &file.path);
        let output = files.chain(result.output_directories.iter().map(|directory| &directory.path)).next();
        RemoteAction {
            action: Some(digest.to_wire()),
            digest_function: digest.function.to_wire(),
            instance: instance.to_owned(),
            mnemonic: self.mnemonic.clone(),
            target: self.target.clone(),
            worker: result.execution_metadata.as_ref().map(|ran| ran.worker.clone()).unwrap_or_default(),
            exit_code: result.exit_code,
            stdout: result.stdout_digest.clone(),
            stderr: result.stderr_digest.clone(),
            output: output.cloned().unwrap_or_default(),
            ended: Some(clock::now()),
            ..RemoteAction::default()
        }
    }
}
