//! Images of detected projects that need no configuration: base, packages, command and layers follow from the project's files.
//!
//! Invariant: the plan says everything, so a `kiln.toml` with the same keys gives the same image.

use kiln_plan::{Artifact, ArtifactKind, Base, Compression, Image, Origin, Part, Plan, Source, Target};

use super::planner::Error;

/// The base where neither the caller nor a target says what production runs.
const BASE: &str = "debian:12";
/// The user and group of the program.
const USER: &str = "1000:1000";
/// Where the files are.
const DIRECTORY: &str = "/app";
/// Certificates of authorities: without them no program can make a verified connection.
const CERTIFICATES: &str = "ca-certificates";

/// A language whose programs need an interpreter.
struct Interpreted {
    language: &'static str,
    /// The interpreter's packages on Debian, on Alpine, and in Red Hat's family.
    packages: [&'static [&'static str]; 3],
    /// What of an artifact are dependencies.
    layers: &'static [&'static str],
}

const INTERPRETED: [Interpreted; 5] = [
    Interpreted { language: "python", packages: [&["python3"]; 3], layers: &["packages"] },
    Interpreted { language: "node", packages: [&["nodejs"]; 3], layers: &["node_modules", ".yarn", ".pnp.cjs"] },
    Interpreted {
        language: "java",
        packages: [&["default-jre-headless"], &["openjdk17-jre-headless"], &["java-17-openjdk-headless"]],
        layers: &["lib"],
    },
    Interpreted {
        language: "ruby",
        packages: [&["ruby", "bundler"], &["ruby", "ruby-bundler"], &["ruby", "rubygem-bundler"]],
        layers: &["vendor/bundle"],
    },
    Interpreted { language: "php", packages: [&["php-cli"], &["php83"], &["php-cli"]], layers: &["vendor"] },
];

/// Runtimes that no distribution has a package of, with the images that their makers publish, and what of an artifact are dependencies.
const RUNTIMES: [(&str, &str, &[&str]); 2] =
    [("bun", "oven/bun:debian", &["node_modules"]), ("deno", "denoland/deno:debian", &["node_modules", "vendor"])];

/// Makes images of the artifacts of a detected plan, on this base if it is not empty.
pub(super) fn apply(plan: &mut Plan, source: &dyn Source, base: &str) -> Result<(), Error> {
    let Origin::Detected { parts, .. } = &plan.origin else { return Err(Error::NotDetected) };
    for part in parts.clone() {
        apply_to(plan, &part, source, base);
    }
    Ok(())
}

/// The same for the artifacts of one language; what a `kiln.toml` adds belongs to the only one.
fn apply_to(plan: &mut Plan, part: &Part, source: &dyn Source, base: &str) {
    let only = plan.origin.parts().len() == 1;
    let is_own = |artifact: &Artifact| only || part.makes(artifact);
    let (language, tool) = part.language.split_once(' ').unwrap_or((&part.language, ""));
    let tool = tool.trim_matches(['(', ')']);
    let runtime = RUNTIMES.iter().find(|(name, ..)| *name == tool || *name == language);
    // What Bun or Deno compiled into a program needs neither.
    let mut own = plan.artifacts.iter().filter(|artifact| is_own(artifact));
    let is_program = runtime.is_some() && own.all(|artifact| artifact.kind == ArtifactKind::Binary);
    let runtime = runtime.filter(|_| !is_program);
    let base = match (runtime, base) {
        (Some((_, own, _)), "") => base_of(&plan.targets).unwrap_or_else(|| (*own).to_owned()),
        (None, "") => base_of(&plan.targets).unwrap_or_else(|| BASE.to_owned()),
        (_, base) => base.to_owned(),
    };
    if let Some((name, ..)) = runtime.filter(|_| family(&base).is_some()) {
        plan.notes.push(format!(
            "`{base}` has no package of {name}: choose a base that has it, as `--image` without a value does"
        ));
    }
    let interpreted = INTERPRETED.iter().find(|known| known.language == language && runtime.is_none() && !is_program);
    let layers = runtime.map(|(_, _, layers)| *layers).or(interpreted.map(|known| known.layers)).unwrap_or_default();
    let packages = family(&base).map(|family| {
        let interpreter = interpreted.and_then(|known| known.packages.get(family)).copied().unwrap_or_default();
        let mut names: Vec<String> = interpreter.iter().chain(&[CERTIFICATES]).map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    });
    let command = if is_program { None } else { command(language, tool, source) };
    for artifact in plan.artifacts.iter_mut().filter(|artifact| is_own(artifact)) {
        if !matches!(artifact.kind, ArtifactKind::Binary | ArtifactKind::Archive) {
            continue;
        }
        artifact.kind = ArtifactKind::Image(Box::new(Image {
            base: Base::read(&base),
            packages: packages.clone().unwrap_or_default(),
            start: command.is_none(),
            entrypoint: command.clone(),
            layers: layers.iter().map(|glob| (*glob).to_owned()).collect(),
            user: Some(USER.to_owned()),
            workdir: Some(DIRECTORY.to_owned()),
            compression: Compression::default(),
            ..Image::default()
        }));
        // The image has the libraries of its base.
        artifact.bundle_libraries = false;
    }
}

/// What production runs, as far as the targets say.
fn base_of(targets: &[Target]) -> Option<String> {
    let image = targets.iter().find_map(|target| target.image.clone());
    image.or_else(|| targets.iter().find_map(|target| target.os.clone()))
}

/// Which of the known package managers a base has: that of Debian, of Alpine, or of Red Hat's family. `None` if its name does not tell.
fn family(base: &str) -> Option<usize> {
    let name = base.split('@').next()?.rsplit('/').next()?.split(':').next()?;
    match name {
        "debian" | "ubuntu" => Some(0),
        "alpine" => Some(1),
        "fedora" | "centos" | "rockylinux" | "almalinux" | "amazonlinux" | "oraclelinux" => Some(2),
        _ if name.starts_with("ubi") => Some(2),
        _ => None,
    }
}

/// The command that the project's files name; `None` if the program must be found in what the build made.
fn command(language: &str, tool: &str, source: &dyn Source) -> Option<Vec<String>> {
    let shell = |line: &str| {
        let path =
            if language == "node" { format!("PATH={DIRECTORY}/node_modules/.bin:$PATH ") } else { String::new() };
        Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("{path}exec {line}")])
    };
    let text = |path: &str| {
        let known = source.paths().binary_search_by(|known| known.as_str().cmp(path)).is_ok();
        known.then(|| source.read(path)).flatten()
    };
    if let Some(procfile) = text("Procfile")
        && let Some(line) = process(&String::from_utf8_lossy(&procfile), "web")
    {
        return shell(&line);
    }
    if language == "deno" {
        return deno(&|path| text(path));
    }
    if language != "node" {
        return None;
    }
    let node = |file: &str| {
        let with = if tool == "bun" { "bun" } else { "node" };
        vec![with.to_owned(), file.trim_start_matches("./").to_owned()]
    };
    let manifest: serde_json::Value = serde_json::from_slice(&text("package.json")?).ok()?;
    let word =
        |value: &serde_json::Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(script) = manifest.pointer("/scripts/start").and_then(word) {
        return match script.split_whitespace().collect::<Vec<_>>()[..] {
            ["node", file] => Some(node(file)),
            _ => shell(&script),
        };
    }
    let bin = manifest.get("bin");
    let first = bin.and_then(|bins| bins.as_object()?.values().next());
    let file = bin.and_then(word).or_else(|| word(first?)).or_else(|| word(manifest.get("main")?));
    file.or_else(|| source.paths().contains(&"server.js".to_owned()).then(|| "server.js".to_owned()))
        .map(|file| node(&file))
}

/// The task `start` of a `deno.json`.
fn deno(text: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<String>> {
    let manifest = ["deno.json", "deno.jsonc"].into_iter().find_map(text)?;
    let manifest = kiln_detect::tree::read_jsonc(&String::from_utf8_lossy(&manifest)).ok()?;
    manifest.get("tasks")?.get("start")?;
    Some(["deno", "task", "start"].map(str::to_owned).to_vec())
}

/// The command of a process type in a `Procfile`.
fn process(procfile: &str, wanted: &str) -> Option<String> {
    procfile.lines().find_map(|line| {
        let (name, command) = line.split_once(':')?;
        let command = command.trim();
        (name.trim() == wanted && !command.is_empty()).then(|| command.to_owned())
    })
}
