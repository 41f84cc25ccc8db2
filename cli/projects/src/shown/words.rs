//! A plan as text.

use std::fmt::Write;

use kiln_planner::plan::gates::{Check, Gate, Place};
use kiln_planner::plan::{ArtifactKind, Image, Origin, Plan};
use kiln_terminal as terminal;

use super::{Expected, cpus};

/// The plan in lines, which may contain whatever is in the project's files.
pub fn words(plan: &Plan, expected: &Expected) -> String {
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
        Origin::Detected { parts, considered } => {
            for part in parts {
                writeln!(out, "{}: {}", part.language, part.because.join("; "))?;
            }
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
    for gate in &plan.gates {
        write_gate(out, gate)?;
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

fn write_gate(out: &mut String, gate: &Gate) -> std::fmt::Result {
    let of = if gate.artifacts.is_empty() { "every artifact".to_owned() } else { gate.artifacts.join(", ") };
    writeln!(out, "\ngate {}: of {of}", gate.name)?;
    match &gate.check {
        Check::Command(command) => {
            match command.place {
                Place::Beside => {}
                Place::Inside => writeln!(out, "  place    inside the image, as its user")?,
                Place::Started { .. } => writeln!(out, "  place    beside the running image")?,
            }
            for (index, line) in command.step.run.trim_end().lines().enumerate() {
                writeln!(out, "  {}{line}", if index == 0 { "run      " } else { "         " })?;
            }
            Ok(())
        }
        Check::Vulnerabilities(scan) => {
            writeln!(
                out,
                "  fails on vulnerabilities of severity `{}` or more, by `{}`",
                scan.fail_on.name(),
                scan.database
            )
        }
        Check::Licenses(policy) => {
            let list = |name: &str, ids: &[String]| {
                if ids.is_empty() { String::new() } else { format!("  {name:<9}{}\n", ids.join(" ")) }
            };
            write!(out, "{}{}", list("allows", &policy.allow), list("denies", &policy.deny))
        }
        Check::Size { max_bytes } => writeln!(out, "  most     {}", kiln_units::show_size(*max_bytes)),
    }
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
