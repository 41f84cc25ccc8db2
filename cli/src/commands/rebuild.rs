//! `kiln rebuild`: builds an artifact again from its provenance alone, and compares.

use std::path::Path;
use std::time::Instant;

use base64::Engine;
use kiln_contexts::project::Project;
use kiln_planner::plan::{self, Options};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{self, Reproduced};
use prost::Message;
use serde_json::{Value, json};

use super::{build, with_farm};
use crate::args;
use crate::deliver::{self, Deliveries};
use crate::farm::{Error as FarmError, Farm};
use crate::follow::{Follow, OnInterrupt};
use crate::interrupts::Interrupts;
use crate::output::Output;
use crate::{Code, Error, download, local};
use kiln_agents::{Agents, Whose};
use kiln_progress::{Board, Delivered, Happening, Show, Work, compared_object};

pub(super) async fn run(farm: &args::Farm, args: args::Rebuild, interrupts: &Interrupts) -> Result<Code, Error> {
    let secrets = kiln_secrets::named(&args.secret)?;
    build::refuse_exposed(farm, &secrets)?;
    with_farm(farm, interrupts, async |farm| rebuild(farm, &args, secrets, interrupts).await).await
}

async fn rebuild(
    farm: &Farm,
    args: &args::Rebuild,
    secrets: Vec<v1::Secret>,
    interrupts: &Interrupts,
) -> Result<Code, Error> {
    let began = Instant::now();
    let request = v1::GetArtifactRequest { id: args.id.clone(), host_platform: local::host().to_string() };
    let artifact = farm.call(farm.artifacts().get(request)).await?.into_inner();
    let asked = asked(farm, &artifact).await?;
    if let Some(dir) = &args.source {
        upload(farm, dir, &asked).await?;
    }
    let request = v1::SubmitRequest {
        no_cache: true,
        check_source: true,
        request_id: uuid::Uuid::now_v7().to_string(),
        user: local::user(),
        secrets,
        verify: Some(v1::Verify { rebuild: artifact.id.clone(), ..v1::Verify::default() }),
        ..asked
    };
    let started = build::once(farm, &request).await.map_err(|error| without_sources(error, &artifact))?;
    let staging = tempfile::tempdir().map_err(|source| Error::Runtime { source })?;
    let directory = args.output.as_deref().unwrap_or(staging.path());
    let mut show =
        Quiet { show: kiln_progress::show(args.progress, began), prints: args.output.is_some() && !args.json };
    let follow = Follow {
        farm,
        build: started.id.clone(),
        blobs: farm.blobs_of(&started)?,
        output: Output::new(directory, None).map_err(download::Error::from)?,
        moved: kiln_proto::transfer::Moved::default(),
        on_interrupt: OnInterrupt::Cancel,
        began: Some(began),
        deliver: args.output.is_none().then_some(&Nowhere as &dyn Deliveries),
        again: Some(request).filter(|request| !request.secrets.is_empty()),
    };
    let agents = Agents::open(&[]).map_err(|error| Error::Usage(error.to_string()))?;
    let code = agents.beside(|| farm.agents(), Whose::Build(&started.id), follow.run(&mut show, interrupts)).await?;
    let request = v1::GetArtifactRequest { id: artifact.id.clone(), host_platform: String::new() };
    let known = farm.call(farm.artifacts().get(request)).await?.into_inner().reproducibility;
    let found = known.into_iter().find(|found| found.rebuilt && found.build == started.id);
    if args.json {
        let result = found.as_ref().map(compared_object);
        local::print_json(&json!({ "artifact": artifact.id, "build": started.id, "result": result }))?;
    }
    match found.map(|found| found.outcome()) {
        Some(Reproduced::Same) => Ok(Code::Success),
        Some(Reproduced::Different) => Ok(Code::Failed),
        _ if code == Code::Success => Err(Error::Usage(format!(
            "build `{}` of the same sources has no artifact `{}` for {}",
            started.id, artifact.name, artifact.platform
        ))),
        _ => Ok(code),
    }
}

/// What the build was asked for that made an artifact, from its provenance.
async fn asked(farm: &Farm, artifact: &v1::Artifact) -> Result<v1::SubmitRequest, Error> {
    let unusable = |reason: &str| Error::Usage(format!("artifact `{}` cannot be built again: {reason}", artifact.id));
    let function = DigestFunction::from_wire(artifact.digest_function).unwrap_or_default();
    let digest = Digest::required(function, artifact.provenance.as_ref());
    let digest = digest.map_err(|_| unusable("it has no provenance"))?;
    let data = farm.blobs(&artifact.instance, function).get(&digest).await.map_err(FarmError::from)?;
    let statement: Value =
        serde_json::from_slice(&data).map_err(|error| unusable(&format!("its provenance is not JSON: {error}")))?;
    let request = &statement["predicate"]["buildDefinition"]["externalParameters"]["request"];
    let Some(text) = request["base64"].as_str() else {
        return Err(unusable(
            "it is of an earlier version of Kiln, whose provenance does not say what was asked for; build it anew",
        ));
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|error| unusable(&format!("its provenance is malformed: {error}")))?;
    v1::SubmitRequest::decode(bytes.as_slice())
        .map_err(|error| unusable(&format!("its provenance is malformed: {error}")))
}

/// Uploads the sources from a directory, if they are those of the artifact.
async fn upload(farm: &Farm, dir: &Path, asked: &v1::SubmitRequest) -> Result<(), Error> {
    let source = asked.source.clone().unwrap_or_default();
    let function = DigestFunction::from_wire(asked.digest_function).unwrap_or_default();
    let context = kiln_context::of(&kiln_scan::directory(dir)?);
    let plan = Options {
        language: asked.language.parse().ok(),
        dockerfile: asked.dockerfile.as_ref().map(|wanted| plan::Dockerfile {
            file: wanted.file.clone(),
            stage: Some(wanted.stage.clone()).filter(|stage| !stage.is_empty()),
            contexts: wanted.contexts.clone().into_iter().collect(),
            ..plan::Dockerfile::default()
        }),
        image: asked.image.clone().map(|image| image.base),
        directory: context.project.clone(),
        ..Options::new(local::host())
    };
    let mut project = Project::new(context.root, function, plan);
    project.scan.parts = context.parts;
    let read = async || build::read_aside(project.clone(), kiln_proto::meter::Meter::default()).await;
    let scanned = read().await?.scanned;
    let wanted = source.root.clone().unwrap_or_default();
    if scanned.digest.to_wire() != wanted {
        let commit = if source.commit.is_empty() { String::new() } else { format!(" (commit {})", source.commit) };
        return Err(Error::Usage(format!(
            "`{}` has other sources than the artifact{commit}: its tree is `{}`, expected `{}`; check out what was built",
            dir.display(),
            scanned.digest.hex(),
            wanted.hash
        )));
    }
    build::send(farm, scanned, async || Ok(read().await?.scanned)).await?;
    Ok(())
}

/// What to do if the farm does not have the sources any more.
fn without_sources(error: FarmError, artifact: &v1::Artifact) -> Error {
    match &error {
        FarmError::Call { status, .. } if status.code() == tonic::Code::FailedPrecondition => {
            let commit =
                if artifact.commit.is_empty() { String::new() } else { format!(" of commit {}", artifact.commit) };
            Error::Usage(format!(
                "the farm does not have the sources of artifact `{}` any more; pass `--source DIR` with those{commit}",
                artifact.id
            ))
        }
        _ => error.into(),
    }
}

/// Nothing is written and nothing is delivered.
struct Nowhere;

#[async_trait::async_trait(?Send)]
impl Deliveries for Nowhere {
    fn takes(&self, _: &v1::Artifact) -> bool {
        true
    }

    async fn run(&self, _: &Farm, _: &[v1::Artifact]) -> Result<Vec<Delivered>, deliver::Error> {
        Ok(Vec::new())
    }
}

/// Leaves out the paths of files that are thrown away.
struct Quiet {
    show: Box<dyn Show>,
    prints: bool,
}

impl Show for Quiet {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        match happening {
            Happening::Artifact { .. } if !self.prints => Ok(()),
            _ => self.show.happening(board, happening),
        }
    }

    fn note(&mut self, text: &str) {
        self.show.note(text);
    }

    fn work(&mut self, work: Option<&Work>) {
        self.show.work(work);
    }

    fn tick(&mut self, board: &Board) {
        self.show.tick(board);
    }
}
