//! `kiln init`: writes the plan to `kiln.toml`.

use std::io::Write;
use std::path::Path;

use kiln_planner::plan::{Options, Plan, Scope, Target, to_kiln_toml};

use crate::farm::Farm;
use crate::local::{self, Project};
use crate::{Code, Error, args};
use kiln_terminal as terminal;

/// The name of the target that `kiln init` writes.
const PRODUCTION: &str = "prod";

pub(super) async fn run(farm: &args::Farm, dir: &Path, image: Option<String>) -> Result<Code, Error> {
    let project = Project::open(dir)?;
    let path = project.dir.join("kiln.toml");
    let exists = || Error::Usage(format!("`{}` exists already; edit it, or remove it first", path.display()));
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let options = Options { image, ..project.options() };
    let Some(mut plan) = project.plan_in_place(&options, Scope::All)? else {
        return Err(Error::Usage(format!(
            "`{}` is a member of the workspace in `{}` and is built as a part of it; run `kiln init` there",
            project.dir.display(),
            project.root.display()
        )));
    };
    let system = system(farm).await;
    let from = system.as_ref().filter(|system| say_where(&mut plan, system)).map(|system| system.from.clone());
    let mut text = to_kiln_toml(&plan);
    if let Some(from) = &from {
        let header = format!("\n[targets.{PRODUCTION}]");
        text = text.replacen(
            &header,
            &format!("\n# What production runs: {from}; change it if production differs.{header}"),
            1,
        );
    }
    let write = |source| Error::Write { path: path.clone(), source };
    let mut file = match std::fs::File::create_new(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists()),
        result => result.map_err(write)?,
    };
    file.write_all(text.as_bytes()).map_err(write)?;
    for note in &plan.notes {
        terminal::say(&terminal::harmless(&format!("note: {note}")));
    }
    let steps = terminal::count(plan.steps.len(), "step");
    let artifacts = terminal::count(plan.artifacts.len(), "artifact");
    terminal::say(&format!("wrote `{}`: {steps}, {artifacts}", path.display()));
    if let Some(from) = from {
        terminal::say(&format!("`[targets.{PRODUCTION}]` names {from}; change it if production differs"));
    }
    Ok(Code::Success)
}

/// A system to build for, and where it was found.
struct System {
    os: String,
    glibc: Option<(u32, u32)>,
    from: String,
}

/// Sets the plan's production system to this one; `false` if it was set already.
fn say_where(plan: &mut Plan, system: &System) -> bool {
    let [target] = plan.targets.as_mut_slice() else { return false };
    if target.os.is_some() || target.platform != local::host() {
        return false;
    }
    *target =
        Target { name: PRODUCTION.to_owned(), os: Some(system.os.clone()), glibc: system.glibc, ..target.clone() };
    true
}

/// The system of the farm's workers for this machine's platform, or else this machine's own.
async fn system(args: &args::Farm) -> Option<System> {
    let is_given = args.farm.as_deref().is_some_and(|url| !url.trim().is_empty());
    if is_given && let Ok(farm) = Farm::open(args).await {
        let status = farm.status().await;
        farm.close().await;
        let isa = local::host().isa();
        let workers = status.map(|status| status.workers).unwrap_or_default();
        let environments =
            workers.into_iter().filter(|worker| worker.connected).filter_map(|worker| worker.environment);
        if let Some(found) = environments.into_iter().find(|found| found.isa == isa && !found.os.is_empty()) {
            return Some(System {
                os: found.os,
                glibc: glibc(&found.libc),
                from: "the system of the farm's workers".to_owned(),
            });
        }
    }
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    let libc = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok();
    let libc = libc.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace(' ', ":")).unwrap_or_default();
    let os = format!("{}:{}", field("ID")?, field("VERSION_ID")?);
    Some(System { os, glibc: glibc(&libc), from: "this machine's system".to_owned() })
}

/// The version in `glibc:2.36`.
fn glibc(libc: &str) -> Option<(u32, u32)> {
    let (major, minor) = libc.strip_prefix("glibc:")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
