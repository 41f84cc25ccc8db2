//! Compiles some of the calls again whose result was known, to find out whether the results that the farm keeps are what compilers make.
//!
//! A sample is compiled on a place of the step's own reservation that is idle, gives way as soon as a call needs that place, and does not
//! hold up the end of its step for long, unless every call is to be verified. Results are compared by content; rules for make as sets.
//!
//! If they differ, the call is compiled twice more. Where these results differ among themselves, the compiler does not make the same
//! of the same (`-flto` and `--coverage` of gcc seed names at random), which is counted and nothing else. Where they agree, what is kept is
//! wrong: it is removed, the call is barred on the whole farm, and the step, which has used it, is run again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_calls::manifest::Variant;
use kiln_calls::{Call, OutputKind};
use kiln_executor::calls::Begun;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cell::{Ran, Reason};
use super::early::{KnownOutput, contents};
use super::step::{Step, manifest_key, result_key};

/// What is kept in place of a manifest whose calls are barred.
const BARRED: &[u8] = b"kiln.calls.barred/1";
/// Maximum number of barred calls that a worker remembers itself.
const MAX_BARRED: usize = 10_000;
/// Maximum number of calls of a step that wait to be verified.
const MAX_WAITING: usize = 10_000;
/// How often to look for an idle place.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the end of a step waits for what is still to be verified.
const LAST: Duration = Duration::from_secs(5);
/// How often a call is compiled again to find out whether its compiler always makes the same.
const RERUNS: usize = 2;

/// Calls that are not answered, because what was kept of them was wrong.
#[derive(Debug, Default)]
pub(super) struct Barred(Mutex<BTreeSet<[u8; 32]>>);

impl Barred {
    /// Whether a call is.
    pub(super) fn has(&self, key: &Digest) -> bool {
        self.0.lock().contains(&key.hash)
    }

    /// Remembers one.
    pub(super) fn add(&self, key: &Digest) {
        let mut barred = self.0.lock();
        if barred.len() < MAX_BARRED {
            barred.insert(key.hash);
        }
    }
}

/// Whether an entry says that its call is barred.
pub(super) fn is_bar(entry: &reapi::ActionResult) -> bool {
    entry.stderr_raw == BARRED
}

/// A call whose result was known.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    pub(super) call: Call,
    pub(super) key: Digest,
    pub(super) variant: Variant,
    pub(super) outputs: Vec<KnownOutput>,
    pub(super) begun: Begun,
}

/// What is to be verified of one step's calls.
#[derive(Debug, Default)]
pub(super) struct Samples {
    percent: f64,
    waiting: Mutex<VecDeque<Hit>>,
    arrived: Notify,
    is_over: AtomicBool,
    is_wrong: AtomicBool,
}

/// What a call made, by path: whether it is executable, and its content or what counts of it.
type Version = BTreeMap<PathBuf, (bool, Digest)>;

impl Samples {
    pub(super) fn new(percent: f64) -> Self {
        Self { percent, ..Self::default() }
    }

    /// Whether the next hit is one of the sample.
    pub(super) fn is_next(&self) -> bool {
        self.percent > 0.0 && rand::random::<f64>() * 100.0 < self.percent
    }

    pub(super) fn add(&self, hit: Hit) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(hit);
            self.arrived.notify_one();
        }
    }

    /// Whether a step has used a result that was wrong.
    pub(super) fn found_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::SeqCst)
    }

    /// The next one; none if there will be no more.
    async fn next(&self) -> Option<Hit> {
        loop {
            if let Some(hit) = self.waiting.lock().pop_front() {
                return Some(hit);
            }
            if self.is_over.load(Ordering::SeqCst) {
                return None;
            }
            self.arrived.notified().await;
        }
    }
}

impl Step {
    /// Verifies this step's samples until there are no more.
    pub(super) async fn verify(self: Arc<Self>, cancel: CancellationToken) {
        while let Some(hit) = self.samples.next().await {
            let place = loop {
                match self.places.try_acquire() {
                    Some(place) => break place,
                    None => tokio::time::sleep(PAUSE).await,
                }
            };
            let is_over = self.samples.is_over.load(Ordering::SeqCst);
            tokio::select! {
                verdict = verdict(&self, &hit, &cancel) => {
                    tracing::debug!(source = %hit.call.source.display(), verdict, "verified a call");
                    self.tally.verified(verdict);
                }
                () = self.places.crowded(), if !is_over => self.samples.waiting.lock().push_back(hit),
            }
            drop(place);
        }
    }

    /// Ends when all samples are verified, or after a while.
    pub(super) async fn verify_the_rest(&self, verifying: &mut AbortOnDropHandle<()>) {
        self.samples.is_over.store(true, Ordering::SeqCst);
        self.samples.arrived.notify_one();
        // Whoever wants every call to be verified waits for it.
        if self.samples.percent >= 100.0 {
            let _ = verifying.await;
        } else {
            let _ = tokio::time::timeout(LAST, verifying).await;
        }
    }
}

/// What came of compiling a call again, as a label.
async fn verdict(step: &Arc<Step>, hit: &Hit, cancel: &CancellationToken) -> &'static str {
    let Some(kept) = kept(step, hit).await else { return "skipped" };
    let mut made: Vec<Version> = Vec::new();
    for _ in 0..=RERUNS {
        match again(step, hit, cancel).await {
            Ok(version) => made.push(version),
            Err(reason) => {
                tracing::debug!(reason, source = %hit.call.source.display(), "cannot verify a call");
                return "skipped";
            }
        }
        if made[0] == kept {
            return "equal";
        }
        if made.iter().any(|version| *version != made[0]) {
            return "unreproducible";
        }
    }
    bar(step, hit, &kept, &made[0]).await;
    "wrong"
}

/// What is kept.
async fn kept(step: &Step, hit: &Hit) -> Option<Version> {
    let files = contents(step, hit.outputs.iter().map(|(_, _, digest)| *digest)).await?;
    let mut version = Version::new();
    for ((path, executable, digest), mut file) in hit.outputs.iter().zip(files) {
        version.insert(path.clone(), (*executable, what_counts(&hit.call, path, *digest, &mut file).ok()?));
    }
    Some(version)
}

/// What the compiler makes now of the same files.
async fn again(step: &Arc<Step>, hit: &Hit, cancel: &CancellationToken) -> Result<Version, Reason> {
    let view = step.view(&hit.begun).map_err(|_| "worker")?;
    let needs = step.needs(&hit.begun, &view, &hit.call, Some(&hit.variant), cancel).await;
    let ran = step.cell(&hit.begun, view).run(&hit.call, needs, None, cancel.clone()).await?;
    if result_key(&hit.key, &ran.variant)? != result_key(&hit.key, &hit.variant)? {
        return Err("other_inputs");
    }
    version(&hit.call, &ran)
}

fn version(call: &Call, ran: &Ran) -> Result<Version, Reason> {
    let mut version = Version::new();
    for made in &ran.outputs {
        let mut file = std::fs::File::open(&made.file).map_err(|_| "unreadable")?;
        let counts = what_counts(call, &made.path, made.digest, &mut file).map_err(|_| "unreadable")?;
        version.insert(made.path.clone(), (made.executable, counts));
    }
    Ok(version)
}

/// What counts of an output: its content or, if it has rules for make, the set of their words.
fn what_counts(
    call: &Call,
    path: &PathBuf,
    digest: Digest,
    content: &mut impl std::io::Read,
) -> std::io::Result<Digest> {
    let is_depfile = call.outputs.iter().any(|output| output.kind == OutputKind::Depfile && output.absolute == *path);
    if !is_depfile {
        return Ok(digest);
    }
    let mut text = Vec::new();
    content.read_to_end(&mut text)?;
    let words: BTreeSet<&[u8]> = text.split(u8::is_ascii_whitespace).filter(|word| *word != b"\\").collect();
    Ok(DigestFunction::Sha256.digest(&words.into_iter().collect::<Vec<_>>().join(&b'\n')))
}

/// Removes what is kept of a call, and sees to it that it is not answered any more.
async fn bar(step: &Step, hit: &Hit, kept: &Version, made: &Version) {
    step.samples.is_wrong.store(true, Ordering::SeqCst);
    step.shared.barred.add(&hit.key);
    let paths: BTreeSet<&PathBuf> = kept.keys().chain(made.keys()).collect();
    for path in paths.into_iter().filter(|path| kept.get(*path) != made.get(*path)) {
        let shown = |version: &Version| version.get(path).map(|(_, digest)| digest.to_string()).unwrap_or_default();
        let (kept, made, key) = (shown(kept), shown(made), hex::encode(hit.key.hash));
        let (source, path) = (hit.call.source.display(), path.display());
        tracing::error!(%source, %path, kept, made, key, "a compiler call's result was wrong; it is removed, and the call barred");
    }
    let bar = reapi::ActionResult { stderr_raw: BARRED.to_vec(), ..Default::default() };
    let mut entries = vec![(manifest_key(&hit.key), bar.clone())];
    entries.extend(result_key(&hit.key, &hit.variant).map(|key| (key, bar)));
    if let Err(reason) = step.farm.keep(Vec::new(), entries).await {
        tracing::error!(reason, "cannot bar a compiler call on the farm; this worker does not answer it any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_or_nothing_can_be_verified() {
        let all = (0..1000).filter(|_| Samples::new(100.0).is_next()).count();
        let none = (0..1000).filter(|_| Samples::new(0.0).is_next()).count();
        assert_eq!((all, none), (1000, 0));
    }
}
