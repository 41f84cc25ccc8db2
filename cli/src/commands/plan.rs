//! `kiln plan`: the steps that a build would run, and why. Needs no farm; one that is named is asked for its toolchains.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use kiln_planner::plan::{
    Artifact, ArtifactKind, Dockerfile, Image, Options, Origin, Plan, Scope, Step, Target, Toolchains, VersionOrigin,
};
use serde_json::{Value, json};

use crate::farm::{Farm, INSTANCE};
use crate::local::Project;
use crate::{Code, Error, args, local};
use kiln_progress::left_out;
use kiln_proto::v1;
use kiln_terminal as terminal;

pub(super) async fn run(farm: &args::Farm, args: &args::Plan) -> Result<Code, Error> {
    let project = Project::open_for(&args.dir, args.dockerfile.wanted())?;
    let scope = if args.test { Scope::Tests } else { Scope::Build };
    let farm = named(farm).await?;
    let toolchains = match &farm {
        Some(farm) => {
            Toolchains::read(&farm.status().await?.toolchains).map_err(|error| Error::Usage(error.to_string()))?
        }
        None => Toolchains::default(),
    };
    let options = Options {
        platforms: args.platform.clone(),
        targets: args.target.clone(),
        language: args.language,
        dockerfile: args.dockerfile.wanted(),
        image: args.image.clone(),
        toolchains,
        ..project.options()
    };
    let mut plan = project.plan_for(&options, scope)?;
    kiln_planner::plan::set_variables(&mut plan, &args.env).map_err(|error| Error::Usage(error.to_string()))?;
    // A Dockerfile copies what git ignores, too.
    if !plan.steps.is_empty() {
        plan.notes.extend(left_out::words(&project.root, &project.left_out));
    }
    let expected = match &farm {
        Some(farm) => expected(farm, &mut plan, project.paths.len()).await,
        None => BTreeMap::new(),
    };
    if let Some(farm) = farm {
        farm.close().await;
    }
    if args.json {
        return local::print_json(&object(&plan, &expected));
    }
    let mut words = words(&plan, &expected);
    let all = project.plan_for(&options, Scope::All)?;
    // The steps before the last one are those that it needs.
    let test = all.steps.iter().rev().find(|step| step.test).filter(|_| scope == Scope::Build);
    if let Some(test) = test {
        words.push_str(&format!("\ntests: `kiln test` runs step `{}` and what it needs\n", test.name));
    }
    local::print(terminal::harmless(&words).as_bytes())
}

/// The farm that the caller names; none if none is named.
async fn named(args: &args::Farm) -> Result<Option<Farm>, Error> {
    if args.farm.as_deref().is_none_or(|url| url.trim().is_empty()) {
        return Ok(None);
    }
    Farm::open(args).await.map(Some)
}

/// How long each step is likely to run, by what it took before on the first target, and how many shards it has if that follows from its tests. A farm that does not know costs a plan nothing.
async fn expected(farm: &Farm, plan: &mut Plan, files: usize) -> BTreeMap<String, Duration> {
    let platform = plan.targets.first().map(|target| target.platform.to_string()).unwrap_or_default();
    let kind = |step: &Step| v1::StepKind {
        step: step.name.clone(),
        platform: platform.clone(),
        command: step.run.clone(),
        files: files as u64,
        image: step.image.clone().unwrap_or_default(),
    };
    let request = v1::ExpectRequest {
        instance: INSTANCE.to_owned(),
        project: plan.name.clone(),
        steps: plan.steps.iter().map(kind).collect(),
    };
    let Ok(answer) = farm.call(farm.builds().expect(request)).await else { return BTreeMap::new() };
    let histories = answer.into_inner().steps;
    for (step, history) in plan.steps.iter_mut().zip(&histories).filter(|(step, _)| step.shards_auto) {
        step.shards = history.shards.max(1);
    }
    let known = plan.steps.iter().zip(histories).filter(|(_, history)| history.at_ms != 0);
    known.map(|(step, history)| (step.name.clone(), Duration::from_millis(history.duration_ms))).collect()
}

type Expected = BTreeMap<String, Duration>;

fn words(plan: &Plan, expected: &Expected) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_words(&mut out, plan, expected);
    out
}

fn write_words(out: &mut String, plan: &Plan, expected: &Expected) -> std::fmt::Result {
    let version = plan.version.as_deref().unwrap_or("(named after its commit)");
    writeln!(out, "{} {version}", plan.name)?;
    match &plan.origin {
        Origin::KilnToml => writeln!(out, "from kiln.toml")?,
        Origin::Detected { language, because, considered } => {
            writeln!(out, "{language}: {}", because.join("; "))?;
            for other in considered {
                writeln!(out, "not built as {other}")?;
            }
        }
    }
    for target in &plan.targets {
        write!(out, "\ntarget {}: {}", target.name, target.platform)?;
        if let Some(os) = &target.os {
            write!(out, ", {os}")?;
        }
        if let Some((major, minor)) = target.glibc {
            write!(out, ", glibc up to {major}.{minor}")?;
        }
        if let Some(image) = &target.image {
            write!(out, ", steps in `{image}`")?;
        }
    }
    out.push('\n');
    for step in &plan.steps {
        let sharded = match (step.shards_auto, step.shards) {
            (true, 1) => ", shards as its tests take time".to_owned(),
            (true, count) => format!(", {count} shards as its tests take time"),
            (false, 1) => String::new(),
            (false, count) => format!(", {count} shards"),
        };
        let network = if step.network { ", network" } else { "" };
        let after = if step.needs.is_empty() { String::new() } else { format!(", after {}", step.needs.join(", ")) };
        let memory = match step.memory_auto {
            true => "memory as earlier runs used".to_owned(),
            false => terminal::size(step.memory_bytes),
        };
        writeln!(out, "\nstep {}: {} cpu, {memory}{sharded}{network}{after}", step.name, cpus(step))?;
        if let Some(expected) = expected.get(&step.name) {
            writeln!(out, "  takes    about {} by its last runs", terminal::duration(*expected))?;
        }
        if !step.why.is_empty() {
            writeln!(out, "  why      {}", step.why)?;
        }
        if let Some(platform) = step.platform {
            writeln!(out, "  runs on  {platform}, for every target")?;
        }
        if let Some(image) = &step.image {
            writeln!(out, "  image    {image}")?;
        }
        if !step.packages.is_empty() {
            writeln!(out, "  packages {}", step.packages.join(" "))?;
        }
        let inputs = if step.inputs.is_empty() { "the whole tree".to_owned() } else { step.inputs.join(" ") };
        writeln!(out, "  inputs   {inputs}")?;
        for (path, cache) in &step.caches {
            writeln!(out, "  cache    {path}: `{}`, {}", cache.key, cache.sharing.name())?;
        }
        for (name, value) in &step.env {
            writeln!(out, "  env      {name}={value}")?;
        }
        if step.stamp {
            writeln!(out, "  stamp    KILN_VERSION KILN_COMMIT KILN_DIRTY")?;
        }
        if !step.secrets.is_empty() {
            writeln!(out, "  secrets  {}", step.secrets.join(" "))?;
        }
        for (index, line) in step.run.trim_end().lines().enumerate() {
            writeln!(out, "  {}{line}", if index == 0 { "run      " } else { "         " })?;
        }
        if !step.outputs.is_empty() {
            writeln!(out, "  outputs  {}", step.outputs.join(" "))?;
        }
        if !step.reports.is_empty() {
            let again = if step.retries > 0 {
                format!("; failed tests run again up to {} times", step.retries)
            } else {
                String::new()
            };
            writeln!(out, "  reports  {}{again}", step.reports.join(" "))?;
        }
    }
    for artifact in &plan.artifacts {
        if let ArtifactKind::Dockerfile(dockerfile) = &artifact.kind {
            writeln!(out, "\nartifact {}: image of `{}`", artifact.name, dockerfile.file)?;
            let context = if dockerfile.context.is_empty() { "." } else { &dockerfile.context };
            writeln!(out, "  context  {context}")?;
            if let Some(stage) = &dockerfile.stage {
                writeln!(out, "  target   {stage}")?;
            }
            for (name, value) in &dockerfile.args {
                writeln!(out, "  arg      {name}={value}")?;
            }
            for (name, value) in &dockerfile.contexts {
                writeln!(out, "  {name}: {value}")?;
            }
            continue;
        }
        let files: Vec<&str> = artifact.files.iter().map(|file| file.path.as_str()).collect();
        writeln!(out, "\nartifact {}: {} of {}", artifact.name, artifact.kind.name(), artifact.from.join(", "))?;
        writeln!(out, "  files    {}", files.join(" "))?;
        if let ArtifactKind::Image(image) = &artifact.kind {
            write_image(out, image)?;
        }
    }
    if !plan.excludable.is_empty() {
        let named = plan.excludable.join(", ");
        let quoted: Vec<String> = plan.exclude.iter().chain(&plan.excludable).map(|path| format!("{path:?}")).collect();
        writeln!(
            out,
            "\nediting {named} makes steps run again; if none reads them, `exclude = [{}]` in kiln.toml leaves them out",
            quoted.join(", ")
        )?;
    }
    for note in &plan.notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}

fn write_image(out: &mut String, image: &Image) -> std::fmt::Result {
    writeln!(out, "  base     {}", image.base.show())?;
    if !image.packages.is_empty() {
        writeln!(out, "  packages {}", image.packages.join(" "))?;
    }
    let command: Vec<&str> = image.entrypoint.iter().chain(&image.cmd).flatten().map(String::as_str).collect();
    match (image.start, command.is_empty()) {
        (_, false) => writeln!(out, "  command  {}", command.join(" "))?,
        (true, true) => writeln!(out, "  command  the program that the build makes")?,
        (false, true) => {}
    }
    if let Some(user) = &image.user {
        writeln!(out, "  user     {user}")?;
    }
    if !image.layers.is_empty() {
        writeln!(out, "  layers   {} below the rest", image.layers.join(" "))?;
    }
    Ok(())
}

fn cpus(step: &Step) -> f64 {
    f64::from(step.milli_cpus) / 1000.0
}

fn object(plan: &Plan, expected: &Expected) -> Value {
    let (origin, because, considered) = match &plan.origin {
        Origin::KilnToml => ("kiln.toml".to_owned(), Vec::new(), Vec::new()),
        Origin::Detected { language, because, considered } => (language.clone(), because.clone(), considered.clone()),
    };
    let version_origin = match plan.version_origin {
        VersionOrigin::KilnToml => "kiln.toml",
        VersionOrigin::Manifest => "manifest",
        VersionOrigin::Git => "git",
        VersionOrigin::Directory => "directory",
        VersionOrigin::Unknown => "unknown",
    };
    json!({
        "name": plan.name,
        "version": plan.version,
        "version_origin": version_origin,
        "origin": origin,
        "because": because,
        "considered": considered,
        "targets": plan.targets.iter().map(target).collect::<Vec<_>>(),
        "steps": plan.steps.iter().map(|planned| step(planned, expected.get(&planned.name))).collect::<Vec<_>>(),
        "artifacts": plan.artifacts.iter().map(artifact).collect::<Vec<_>>(),
        "exclude": plan.exclude,
        "excludable": plan.excludable,
        "notes": plan.notes,
    })
}

fn target(target: &Target) -> Value {
    json!({
        "name": target.name,
        "platform": target.platform.to_string(),
        "os": target.os,
        "glibc": target.glibc.map(|(major, minor)| format!("{major}.{minor}")),
        "image": target.image,
        "labels": target.labels,
        "libraries": target.libraries,
    })
}

fn step(step: &Step, expected: Option<&Duration>) -> Value {
    json!({
        "name": step.name,
        "why": step.why,
        "needs": step.needs,
        "inputs": step.inputs,
        "unversioned": step.unversioned,
        "files": step.files,
        "run": step.run,
        "outputs": step.outputs,
        "env": step.env,
        "secrets": step.secrets,
        "network": step.network,
        "cpus": cpus(step),
        "memory_bytes": step.memory_bytes,
        "memory_auto": step.memory_auto,
        "timeout_s": step.timeout.map(|timeout| timeout.as_secs_f64()),
        "shards": step.shards,
        "shards_auto": step.shards_auto,
        "reports": step.reports,
        "retries": step.retries,
        "cache": step.cache,
        "caches": step.caches.iter().map(|(path, cache)| {
            (path.clone(), json!({ "key": cache.key, "sharing": cache.sharing.name() }))
        }).collect::<serde_json::Map<_, _>>(),
        "image": step.image,
        "platform": step.platform.map(|platform| platform.to_string()),
        "packages": step.packages,
        "tools": step.tools,
        "working_directory": step.working_directory,
        "stamp": step.stamp,
        "native": step.native,
        "split": step.split.name(),
        "test": step.test,
        "expected_ms": expected.map(|expected| expected.as_millis() as u64),
    })
}

fn artifact(artifact: &Artifact) -> Value {
    let files = artifact.files.iter().map(|file| json!({ "path": file.path, "dest": file.dest })).collect::<Vec<_>>();
    json!({
        "name": artifact.name,
        "from": artifact.from,
        "files": files,
        "kind": artifact.kind.name(),
        "image": match &artifact.kind {
            ArtifactKind::Image(image) => of_image(image),
            ArtifactKind::Dockerfile(dockerfile) => of_dockerfile(dockerfile),
            ArtifactKind::Binary | ArtifactKind::Archive => Value::Null,
        },
        "check_elf": artifact.check_elf,
        "bundle_libraries": artifact.bundle_libraries,
    })
}

fn of_image(image: &Image) -> Value {
    json!({
        "base": image.base.show(),
        "runtime_packages": image.packages,
        "entrypoint": image.entrypoint,
        "cmd": image.cmd,
        "start": image.start,
        "layers": image.layers,
        "env": image.env,
        "user": image.user,
        "workdir": image.workdir,
        "labels": image.labels,
        "ports": image.ports,
    })
}

fn of_dockerfile(dockerfile: &Dockerfile) -> Value {
    json!({
        "dockerfile": dockerfile.file,
        "context": dockerfile.context,
        "target": dockerfile.stage,
        "args": dockerfile.args,
        "contexts": dockerfile.contexts,
        "secrets": dockerfile.secrets,
        "labels": dockerfile.labels,
    })
}
