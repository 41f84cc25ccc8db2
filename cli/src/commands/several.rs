//! Several projects of one command: `kiln build services/*`, `kiln plan services/*`, and those that changed since a commit.
//!
//! Each project is a build of its own, so that what one cannot build stops no other, and colleagues who build one of them find its steps.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kiln_agents::Agents;
use kiln_contexts::project::Project as Read;
use kiln_planner::plan::{Options, Scope};
use kiln_progress::{Joint, Part, watched};
use kiln_projects::affected::Affected;
use kiln_projects::{Base, affected, several};
use kiln_proto::meter::Meter;
use kiln_proto::transfer::Blob;
use kiln_scan::{self as scan, git};
use serde_json::{Value, json};

use super::build::{self, Following, Sources};
use super::{or_interrupted, plan};
use crate::deliver::Deliver;
use crate::farm::{Error as FarmError, FUNCTION, Farm, INSTANCE};
use crate::interrupts::Interrupts;
use crate::local::{self, Project};
use crate::output::Output;
use crate::{Code, Error, args, download};

/// How many builds are followed at a time.
const AT_ONCE: usize = 32;
/// How often builds that have to be cancelled are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a command line is about several projects, or about one that may not have changed.
pub(super) fn is_asked(dir: &Path, more: &[PathBuf], affected_by: Option<&str>) -> bool {
    !more.is_empty() || affected_by.is_some() || several::is_pattern(dir)
}

fn usage(error: impl std::fmt::Display) -> Error {
    Error::Usage(error.to_string())
}

/// The directories that are given, and what else a shell's pattern matched.
fn given(dir: &Path, more: &[PathBuf]) -> Result<several::Given, Error> {
    let all: Vec<PathBuf> = std::iter::once(dir.to_owned()).chain(more.iter().cloned()).collect();
    several::expand(&all).map_err(usage)
}

/// A directory's name in what is shown, and below the output directory: its path, from here if it is below.
fn name(dir: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| dir.strip_prefix(here).ok()).unwrap_or(dir);
    let plain = below.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    match plain.collect::<Vec<_>>().join("/") {
        none if none.is_empty() => local::directory_name(&std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())),
        path => path,
    }
}

/// What became of each directory since a commit.
async fn affected(base: &str, directories: Vec<PathBuf>) -> Result<(String, Vec<Affected>), Error> {
    let base = base.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let first = directories.first().cloned().unwrap_or_else(|| PathBuf::from("."));
        let base = Base::check_out(&first, &base).map_err(usage)?;
        let found = affected::since(&base, &directories);
        Ok((base.commit, found))
    });
    looking.await.map_err(|error| Error::Runtime { source: std::io::Error::other(error) })?
}

/// A project that is to be built.
struct Wanted {
    name: String,
    project: Read,
    read: kiln_contexts::project::Sources,
    facts: git::Facts,
    secrets: Vec<kiln_proto::v1::Secret>,
    output: Output,
    deliver: Option<Deliver>,
    agents: Agents,
    part: Part,
}

/// `kiln build` with several directories.
pub(super) async fn run(farm: &args::Farm, args: args::Build, interrupts: &Interrupts) -> Result<Code, Error> {
    let alone = [
        (args.detach, "--detach"),
        (args.shell_on_failure, "--shell-on-failure"),
        (args.request_id.is_some(), "--request-id"),
        (!args.deliver.push.is_empty(), "--push"),
    ];
    if let Some((_, flag)) = alone.iter().find(|(is_given, _)| *is_given) {
        return Err(Error::Usage(format!(
            "`{flag}` is for one project; build that by itself, as in `kiln build DIR {flag}`"
        )));
    }
    let began = Instant::now();
    let joint = Joint::new(args.progress, began);
    let given = given(&args.dir, &args.more)?;
    given.files.iter().for_each(|file| kiln_terminal::say(&format!("note: `{}` is not a directory", file.display())));
    let directories = match &args.affected_by {
        Some(base) => {
            let (_, found) = or_interrupted(interrupts, affected(base, given.directories)).await?;
            let chosen = found.into_iter().filter(|one| one.fate.is_affected());
            chosen.map(|one| one.directory).collect()
        }
        None => given.directories,
    };
    if directories.is_empty() {
        let base = args.affected_by.as_deref().unwrap_or_default();
        kiln_terminal::say(&format!("nothing that is built here has changed since `{base}`"));
        joint.finish().map_err(Error::Stdout)?;
        return Ok(Code::Success);
    }
    // The table is in the order in which they were given.
    directories.iter().for_each(|dir| drop(joint.part(&name(dir))));
    let mut failed = false;
    let mut projects = Vec::new();
    for dir in &directories {
        match look(dir, &args) {
            Ok(()) => projects.push(dir.clone()),
            Err(Looked::Nothing(message)) => joint.ended(&name(dir), "skipped", &message),
            Err(Looked::Broken(message)) => {
                failed = true;
                joint.ended(&name(dir), "failed", &message);
            }
        }
    }
    if projects.is_empty() || (failed && args.fail_fast) {
        projects.iter().for_each(|dir| joint.ended(&name(dir), "skipped", ""));
        joint.finish().map_err(Error::Stdout)?;
        return Ok(Code::Usage);
    }
    let farm = &args::Farm { store_size: args.store_size, ..farm.clone() };
    let wanted = or_interrupted(interrupts, prepared(farm, &args, &projects, &joint)).await?;
    let opened = or_interrupted(interrupts, Farm::open(farm)).await?;
    let result = built(&opened, &args, wanted, &joint, interrupts, began).await;
    opened.close().await;
    let code = result?;
    joint.finish().map_err(Error::Stdout)?;
    Ok(if code == Code::Success && failed { Code::Failed } else { code })
}

enum Looked {
    Nothing(String),
    Broken(String),
}

/// Whether there is a project that can be planned.
fn look(dir: &Path, args: &args::Build) -> Result<(), Looked> {
    let project =
        Project::open_for(dir, args.dockerfile.wanted()).map_err(|error| Looked::Broken(error.to_string()))?;
    let options = Options {
        platforms: args.platform.clone(),
        targets: args.target.clone(),
        language: args.language,
        dockerfile: args.dockerfile.wanted(),
        image: args.image.clone(),
        ..project.options()
    };
    match project.plan_for(&options, Scope::Build) {
        Ok(_) => Ok(()),
        Err(error) => Err(match several::no_project(&error) {
            Some(words) => Looked::Nothing(words),
            None => Looked::Broken(error.to_string()),
        }),
    }
}

/// Reads the sources of all projects.
async fn prepared(
    farm: &args::Farm,
    args: &args::Build,
    projects: &[PathBuf],
    joint: &Joint,
) -> Result<Vec<Wanted>, Error> {
    let mut wanted = Vec::new();
    for dir in projects {
        let name = name(dir);
        let dir = scan::directory(dir)?;
        let context = kiln_context::of(&dir);
        let project = build::project(&context, args, Scope::Build);
        let secrets = kiln_secrets::gather(&dir, &args.secret)?;
        build::refuse_exposed(farm, &secrets)?;
        let (root, parts) = (context.root, context.parts);
        let source_tree = git::work_tree(&root).unwrap_or_else(|| root.clone());
        let output = Output::new(&args.output.join(&name), Some(&source_tree)).map_err(download::Error::from)?;
        let facts = tokio::task::spawn_blocking(move || git::facts(&root, &parts));
        wanted.push(Wanted {
            read: build::read_aside(project.clone(), Meter::default()).await?,
            facts: facts.await.unwrap_or_default(),
            deliver: Deliver::new(&args.deliver, &dir)?,
            agents: build::opened(farm, &args.dockerfile.ssh)?,
            part: joint.part(&name),
            name,
            project,
            secrets,
            output,
        });
    }
    Ok(wanted)
}

/// Uploads what the farm lacks of all trees at once, and builds each of them.
async fn built(
    farm: &Farm,
    args: &args::Build,
    mut wanted: Vec<Wanted>,
    joint: &Joint,
    interrupts: &Interrupts,
    began: Instant,
) -> Result<Code, Error> {
    let mut all = HashMap::new();
    wanted.iter().for_each(|one| all.extend(one.read.scanned.blobs()));
    if let Some(first) = wanted.first_mut() {
        let client = farm.blobs(INSTANCE, FUNCTION);
        let blobs: Vec<(_, Blob)> = all.into_iter().collect();
        let sending = async { client.upload(blobs).await.map_err(|error| FarmError::from(error).into()) };
        let doing = Cell::new("uploading");
        match or_interrupted(interrupts, watched(&mut first.part, &doing, farm.meter(), sending)).await {
            Ok(moved) => joint.sent(moved),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // It is tried again for each project by itself, which says which one it is.
            Err(_) => {}
        }
    }
    let mut left: VecDeque<Wanted> = wanted.into();
    type Building<'a> = Pin<Box<dyn Future<Output = (String, Result<Code, Error>)> + 'a>>;
    let mut running: FuturesUnordered<Building<'_>> = FuturesUnordered::new();
    let (mut codes, mut cancelled, mut stopping) = (Vec::new(), BTreeSet::new(), false);
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        while running.len() < AT_ONCE && !stopping {
            let Some(one) = left.pop_front() else { break };
            running.push(Box::pin(one_of(farm, args, one, interrupts, began)));
        }
        tokio::select! {
            next = running.next() => {
                let Some((name, result)) = next else { break };
                let code = match result {
                    Ok(code) => code,
                    Err(error) => {
                        let status = if error.code() == Code::Farm { "farm_failed" } else { "failed" };
                        joint.ended(&name, status, &kiln_terminal::chain(&error));
                        error.code()
                    }
                };
                codes.push(code);
                stopping |= code == Code::Cancelled || args.fail_fast && code != Code::Success;
            }
            _ = ticks.tick(), if stopping => {}
        }
        if stopping && !codes.contains(&Code::Cancelled) {
            for id in joint.running().into_iter().filter(|id| !cancelled.contains(id)).collect::<Vec<_>>() {
                // One that ended at this moment cannot be cancelled.
                let _ = farm.cancel(&id).await;
                cancelled.insert(id);
            }
        }
    }
    left.iter().for_each(|one| joint.ended(&one.name, "skipped", ""));
    Ok(worst(&codes))
}

/// The exit code of all: an interrupt and the farm's faults say more than a build that failed.
fn worst(codes: &[Code]) -> Code {
    let all_failed_or_cancelled = codes.iter().any(|code| matches!(code, Code::Failed | Code::Usage));
    match codes {
        codes if codes.contains(&Code::Farm) => Code::Farm,
        _ if all_failed_or_cancelled => Code::Failed,
        codes if codes.contains(&Code::Cancelled) => Code::Cancelled,
        _ => Code::Success,
    }
}

async fn one_of(
    farm: &Farm,
    args: &args::Build,
    one: Wanted,
    interrupts: &Interrupts,
    began: Instant,
) -> (String, Result<Code, Error>) {
    let Wanted { name, project, read, facts, secrets, output, deliver, agents, mut part } = one;
    let sources = Sources { project, read, facts, secrets };
    let following = Following { output, deliver: deliver.as_ref(), agents, began, show: &mut part };
    let result = build::on_farm(farm, args, Scope::Build, sources, following, interrupts).await;
    (name, result)
}

/// `kiln plan` with several directories, or since a commit.
pub(super) async fn plan(farm: Option<&Farm>, args: &args::Plan) -> Result<Code, Error> {
    let given = given(&args.dir, &args.more)?;
    if let Some(base) = &args.affected_by {
        let (commit, found) = affected(base, given.directories).await?;
        if args.json {
            let projects: Vec<Value> = found.iter().map(Affected::object).collect();
            return local::print_json(&json!({ "base": base, "commit": commit, "projects": projects }));
        }
        // The directories are for scripts; why is for people.
        for (one, why) in found.iter().filter_map(|one| Some((one, one.why()?))) {
            kiln_terminal::say(&kiln_terminal::harmless(&format!("{}: {why}", one.directory.display())));
        }
        let affected = found.iter().filter(|one| one.fate.is_affected());
        let lines: String = affected.map(|one| format!("{}\n", one.directory.display())).collect();
        return local::print(lines.as_bytes());
    }
    let (mut words, mut objects, mut code) = (String::new(), Vec::new(), Code::Success);
    for dir in &given.directories {
        let name = name(dir);
        match plan::planned(farm, args, dir).await {
            Ok(planned) => {
                words.push_str(&format!("== {name}\n{}\n", planned.words()));
                objects.push(json!({ "directory": name, "plan": planned.object() }));
            }
            Err(Error::Plan(error)) if let Some(none) = several::no_project(&error) => {
                words.push_str(&format!("== {name}\n{none}\n\n"));
                objects.push(json!({ "directory": name, "skipped": none }));
            }
            Err(error) => {
                code = Code::Failed;
                let error = kiln_terminal::chain(&error);
                words.push_str(&format!("== {name}\nerror: {error}\n\n"));
                objects.push(json!({ "directory": name, "error": error }));
            }
        }
    }
    match args.json {
        true => local::print_json(&json!({ "projects": objects }))?,
        false => local::print(kiln_terminal::harmless(&words).as_bytes())?,
    };
    Ok(code)
}
