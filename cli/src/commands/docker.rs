//! `kiln docker build`: `docker build` with the farm as its builder.
//!
//! Standard output has only what buildx prints there: the image's id with `--quiet`, an answer of `--call`, or an archive.

use std::cell::Cell;
use std::path::Path;
use std::time::Instant;

use kiln_agents::{Agents, Offer, Whose};
use kiln_buildx::{Asked, Method, Network, Origin, Request, Secret, Ssh};
use kiln_contexts::{Contexts, Wanted};
use kiln_export::Exports;
use kiln_progress::{Show, show_for_docker, watched};
use kiln_proto::meter::Meter;
use kiln_proto::root::secret_name;
use kiln_proto::{secret, v1};
use kiln_scan::git;
use kiln_terminal::{colours, harmless, say};
use tracing::{Instrument, info_span};
use zeroize::Zeroizing;

use super::build::{Submitted, opened, refuse_exposed, submitted};
use super::or_interrupted;
use crate::args;
use crate::farm::{FUNCTION, Farm, INSTANCE};
use crate::follow::{Follow, OnInterrupt};
use crate::interrupts::Interrupts;
use crate::output::Output;
use crate::{Code, Error, download, local};

pub(super) async fn run(farm: &args::Farm, arguments: &[String], interrupts: &Interrupts) -> Result<Code, Error> {
    let variable = |name: &str| std::env::var(name).ok();
    let request = match kiln_buildx::parse(arguments, &variable)? {
        Asked::Help(text) => return local::print(text.as_bytes()),
        Asked::Build(request) => *request,
    };
    // Docker has one exit code for all that is wrong with a build.
    build(farm, &request, interrupts).await.map_err(|error| match error.code() {
        Code::Usage => Error::AsDocker(Box::new(error)),
        _ => error,
    })
}

async fn build(farm: &args::Farm, request: &Request, interrupts: &Interrupts) -> Result<Code, Error> {
    let began = Instant::now();
    if !request.quiet {
        request.notes.iter().for_each(|note| say(&harmless(&format!("note: {note}"))));
    }
    // Nobody takes a file of an earlier build for this one's.
    for path in request.id_file.iter().map(Path::new) {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Write { path: path.to_owned(), source });
            }
            _ => {}
        }
    }
    let exports = Exports::new(request, &insecure()).map_err(crate::deliver::Error::from)?;
    let secrets = request.secrets.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    refuse_exposed(farm, &secrets)?;
    let offer = |ssh: &Ssh| Offer { id: ssh.id.clone(), paths: ssh.paths.iter().map(Into::into).collect() };
    let agents = opened(farm, &request.ssh.iter().map(offer).collect::<Vec<_>>())?;
    let wanted = wanted(request);
    let meter = Meter::default();
    let counted = meter.clone();
    let reading = async move {
        let read = tokio::task::spawn_blocking(move || kiln_contexts::read(&wanted, &counted)).await;
        read.map_err(|error| Error::Runtime { source: std::io::Error::other(error) })?.map_err(Error::from)
    };
    if request.call.method != Method::Build {
        let contexts = or_interrupted(interrupts, reading).await?;
        return answer(request, &contexts);
    }
    let mut show = show_for_docker(request.progress_shown(), began);
    let opening = async {
        match tokio::join!(reading.instrument(info_span!("scan")), Farm::open(farm)) {
            (Ok(contexts), Ok(farm)) => Ok((contexts, farm)),
            (Err(error), Ok(farm)) => {
                farm.close().await;
                Err(error)
            }
            (_, Err(error)) => Err(error),
        }
    };
    let doing = Cell::new("reading the context");
    let opened = watched(show.as_mut(), &doing, &meter, opening);
    let (contexts, farm) = or_interrupted(interrupts, opened).await?;
    contexts.notes.iter().for_each(|note| show.note(note));
    if let Err(error) = text(&contexts).and_then(|text| kiln_dockerfile::parse(&contexts.file, &text)) {
        farm.close().await;
        say(&error.render(colours()));
        return Ok(Code::Failed);
    }
    let given = (secrets, agents);
    let result = on_farm(&farm, request, contexts, given, (&exports, show.as_mut(), began), interrupts).await;
    farm.close().await;
    let code = result?;
    if code == Code::Success {
        finish(request, &exports)?;
    }
    Ok(code)
}

/// Registries that may be contacted over plain HTTP.
fn insecure() -> Vec<String> {
    let hosts = std::env::var("KILN_INSECURE_REGISTRIES").unwrap_or_default();
    hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

fn wanted(request: &Request) -> Wanted {
    Wanted {
        context: request.context.clone(),
        file: request.file.clone(),
        named: request.contexts.clone(),
        keep_git_dir: request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|value| value == "1"),
        function: FUNCTION,
        cache: local::cache_dir().ok().map(|dir| dir.join("scan")),
    }
}

/// A secret's value.
fn value(secret: &Secret) -> Result<v1::Secret, Error> {
    let id = &secret.id;
    let variable = |name: &str| std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes);
    let file = |path: &str| {
        std::fs::read(path)
            .map_err(|error| Error::Usage(format!("cannot read the secret `{id}` from `{path}`: {error}")))
    };
    let unset = |name: &str| Error::Usage(format!("secret `{id}`: the variable `{name}` is not set"));
    let bytes = match &secret.from {
        Origin::File(path) => file(path)?,
        Origin::Variable(name) => variable(name).ok_or_else(|| unset(name))?,
        Origin::Either(name) => variable(name).map_or_else(|| file(name), Ok)?,
    };
    let text = String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Error::Usage(format!("the secret `{id}` is not valid UTF-8; expected text, such as its base64"))
    })?;
    match secret::problem(&text) {
        Some(problem) => Err(Error::Usage(format!("the secret `{id}` {problem}"))),
        None => Ok(v1::Secret { name: secret_name(id), value: text.to_string() }),
    }
}

/// The text of the Dockerfile.
fn text(contexts: &Contexts) -> Result<String, kiln_dockerfile::Error> {
    kiln_dockerfile::decode(&contexts.file, contexts.dockerfile.clone())
}

/// Answers a call without a farm.
fn answer(request: &Request, contexts: &Contexts) -> Result<Code, Error> {
    let text = text(contexts).map_err(kiln_contexts::Error::from)?;
    let ignore = contexts.ignore.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let answer = kiln_buildx::answer(request, &contexts.file, &text, ignore, local::host().architecture());
    local::print(answer.out.as_bytes())?;
    if let Some(error) = &answer.error {
        say(error);
    }
    Ok(if answer.code == 0 { Code::Success } else { Code::Failed })
}

async fn on_farm(
    farm: &Farm,
    request: &Request,
    contexts: Contexts,
    (secrets, agents): (Vec<v1::Secret>, Agents),
    (exports, show, began): (&Exports<'_>, &mut dyn Show, Instant),
    interrupts: &Interrupts,
) -> Result<Code, Error> {
    let facts = match contexts.directory.clone() {
        Some(directory) => tokio::task::spawn_blocking(move || git::facts(&directory, &[])).await.unwrap_or_default(),
        None => git::Facts::default(),
    };
    // A context that changes meanwhile is reported: what buildx would send then is a mixture.
    let again =
        async || Err(kiln_scan::Error::Changing { path: contexts.directory.clone().unwrap_or_default() }.into());
    let wire = v1::SubmitRequest { secrets, ..submission(request, &contexts, facts, exports.name()) };
    let of = |_: &kiln_scan::Scanned| wire.clone();
    let Submitted { build, moved, request: wire, .. } =
        submitted(farm, contexts.scanned, again, of, show, interrupts).await?;
    let temporary = tempfile::Builder::new().prefix("kiln-docker-").tempdir();
    let temporary = temporary.map_err(|source| Error::Write { path: std::env::temp_dir(), source })?;
    let follow = Follow {
        farm,
        build: build.id.clone(),
        blobs: farm.blobs_of(&build)?,
        output: Output::new(temporary.path(), None).map_err(download::Error::from)?,
        moved,
        on_interrupt: OnInterrupt::Cancel,
        began: Some(began),
        deliver: Some(exports),
        again: Some(wire).filter(|wire| !wire.secrets.is_empty()),
    };
    let followed = agents.beside(|| farm.agents(), Whose::Build(&build.id), follow.run(show, interrupts));
    followed.instrument(info_span!("follow", build = build.id)).await
}

fn submission(request: &Request, contexts: &Contexts, facts: git::Facts, name: Option<String>) -> v1::SubmitRequest {
    v1::SubmitRequest {
        instance: INSTANCE.to_owned(),
        digest_function: FUNCTION.to_wire(),
        source: Some(v1::Source {
            root: Some(contexts.scanned.digest.to_wire()),
            commit: facts.commit,
            dirty: facts.dirty,
            describe: facts.describe,
            repository: facts.repository,
            commit_time: facts.commit_time,
            branch: facts.branch,
            directory: name.unwrap_or_else(|| contexts.name.clone()),
            times: Some(FUNCTION.digest(&contexts.scanned.times.encode()).to_wire()),
            ..v1::Source::default()
        }),
        platforms: request.platforms.clone(),
        host_platform: local::host().to_string(),
        no_cache: request.no_cache,
        request_id: uuid::Uuid::now_v7().to_string(),
        user: local::user(),
        // As Docker does, where the machine can.
        allow_emulation: true,
        dockerfile: Some(v1::Dockerfile {
            file: contexts.file.clone(),
            stage: request.target.clone().unwrap_or_default(),
            args: request.build_args.clone().into_iter().collect(),
            contexts: contexts.named.clone().into_iter().collect(),
            context: contexts.context.clone(),
            labels: request.labels.clone().into_iter().collect(),
            annotations: request.annotations.iter().filter_map(annotation).collect(),
            no_cache_stages: request.no_cache_stages.clone(),
            hosts: request
                .hosts
                .iter()
                .map(|(name, address)| v1::Host { name: name.clone(), address: address.clone() })
                .collect(),
            network: match request.network {
                Network::Default => String::new(),
                Network::None => "none".to_owned(),
                Network::Host => "host".to_owned(),
            },
            secrets: request.secrets.iter().map(|secret| secret.id.clone()).collect(),
            memory_bytes: request.memory_bytes.unwrap_or_default(),
            compression: request.format.compression.clone().unwrap_or_default(),
            rewrite_timestamp: request.format.rewrite_timestamp,
            contexts_are_filtered: true,
            ssh: request.ssh.iter().map(|ssh| ssh.id.clone()).collect(),
        }),
        ..v1::SubmitRequest::default()
    }
}

/// An annotation that the farm makes: one of a manifest.
fn annotation(annotation: &kiln_buildx::Annotation) -> Option<v1::Annotation> {
    (annotation.level == kiln_buildx::Level::Manifest).then(|| v1::Annotation {
        platform: annotation.platform.clone().unwrap_or_default(),
        key: annotation.key.clone(),
        value: annotation.value.clone(),
    })
}

/// Writes the files about the image, and says where it is.
fn finish(request: &Request, exports: &Exports<'_>) -> Result<(), Error> {
    let made = exports.made().unwrap_or_default();
    let write = |path: &str, content: &str| {
        std::fs::write(path, content).map_err(|source| Error::Write { path: path.into(), source })
    };
    if let Some(path) = &request.id_file {
        write(path, &made.id)?;
    }
    if let Some(path) = &request.metadata_file {
        write(path, &format!("{:#}", made.metadata))?;
    }
    if request.quiet {
        if !made.id.is_empty() {
            local::print(format!("{}\n", made.id).as_bytes())?;
        }
    } else if request.outputs.is_empty() {
        say(
            "note: no output was asked for, so the image stays on the farm; `--push`, `--load` or `--output` takes it from there",
        );
    }
    Ok(())
}
