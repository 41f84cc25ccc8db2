//! `kiln build`: scan, upload what is missing, submit, follow.

use std::cell::Cell;
use std::time::{Duration, Instant};

use kiln_agents::{Agents, Offer, Whose};
use kiln_contexts::project::{self, Project, Sources as Read};
use kiln_planner::plan::{Options, Scope, Variable};
use kiln_proto::channel;
use kiln_proto::meter::Meter;
use kiln_proto::transfer::{self, Blob, Moved};
use kiln_proto::{property, v1};
use tracing::{Instrument, info_span};

use super::{or_interrupted, several, shell};
use crate::args;
use crate::deliver::{Deliver, Deliveries};
use crate::farm::{Error as FarmError, FUNCTION, Farm, INSTANCE};
use crate::follow::{Follow, OnInterrupt};
use crate::interrupts::Interrupts;
use crate::output::Output;
use crate::{Code, Error, download, local};
use kiln_progress::{Show, show, watched};
use kiln_projects::left_out;
use kiln_scan::{self as scan, Scanned, git};
use kiln_terminal as terminal;

/// How often a tree is scanned if it changes during the upload.
const ATTEMPTS: usize = 2;
/// Size of sources above which a note is shown.
const LARGE_BYTES: u64 = 1 << 30;

pub(super) async fn run(farm: &args::Farm, args: args::Build, interrupts: &Interrupts) -> Result<Code, Error> {
    if several::is_asked(&args.dir, &args.more, args.affected_by.as_deref()) {
        return several::run(farm, args, interrupts).await;
    }
    run_scope(farm, args, Scope::Build, interrupts).await
}

/// `kiln build`, or with [`Scope::Tests`] `kiln test`.
pub(super) async fn run_scope(
    farm: &args::Farm,
    args: args::Build,
    scope: Scope,
    interrupts: &Interrupts,
) -> Result<Code, Error> {
    let began = Instant::now();
    let is_embedded = farm.farm.as_deref().is_none_or(|url| url.trim().is_empty());
    if args.detach && is_embedded {
        return Err(Error::Usage(
            "`--detach` needs a farm that outlives this command; set `--farm URL` or `KILN_FARM`".to_owned(),
        ));
    }
    if args.shell_on_failure && !shell::is_on_terminal() {
        let words = "`--shell-on-failure` needs a terminal; `kiln run BUILD STEP -- COMMAND` looks around without one";
        return Err(Error::Usage(words.to_owned()));
    }
    if args.detach && !args.dockerfile.ssh.is_empty() {
        return Err(Error::Usage("`--ssh` needs this command to stay with the build; leave out `--detach`".to_owned()));
    }
    let farm = &args::Farm { store_size: args.store_size, ..farm.clone() };
    let dir = scan::directory(&args.dir)?;
    let context = kiln_context::of(&dir);
    let project = project(&context, &args, scope);
    let (root, parts) = (context.root, context.parts);
    let source_tree = git::work_tree(&root).unwrap_or_else(|| root.clone());
    let output = Output::new(&args.output, Some(&source_tree)).map_err(download::Error::from)?;
    let secrets = kiln_secrets::gather(&dir, &args.secret)?;
    refuse_exposed(farm, &secrets)?;
    let agents = opened(farm, &args.dockerfile.ssh)?;
    let deliver = Deliver::new(&args.deliver, &dir)?;
    // The scan, git and the farm's first response are independent.
    let facts = tokio::task::spawn_blocking(move || git::facts(&root, &parts));
    let mut show = show(args.progress, began);
    let meter = Meter::default();
    let doing = Cell::new("scanning");
    let scanning = async {
        let scanned = read_aside(project.clone(), meter.clone()).await;
        meter.restart(0);
        doing.set(if is_embedded { "starting a farm" } else { "connecting to the farm" });
        scanned
    };
    let scanning = scanning.instrument(info_span!("scan"));
    let opening = async {
        let (scanned, farm) = tokio::join!(scanning, Farm::open(farm).instrument(info_span!("open farm")));
        match (scanned, farm) {
            (Ok(read), Ok(farm)) => Ok((read, farm)),
            (Err(error), Ok(farm)) => {
                farm.close().await;
                Err(error)
            }
            (_, Err(error)) => Err(error),
        }
    };
    let opened = or_interrupted(interrupts, watched(show.as_mut(), &doing, &meter, opening)).await;
    let (read, farm) = opened?;
    if is_embedded {
        tell_of_unconfined(&farm, show.as_mut()).await;
    }
    let facts = facts.await.unwrap_or_default();
    let sources = Sources { project, read, facts, secrets };
    let following = Following { output, deliver: deliver.as_ref(), agents, began, show: show.as_mut() };
    let result = on_farm(&farm, &args, scope, sources, following, interrupts).await;
    farm.close().await;
    result
}

/// The SSH agents that are offered. Another machine reaches them only by TLS.
pub(super) fn opened(farm: &args::Farm, offers: &[Offer]) -> Result<Agents, Error> {
    if let (Some(url), [offer, ..]) = (farm.farm.as_deref().filter(|url| channel::is_exposed(url)), offers) {
        return Err(Error::Usage(format!(
            "the SSH agent `{}` is not offered over plain HTTP to another machine; expected `https://…` instead of `{url}`",
            offer.id
        )));
    }
    Agents::open(offers).map_err(|error| Error::Usage(error.to_string()))
}

/// Secrets go to another machine only by TLS.
pub(super) fn refuse_exposed(farm: &args::Farm, secrets: &[v1::Secret]) -> Result<(), Error> {
    match (farm.farm.as_deref().filter(|url| channel::is_exposed(url)), secrets) {
        (Some(url), [secret, ..]) => Err(Error::Usage(format!(
            "the secret `{}` is not sent over plain HTTP to another machine; expected `https://…` instead of `{url}`",
            secret.name
        ))),
        _ => Ok(()),
    }
}

/// Warns if this machine does not allow a sandbox: users should know what their project's steps can reach.
async fn tell_of_unconfined(farm: &Farm, show: &mut dyn Show) {
    let Ok(status) = farm.status().await else { return };
    let environments = status.workers.into_iter().filter_map(|worker| worker.environment);
    for environment in environments.filter(|environment| environment.sandbox.starts_with("OFF")) {
        show.note(&format!("warning: sandbox {}", environment.sandbox));
    }
}

/// The sources to build.
pub(super) struct Sources {
    pub(super) project: Project,
    pub(super) read: Read,
    pub(super) facts: git::Facts,
    pub(super) secrets: Vec<v1::Secret>,
}

/// Where a build's results go.
pub(super) struct Following<'a> {
    pub(super) output: Output,
    pub(super) deliver: Option<&'a Deliver>,
    pub(super) agents: Agents,
    pub(super) began: Instant,
    pub(super) show: &'a mut dyn Show,
}

pub(super) async fn on_farm(
    farm: &Farm,
    args: &args::Build,
    scope: Scope,
    Sources { project, read, facts, secrets }: Sources,
    Following { output, deliver, agents, began, show }: Following<'_>,
    interrupts: &Interrupts,
) -> Result<Code, Error> {
    let Read { scanned, contexts, is_of_dockerfiles } = read;
    let given = secrets.clone();
    let test = scope == Scope::Tests;
    let again = async || Ok(read_aside(project.clone(), Meter::default()).await?.scanned);
    let of = |scanned: &Scanned| {
        let wire = source(scanned, facts.clone(), project.plan.directory.clone());
        let ignored =
            if is_of_dockerfiles { Vec::new() } else { left_out::ignored_locks(&scanned.root, &scanned.paths) };
        let times = (!contexts.is_empty()).then(|| FUNCTION.digest(&scanned.times.encode()).to_wire());
        let source = Some(v1::Source { ignored, times, contexts: contexts.clone(), ..wire });
        v1::SubmitRequest { source, secrets: secrets.clone(), test, ..request(args) }
    };
    let Submitted { build, moved, request, scanned } = submitted(farm, scanned, again, of, show, interrupts).await?;
    if args.detach && interrupts.is_seen() {
        farm.cancel(&build.id).await?;
        return Err(Error::Cancelled);
    }
    if args.detach {
        terminal::say(&format!("the build runs on the farm; follow it with `kiln attach {}`", build.id));
        return local::print(format!("{}\n", build.id).as_bytes());
    }
    // A farm inside this command ends with it, and its pages too.
    if let Some(at) = build.pages.as_ref().filter(|_| !farm.is_embedded())
        && let Some(link) = super::web::link(&farm.address(), &at.url, at.port, &format!("/builds/{}", build.id))
    {
        show.note(&format!("page: {link}"));
    }
    let build_id = build.id.clone();
    let (root, left_out) = (scanned.root.clone(), scanned.left_out.clone());
    let follow = Follow {
        farm,
        blobs: farm.blobs_of(&build)?,
        build: build.id,
        output,
        moved,
        on_interrupt: OnInterrupt::Cancel,
        began: Some(began),
        deliver: deliver.map(|deliver| deliver as &dyn Deliveries),
        again: Some(request).filter(|request| !request.secrets.is_empty()),
    };
    let span = info_span!("follow", build = build_id);
    let followed = agents.beside(|| farm.agents(), Whose::Build(&build_id), follow.run(show, interrupts));
    let code = followed.instrument(span).await?;
    if code == Code::Failed && !is_of_dockerfiles {
        // A common reason for a failure is a file that no step saw.
        let words = tokio::task::spawn_blocking(move || left_out::words(&root, &left_out)).await.unwrap_or_default();
        words.iter().for_each(|words| terminal::say(&terminal::harmless(&format!("note: {words}"))));
    }
    if code == Code::Failed && args.shell_on_failure {
        shell::on_failure(farm, &build_id, (&args.dir, &given, &agents), interrupts).await?;
    }
    Ok(code)
}

/// The project in a context, as this command reads and plans it.
pub(super) fn project(context: &kiln_context::Context, args: &args::Build, scope: Scope) -> Project {
    let scan = scan::Options {
        root: context.root.clone(),
        parts: context.parts.clone(),
        cache: local::cache_dir().ok().map(|dir| dir.join("scan")),
        function: FUNCTION,
        files: scan::Files::Project,
    };
    let plan = Options {
        language: args.language,
        dockerfile: args.dockerfile.wanted(),
        image: args.image.clone(),
        directory: context.project.clone(),
        ..Options::new(local::host())
    };
    Project { scan, plan, scope, has_git_files: true }
}

pub(super) async fn read_aside(project: Project, meter: Meter) -> Result<Read, Error> {
    let read = tokio::task::spawn_blocking(move || project::sources(&project, &meter)).await;
    Ok(read.map_err(|error| Error::Runtime { source: std::io::Error::other(error) })??)
}

/// Shows a note before a very large tree is uploaded: usually it contains something that no step needs.
fn announce(scanned: &Scanned) {
    let bytes = scanned.bytes();
    if bytes > LARGE_BYTES {
        terminal::say(&terminal::harmless(&format!(
            "note: `{}` has {} in {}; list what no step needs in a `.kilnignore`",
            scanned.root.display(),
            terminal::size(bytes),
            terminal::count(scanned.files, "file"),
        )));
    }
}

/// Uploads what the farm lacks. A tree that changed meanwhile is scanned `again` once.
pub(super) async fn send(
    farm: &Farm,
    mut scanned: Scanned,
    again: impl AsyncFn() -> Result<Scanned, Error>,
) -> Result<(Scanned, Moved), Error> {
    announce(&scanned);
    let client = farm.blobs(INSTANCE, FUNCTION);
    let mut total = Moved::default();
    let mut reconnect = farm.reconnect();
    let mut attempt = 1;
    loop {
        let blobs: Vec<(_, Blob)> = scanned.blobs().into_iter().collect();
        let sent = client.upload(blobs).await;
        if let Some(status) = sent.as_ref().err().and_then(transfer::Error::connection) {
            // What was uploaded already is not sent again.
            reconnect.wait(farm, "send the sources", status.clone()).await?;
            continue;
        }
        match sent {
            Ok(moved) => {
                total += moved;
                break;
            }
            Err(error) if attempt < ATTEMPTS && may_have_changed(&error) => {
                attempt += 1;
                let next = again().await?;
                if next.digest == scanned.digest && !matches!(error, transfer::Error::Changed { .. }) {
                    return Err(FarmError::from(error).into());
                }
                scanned = next;
            }
            Err(transfer::Error::Changed { path, .. }) => return Err(scan::Error::Changing { path }.into()),
            Err(error) => {
                let status = if let transfer::Error::Status(status) = &error { Some(status) } else { None };
                let stranger = match status {
                    Some(status) => farm.stranger(status).await,
                    None => None,
                };
                return Err(stranger.unwrap_or_else(|| FarmError::from(error)).into());
            }
        }
    }
    Ok((scanned, total))
}

/// Whether a file that was changed after the scan would cause this error: it is shorter, different, or gone.
fn may_have_changed(error: &transfer::Error) -> bool {
    match error {
        transfer::Error::Changed { .. } => true,
        transfer::Error::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        transfer::Error::Status(status) => {
            matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::DataLoss)
        }
        _ => false,
    }
}

fn source(scanned: &Scanned, facts: git::Facts, project: String) -> v1::Source {
    v1::Source {
        root: Some(scanned.digest.to_wire()),
        commit: facts.commit,
        dirty: facts.dirty,
        describe: facts.describe,
        repository: facts.repository,
        commit_time: facts.commit_time,
        branch: facts.branch,
        directory: local::directory_name(&scanned.root.join(&project)),
        project,
        ..v1::Source::default()
    }
}

fn request(args: &args::Build) -> v1::SubmitRequest {
    v1::SubmitRequest {
        instance: INSTANCE.to_owned(),
        digest_function: FUNCTION.to_wire(),
        platforms: args.platform.iter().map(ToString::to_string).collect(),
        targets: args.target.clone(),
        host_platform: local::host().to_string(),
        no_cache: args.no_cache,
        verify: args.verify_reproducible.map(|which| v1::Verify {
            steps: true,
            network: which == args::Reproducible::All,
            rebuild: String::new(),
        }),
        priority: args.priority,
        request_id: args.request_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        user: local::user(),
        allow_emulation: args.allow_emulation,
        secrets: Vec::new(),
        language: args.language.map(|language| language.name().to_owned()).unwrap_or_default(),
        test: false,
        variables: args.env.iter().map(variable).collect(),
        queue_timeout: args.queue_timeout.map(kiln_proto::clock::duration),
        detached: args.detach,
        image: args.image.clone().map(|base| v1::Image { base }),
        executor: match args.executor {
            None => String::new(),
            Some(args::Executor::Sandbox) => property::SANDBOX.to_owned(),
            Some(args::Executor::Docker) => property::DOCKER.to_owned(),
        },
        dockerfile: args.dockerfile.wanted().map(|wanted| v1::Dockerfile {
            file: wanted.file,
            stage: wanted.stage.unwrap_or_default(),
            args: wanted.args.into_iter().collect(),
            contexts: wanted.contexts.into_iter().collect(),
            ssh: wanted.ssh,
            ..v1::Dockerfile::default()
        }),
        ..v1::SubmitRequest::default()
    }
}

fn variable(variable: &Variable) -> v1::StepVariable {
    v1::StepVariable {
        step: variable.step.clone().unwrap_or_default(),
        name: variable.name.clone(),
        value: variable.value.clone(),
    }
}

/// A build that the farm has accepted.
pub(super) struct Submitted {
    pub(super) build: v1::Build,
    pub(super) moved: Moved,
    pub(super) request: v1::SubmitRequest,
    pub(super) scanned: Scanned,
}

/// Uploads what the farm lacks, and submits the build `of` the sources. If no file was read because none has changed, the farm has most
/// likely all of them from an earlier build: then it is asked to look itself, and everything else happens only if it lacks something.
pub(super) async fn submitted(
    farm: &Farm,
    mut scanned: Scanned,
    again: impl AsyncFn() -> Result<Scanned, Error>,
    of: impl Fn(&Scanned) -> v1::SubmitRequest,
    show: &mut dyn Show,
    interrupts: &Interrupts,
) -> Result<Submitted, Error> {
    let request = of(&scanned);
    let planning = Cell::new("planning");
    let mut early = None;
    if scanned.hashed == 0 {
        let checked = v1::SubmitRequest { check_source: true, ..request.clone() };
        let asking = answered(interrupts, &planning, once(farm, &checked)).instrument(info_span!("submit"));
        match watched(show, &planning, &Meter::default(), asking).await? {
            Ok(build) if build.source_is_complete => {
                let moved = Moved { reused_bytes: scanned.bytes(), ..Moved::default() };
                return Ok(Submitted { build, moved, request, scanned });
            }
            // A coordinator that does not know the question.
            Ok(build) => early = Some(build),
            Err(FarmError::Call { status, .. }) if status.code() == tonic::Code::FailedPrecondition => {}
            Err(error) => return Err(error.into()),
        }
    }
    let before = scanned.digest;
    let sending = send(farm, scanned, again).instrument(info_span!("upload"));
    let moved;
    let uploading = Cell::new("uploading");
    (scanned, moved) = or_interrupted(interrupts, watched(show, &uploading, farm.meter(), sending)).await?;
    if let Some(build) = early.filter(|_| scanned.digest == before) {
        return Ok(Submitted { build, moved, request, scanned });
    }
    let request = if scanned.digest == before { request } else { of(&scanned) };
    let submitting = submit(farm, &request, &scanned, (interrupts, &planning)).instrument(info_span!("submit"));
    let build = watched(show, &planning, &Meter::default(), submitting).await?;
    Ok(Submitted { build, moved, request, scanned })
}

/// Submits the build; the request id makes a retry harmless.
pub(super) async fn once(farm: &Farm, request: &v1::SubmitRequest) -> Result<v1::Build, FarmError> {
    let call = || {
        let (mut client, request) = (farm.builds(), request.clone());
        async move { client.submit(request).await.map(tonic::Response::into_inner) }
    };
    farm.patiently("submit the build", call).await
}

/// How long the farm's answer to a submission is waited for after an interrupt.
const ANSWER: Duration = Duration::from_secs(10);

/// The farm's answer to a submission, in spite of an interrupt: the farm may have begun the build, and the answer says which one
/// whoever follows it is to cancel.
///
/// # Errors
/// If there is no answer for long after an interrupt.
async fn answered<T>(interrupts: &Interrupts, doing: &Cell<&str>, asking: impl Future<Output = T>) -> Result<T, Error> {
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => return Ok(answer),
        () = interrupts.first() => doing.set("cancelling"),
    }
    tokio::time::timeout(ANSWER, asking).await.map_err(|_| Error::Cancelled)
}

/// How often blobs are uploaded again that the farm has lost. A damaged one is noticed when it is read, and then the next.
const UPLOADS: usize = 100;

/// Submits the build. If the farm dropped blobs of the tree meanwhile, they are uploaded again.
async fn submit(
    farm: &Farm,
    request: &v1::SubmitRequest,
    scanned: &Scanned,
    (interrupts, doing): (&Interrupts, &Cell<&str>),
) -> Result<v1::Build, Error> {
    for _ in 0..UPLOADS {
        let status = match answered(interrupts, doing, once(farm, request)).await? {
            Err(FarmError::Call { status, .. }) if status.code() == tonic::Code::FailedPrecondition => status,
            result => return Ok(result?),
        };
        let client = farm.blobs(INSTANCE, FUNCTION);
        let sending = client.upload(scanned.blobs().into_iter().collect());
        let moved = or_interrupted(interrupts, async { Ok(sending.await.map_err(FarmError::from)?) }).await?;
        if moved.blobs == 0 {
            return Err(FarmError::Call { url: farm.url().to_owned(), status }.into());
        }
    }
    Ok(answered(interrupts, doing, once(farm, request)).await??)
}
