//! Go's build cache inside a step: answers `go` from this worker's disk and from the farm.
//!
//! Invariant: `go` finds only what it finds by the content of all that an entry was made from, see [`Kept::Content`]; a farm that is slow or
//! away costs a moment for each `go` command, and no failure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_executor::BUILD;
use kiln_executor::calls::Begun;
use kiln_gocache::{Body, Cache, Found, Kept, Sources, others};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::transfer::Blob;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use super::farm::Farm;
use super::step::Step;
use super::tools::{Beside, Patience, WAIT};
use super::touched::is_touched;
use super::view::{Node, View};

/// The tool, as the farm names it.
pub(super) const TOOL: &str = "go";
/// Largest entry that is sent to the farm.
const MAX_ENTRY_BYTES: u64 = 128 << 20;

/// Answers a `go` command until it closes its cache.
///
/// # Errors
/// If it breaks off, or says what is not understood.
pub(super) async fn serve(
    step: &Arc<Step>,
    begun: &Begun,
    keeping: &TaskTracker,
    stream: UnixStream,
) -> io::Result<()> {
    // Without entries, the connection ends, and `go` says that its cache does.
    let Some(tools) = &step.tools else { return Ok(()) };
    let Some(shown) = &tools.shown else { return Ok(()) };
    let (beside, step_of_it, begun) = (tools.beside.clone(), step.clone(), begun.clone());
    let beside = tokio::task::spawn_blocking(move || match beside {
        Beside::Build => others(&*step_of_it.view(&begun)?, Path::new(BUILD)),
        // What nobody else has, if the step has changed any of them.
        Beside::Root(known) => {
            let known = known.filter(|(_, files)| !is_touched(&begun.written, files));
            Ok(known.map_or_else(rand::random, |(digest, _)| digest))
        }
    });
    let others = beside.await.map_err(io::Error::other)??;
    tools.ahead.begin(step, tools, shown).await;
    let farm = OfFarm { step: step.clone(), farm: step.farm.clone(), patience: tools.patience.clone() };
    let cache = Cache {
        disks: shown.disks.clone(),
        farm: Some(Arc::new(farm)),
        sends: !tools.read_only,
        wait: WAIT,
        flush: Duration::ZERO,
        kept: Kept::Content(others),
        unkept: shown.unkept.clone(),
        noted: Some(tools.ahead.noted.clone()),
        show: Some(Arc::new(shown.shows())),
        sending: keeping.clone(),
    };
    let (input, output) = stream.into_split();
    let served = kiln_gocache::serve(cache, input, output).await.map_err(io::Error::other)?;
    tracing::debug!(?served, "served a go command");
    step.tally.served_go(&served);
    Ok(())
}

impl Sources for View {
    fn entries(&self, directory: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        self.listed(directory)
    }

    fn digest(&self, file: &Path) -> io::Result<String> {
        Ok(match self.look(file)? {
            Node::File(place) => self.digest_of(file, &place)?.hex(),
            Node::Absent | Node::Directory | Node::Other => String::new(),
        })
    }
}

/// The farm, as a lease reaches it.
#[derive(Debug)]
struct OfFarm {
    step: Arc<Step>,
    farm: Farm,
    patience: Arc<Patience>,
}

#[async_trait]
impl kiln_gocache::Farm for OfFarm {
    fn is_down(&self) -> bool {
        self.patience.is_over()
    }

    fn is_late(&self) {
        self.patience.was_tried();
    }

    async fn get(&self, actions: &[Vec<u8>], body: &mut Body) -> Option<(Vec<u8>, String)> {
        let ahead = &self.step.tools.as_ref()?.ahead;
        let known = actions.iter().find_map(|action| Some((action, ahead.result(action)?)));
        let (action, result) = match known {
            Some(known) => known,
            None => {
                let keys: Vec<Digest> = actions.iter().map(|action| key(action)).collect();
                let entries = self.farm.look_all(&keys, TOOL, WAIT).await?;
                actions.iter().zip(entries).find_map(|(action, entry)| Some((action, entry?)))?
            }
        };
        let file = result.output_files.first()?;
        let digest = Digest::required(self.farm.function, file.digest.as_ref()).ok()?;
        match ahead.content(&digest) {
            Some(content) => body.push(&tokio::fs::read(content).await.ok()?).ok()?,
            None => body.push(&self.farm.client()?.get(&digest).await.ok()?).ok()?,
        }
        Some((action.clone(), file.path.clone()))
    }

    async fn put(&self, action: &[u8], found: &Found) {
        if let Err(reason) = self.kept(action, found).await {
            tracing::debug!(reason, "an entry of Go's build cache was not kept");
        }
    }
}

impl OfFarm {
    async fn kept(&self, action: &[u8], found: &Found) -> Result<(), String> {
        if found.size > MAX_ENTRY_BYTES {
            return Ok(());
        }
        let words = |error: io::Error| error.to_string();
        let function = self.farm.function;
        let digest = match function {
            DigestFunction::Sha256 => {
                let digest = Digest::new(function, &hex::encode(&found.output), found.size);
                digest.map_err(|error| error.to_string())?
            }
            _ => function.digest(&tokio::fs::read(&found.path).await.map_err(words)?),
        };
        let blob = (digest, Blob::File(found.path.clone()));
        let output = reapi::OutputFile {
            path: hex::encode(&found.output),
            digest: Some(digest.to_wire()),
            ..Default::default()
        };
        let result = reapi::ActionResult { output_files: vec![output], ..Default::default() };
        self.farm.keep_of(TOOL, vec![blob], vec![(key(action), result)]).await
    }
}

/// Where the farm has an action's entry.
pub(super) fn key(action: &[u8]) -> Digest {
    DigestFunction::Sha256.digest(action)
}
