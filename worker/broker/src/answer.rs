//! Answers one call.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_call::{Answer, Done, KEPT, Output};
use kiln_calls::manifest::{Manifest, Match, Variant};
use kiln_calls::{Call, Details};
use kiln_executor::calls::Begun;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Blob;
use kiln_proto::{calls, clock, made, reapi, v1};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cell::{Made, Ran, Reason};
use super::early::{self, Shim};
use super::gocache;
use super::spread::{Carried, Where};
use super::step::{Step, driver, invocation, key, manifest_key, result_key};
use super::told::Miss;
use super::verify::{Hit, is_bar};
use super::view::{Compared, View};
use super::wire::{self, Asked};

/// Reasons of calls that are over at once.
const QUICK: [Reason; 3] = ["information", "probe", "standard_input"];
/// How long a place is kept for a compiler that runs in its step.
const LONGEST_HELD: Duration = Duration::from_secs(120);
/// Maximum bytes of what a call prints that are kept with its result.
const MAX_KEPT: usize = 64 << 10;

/// Reads what a shim asks, and answers it.
///
/// # Errors
/// If the connection breaks.
pub(super) async fn converse(
    mut stream: UnixStream,
    step: &Arc<Step>,
    begun: &Begun,
    keeping: &TaskTracker,
    cancel: CancellationToken,
) -> io::Result<()> {
    let ask = match wire::receive(&mut stream).await? {
        None => return Ok(()),
        Some(Asked::GoCache) => return gocache::serve(step, begun, keeping, stream).await,
        Some(Asked::Call(_)) if !step.splits => return wire::send(&mut stream, &Answer::Here, &[]).await,
        Some(Asked::Call(ask)) => ask,
    };
    let is_in_place = ask.environment.iter().any(|(name, _)| name == KEPT);
    let (shim, mut early) = mpsc::channel(1);
    let answering = answer(step, begun, ask, (shim, keeping), &cancel);
    tokio::pin!(answering);
    let answered = loop {
        tokio::select! {
            // What is handed out early comes first.
            biased;
            Some((early, files)) = early.recv() => {
                let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                wire::send(&mut stream, &Answer::Early(early), &descriptors).await?;
            }
            answered = &mut answering => break answered,
            () = wire::hung_up(&stream) => return Ok(()),
        }
    };
    if let Ok((early, files)) = early.try_recv() {
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        wire::send(&mut stream, &Answer::Early(early), &descriptors).await?;
    }
    match answered {
        Ok((done, files)) => {
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            wire::send(&mut stream, &Answer::Done(done), &descriptors).await
        }
        Err(reason) => {
            step.tally.refused(reason);
            // What asks the compiler about itself is over at once, and what a compiler in a place calls would wait for that place.
            if !step.is_spread || is_in_place || QUICK.contains(&reason) {
                return wire::send(&mut stream, &Answer::Here, &[]).await;
            }
            let place = tokio::select! {
                place = step.places.acquire() => place,
                () = wire::hung_up(&stream) => return Ok(()),
            };
            wire::send(&mut stream, &Answer::Held, &[]).await?;
            // Something that the compiler has left running may never end.
            let _ = tokio::time::timeout(LONGEST_HELD, wire::hung_up(&stream)).await;
            drop(place);
            Ok(())
        }
    }
}

/// A result with the contents of its outputs, or why the call runs in its step.
type Answered = Result<(Done, Vec<File>), Reason>;

/// What is known of a call before it runs.
struct Known {
    call: Call,
    key: Digest,
    manifest: Arc<Manifest>,
    /// The variant whose inputs the step's files are.
    matching: Option<Variant>,
    /// The variant that comes nearest.
    nearest: Option<Variant>,
    miss: Miss,
}

async fn answer(
    step: &Arc<Step>,
    begun: &Begun,
    ask: kiln_call::Ask,
    (shim, keeping): (Shim, &TaskTracker),
    cancel: &CancellationToken,
) -> Answered {
    let began = Instant::now();
    let view = step.view(begun).map_err(|_| "worker")?;
    let (call, key) = understood(step, begun, ask, view.clone(), cancel).await?;
    let known = look(step, call, key, view.clone()).await?;
    if let Some(variant) = &known.matching
        && let Some(found) = hit(step, begun, &known, variant, &shim).await
    {
        return found;
    }
    if known.matching.is_some() {
        tracing::debug!(source = %known.call.source.display(), "the result of a known call is gone");
    }
    if step.tally.costs_too_much() {
        return Err("does_not_pay");
    }
    let (before, nearest) = (began.elapsed(), known.nearest.as_ref());
    let (ran, place) =
        match (Carried { step, begun, view, call: &known.call, nearest, shim: &shim, cancel }).run().await {
            Ok(ran) => ran,
            Err(reason) => {
                if let ("differs", Some(nearest)) = (reason, &known.nearest) {
                    step.learn(nearest.read.keys().cloned());
                }
                return Err(reason);
            }
        };
    step.told.missed(&known.call.source, &known.miss);
    if let Ok(key) = result_key(&known.key, &ran.variant) {
        step.told.used(&key);
    }
    match place {
        Where::Here(took) => step.tally.compiled(ran.wall, before + took.saturating_sub(ran.wall)),
        Where::Elsewhere => step.tally.elsewhere(ran.wall),
    }
    let left: Vec<_> = ran.outputs.iter().filter(|made| !ran.given.has(&made.path)).collect();
    let files = left.iter().map(|made| File::open(&made.file)).collect::<io::Result<Vec<_>>>();
    let files = files.map_err(|_| "unreadable")?;
    let output = |made: &&Made| Output { path: made.path.clone().into(), executable: made.executable };
    let done = Done {
        exit: 0,
        stdout: ran.stdout.clone(),
        stderr: ran.stderr.get(ran.given.said..).unwrap_or_default().to_vec(),
        outputs: left.iter().map(output).collect(),
    };
    keep(step, known, ran, keeping);
    Ok((done, files))
}

/// What a call means, and what it is looked up by.
async fn understood(
    step: &Arc<Step>,
    begun: &Begun,
    ask: kiln_call::Ask,
    view: Arc<View>,
    cancel: &CancellationToken,
) -> Result<(Call, Digest), Reason> {
    let (files, told) = (view.clone(), step.clone());
    let understand = move || {
        kiln_calls::understand(&invocation(ask), &*files).map_err(|refusal| {
            tracing::debug!(%refusal, "a call runs in its step");
            told.told.refused(refusal.label(), || refusal.to_string());
            refusal.label()
        })
    };
    let mut call = tokio::task::spawn_blocking(understand).await.map_err(|_| "worker")??;
    if matches!(&call.details, Details::C(details) if !details.native.is_empty()) {
        call = native(step, begun, call, view.clone(), cancel).await?;
    }
    let step = step.clone();
    let find = move || if step.reads_mounts(&call) { Err("mounted") } else { key(&call, &view).map(|key| (call, key)) };
    tokio::task::spawn_blocking(find).await.map_err(|_| "worker")?
}

/// The call with what `native` stands for on this machine, which its driver says.
async fn native(
    step: &Arc<Step>,
    begun: &Begun,
    call: Call,
    view: Arc<View>,
    cancel: &CancellationToken,
) -> Result<Call, Reason> {
    let driver = driver(&call, &view)?;
    let question = kiln_calls::native_query(&call);
    let answer = match step.shared.drivers.known(driver, &question) {
        Some(answer) => answer,
        None => {
            let _place = step.places.acquire().await;
            let answer = step.cell(begun, view).ask(&call, &question, cancel.clone()).await?;
            step.shared.drivers.remember(driver, question, answer.clone());
            answer
        }
    };
    kiln_calls::with_native(call, &answer).map_err(|refusal| refusal.label())
}

/// Looks for what the call read before, here and on the farm.
async fn look(step: &Arc<Step>, call: Call, key: Digest, view: Arc<View>) -> Result<Known, Reason> {
    if step.shared.barred.has(&key) {
        return Err("barred");
    }
    let mut known = Known { call, key, manifest: Arc::default(), matching: None, nearest: None, miss: Miss::First };
    if let Some(manifest) = step.manifest(&key) {
        known = compare(known, manifest, view.clone()).await?;
    }
    if known.matching.is_none() {
        let found = step.farm.look(&manifest_key(&key)).await;
        if found.as_ref().is_some_and(is_bar) {
            step.shared.barred.add(&key);
            return Err("barred");
        }
        if let Some(manifest) = found.and_then(|result| Manifest::decode(&result.stdout_raw).ok()) {
            let manifest = Arc::new(manifest);
            step.remember(&key, manifest.clone());
            known = compare(known, manifest, view).await?;
        }
    }
    Ok(known)
}

async fn compare(known: Known, manifest: Arc<Manifest>, view: Arc<View>) -> Result<Known, Reason> {
    let compare = move || {
        let (matching, nearest, miss) = match manifest.find(&Compared::new(&view, &manifest)) {
            Match::Hit(variant) => (Some(variant.clone()), Some(variant.clone()), Miss::Gone),
            Match::Miss(nearest) => {
                if let Some((_, differences)) = &nearest {
                    let (source, first) = (known.call.source.display(), differences.first());
                    tracing::debug!(%source, ?first, count = differences.len(), "a call's inputs are not those of before");
                }
                let first = nearest.as_ref().and_then(|(_, differences)| differences.first().cloned());
                let miss = first.map_or(Miss::First, Miss::Differs);
                (None, nearest.map(|(variant, _)| variant.clone()), miss)
            }
        };
        Known { manifest, matching, nearest, miss, ..known }
    };
    tokio::task::spawn_blocking(compare).await.map_err(|_| "worker")
}

/// The result that is known for these inputs; none if it is gone.
async fn hit(step: &Step, begun: &Begun, known: &Known, variant: &Variant, shim: &Shim) -> Option<Answered> {
    let key = result_key(&known.key, variant).ok()?;
    let result = match step.ahead.result(&key) {
        Some(result) => result,
        None => step.farm.look(&key).await?,
    };
    let function = DigestFunction::Sha256;
    let mut outputs = Vec::new();
    for file in &result.output_files {
        let digest = Digest::required(function, file.digest.as_ref()).ok()?;
        // An entry can only name what the call would write.
        let output = known.call.outputs.iter().find(|output| output.absolute.to_str() == Some(&file.path))?;
        outputs.push((output.absolute.clone(), file.is_executable, digest));
    }
    let is_there = |path: &Path| outputs.iter().any(|(there, _, _)| there == path);
    if !known.call.outputs.iter().all(|output| !output.required || is_there(&output.absolute)) {
        return None;
    }
    let sample = step.samples.is_next().then(|| outputs.clone());
    // What is announced needs not wait for the rest.
    let (said, outputs) = early::known(step, &known.call, &result.stderr_raw, outputs, shim).await?;
    let Some(files) = early::contents(step, outputs.iter().map(|(_, _, digest)| *digest)).await else {
        // What was handed out cannot be taken back.
        return (said > 0).then_some(Err("result_gone"));
    };
    let took = result.execution_metadata.as_ref().and_then(|data| data.virtual_execution_duration.as_ref());
    step.ahead.note(&known.key, &key);
    step.tally.hit(took.and_then(clock::read_duration).unwrap_or(Duration::ZERO));
    let outputs = outputs.into_iter().map(|(path, executable, _)| Output { path: path.into(), executable }).collect();
    step.told.used(&key);
    if let Some(outputs) = sample {
        let (call, key, variant) = (known.call.clone(), known.key, variant.clone());
        step.samples.add(Hit { call, key, variant, outputs, begun: begun.clone() });
    }
    let stderr = result.stderr_raw.get(said..).unwrap_or_default().to_vec();
    Some(Ok((Done { exit: 0, stdout: result.stdout_raw, stderr, outputs }, files)))
}

/// Keeps a result for everybody, while the step goes on.
fn keep(step: &Arc<Step>, known: Known, ran: Ran, keeping: &TaskTracker) {
    if ran.stdout.len() + ran.stderr.len() > MAX_KEPT {
        return;
    }
    let Ok(result_key) = result_key(&known.key, &ran.variant) else { return };
    let step = step.clone();
    keeping.spawn(async move {
        // Others may have kept theirs meanwhile.
        let kept = step.farm.look(&manifest_key(&known.key)).await;
        if kept.as_ref().is_some_and(is_bar) {
            return;
        }
        let kept = kept.and_then(|result| Manifest::decode(&result.stdout_raw).ok());
        let mut manifest = kept.unwrap_or_else(|| (*known.manifest).clone());
        if manifest.add(ran.variant.clone()).is_err() {
            return;
        }
        step.remember(&known.key, Arc::new(manifest.clone()));
        let blobs = ran.outputs.iter().map(|made| (made.digest, Blob::File(made.file.clone()))).collect();
        let output = |made: &Made| reapi::OutputFile {
            path: made.path.to_string_lossy().into_owned(),
            digest: Some(made.digest.to_wire()),
            is_executable: made.executable,
            ..Default::default()
        };
        let mut metadata = reapi::ExecutedActionMetadata {
            virtual_execution_duration: Some(clock::duration(ran.wall)),
            ..Default::default()
        };
        if !ran.makers.is_empty() {
            // It is kept by this worker, and owed to another one.
            calls::add(&mut metadata, &v1::SplitCalls { makers: made::to_wire(&ran.makers), ..Default::default() });
        }
        let result = reapi::ActionResult {
            output_files: ran.outputs.iter().map(output).collect(),
            stdout_raw: ran.stdout.clone(),
            stderr_raw: ran.stderr.clone(),
            execution_metadata: Some(metadata),
            ..Default::default()
        };
        let manifest = reapi::ActionResult { stdout_raw: manifest.encode(), ..Default::default() };
        let entries = vec![(result_key, result), (manifest_key(&known.key), manifest)];
        match step.farm.keep(blobs, entries).await {
            Ok(()) => step.ahead.note(&known.key, &result_key),
            Err(reason) => tracing::warn!(reason, "cannot keep a call's result"),
        }
        drop(ran);
    });
}
