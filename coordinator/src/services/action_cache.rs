//! `ActionCache`: results of actions. A hit is always complete.

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::{self, action_cache_server};
use kiln_proto::{elements, made};
use prost::Message;
use tonic::{Request, Response, Status};

use super::asked::{Asked, Keeps};
use crate::status::bad_digest;
use kiln_auth::audit::Subject;
use kiln_store::Stores;

/// Maximum size of an Action message.
const MAX_ACTION_BYTES: u64 = 16 << 20;

/// Maximum size of a result with inlined contents: below gRPC's usual message limit of 4 MiB.
const MAX_RESULT_BYTES: usize = 3 * 1024 * 1024;

/// The worker of a result whose writer names none.
const UNKNOWN_WORKER: &str = "unknown";

/// Serves action results.
#[derive(Debug, Clone)]
pub struct ActionCache {
    stores: Stores,
    /// Told of the hits of invocations of Bazel.
    keeps: Option<Keeps>,
}

impl ActionCache {
    /// Serves these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores, keeps: None }
    }

    /// The same; the hits of invocations of Bazel are told to whoever keeps them.
    #[must_use]
    pub(crate) fn telling(self, keeps: Keeps) -> Self {
        Self { keeps: Some(keeps), ..self }
    }

    /// Inlines the requested contents into a result while they fit. Contents that are stored as blobs and were not
    /// requested are removed.
    async fn inline(
        &self,
        request: &reapi::GetActionResultRequest,
        result: &mut reapi::ActionResult,
        function: DigestFunction,
    ) -> Result<(), Status> {
        if result.stdout_digest.is_some() {
            result.stdout_raw.clear();
        }
        if result.stderr_digest.is_some() {
            result.stderr_raw.clear();
        }
        for file in &mut result.output_files {
            file.contents.clear();
        }
        let mut room = MAX_RESULT_BYTES.saturating_sub(result.encoded_len());
        if request.inline_stdout
            && let Some(data) = self.fit(function, result.stdout_digest.as_ref(), &mut room).await?
        {
            result.stdout_raw = data;
        }
        if request.inline_stderr
            && let Some(data) = self.fit(function, result.stderr_digest.as_ref(), &mut room).await?
        {
            result.stderr_raw = data;
        }
        for file in &mut result.output_files {
            if request.inline_output_files.contains(&file.path)
                && let Some(data) = self.fit(function, file.digest.as_ref(), &mut room).await?
            {
                file.contents = data;
            }
        }
        Ok(())
    }

    /// A blob's bytes, if they fit.
    async fn fit(
        &self,
        function: DigestFunction,
        digest: Option<&reapi::Digest>,
        room: &mut usize,
    ) -> Result<Option<Vec<u8>>, Status> {
        let Some(digest) = digest else { return Ok(None) };
        let digest = Digest::from_wire(function, digest).map_err(bad_digest)?;
        // The field's tag and length take up to 10 more bytes.
        let Some(left) = usize::try_from(digest.size).ok().and_then(|size| room.checked_sub(size.saturating_add(10)))
        else {
            return Ok(None);
        };
        match self.stores.blobs.get(&digest).await {
            Ok(data) => {
                *room = left;
                Ok(Some(data.into()))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the Action and its Command exist. Some clients only use the cache, and key their results by another
    /// blob of their own (moon: a JSON manifest); a blob that is not an Action has no Command that could be missing.
    async fn check_action(&self, action: &Digest) -> Result<(), Status> {
        let missing = |kind: &str, digest: &Digest| {
            Status::failed_precondition(format!("{kind} `{digest}` is not in the store; upload it before its result"))
        };
        // No Action is this large: it is another blob of the client.
        if action.size > MAX_ACTION_BYTES {
            let is_there = self.stores.blobs.find_missing(&[*action]).await?.is_empty();
            return if is_there { Ok(()) } else { Err(missing("action", action)) };
        }
        let data = match self.stores.blobs.get(action).await {
            Err(error) if error.is_absent() => return Err(missing("action", action)),
            data => data?,
        };
        let decoded = elements::decode::<reapi::Action>(&elements::ACTION, &data, elements::MAX_OF_COMMAND);
        let Ok(message) = decoded else { return Ok(()) };
        let Some(command) = message.command_digest else { return Ok(()) };
        let command = Digest::from_wire(action.function, &command).map_err(bad_digest)?;
        if self.stores.blobs.find_missing(&[command]).await?.is_empty() {
            Ok(())
        } else {
            Err(missing("command", &command))
        }
    }

    /// Moves inlined contents into blobs, so that a stored result is small and a hit can be complete.
    async fn store_inlined(&self, function: DigestFunction, result: &mut reapi::ActionResult) -> Result<(), Status> {
        for (raw, digest) in
            [(&mut result.stdout_raw, &mut result.stdout_digest), (&mut result.stderr_raw, &mut result.stderr_digest)]
        {
            let data = std::mem::take(raw);
            if !data.is_empty() {
                let found = function.digest(&data);
                let named = digest.get_or_insert_with(|| found.to_wire());
                self.put(function, named, data).await?;
            }
        }
        for file in &mut result.output_files {
            let data = std::mem::take(&mut file.contents);
            if !data.is_empty() {
                let found = function.digest(&data);
                let named = file.digest.get_or_insert_with(|| found.to_wire());
                self.put(function, named, data).await?;
            }
        }
        Ok(())
    }

    async fn put(&self, function: DigestFunction, digest: &reapi::Digest, data: Vec<u8>) -> Result<(), Status> {
        let digest = Digest::from_wire(function, digest).map_err(bad_digest)?;
        Ok(self.stores.blobs.put(&digest, data.into()).await?)
    }
}

fn name_worker(result: &mut reapi::ActionResult) {
    let metadata = result.execution_metadata.get_or_insert_default();
    if metadata.worker.is_empty() {
        metadata.worker = UNKNOWN_WORKER.to_owned();
    }
}

fn digest_of(function: i32, digest: Option<&reapi::Digest>) -> Result<Digest, Status> {
    let function = DigestFunction::from_wire(function).map_err(bad_digest)?;
    Digest::required(function, digest).map_err(bad_digest)
}

#[tonic::async_trait]
impl action_cache_server::ActionCache for ActionCache {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let asked = self.keeps.as_ref().and_then(|keeps| Asked::of(keeps, &request));
        let request = request.into_inner();
        let action = digest_of(request.digest_function, request.action_digest.as_ref())?;
        let found = self.stores.cached_result(&request.instance_name, &action).await?;
        let mut result = found.ok_or_else(|| {
            Status::not_found(format!("no complete result of action `{action}` is cached; execute it"))
        })?;
        name_worker(&mut result);
        if let Some(asked) = asked {
            asked.hit(request.instance_name.trim_matches('/'), &action, &result);
        }
        self.inline(&request, &mut result, action.function).await?;
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let (subject, by) = (Subject::of(&request), kiln_auth::identity(&request));
        let request = request.into_inner();
        let action = digest_of(request.digest_function, request.action_digest.as_ref())?;
        subject.is(super::action(&request.instance_name, &action));
        let mut result = request
            .action_result
            .ok_or_else(|| Status::invalid_argument("the message has no `action_result` to store"))?;
        self.check_action(&action).await?;
        self.store_inlined(action.function, &mut result).await?;
        name_worker(&mut result);
        made::written_by(result.execution_metadata.get_or_insert_default(), &by.name);
        self.stores.actions.put(&request.instance_name, &action, result.clone()).await?;
        Ok(Response::new(result))
    }
}
