//! What a step's `go` commands will ask for: what those of the same command asked for the last time, in two questions.
//!
//! It saves questions and is never needed: whatever is not known ahead is asked for.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_gocache::{Noted, Shown};
use kiln_inputs::Content;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::gocache::{TOOL, key};
use super::step::Step;
use super::tools::{Tools, WAIT};

/// Bytes of an action.
const ACTION: usize = 32;
/// Maximum number of actions that are remembered of a step: they fit in an entry.
const MAX_ACTIONS: usize = 7000;
/// How many entries are asked for at once.
const BATCH: usize = 1000;
/// How many bodies are fetched at once.
const BODIES: usize = 64;
/// The most that is fetched ahead: 512 MiB.
const MAX_BYTES: u64 = 512 << 20;
/// How long that may take.
const FETCHING: Duration = Duration::from_secs(60);

/// What is known ahead of a step's `go` commands.
#[derive(Debug, Default)]
pub(super) struct GoAhead {
    /// What they have asked for.
    pub(super) noted: Arc<Noted>,
    begun: OnceCell<()>,
    /// What was on the farm when the first of them began.
    before: Mutex<BTreeMap<Vec<u8>, bool>>,
    results: Mutex<HashMap<Vec<u8>, reapi::ActionResult>>,
    contents: Mutex<Vec<(Vec<Digest>, Content)>>,
}

impl GoAhead {
    /// Asks for what the first command will ask for; bodies come while it is at work. Later ones find it done.
    pub(super) async fn begin(&self, step: &Arc<Step>, tools: &Tools, shown: &Shown) {
        let asking = async {
            if tools.patience.is_over() || self.ask(step, tools, shown).await.is_none() {
                return;
            }
            let step = step.clone();
            tokio::spawn(async move { tokio::time::timeout(FETCHING, fetch(&step)).await });
        };
        self.begun.get_or_init(|| asking).await;
    }

    async fn ask(&self, step: &Step, tools: &Tools, shown: &Shown) -> Option<()> {
        let Some(mut found) = step.farm.look_all(&[list(step)], TOOL, WAIT).await else {
            tools.patience.was_tried();
            return None;
        };
        let entry = found.pop()??;
        let known: BTreeMap<Vec<u8>, bool> = entry.stdout_raw.chunks_exact(ACTION + 1).filter_map(decoded).collect();
        let unkept = known.iter().filter(|(_, is_kept)| !**is_kept);
        shown.unkept.iter().take(1).for_each(|own| unkept.clone().for_each(|(action, _)| own.add(action)));
        let is_here = |place: &[u8]| shown.disks.iter().any(|disk| disk.has(place));
        let kept = known.iter().filter(|(place, is_kept)| **is_kept && !is_here(place));
        let wanted: Vec<Vec<u8>> = kept.map(|(place, _)| place.clone()).collect();
        *self.before.lock() = known;
        for some in wanted.chunks(BATCH) {
            let keys: Vec<Digest> = some.iter().map(|place| key(place)).collect();
            let found = step.farm.look_all(&keys, TOOL, WAIT).await?;
            let found = some.iter().zip(found).filter_map(|(place, result)| Some((place.clone(), result?)));
            self.results.lock().extend(found);
        }
        Some(())
    }

    /// The entry of an action, if it is known.
    pub(super) fn result(&self, place: &[u8]) -> Option<reapi::ActionResult> {
        self.results.lock().get(place).cloned()
    }

    /// The file with a body that has been fetched.
    pub(super) fn content(&self, digest: &Digest) -> Option<PathBuf> {
        let contents = self.contents.lock();
        contents.iter().find(|(digests, _)| digests.contains(digest)).map(|(_, content)| content.path(digest))
    }
}

/// Fetches the bodies of what is known.
async fn fetch(step: &Step) -> Option<()> {
    let ahead = &step.tools.as_ref()?.ahead;
    let bodies: Vec<Digest> = {
        let results = ahead.results.lock();
        let files = results.values().filter_map(|result| result.output_files.first()?.digest.as_ref());
        files.filter_map(|digest| Digest::required(step.farm.function, Some(digest)).ok()).collect()
    };
    let mut bytes = 0;
    for some in bodies.chunks(BODIES) {
        bytes += some.iter().map(|digest| digest.size).sum::<u64>();
        if bytes > MAX_BYTES {
            break;
        }
        let some: Vec<Digest> = some.iter().filter(|digest| !digest.is_empty()).copied().collect();
        let content = step.shared.inputs.content(&step.farm.client()?, some.iter().copied()).await.ok()?;
        ahead.contents.lock().push((some, content));
    }
    Some(())
}

/// Remembers what this step's `go` commands asked for.
pub(super) async fn keep(step: &Step) {
    let Some(tools) = step.tools.as_ref().filter(|tools| !tools.read_only) else { return };
    let noted = tools.ahead.noted.all();
    if noted.is_empty() || noted == *tools.ahead.before.lock() {
        return;
    }
    let encoded =
        noted.iter().take(MAX_ACTIONS).flat_map(|(place, is_kept)| place.iter().copied().chain([u8::from(*is_kept)]));
    let entry = reapi::ActionResult { stdout_raw: encoded.collect(), ..Default::default() };
    if let Err(reason) = step.farm.keep_of(TOOL, Vec::new(), vec![(list(step), entry)]).await {
        tracing::debug!(reason, "cannot keep what a step's go commands asked for");
    }
}

/// What the list of this command's actions is kept under.
fn list(step: &Step) -> Digest {
    let mut hasher = DigestFunction::Sha256.hasher();
    hasher.update(b"kiln.go.ahead/1\0");
    hasher.update(&step.command.hash);
    hasher.finish()
}

fn decoded(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (action, is_kept) = bytes.split_at_checked(ACTION)?;
    Some((action.to_vec(), is_kept == [1]))
}
