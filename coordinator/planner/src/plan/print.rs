//! Writes a plan as `kiln.toml`.
//!
//! Invariant: the text, put into the same tree, yields the same plan. Defaults are omitted, and so is what the planner
//! would find again: a version from the manifest or git, and a target of which only the host is known.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    Artifact, ArtifactKind, Cache, Compression, DEFAULT_MEMORY_BYTES, DEFAULT_MILLI_CPUS, Dockerfile, Ending, Image,
    Notify, Plan, Sharing, Split, Step, Target, VersionOrigin, default_libraries,
};
use kiln_detect as detect;
use kiln_units::{show_duration, show_size};

/// The plan as a `kiln.toml`, as written by `kiln init`.
pub fn to_kiln_toml(plan: &Plan) -> String {
    let mut out = String::new();
    for part in plan.origin.parts() {
        line(&mut out, format_args!("# {}: {}", part.language, part.because.join("; ").replace('\n', " ")));
    }
    key(&mut out, "name", &quote(&plan.name));
    match (&plan.version, plan.version_origin) {
        (Some(version), VersionOrigin::KilnToml) => key(&mut out, "version", &quote(version)),
        (Some(version), VersionOrigin::Manifest) => {
            line(&mut out, format_args!("# version: from the manifest, currently {}", version.replace('\n', " ")));
        }
        (Some(version), VersionOrigin::Directory) => {
            line(
                &mut out,
                format_args!("# version: from the directory's name, currently {}", version.replace('\n', " ")),
            );
        }
        _ => line(&mut out, format_args!("# version: from git describe")),
    }
    strings(&mut out, "exclude", &plan.exclude);
    if !plan.excludable.is_empty() {
        line(
            &mut out,
            format_args!(
                "# If no step reads these files, excluding them avoids running steps again after they change:"
            ),
        );
        let all: Vec<String> = plan.exclude.iter().chain(&plan.excludable).cloned().collect();
        let mut proposed = String::new();
        strings(&mut proposed, "exclude", &all);
        line(&mut out, format_args!("# {}", proposed.trim_end().replace('\n', "\n# ")));
    }
    for target in plan.targets.iter().filter(|t| **t != Target::bare(t.platform)) {
        print_target(&mut out, target);
    }
    for step in &plan.steps {
        print_step(&mut out, step, &plan.exclude);
    }
    for artifact in &plan.artifacts {
        print_artifact(&mut out, artifact);
    }
    for gate in &plan.gates {
        super::gated::print(&mut out, gate, &plan.exclude);
    }
    if let Some(notify) = &plan.notify {
        print_notify(&mut out, notify);
    }
    out
}

fn print_notify(out: &mut String, notify: &Notify) {
    line(out, format_args!("\n[notify]"));
    key(out, "url", &quote(&notify.url));
    if notify.events != Ending::DEFAULT {
        strings(out, "events", &notify.events.iter().map(|ending| ending.name().to_owned()).collect::<Vec<_>>());
    }
    strings(out, "branches", &notify.branches);
    if let Some(name) = &notify.key {
        key(out, "key", &quote(name));
    }
    if notify.uncommitted {
        key(out, "uncommitted", "true");
    }
}

fn print_target(out: &mut String, target: &Target) {
    line(out, format_args!("\n[targets.{}]", bare(&target.name)));
    key(out, "platform", &quote(&target.platform.to_string()));
    if let Some(os) = &target.os {
        key(out, "os", &quote(os));
    }
    if let Some((major, minor)) = target.glibc {
        key(out, "glibc", &format!("\"{major}.{minor}\""));
    }
    if let Some(image) = &target.image {
        key(out, "image", &quote(image));
    }
    map(out, "labels", &target.labels);
    let usual = default_libraries();
    let declared: Vec<String> = target.libraries.iter().filter(|name| !usual.contains(name)).cloned().collect();
    strings(out, "libraries", &declared);
}

fn print_step(out: &mut String, step: &Step, exclude: &[String]) {
    line(out, format_args!("\n[steps.{}]", bare(&step.name)));
    if !step.why.is_empty() {
        key(out, "why", &quote(&step.why));
    }
    strings(out, "needs", &step.needs);
    // The planner appended the project's exclusions, and will do so again.
    let own = step.inputs.get(..step.inputs.len().saturating_sub(exclude.len()));
    strings(out, "inputs", own.unwrap_or_default());
    strings(out, "unversioned", &step.unversioned);
    key(out, "run", &quote(&step.run));
    strings(out, "outputs", &step.outputs);
    strings(out, "reports", &step.reports);
    if step.retries != 0 {
        key(out, "retries", &step.retries.to_string());
    }
    map(out, "env", &step.env);
    strings(out, "secrets", &step.secrets);
    if step.network {
        key(out, "network", "true");
    }
    if step.milli_cpus != DEFAULT_MILLI_CPUS {
        key(out, "cpus", &cpus(step.milli_cpus));
    }
    if step.memory_auto {
        key(out, "memory", "\"auto\"");
    } else if step.memory_bytes != DEFAULT_MEMORY_BYTES {
        key(out, "memory", &quote(&show_size(step.memory_bytes)));
    }
    if let Some(timeout) = step.timeout {
        key(out, "timeout", &quote(&show_duration(timeout)));
    }
    if step.shards_auto {
        key(out, "shards", "\"auto\"");
    } else if step.shards != 1 {
        key(out, "shards", &step.shards.to_string());
    }
    if !step.cache {
        key(out, "cache", "false");
    }
    if !step.caches.is_empty() {
        key(out, "caches", &caches(&step.caches));
    }
    if step.stamp {
        key(out, "stamp", "true");
    }
    if step.native {
        key(out, "native", "true");
    }
    match step.split {
        Split::Auto => {}
        Split::Cache => key(out, "split", &quote(step.split.name())),
        Split::Off => key(out, "split", "false"),
    }
    if let Some(platform) = step.platform {
        key(out, "platform", &quote(&platform.to_string()));
    }
    if let Some(image) = &step.image {
        key(out, "image", &quote(image));
    }
    strings(out, "packages", &step.packages);
    strings(out, "tools", &step.tools);
    if let Some(directory) = &step.working_directory {
        key(out, "working_directory", &quote(directory));
    }
    if step.test {
        key(out, "test", "true");
    }
    if !step.files.is_empty() {
        line(out, format_args!("[steps.{}.files]", bare(&step.name)));
        for (path, content) in &step.files {
            key(out, &bare(path), &quote(detect::builtin_name(content).unwrap_or(content)));
        }
    }
}

fn caches(caches: &BTreeMap<String, Cache>) -> String {
    let one = |(path, cache): (&String, &Cache)| {
        let sharing = match cache.sharing {
            Sharing::Shared => String::new(),
            other => format!(", sharing = {}", quote(other.name())),
        };
        format!("{} = {{ key = {}{sharing} }}", bare(path), quote(&cache.key))
    };
    format!("{{ {} }}", caches.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn print_artifact(out: &mut String, artifact: &Artifact) {
    line(out, format_args!("\n[artifacts.{}]", bare(&artifact.name)));
    if let ArtifactKind::Dockerfile(dockerfile) = &artifact.kind {
        return print_dockerfile(out, dockerfile);
    }
    strings(out, "from", &artifact.from);
    let files: Vec<String> = artifact
        .files
        .iter()
        .map(|file| match &file.dest {
            None => quote(&file.path),
            Some(dest) => format!("{{ path = {}, dest = {} }}", quote(&file.path), quote(dest)),
        })
        .collect();
    key(out, "files", &format!("[{}]", files.join(", ")));
    if artifact.kind != ArtifactKind::Binary {
        key(out, "kind", &quote(artifact.kind.name()));
    }
    if !artifact.check_elf {
        key(out, "check_elf", "false");
    }
    if artifact.bundle_libraries {
        key(out, "bundle_libraries", "true");
    }
    if let ArtifactKind::Image(image) = &artifact.kind {
        print_image(out, image);
    }
}

fn print_dockerfile(out: &mut String, dockerfile: &Dockerfile) {
    key(out, "dockerfile", &quote(&dockerfile.file));
    if !dockerfile.context.is_empty() {
        key(out, "context", &quote(&dockerfile.context));
    }
    if let Some(stage) = &dockerfile.stage {
        key(out, "target", &quote(stage));
    }
    map(out, "args", &dockerfile.args);
    map(out, "contexts", &dockerfile.contexts);
    strings(out, "secrets", &dockerfile.secrets);
    if let Some(bytes) = dockerfile.memory_bytes {
        key(out, "memory", &quote(&show_size(bytes)));
    }
    map(out, "labels", &dockerfile.labels);
    if dockerfile.compression == Compression::Zstd {
        key(out, "compression", "\"zstd\"");
    }
}

fn print_image(out: &mut String, image: &Image) {
    key(out, "base", &quote(&image.base.show()));
    strings(out, "runtime_packages", &image.packages);
    for (name, words) in [("entrypoint", &image.entrypoint), ("cmd", &image.cmd)] {
        if let Some(words) = words {
            key(out, name, &format!("[{}]", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(", ")));
        }
    }
    if image.start {
        key(out, "start", "true");
    }
    strings(out, "layers", &image.layers);
    map(out, "env", &image.env);
    for (name, word) in [("user", &image.user), ("workdir", &image.workdir)] {
        if let Some(word) = word {
            key(out, name, &quote(word));
        }
    }
    map(out, "labels", &image.labels);
    strings(out, "ports", &image.ports);
    if image.owner != (0, 0) {
        key(out, "owner", &quote(&format!("{}:{}", image.owner.0, image.owner.1)));
    }
    if image.compression == Compression::Zstd {
        key(out, "compression", "\"zstd\"");
    }
}

pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

pub(super) fn key(out: &mut String, name: &str, value: &str) {
    line(out, format_args!("{name} = {value}"));
}

pub(super) fn strings(out: &mut String, name: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let quoted: Vec<String> = values.iter().map(|v| quote(v)).collect();
    let one_line = format!("[{}]", quoted.join(", "));
    if one_line.len().saturating_add(name.len()) < 110 {
        key(out, name, &one_line);
    } else {
        key(out, name, &format!("[\n    {},\n]", quoted.join(",\n    ")));
    }
}

pub(super) fn map(out: &mut String, name: &str, values: &BTreeMap<String, String>) {
    if !values.is_empty() {
        let pairs: Vec<String> = values.iter().map(|(k, v)| format!("{} = {}", bare(k), quote(v))).collect();
        key(out, name, &format!("{{ {} }}", pairs.join(", ")));
    }
}

pub(super) fn cpus(milli: u32) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { (f64::from(milli) / 1000.0).to_string() }
}

/// A key, quoted if TOML requires it.
pub(super) fn bare(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { one_line(name) }
}

/// A string; a multi-line string if its characters allow it.
pub(super) fn quote(text: &str) -> String {
    let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    let long = text.contains('\n') && !text.contains("'''") && text.chars().all(plain) && !text.ends_with('\'');
    if long { format!("'''\n{text}'''") } else { one_line(text) }
}

fn one_line(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
