//! What a step's calls will ask for, fetched before they do: what the calls of the same command asked for the last time.
//!
//! It saves questions and is never needed: whoever asks before it is there asks the farm.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kiln_calls::manifest::Manifest;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::Mutex;

use super::farm::PATIENCE;
use super::step::{Step, manifest_key};
use super::verify::is_bar;
use kiln_inputs::Content;

/// Bytes of a key.
const KEY: usize = 32;
/// Maximum number of calls that are remembered of a step: they fit in an entry.
const MAX_CALLS: usize = 3500;
/// How many entries are asked for at once.
const BATCH: usize = 64;
/// The most that is fetched ahead: 512 MiB.
const MAX_BYTES: u64 = 512 << 20;

/// A call's key, and that of its result.
type Pair = ([u8; KEY], [u8; KEY]);

/// What is known ahead of a step's calls.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    results: Mutex<HashMap<[u8; KEY], reapi::ActionResult>>,
    content: Mutex<Vec<Content>>,
    /// What was on the farm when the step began.
    before: Mutex<BTreeSet<Pair>>,
    used: Mutex<BTreeSet<Pair>>,
}

impl Ahead {
    /// A result, if it was fetched.
    pub(super) fn result(&self, key: &Digest) -> Option<reapi::ActionResult> {
        self.results.lock().remove(&key.hash)
    }

    /// A call had this result.
    pub(super) fn note(&self, call: &Digest, result: &Digest) {
        let mut used = self.used.lock();
        if used.len() < MAX_CALLS {
            used.insert((call.hash, result.hash));
        }
    }
}

impl Step {
    /// Fetches what calls of this command asked for the last time.
    pub(super) async fn fetch_ahead(self: Arc<Self>) {
        let calls = self.fetch().await;
        tracing::debug!(calls, "fetched what this command's calls asked for the last time");
    }

    /// Returns how many calls there were.
    async fn fetch(&self) -> usize {
        let Some(entry) = self.farm.look(&self.ahead_key()).await else { return 0 };
        let pairs: Vec<Pair> = entry.stdout_raw.chunks_exact(2 * KEY).filter_map(pair).collect();
        self.ahead.before.lock().extend(pairs.iter().copied());
        let mut bytes = 0;
        for pairs in pairs.chunks(BATCH) {
            let calls: Vec<Digest> = pairs.iter().map(|(call, _)| digest(call)).collect();
            let results: Vec<Digest> = pairs.iter().map(|(_, result)| digest(result)).collect();
            let manifests: Vec<Digest> = calls.iter().map(manifest_key).collect();
            let (manifests, found) = tokio::join!(self.look_ahead(&manifests), self.look_ahead(&results));
            for (call, manifest) in calls.iter().zip(manifests) {
                if manifest.as_ref().is_some_and(is_bar) {
                    self.shared.barred.add(call);
                    continue;
                }
                if let Some(manifest) = manifest.and_then(|found| Manifest::decode(&found.stdout_raw).ok()) {
                    self.remember_unless_known(call, Arc::new(manifest));
                }
            }
            let mut outputs = Vec::new();
            for (key, result) in results.iter().zip(found) {
                let Some(result) = result else { continue };
                let files = result.output_files.iter();
                outputs.extend(files.filter_map(|file| Digest::required(key.function, file.digest.as_ref()).ok()));
                self.ahead.results.lock().insert(key.hash, result);
            }
            bytes += outputs.iter().map(|digest| digest.size).sum::<u64>();
            if bytes > MAX_BYTES {
                break;
            }
            let Some(client) = self.farm.client() else { break };
            if let Ok(content) = self.shared.inputs.content(&client, outputs.into_iter()).await {
                self.ahead.content.lock().push(content);
            }
        }
        pairs.len()
    }

    async fn look_ahead(&self, keys: &[Digest]) -> Vec<Option<reapi::ActionResult>> {
        self.farm.look_all(keys, "", PATIENCE).await.unwrap_or_default()
    }

    /// Remembers what this step's calls asked for.
    pub(super) async fn keep_ahead(&self) {
        let used = std::mem::take(&mut *self.ahead.used.lock());
        if used.is_empty() || used == *self.ahead.before.lock() {
            return;
        }
        let stdout_raw = used.iter().flat_map(|(call, result)| [call, result]).flatten().copied().collect();
        let entry = reapi::ActionResult { stdout_raw, ..Default::default() };
        if let Err(reason) = self.farm.keep(Vec::new(), vec![(self.ahead_key(), entry)]).await {
            tracing::debug!(reason, "cannot keep what a step's calls asked for");
        }
    }

    /// What the list of this command's calls is kept under.
    fn ahead_key(&self) -> Digest {
        let mut hasher = DigestFunction::Sha256.hasher();
        hasher.update(b"kiln.calls.ahead/1\0");
        hasher.update(&self.command.hash);
        hasher.finish()
    }
}

fn pair(bytes: &[u8]) -> Option<Pair> {
    let (call, result) = bytes.split_at_checked(KEY)?;
    Some((call.try_into().ok()?, result.try_into().ok()?))
}

/// A key as a digest; keys have no size.
fn digest(key: &[u8; KEY]) -> Digest {
    Digest { function: DigestFunction::Sha256, hash: *key, size: 0 }
}
