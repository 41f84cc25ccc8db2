//! What the farm knows about calls, asked for a lease over whichever connection there is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::channel::{Channel, MAX_MESSAGE_BYTES};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::Challenge;
use kiln_proto::transfer::{self, Blob, Client};
use kiln_proto::v1::calls_client::CallsClient;
use kiln_proto::{made, reapi, v1};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Code;

/// How long a look-up may take. After that the call goes on as if nothing were known.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a question about the farm's room may take. After that it has none.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// The farm, as a lease reaches it.
#[derive(Debug, Clone)]
pub struct Farm {
    /// The current connection, if there is one.
    pub channel: watch::Receiver<Option<Channel>>,
    /// REAPI instance name.
    pub instance: String,
    /// The digest function of the lease's blobs.
    pub function: DigestFunction,
    /// What shows the coordinator which lease it is.
    pub grant: Vec<u8>,
    /// What the step's worker proves with that it has a blob; none: it sends whatever it names.
    pub challenge: Option<Challenge>,
    /// Whose results it has answered with.
    pub makers: Makers,
    /// What the step's worker may name to it.
    pub held: Held,
}

/// The blobs of which the farm knows, for a lease, that its worker has them: what was sent or shown, and what it answered with. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<HashSet<Digest>>>);

impl Held {
    /// These too.
    pub(super) fn add(&self, digests: impl IntoIterator<Item = Digest>) {
        self.0.lock().extend(digests);
    }

    fn has(&self, digest: &Digest) -> bool {
        self.0.lock().contains(digest)
    }

    /// Another coordinator leads, which has received nothing yet.
    fn forget(&self) {
        self.0.lock().clear();
    }
}

/// The workers that made what a step was given. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Makers(Arc<Mutex<BTreeMap<String, made::Times>>>);

impl Makers {
    /// These workers made something, too.
    pub(super) fn add(&self, metadata: Option<&reapi::ExecutedActionMetadata>) {
        self.include(&metadata.map(made::makers).unwrap_or_default());
    }

    /// The same by their names.
    pub(super) fn include(&self, makers: &BTreeMap<String, made::Times>) {
        let mut all = self.0.lock();
        makers.iter().for_each(|(worker, times)| made::add(&mut all, worker, *times));
    }

    /// All of them, with when what they made was recorded.
    pub(super) fn all(&self) -> BTreeMap<String, made::Times> {
        self.0.lock().clone()
    }
}

impl Farm {
    pub(super) fn client(&self) -> Option<Client> {
        let channel = self.channel.borrow().clone()?;
        Some(Client::for_lease(channel, &self.instance, self.function, &self.grant).spread())
    }

    /// The entry under a key; none if there is none, or if the farm does not answer.
    pub(super) async fn look(&self, key: &Digest) -> Option<reapi::ActionResult> {
        self.look_all(std::slice::from_ref(key), "", PATIENCE).await?.into_iter().next().flatten()
    }

    /// The entries of a tool under these keys, or of calls if none is named; none if the farm does not answer in time.
    pub(super) async fn look_all(
        &self,
        keys: &[Digest],
        tool: &str,
        patience: Duration,
    ) -> Option<Vec<Option<reapi::ActionResult>>> {
        let mut calls = CallsClient::new(self.client()?.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let keys = keys.iter().map(|key| key.hash.to_vec()).collect();
        let request = v1::LookCallsRequest { keys, tool: tool.to_owned() };
        match tokio::time::timeout(patience, calls.look(request)).await {
            Ok(Ok(found)) => {
                let results = found.into_inner().entries.into_iter().map(|entry| entry.result);
                let note = |result: &Option<reapi::ActionResult>| {
                    self.makers.add(result.as_ref().and_then(|result| result.execution_metadata.as_ref()));
                    let files = result.iter().flat_map(|result| &result.output_files);
                    self.held.add(files.filter_map(|file| Digest::required(self.function, file.digest.as_ref()).ok()));
                };
                Some(results.inspect(note).collect())
            }
            Ok(Err(status)) => {
                tracing::warn!(reason = status.message(), "cannot look up a call");
                None
            }
            Err(_) => {
                tracing::warn!(patience_s = patience.as_secs(), "the farm takes too long to look up a call");
                None
            }
        }
    }

    /// How many calls would start at once on the farm's workers; none if the farm does not answer.
    pub(super) async fn room(&self) -> Option<usize> {
        let mut calls = CallsClient::new(self.client()?.channel());
        let room = tokio::time::timeout(ROOM_PATIENCE, calls.room(v1::CallRoomRequest {})).await.ok()?.ok()?;
        Some(room.into_inner().calls as usize)
    }

    /// Asks the farm to run a call; none if it does not.
    pub(super) async fn run(&self, request: v1::RunCallRequest) -> Option<tonic::Streaming<v1::RunCallEvent>> {
        let client = CallsClient::new(self.client()?.channel());
        let mut calls = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
        match calls.run(request).await {
            Ok(events) => Some(events.into_inner()),
            Err(status) => {
                tracing::debug!(reason = status.message(), "the farm does not run a call");
                if status.code() == Code::FailedPrecondition {
                    self.held.forget();
                }
                None
            }
        }
    }

    /// Sends or shows blobs that this worker is about to name, unless the farm knows that it has them. What the farm has from others is shown, too:
    /// a worker may not name what it only knows of.
    ///
    /// # Errors
    /// As [`Client::give`].
    pub(super) async fn give(&self, client: &Client, mut blobs: Vec<(Digest, Blob)>) -> Result<(), transfer::Error> {
        blobs.retain(|(digest, _)| !self.held.has(digest));
        if blobs.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        client.give(blobs, self.challenge.as_ref()).await?;
        self.held.add(digests);
        Ok(())
    }

    /// Stores blobs and then the entries that name them, in their order.
    ///
    /// # Errors
    /// The reason, as text.
    pub(super) async fn keep(
        &self,
        blobs: Vec<(Digest, Blob)>,
        entries: Vec<(Digest, reapi::ActionResult)>,
    ) -> Result<(), String> {
        self.keep_of("", blobs, entries).await
    }

    /// The same for entries of a tool.
    ///
    /// # Errors
    /// The reason, as text.
    pub(super) async fn keep_of(
        &self,
        tool: &str,
        blobs: Vec<(Digest, Blob)>,
        entries: Vec<(Digest, reapi::ActionResult)>,
    ) -> Result<(), String> {
        match self.keep_once(tool, &blobs, &entries).await {
            Err(transfer::Error::Status(status)) if status.code() == Code::FailedPrecondition => {
                // It lacks a blob, or does not know that this worker has it.
                self.held.forget();
                self.keep_once(tool, &blobs, &entries).await.map_err(|error| error.to_string())
            }
            kept => kept.map_err(|error| error.to_string()),
        }
    }

    async fn keep_once(
        &self,
        tool: &str,
        blobs: &[(Digest, Blob)],
        entries: &[(Digest, reapi::ActionResult)],
    ) -> Result<(), transfer::Error> {
        let unconnected = || tonic::Status::unavailable("no connection to the coordinator");
        let client = self.client().ok_or_else(unconnected)?;
        self.give(&client, blobs.to_vec()).await?;
        let mut calls = CallsClient::new(client.channel());
        for (key, result) in entries {
            let (key, result) = (key.hash.to_vec(), Some(result.clone()));
            calls.keep(v1::KeepCallRequest { key, result, tool: tool.to_owned() }).await?;
        }
        Ok(())
    }
}
