//! Go: a module, or a workspace of modules.
//!
//! Layers: the modules that `go.sum` names, and the standard library and direct requirements compiled, keyed by the
//! `go.mod` and `go.sum` files alone. Go's caches go by content, so that an edited source reuses both.

use std::collections::BTreeMap;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    staging, tree,
};
use crate::plan::{ArtifactKind, Source};

const FLAGS: &str = "-trimpath -buildvcs=false -ldflags=-buildid=";

/// What one `go.mod` says.
struct Module {
    directory: String,
    path: String,
    /// Module path, version, and whether it is a direct requirement.
    requires: Vec<(String, String, bool)>,
    replaced: Vec<String>,
}

/// The name of the root module.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let name = tree::text(source, "go.mod").map(|text| short_name(&read("", &text).path)).filter(|n| !n.is_empty());
    Identity { name, version: None }
}

/// A Go module or workspace in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let workspace = tree::text(source, "go.work");
    if workspace.is_none() && !tree::has(source, "go.mod") {
        return Ok(None);
    }
    let directories = workspace.as_deref().map_or(vec![String::new()], used);
    let path = |directory: &str, file: &str| tree::join(directory, file).unwrap_or_default();
    let modules: Vec<Module> =
        directories.iter().filter_map(|d| Some(read(d, &tree::text(source, &path(d, "go.mod"))?))).collect();
    let because = match &workspace {
        Some(_) => format!("`go.work` is a workspace of {} modules", modules.len()),
        None => "`go.mod` is a module".to_owned(),
    };
    let local: Vec<&str> = modules.iter().map(|m| m.path.as_str()).collect();
    let mut direct: Vec<String> = Vec::new();
    let mut foreign = false;
    for module in &modules {
        let manifest = path(&module.directory, "go.mod");
        let sums = [path(&module.directory, "go.sum"), "go.work.sum".to_owned(), "go.sum".to_owned()];
        let known: Option<String> = sums.iter().filter_map(|s| tree::text(source, s)).reduce(|a, b| a + &b);
        for (name, version, is_direct) in &module.requires {
            if local.contains(&name.as_str()) || module.replaced.contains(name) {
                continue;
            }
            foreign = true;
            let Some(known) = &known else {
                return Err(Error::MissingLock { manifest, lock: sums[0].clone(), command: "go mod tidy".into() });
            };
            if !known.lines().any(|line| line.starts_with(&format!("{name} {version}"))) {
                return Err(Error::StaleLock {
                    lock: sums[0].clone(),
                    fact: format!("`{manifest}` requires `{name} {version}`, which it lacks"),
                    command: "go mod tidy".into(),
                });
            }
            if *is_direct && !direct.contains(name) {
                direct.push(name.clone());
            }
        }
    }
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    let vendored = tree::has(source, "vendor/modules.txt");
    let key = tree::named(source, |n| matches!(n, "go.mod" | "go.sum" | "go.work" | "go.work.sum"));
    let key: Vec<String> = key.into_iter().filter(|p| !p.starts_with("vendor/") && !p.contains("testdata/")).collect();
    let env: BTreeMap<String, String> = [
        ("GOCACHE", "/build/.kiln/go-cache"),
        ("GOFLAGS", "-modcacherw"),
        ("GOMODCACHE", "/build/.kiln/go-mod"),
        ("GOTOOLCHAIN", "local"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();

    let mut steps = Vec::new();
    let mut needs = Vec::new();
    if foreign && !vendored {
        let run = "go mod download\nmkdir -p .kiln/go-mod";
        let mut fetch = fetch_step("fetch", "fetches the modules that `go.sum` names", run);
        (fetch.inputs, fetch.outputs, fetch.env) = (key.clone(), strings([".kiln/go-mod"]), env.clone());
        fetch.tools = strings(["go"]);
        steps.push(fetch);
        needs.push("fetch".to_owned());
    }
    let mut run = format!("go build {FLAGS} std");
    if !vendored {
        for module in &direct {
            // What of a requirement does not compile on this machine, the project may never import.
            let packages = format!("go list -e -f '{{{{if not .Error}}}}{{{{.ImportPath}}}}{{{{end}}}}' {module}/...");
            run.push_str(&format!("\n{packages} | xargs -r -n 50 go build {FLAGS} || true"));
        }
    }
    let why = "compiles the standard library and the requirements; keyed by the `go.mod` and `go.sum` files";
    let mut deps = compile_step("deps", why, run);
    (deps.inputs, deps.outputs, deps.env) = (key, strings([".kiln/go-cache"]), env.clone());
    (deps.needs, deps.tools) = (needs.clone(), strings(["go"]));
    steps.push(deps);
    needs.push("deps".to_owned());

    let run = format!(
        "mkdir -p {out}/\ngo build {FLAGS} -o {out}/ {packages}\n{empty}",
        out = staging::OUT,
        packages = main_packages(source, &modules),
        empty = staging::refuse_empty("no package `main` was found, so there is no program to hand over")
    );
    let mut compile = compile_step("compile", "compiles the project's own packages", run);
    (compile.needs, compile.outputs, compile.env) = (needs, strings([staging::OUT]), env);
    compile.tools = strings(["go"]);
    steps.push(compile);
    let artifacts = vec![artifact(&name, ArtifactKind::Binary, "compile", &[(staging::OUT, ".")])];
    let because = vec![because];
    Ok(Some(Detected { language: "go".into(), because, identity, steps, artifacts, notes: Vec::new() }))
}

/// The packages in which programs usually are: `cmd`, the root, else wherever there are any.
fn main_packages(source: &dyn Source, modules: &[Module]) -> String {
    let patterns = modules.iter().map(|module| {
        let prefix = if module.directory.is_empty() { ".".to_owned() } else { format!("./{}", module.directory) };
        let at = |path: &str| tree::join(&module.directory, path).unwrap_or_default();
        if tree::has_directory(source, &at("cmd")) {
            format!("{prefix}/cmd/...")
        } else if tree::has(source, &at("main.go")) {
            prefix
        } else {
            format!("{prefix}/...")
        }
    });
    patterns.map(|p| tree::shell_word(&p)).collect::<Vec<_>>().join(" ")
}

fn read(directory: &str, text: &str) -> Module {
    let mut module =
        Module { directory: directory.to_owned(), path: String::new(), requires: Vec::new(), replaced: Vec::new() };
    for (verb, line) in directives(text) {
        let (line, comment) = line.split_once("//").unwrap_or((line, ""));
        let words: Vec<&str> = line.split_whitespace().map(|w| w.trim_matches('"')).collect();
        match (verb, words.as_slice()) {
            ("module", [path]) => module.path = (*path).to_owned(),
            ("require", [path, version]) => {
                let direct = comment.trim() != "indirect";
                module.requires.push(((*path).to_owned(), (*version).to_owned(), direct));
            }
            ("replace", [path, ..]) => module.replaced.push((*path).to_owned()),
            _ => {}
        }
    }
    module
}

/// The directories that a `go.work` uses.
fn used(text: &str) -> Vec<String> {
    let paths = directives(text).into_iter().filter(|(verb, _)| *verb == "use");
    paths.filter_map(|(_, path)| tree::join("", path.split("//").next()?.trim().trim_matches('"'))).collect()
}

/// Each directive as its verb and the rest, with blocks in parentheses taken apart.
fn directives(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")) {
        match (block, line.split_once([' ', '\t'])) {
            (Some(_), _) if line.starts_with(')') => block = None,
            (Some(verb), _) => found.push((verb, line)),
            (None, Some((verb, rest))) if rest.trim() == "(" => block = Some(verb),
            (None, Some((verb, rest))) => found.push((verb, rest.trim())),
            (None, None) => {}
        }
    }
    found
}

/// The last part of a module's path that is no version.
fn short_name(path: &str) -> String {
    let version =
        |p: &&str| p.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    path.rsplit('/').find(|part| !version(part)).unwrap_or(path).to_owned()
}
