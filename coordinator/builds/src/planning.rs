//! Planning: from a request and its source tree to a plan.

use kiln_artifacts::invalid_base;
use kiln_planner::plan::{self, Options, Plan, Platform, Scope};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{self, SubmitRequest};
use kiln_proto::{precondition, property};
use tonic::Status;

use super::source::{self, SourceTree};
use super::starting::Planned;
use super::{Builds, internal, native};

/// Missing blobs of a source that are named.
const NAMED_MISSING: usize = 100;

fn variable(wire: &v1::StepVariable) -> plan::Variable {
    plan::Variable {
        step: Some(wire.step.clone()).filter(|step| !step.is_empty()),
        name: wire.name.clone(),
        value: wire.value.clone(),
    }
}

/// How the caller wants a Dockerfile built.
fn dockerfile(wire: &v1::Dockerfile) -> Result<plan::Dockerfile, String> {
    let context = wire.context.trim_end_matches('/').to_owned();
    project_directory(&context)
        .map_err(|_| format!("dockerfile.context is `{context}`: expected a path in the tree"))?;
    Ok(plan::Dockerfile {
        file: wire.file.clone(),
        context,
        stage: Some(wire.stage.clone()).filter(|stage| !stage.is_empty()),
        args: wire.args.clone().into_iter().collect(),
        contexts: wire.contexts.clone().into_iter().collect(),
        secrets: wire.secrets.clone(),
        labels: wire.labels.clone().into_iter().collect(),
        compression: match wire.compression.as_str() {
            "" | "gzip" => plan::Compression::Gzip,
            "zstd" => plan::Compression::Zstd,
            other => return Err(format!("unknown compression `{other}`; expected `gzip` or `zstd`")),
        },
        annotations: wire.annotations.iter().map(annotation).collect(),
        no_cache_stages: wire.no_cache_stages.clone(),
        hosts: wire.hosts.iter().map(|host| (host.name.clone(), host.address.clone())).collect(),
        network: match wire.network.as_str() {
            "" | "default" => plan::CommandNetwork::Default,
            "none" => plan::CommandNetwork::None,
            "host" => plan::CommandNetwork::Host,
            other => return Err(format!("unknown network `{other}`; expected `default`, `none` or `host`")),
        },
        memory_bytes: Some(wire.memory_bytes).filter(|bytes| *bytes > 0),
        rewrite_timestamp: wire.rewrite_timestamp,
        contexts_are_filtered: wire.contexts_are_filtered,
        ssh: wire.ssh.clone(),
    })
}

fn annotation(wire: &v1::Annotation) -> (Option<String>, String, String) {
    (Some(wire.platform.clone()).filter(|platform| !platform.is_empty()), wire.key.clone(), wire.value.clone())
}

/// The project's directory in its tree.
fn project_directory(text: &str) -> Result<String, String> {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if text.is_empty() || text.split('/').all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("source.project is `{text}`: expected a path below the root of the tree"))
}

impl Builds {
    /// `INVALID_ARGUMENT` if the project is wrong, with the reason.
    pub(super) async fn plan(&self, request: &SubmitRequest) -> Result<Planned, Status> {
        let _place = self.shared.planning.acquire().await.map_err(internal)?;
        let wrong = |words: String| Status::invalid_argument(words);
        let function = DigestFunction::from_wire(request.digest_function).map_err(|error| wrong(error.to_string()))?;
        if !matches!(request.executor.as_str(), "" | property::SANDBOX | property::DOCKER) {
            return Err(wrong(format!("unknown executor `{}`; expected `sandbox` or `docker`", request.executor)));
        }
        let facts = request.source.clone().unwrap_or_default();
        let root =
            Digest::required(function, facts.root.as_ref()).map_err(|error| wrong(format!("source.root: {error}")))?;
        let unreadable = |error: source::Error| match error {
            // Never uploaded, or lost since: the client knows what to do about both.
            source::Error::Tree(kiln_store::trees::Error::Store(kiln_store::Error::NotFound { digest })) => {
                precondition::to_tonic(&precondition::missing(&[digest]))
            }
            source::Error::Tree(kiln_store::trees::Error::Store(error)) => error.into(),
            other => wrong(other.to_string()),
        };
        let blobs = &*self.shared.stores.blobs;
        let known = if facts.contexts.is_empty() { self.shared.recent.get(blobs, &root).await } else { None };
        let mut source = match known {
            Some(source) => source,
            None => SourceTree::read(blobs, root, &facts.contexts).await.map_err(unreadable)?,
        };
        if request.check_source {
            let times = facts.times.as_ref().map(|times| Digest::from_wire(function, times)).transpose();
            let times = times.map_err(|error| wrong(format!("source.times: {error}")))?;
            let mut missing = source.missing(blobs, times).await?;
            if !missing.is_empty() {
                // A few are enough: the client asks which, and a status cannot name a whole tree.
                missing.truncate(NAMED_MISSING);
                return Err(precondition::to_tonic(&precondition::missing(&missing)));
            }
        }
        let platform = |text: &str| text.parse::<Platform>().map_err(|error| wrong(error.to_string()));
        let options = Options {
            platforms: request.platforms.iter().map(|text| platform(text)).collect::<Result<_, _>>()?,
            targets: request.targets.clone(),
            host: if request.host_platform.is_empty() { Platform::Amd64 } else { platform(&request.host_platform)? },
            describe: Some(facts.describe.clone()).filter(|describe| !describe.is_empty()),
            language: match request.language.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|error| wrong(format!("unknown language `{text}`: {error}")))?),
            },
            ignored: facts.ignored.clone(),
            toolchains: (*self.shared.settings.toolchains.get()).clone(),
            image: request.image.clone().map(|image| image.base),
            dockerfile: request.dockerfile.as_ref().map(dockerfile).transpose().map_err(wrong)?,
            directory: project_directory(&facts.project).map_err(wrong)?,
            directory_name: if facts.directory.is_empty() { "project".to_owned() } else { facts.directory.clone() },
        };
        let scope = if request.test { Scope::Tests } else { Scope::Build };
        let question = |files: &plan::MemorySource| {
            let plan = plan::plan_for(files, &options, scope)?;
            plan::read_unversioned(&plan.steps, files);
            kiln_artifacts::read_locks(files);
            Ok::<Plan, plan::Error>(plan)
        };
        let plan = source.ask(blobs, question).await.map_err(unreadable)?;
        let mut plan = plan.map_err(|error| wrong(error.to_string()))?;
        if let Some(beside) = &mut source.beside {
            let locks = |files: &plan::MemorySource| kiln_artifacts::read_locks(files);
            beside.ask(blobs, locks).await.map_err(unreadable)?;
        }
        self.shared.recent.put(&source);
        let variables: Vec<plan::Variable> = request.variables.iter().map(variable).collect();
        plan::set_variables(&mut plan, &variables).map_err(|error| wrong(error.to_string()))?;
        native::mark(&mut plan, &source, &*self.shared.stores.blobs, &self.shared.native).await;
        let (commit, dirty, describe) = (facts.commit.clone(), facts.dirty, facts.describe.clone());
        plan::stamp(&mut plan, &plan::Stamp { commit, dirty, describe });
        if let Some(words) = invalid_base(&plan) {
            return Err(wrong(words));
        }
        Ok(Planned { function, source, plan })
    }
}
