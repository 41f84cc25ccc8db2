//! Hands out what a compiler announces while it is still at work, so that cargo starts dependents as early as it does without Kiln.
//!
//! What is announced cannot be taken back: dependents read it at once. So it is checked before it leaves, and not only at the end:
//!
//! 1. When the compiler announces the metadata of a crate, everything that it has looked at until then is compared with the step's own
//!    files. A path is recorded before the kernel lets the compiler look at it, so whatever the metadata can depend on is in that record.
//!    If something differs, nothing is handed out, the cell is stopped, and the call runs in the step.
//! 2. Otherwise the step gets the files, and then the lines that announce them (see `kiln_call`).
//! 3. At the end everything is checked as for any call. What was handed out must still be what the compiler left.
//! 4. If there is no result after all (the compiler fails, a file of the step changed meanwhile, the worker goes away), the shim runs the
//!    compiler in the step and compares. The same files: nothing has happened. Others: dependents may have been compiled against the
//!    first ones, so the shim says so and the call fails. Point 1 leaves only two ways to get there: the step changes the compiler's
//!    files while it runs, or the compiler does not make the same of the same files.
//!
//! Nothing is kept for others before point 3, and what dependents leave is kept under the content of the files that they read, whoever
//! made these.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_call::Output;
use kiln_calls::{Announced, Call};
use kiln_executor::calls::Begun;
use kiln_proto::digest::Digest;
use tokio::sync::{mpsc, watch};

use super::cell::{Delivered, Had, Made, Reason, observed, searched};
use super::step::Step;
use super::view::View;

/// What a shim is given before its call has ended: files with their descriptors, and the words that announce them.
pub(super) type HandedOut = (kiln_call::Early, Vec<File>);

/// Where a call's shim gets it.
pub(super) type Shim = mpsc::Sender<HandedOut>;

/// Follows what the compiler of a cell says.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) call: Call,
    pub(super) step: Arc<View>,
    pub(super) delivered: Arc<Delivered>,
    /// Where the cell's executor says that it has begun.
    pub(super) begun: watch::Sender<Option<Begun>>,
    pub(super) shim: Option<Shim>,
    pub(super) given: Option<Given>,
}

/// What was handed out.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The bytes of standard error.
    pub(super) said: usize,
    /// The files, as they were then.
    outputs: BTreeMap<PathBuf, Digest>,
}

impl Early {
    /// The compiler has said this to its standard error so far.
    ///
    /// # Errors
    /// If the call has to run in its step.
    pub(super) async fn said(&mut self, stderr: &[u8]) -> Result<(), Reason> {
        let Some(shim) = &self.shim else { return Ok(()) };
        if self.given.is_some() || kiln_calls::announced(&self.call, stderr).is_none() {
            return Ok(());
        }
        // Without these, the cell is over: its result is handed out as a whole.
        let Some(begun) = self.begun.borrow().clone() else { return Ok(()) };
        let Some(accesses) = begun.looks.so_far().await else { return Ok(()) };
        if accesses.incomplete {
            return Err("unrecorded");
        }
        let (call, step, delivered) = (self.call.clone(), self.step.clone(), self.delivered.clone());
        let said = stderr.to_vec();
        let open = move || {
            let cell = step.of_cell(&begun.root().map_err(|_| "worker")?).map_err(|_| "worker")?;
            let had = Had::Here { cell: &cell, delivered: &delivered };
            observed(&accesses, &step, had, &searched(&call), &call.outputs)?;
            let announced = kiln_calls::announced(&call, &said).ok_or("worker")?;
            opened(&cell, &announced).map(|(given, outputs, files)| {
                let early = kiln_call::Early { stderr: said[..given.said].to_vec(), outputs };
                (given, early, files)
            })
        };
        let (given, early, files) = tokio::task::spawn_blocking(open).await.map_err(|_| "worker")??;
        self.given = Some(given);
        // A shim that has hung up needs nothing more.
        let _ = shim.send((early, files)).await;
        Ok(())
    }
}

/// The files that are announced, as the cell has them now.
fn opened(cell: &View, announced: &Announced<'_>) -> Result<(Given, Vec<Output>, Vec<File>), Reason> {
    let mut given = Given { said: announced.said, outputs: BTreeMap::new() };
    let (mut outputs, mut files) = (Vec::new(), Vec::new());
    for output in &announced.outputs {
        let below = cell.area().below(&output.absolute).ok_or("outside")?;
        // Processes of the cell are alive, and may make links.
        let place = cell.look_at_own(below).ok_or("no_output")?;
        let digest = cell.digest_of(&output.absolute, &place).map_err(|_| "unreadable")?;
        files.push(cell.open_place(&place).map_err(|_| "unreadable")?);
        outputs.push(Output { path: output.absolute.clone().into(), executable: place.executable });
        given.outputs.insert(output.absolute.clone(), digest);
    }
    Ok((given, outputs, files))
}

impl Given {
    /// Whether the call left what was handed out.
    pub(super) fn is_among(&self, made: &[Made]) -> bool {
        self.outputs.iter().all(|(path, digest)| made.iter().any(|made| made.path == *path && made.digest == *digest))
    }

    /// Whether an output was handed out.
    pub(super) fn has(&self, path: &std::path::Path) -> bool {
        self.outputs.contains_key(path)
    }
}

/// An output of a call whose result is known.
pub(super) type KnownOutput = (PathBuf, bool, Digest);

/// Hands out what a call announced when it ran. Answers the bytes of standard error that were said, and the outputs that are left;
/// none if the result is gone.
pub(super) async fn known(
    step: &Step,
    call: &Call,
    stderr: &[u8],
    outputs: Vec<KnownOutput>,
    shim: &Shim,
) -> Option<(usize, Vec<KnownOutput>)> {
    let Some(announced) = kiln_calls::announced(call, stderr) else { return Some((0, outputs)) };
    let is_announced =
        |(path, _, _): &KnownOutput| announced.outputs.iter().any(|announced| announced.absolute == *path);
    let (now, later): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_announced);
    if now.len() != announced.outputs.len() {
        return None;
    }
    let files = contents(step, now.iter().map(|(_, _, digest)| *digest)).await?;
    let outputs = now.into_iter().map(|(path, executable, _)| Output { path: path.into(), executable }).collect();
    let early = kiln_call::Early { stderr: stderr.get(..announced.said)?.to_vec(), outputs };
    let _ = shim.send((early, files)).await;
    Some((announced.said, later))
}

/// The contents of these digests, from this worker's disk or from the farm.
pub(super) async fn contents(step: &Step, digests: impl Iterator<Item = Digest> + Clone) -> Option<Vec<File>> {
    let content = step.shared.inputs.content(&step.farm.client()?, digests.clone()).await;
    let content = content.inspect_err(|error| tracing::warn!(%error, "cannot fetch what a call made")).ok()?;
    let open = |digest: Digest| {
        if digest.is_empty() { File::open("/dev/null").ok() } else { File::open(content.path(&digest)).ok() }
    };
    digests.map(open).collect()
}
