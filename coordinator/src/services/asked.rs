//! The actions that an invocation of Bazel asks for, as the records of invocations keep them.

use kiln_bazel::Invocations;
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::{ActionResult, ExecuteResponse};
use kiln_proto::v1::{NotedAction, RemoteAction};
use tokio::sync::mpsc;
use tonic::Request;

use super::metadata;

/// Actions that wait to be told to the coordinator that leads; beyond them, they are missing on the pages of their invocations.
const WAITING: usize = 10_000;

/// An action of a tenant's invocation that another coordinator than the one that leads has answered.
pub(crate) type Noted = (String, NotedAction);

/// Who keeps what invocations ask for. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Keeps {
    /// This coordinator, as it leads.
    Own(Invocations),
    /// The one that leads: it is told of this tenant's.
    Leader(String, mpsc::Sender<Noted>),
}

/// The way of actions to the coordinator that leads.
pub(crate) fn notes() -> (mpsc::Sender<Noted>, mpsc::Receiver<Noted>) {
    mpsc::channel(WAITING)
}

impl Keeps {
    fn ran(&self, invocation: &str, caller: &str, action: RemoteAction) {
        match self {
            Self::Own(invocations) => invocations.ran(invocation, caller, action),
            Self::Leader(tenant, notes) => {
                let (invocation, caller) = (invocation.to_owned(), caller.to_owned());
                let noted = NotedAction { invocation, caller, action: Some(action) };
                if notes.try_send((tenant.clone(), noted)).is_err() {
                    tracing::debug!("too many actions wait to be told to the coordinator that leads: one is left out");
                }
            }
        }
    }
}

/// Who asks for an action, and for which invocation.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    keeps: Keeps,
    invocation: String,
    caller: String,
    mnemonic: String,
    target: String,
}

impl Asked {
    /// What a request says of itself; none if it belongs to no invocation.
    pub(super) fn of<T>(keeps: &Keeps, request: &Request<T>) -> Option<Self> {
        let who = metadata::read(request);
        (!who.invocation.is_empty()).then(|| Self {
            keeps: keeps.clone(),
            invocation: who.invocation,
            caller: kiln_auth::identity(request).name,
            mnemonic: who.mnemonic,
            target: who.target,
        })
    }

    /// Its result was known.
    pub(super) fn hit(&self, instance: &str, digest: &Digest, result: &ActionResult) {
        let action = RemoteAction { is_hit: true, ..self.action(instance, digest, Some(result)) };
        self.keeps.ran(&self.invocation, &self.caller, action);
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
        self.keeps.ran(&self.invocation, &self.caller, action);
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
