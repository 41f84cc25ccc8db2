//! Artifacts: made from the outputs of steps, stored where nothing is evicted, and recorded before they are announced.

use futures::{StreamExt, TryStreamExt, stream};
use kiln_planner::plan::{ArtifactKind, Gate, Source, Target};
use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, event};
use kiln_trees::tree::Tree;
use parking_lot::Mutex;
use tracing::Instrument;

use super::attest;
use super::gates::{self, Passed};
use super::steps::Done;
use super::{Unsuccessful, Work};
use crate::RecordsError;
use crate::chosen::Chosen;
use crate::libraries::OnWorker;
use kiln_artifacts::StepFact;
use kiln_store::trees::overlay;

/// The date of an image whose sources have no commit: 2000-01-01, as everywhere in a build.
const UNDATED: i64 = 946_684_800;

/// Blobs that are copied at once to where nothing is evicted. Each waits for the disk, and the disk writes them together.
const KEPT_AT_ONCE: usize = 8;

/// How often an artifact is made while the store loses what it is made of.
const ATTEMPTS: u32 = 3;

pub(super) async fn make_artifacts(
    work: &Work,
    target: &Target,
    chosen: &Chosen<'_>,
    steps: &Done,
) -> Result<(), Unsuccessful> {
    let mut different = Ok(());
    for artifact in &work.plan.artifacts {
        let outputs = outputs(work, artifact, steps).await?;
        let span = tracing::info_span!("artifact", name = artifact.name, kind = artifact.kind.name());
        let own = kiln_reproduce::steps_of(&artifact.from, &work.plan.steps);
        let (mut facts, mut others) = (Vec::new(), Vec::new());
        for (index, finished) in steps {
            let is_own = work.plan.steps.get(*index).is_some_and(|step| own.contains(&step.name));
            let list = if is_own { &mut facts } else { &mut others };
            list.extend(finished.iter().map(|finished| finished.fact.clone()));
        }
        let made = make(work, target, chosen, artifact, &outputs, (facts, others)).instrument(span).await?;
        let (mut made, found) = made;
        if let Some(found) = &found {
            made = attest::found(work, made, found).await?;
        }
        work.build.lock().artifacts.push(made.clone());
        work.tell(event::Event::Artifact(made.clone()));
        let rebuilt = work.compare_rebuilt(&made).await.map_err(Unsuccessful::farms)?;
        if let Some((first, found)) = &rebuilt {
            attest::found(work, first.clone(), found).await?;
        }
        let rebuilt = rebuilt.map(|(first, found)| (first.id, found));
        for (id, found) in found.map(|found| (made.id, found)).into_iter().chain(rebuilt) {
            if let Err((is_projects, words)) = work.compared(&id, found).await {
                different = Err(if is_projects { Unsuccessful::projects(words) } else { Unsuccessful::farms(words) });
            }
        }
    }
    different
}

/// The outputs of each of an artifact's steps, in the plan's order; the shards of a step count as one.
async fn outputs(
    work: &Work,
    artifact: &kiln_planner::plan::Artifact,
    steps: &Done,
) -> Result<Vec<(String, Tree)>, Unsuccessful> {
    let mut found = Vec::new();
    for (index, step) in work.plan.steps.iter().enumerate().filter(|(_, step)| artifact.from.contains(&step.name)) {
        let mut tree = Tree::default();
        for finished in steps.get(&index).into_iter().flatten() {
            overlay(&*work.stores.blobs, &mut tree, finished.outputs.tree.clone())
                .await
                .map_err(Unsuccessful::farms)?;
        }
        found.push((step.name.clone(), tree));
    }
    Ok(found)
}

async fn make(
    work: &Work,
    target: &Target,
    chosen: &Chosen<'_>,
    artifact: &kiln_planner::plan::Artifact,
    outputs: &[(String, Tree)],
    (mut facts, others): (Vec<StepFact>, Vec<StepFact>),
) -> Result<(v1::Artifact, Option<v1::Reproducibility>), Unsuccessful> {
    let build = work.build.lock().clone();
    let source = build.source.clone().unwrap_or_default();
    let platform = target.platform.to_string();
    let version = work.plan.version.as_deref();
    let stem = kiln_artifacts::stem(&artifact.name, version, &source, &platform);
    let origin = kiln_images::image::Origin {
        created: if source.commit_time > 0 { source.commit_time } else { UNDATED },
        revision: source.commit.clone(),
        source: source.repository.clone(),
        version: version.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let builder = work.places.builder(work).await.map_err(Unsuccessful::farms)?;
    let on_worker = OnWorker { work, target, chosen, builder, artifact, facts: Mutex::default() };
    let ingredients = kiln_artifacts::Ingredients {
        stores: &work.stores,
        function: work.function,
        instance: build.instance.trim_matches('/'),
        artifact,
        target,
        builder,
        outputs,
        stem: &stem,
        sources: &work.source.tree,
        tree: work.source.root,
        contexts: &work.source.contexts,
        times: source.times.as_ref().and_then(|times| Digest::from_wire(work.function, times).ok()),
        bases: &work.bases,
        origin: &origin,
        system: &on_worker,
        commands: &on_worker,
    };
    let mut left = ATTEMPTS;
    let made = loop {
        left -= 1;
        match kiln_artifacts::assemble(&ingredients).await {
            Err(error) if left > 0 && error.is_something_gone() => {
                let text = format!("{error}; what made it runs again");
                work.tell(event::Event::Warning(v1::Warning { text }));
                on_worker.facts.lock().clear();
            }
            made => break made.map_err(Unsuccessful::from)?,
        }
    };
    for text in made.notes.clone() {
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
    let id = kiln_artifacts::id(&artifact.name, version, &source, &platform, &made.content);
    let mut own = std::mem::take(&mut *on_worker.facts.lock());
    // Instructions end in any order.
    own.sort_by(|a, b| a.name.cmp(&b.name));
    facts.extend(own);
    work.made(&id, &facts);
    let found = work.reproduce(&mut facts).await;
    let all = [others, facts].concat();
    let known = work.records.artifact(&id).await.map_err(Unsuccessful::farms)?;
    let known = known.filter(|known| known.root == Some(made.root.to_wire()));
    let gates = gates::of(work, &artifact.name);
    if known.is_some() {
        // It may have been removed to make room, or damaged.
        keep_all(work, &made).await?;
    }
    let described = match &known {
        Some(known) => is_described(work, known).await?,
        None => false,
    };
    let is_stated = described && known.as_ref().is_some_and(|known| is_of(known, &source));
    if let (Some(known), None, true, true) = (&known, &found, gates.is_empty(), is_stated) {
        return Ok((known.clone(), None));
    }
    let elsewhere = work.places.used(target);
    // None, if nothing ran on the target's platform.
    let environment = chosen.known();
    let mut record = v1::Artifact {
        id,
        name: artifact.name.clone(),
        version: work.plan.version.clone().unwrap_or_default(),
        platform,
        target: target.name.clone(),
        kind: artifact.kind.name().to_owned(),
        root: Some(made.root.to_wire()),
        digest_function: work.function.to_wire(),
        digest: Some(made.content.to_wire()),
        size_bytes: made.size_bytes,
        provenance: None,
        created: Some(clock::now()),
        build: build.id.clone(),
        commit: source.commit.clone(),
        dirty: source.dirty,
        instance: build.instance.clone(),
        emulated: environment.iter().chain(elsewhere.values()).any(|environment| environment.emulated),
        sbom: None,
        spdx: None,
        checksums: None,
        start: made.start.program.clone(),
        start_with: made.start.with.clone(),
        repository: source.repository.clone(),
        branch: source.branch.clone(),
        attestations: Vec::new(),
        gates: Vec::new(),
        reproducibility: Vec::new(),
    };
    keep_lists(work, &all).await.map_err(Unsuccessful::farms)?;
    let others: Vec<(String, &v1::Environment)> =
        elsewhere.iter().map(|(platform, environment)| (platform.to_string(), &**environment)).collect();
    let places = (environment.as_deref(), others.as_slice());
    let mut statement = kiln_artifacts::statement(&work.settings.farm(), &build, &record, places, &made, &all);
    statement["predicate"]["buildDefinition"]["externalParameters"]["request"] =
        kiln_reproduce::request(&work.request, &record.platform);
    let (sbom, spdx) = materials(work, artifact, &record, &made, origin.created);
    let passed = pass(&on_worker, &gates, (&record, &statement), &made).await?;
    if let Some(known) = known.clone().filter(|_| is_stated) {
        return Ok((passed.add_to(work, known).await?, found));
    }
    record.attestations = attest::about(work, &made.subjects, statement.clone(), &sbom, spdx.as_ref()).await?;
    let (gates, stated) = passed.stated(work).await?;
    record.attestations.extend(stated);
    record.gates = gates;
    let statement = serde_json::to_vec_pretty(&statement).map_err(Unsuccessful::farms)?;
    let sbom = serde_json::to_vec_pretty(&sbom).map_err(Unsuccessful::farms)?;
    let spdx = spdx.map(|spdx| serde_json::to_vec_pretty(&spdx)).transpose().map_err(Unsuccessful::farms)?;
    let beside = async {
        tokio::try_join!(
            put_beside(work, Some(statement)),
            put_beside(work, Some(sbom)),
            put_beside(work, spdx),
            put_beside(work, made.checksums.clone().map(String::into_bytes)),
        )
    };
    let content = keep_all(work, &made);
    ((), (record.provenance, record.sbom, record.spdx, record.checksums)) = tokio::try_join!(content, beside)?;
    if known.is_some() && !described {
        let text = format!(
            "what was stated about artifact `{}` is lost or was never signed; it is stated again, as of this build",
            record.id
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
        return Ok((work.records.describe_again(record).await.map_err(Unsuccessful::farms)?, found));
    }
    // From here on the artifact may be announced.
    let recorded = work.records.put_artifact(record.clone()).await.map_err(|error| match error {
        RecordsError::Conflict { .. } => Unsuccessful::projects(error.to_string()),
        other => Unsuccessful::farms(other),
    })?;
    // Under its id the first record stands. What this build says of its own source is in the build's record.
    Ok((if known.is_some() { record } else { recorded }, found))
}

/// Whether what is stated about an artifact will do for these sources too: the same bytes may come from another repository or branch. Of a later
/// commit on the same branch that changes nothing, it does.
fn is_of(known: &v1::Artifact, source: &v1::Source) -> bool {
    known.dirty == source.dirty && known.repository == source.repository && known.branch == source.branch
}

/// Keeps an artifact's content where nothing is evicted. A build that changes nothing asks for all of it once.
async fn keep_all(work: &Work, made: &kiln_artifacts::Made) -> Result<(), Unsuccessful> {
    let missing = work.stores.artifacts.find_missing(&made.blobs).await.map_err(Unsuccessful::farms)?;
    let copies: Vec<_> =
        missing.iter().map(|blob| kiln_store::copy(&*work.stores.blobs, &*work.stores.artifacts, blob)).collect();
    stream::iter(copies).buffer_unordered(KEPT_AT_ONCE).map_err(Unsuccessful::farms).try_collect().await
}

/// Whether all is there that a recorded artifact's descriptions name, and all of it is signed that is signed today.
async fn is_described(work: &Work, known: &v1::Artifact) -> Result<bool, Unsuccessful> {
    let beside = [&known.provenance, &known.sbom, &known.spdx, &known.checksums].into_iter().flatten();
    let stated = known.attestations.iter().flat_map(|one| one.statement.iter().chain(&one.bundle));
    let named: Result<Vec<Digest>, _> =
        beside.chain(stated).map(|digest| Digest::from_wire(work.function, digest)).collect();
    // What is recorded of an artifact with another function of digests is not its own.
    let named = named.map_err(Unsuccessful::farms)?;
    let is_stated = |name: &str| known.attestations.iter().any(|one| one.name == name && one.bundle.is_some());
    if work.settings.signer.is_some() && !(is_stated("provenance") && is_stated("sbom")) {
        return Ok(false);
    }
    Ok(work.stores.artifacts.find_missing(&named).await.map_err(Unsuccessful::farms)?.is_empty())
}

/// Runs an artifact's gates. They see it as it will be stored, but for what differs between two builds of the same.
async fn pass(
    on: &OnWorker<'_>,
    gates: &[&Gate],
    (record, provenance): (&v1::Artifact, &serde_json::Value),
    made: &kiln_artifacts::Made,
) -> Result<Passed, Unsuccessful> {
    if gates.is_empty() {
        return Ok(Passed::default());
    }
    let (id, version) = (record.name.clone(), String::new());
    let (sbom, _) = materials(on.work, on.artifact, &v1::Artifact { id, version, ..record.clone() }, made, 0);
    let sbom = serde_json::to_vec_pretty(&sbom).map_err(Unsuccessful::farms)?;
    gates::pass(&gates::Subject { on, made, sbom: &sbom, provenance }, gates).await
}

/// The bills of materials of an artifact: in CycloneDX, and of the image of a Dockerfile in SPDX as well.
fn materials(
    work: &Work,
    artifact: &kiln_planner::plan::Artifact,
    record: &v1::Artifact,
    made: &kiln_artifacts::Made,
    created: i64,
) -> (serde_json::Value, Option<serde_json::Value>) {
    let beside = work.source.beside.iter().map(|beside| &beside.planned as &dyn Source);
    let sources: Vec<&dyn Source> = std::iter::once(&work.source.planned as &dyn Source).chain(beside).collect();
    let sbom = kiln_artifacts::sbom(record, &sources, &made.wants, &made.installed);
    let is_image = matches!(artifact.kind, ArtifactKind::Dockerfile(_));
    (sbom, is_image.then(|| kiln_artifacts::spdx(record, &sources, made, created)))
}

/// Stores a description of an artifact, if there is one, where nothing is evicted.
async fn put_beside(work: &Work, data: Option<Vec<u8>>) -> Result<Option<kiln_proto::reapi::Digest>, Unsuccessful> {
    let Some(data) = data else { return Ok(None) };
    let digest = work.function.digest(&data);
    work.stores.artifacts.put(&digest, data.into()).await.map_err(Unsuccessful::farms)?;
    Ok(Some(digest.to_wire()))
}

/// Keeps the lists of the compiler calls that the steps' results were made of; one that was evicted is known by its digest only.
async fn keep_lists(work: &Work, facts: &[StepFact]) -> Result<(), kiln_store::Error> {
    let lists = facts.iter().filter_map(|fact| fact.calls.as_ref()?.keys.as_ref());
    for list in lists.filter_map(|list| Digest::from_wire(work.function, list).ok()) {
        match keep(work, list).await {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Copies a blob to the store where nothing is evicted.
async fn keep(work: &Work, blob: Digest) -> Result<(), kiln_store::Error> {
    if work.stores.artifacts.find_missing(&[blob]).await?.is_empty() {
        return Ok(());
    }
    kiln_store::copy(&*work.stores.blobs, &*work.stores.artifacts, &blob).await
}
