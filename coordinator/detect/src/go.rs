//! Go: a module, or a workspace of modules.
//!
//! Dependency layers: the compiled standard library, keyed by the toolchain only; the modules that `go.sum` lists; and
//! the compiled direct requirements, keyed by the `go.mod` and `go.sum` files. Go's caches work by content, so an
//! edited source reuses them all.

use std::collections::BTreeMap;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    shell, staging, tree,
    unread::Readers,
};
use kiln_plan::{ArtifactKind, Source, Step};

pub(super) const FLAGS: &str = "-trimpath -buildvcs=false -ldflags=-buildid=";
/// Go's build cache in a step.
pub(super) const CACHE: &str = ".kiln/go-cache";
/// Gives the entries of Go's cache one time, 2000-01-01, in place of that at which each was made: a layer that is made again is the same.
const UNDATED: &str = "find .kiln/go-cache -type f -name '*-a' -exec sed -i -E 's/[ 0-9]{20}$/  946684800000000000/' {} +\nrm -f .kiln/go-cache/trim.txt\n";
/// The same in a step that tests.
pub(super) const TEST_CACHE: &str = ".kiln/go-test-cache";
/// The caches of a detected project, which are outputs of the steps that fill them.
pub const CACHES: [&str; 2] = [CACHE, TEST_CACHE];

/// The content of a `go.mod`.
struct Module {
    directory: String,
    path: String,
    /// Module path, version, and whether it is a direct requirement.
    requires: Vec<(String, String, bool)>,
    replaced: Vec<String>,
}

/// The first version of Go that lets the worker keep its build cache (`GOCACHEPROG`).
const ASKS_FOR_ITS_CACHE: (u32, u32) = (1, 24);

/// Whether every Go that can build the project lets the worker keep its build cache, by what its modules require.
pub fn asks_for_its_cache(source: &dyn Source) -> bool {
    let texts = ["go.work", "go.mod"].into_iter().filter_map(|file| tree::text(source, file));
    texts.into_iter().any(|text| {
        let required = directives(&text).into_iter().find(|(verb, _)| *verb == "go");
        required.and_then(|(_, version)| minor(version)).is_some_and(|version| version >= ASKS_FOR_ITS_CACHE)
    })
}

/// `1.24` of `1.24.3` or `1.24rc1`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.trim().split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The name of the root module.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let name = tree::text(source, "go.mod").map(|text| short_name(&read("", &text).path)).filter(|n| !n.is_empty());
    Identity { name, version: None }
}

/// Detects a Go module or workspace in the root of the tree.
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
    let mut identity = identity(source);
    let mut because = vec![because];
    if let Some(module) = modules.iter().find(|module| source.member() == Some(&module.directory)) {
        because.push(format!("of its modules `{}` is built", module.directory));
        identity.name = Some(short_name(&module.path));
    }
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

    let mut std = compile_step(
        "std",
        "compiles the standard library; keyed by the toolchain alone",
        format!("go build {FLAGS} std\n{UNDATED}"),
    );
    (std.inputs, std.outputs, std.env) = (strings(["!**"]), strings([CACHE]), env.clone());
    std.tools = strings(["go"]);
    let mut steps = vec![std];
    let mut needs = strings(["std"]);
    if foreign && !vendored {
        let run = "go mod download\nmkdir -p .kiln/go-mod";
        let mut fetch = fetch_step("fetch", "fetches the modules that `go.sum` names", run);
        (fetch.inputs, fetch.outputs, fetch.env) = (key.clone(), strings([".kiln/go-mod"]), env.clone());
        fetch.tools = strings(["go"]);
        steps.push(fetch);
        needs.push("fetch".to_owned());
    }
    if !direct.is_empty() && !vendored {
        steps.push(requirements(&direct, key, &needs, &env));
        needs.push("deps".to_owned());
    }
    let stamped = read_sources(source).map(|readers| stamped(&readers)).unwrap_or_default();
    let run = format!(
        "{compile}programs {packages}\n{empty}",
        compile = compile_function(&stamped),
        packages = patterns(&modules, source.member()),
        empty = staging::refuse_empty("no package `main` was found, so there is no artifact")
    );
    let mut compile = compile_step("compile", "compiles the project's own packages", run);
    (compile.needs, compile.outputs, compile.env) = (needs, strings([staging::OUT]), env);
    compile.tools = strings(["go"]);
    compile.inputs = unread(source);
    compile.stamp = !stamped.is_empty();
    shell::provide(&mut compile, &[shell::GATHER, shell::GO]);
    steps.push(compile);
    let artifacts = vec![artifact(&name, ArtifactKind::Binary, "compile", &[(staging::OUT, ".")])];
    if let Some((variable, _)) = stamped.first() {
        because.push(format!("`main.{variable}` is set from the stamp"));
    }
    Ok(Some(Detected { language: "go".into(), because, identity, steps, artifacts, notes: Vec::new() }))
}

/// The step that compiles the direct requirements, as far as they compile on this machine: the project may never import
/// those that do not. Go's cache works by content, so only files that the standard library's cache lacks are kept.
fn requirements(direct: &[String], key: Vec<String>, needs: &[String], env: &BTreeMap<String, String>) -> Step {
    let mut run = format!("date +%s > {CACHE}/trim.txt\nfind {CACHE} -type f > .kiln/known\n");
    for module in direct {
        let packages = format!("go list -e -f '{{{{if not .Error}}}}{{{{.ImportPath}}}}{{{{end}}}}' {module}/...");
        run.push_str(&format!("{packages} | xargs -r -n 50 go build {FLAGS} || true\n"));
    }
    run.push_str("xargs rm -f < .kiln/known\n");
    run.push_str(UNDATED);
    let why = "compiles the requirements; keyed by the `go.mod` and `go.sum` files";
    let mut deps = compile_step("deps", why, run);
    (deps.inputs, deps.outputs, deps.env) = (key, strings([CACHE]), env.clone());
    (deps.needs, deps.tools) = (needs.to_vec(), strings(["go"]));
    deps
}

/// Every package of the modules; in the step, Go itself determines which are programs.
fn patterns(modules: &[Module], member: Option<&str>) -> String {
    let wanted = modules.iter().filter(|module| member.is_none_or(|member| member == module.directory));
    let patterns = wanted.map(|module| match module.directory.as_str() {
        "" => "./...".to_owned(),
        directory => format!("./{directory}/..."),
    });
    patterns.map(|p| tree::shell_word(&p)).collect::<Vec<_>>().join(" ")
}

/// The shell function that compiles and sets the stamped variables.
fn compile_function(stamped: &[(String, &str)]) -> String {
    if stamped.is_empty() {
        return format!("compile() {{ go build {FLAGS} \"$@\"; }}\n");
    }
    let values: String = stamped.iter().map(|(name, value)| format!(" -X main.{name}=${value}")).collect();
    format!(
        "link=-buildid=\nif [ -n \"$KILN_COMMIT\" ]; then link=\"$link{values}\"; fi\n\
         compile() {{ go build -trimpath -buildvcs=false -ldflags=\"$link\" \"$@\"; }}\n"
    )
}

/// Variables of programs that hold a placeholder instead of a version or commit, as release tools expect, and the
/// variables of the stamp that they get.
fn stamped(readers: &Readers) -> Vec<(String, &'static str)> {
    const PLACES: [&str; 11] =
        ["", "(devel)", "dev", "devel", "development", "none", "snapshot", "source", "undefined", "unknown", "unset"];
    let wants = |name: &str| match name.to_ascii_lowercase().as_str() {
        "version" | "appversion" | "buildversion" | "gitversion" => Some("KILN_VERSION"),
        "commit" | "gitcommit" | "buildcommit" | "revision" | "gitsha" => Some("KILN_COMMIT"),
        _ => None,
    };
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for text in readers.texts().filter(|text| text.lines().any(|line| line.trim() == "package main")) {
        let mut block = false;
        for line in text.lines() {
            block = block && line != ")" || line == "var (";
            // Only at the top level of the file or in a block there: other indented lines declare local variables.
            let Some(rest) = line.strip_prefix("var ").or(line.strip_prefix('\t').filter(|_| block)) else { continue };
            let Some((name, value)) = rest.split_once('=') else { continue };
            let name = name.trim().trim_end_matches(" string").trim();
            let place = value.trim().strip_prefix('"').and_then(|value| value.split('"').next());
            let is_place = place.is_some_and(|place| PLACES.contains(&place.to_ascii_lowercase().as_str()));
            if let Some(variable) = wants(name).filter(|_| is_place && !found.iter().any(|(known, _)| known == name)) {
                found.push((name.to_owned(), variable));
            }
        }
    }
    found
}

/// The project's own sources; `None` if not all of them can be read.
fn read_sources(source: &dyn Source) -> Option<Readers> {
    let sources = source.paths().iter().filter(|path| {
        path.ends_with(".go") && !path.ends_with("_test.go") && !path.split('/').any(|part| part == "vendor")
    });
    Readers::of(source, sources)
}

/// Globs that exclude files that `go build` does not read: other files than Go's that no `//go:embed` includes.
fn unread(source: &dyn Source) -> Vec<String> {
    let Some(readers) = read_sources(source) else { return Vec::new() };
    let embedded = readers.taken("//go:embed ");
    let mut globs = readers.unread(source, &[]);
    let is_embedded = |path: &str| embedded.iter().any(|start| path.starts_with(start.as_str()));
    globs.retain(|glob| !glob.strip_prefix('!').is_some_and(is_embedded));
    globs
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
pub(super) fn used(text: &str) -> Vec<String> {
    let paths = directives(text).into_iter().filter(|(verb, _)| *verb == "use");
    paths.filter_map(|(_, path)| tree::join("", path.split("//").next()?.trim().trim_matches('"'))).collect()
}

/// Each directive as its verb and the rest, with parenthesised blocks expanded.
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

/// The last part of a module's path that is not a version.
fn short_name(path: &str) -> String {
    let version =
        |p: &&str| p.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    path.rsplit('/').find(|part| !version(part)).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_plan::MemorySource;

    use super::*;

    #[test]
    fn what_the_modules_require_says_whether_go_asks_for_its_cache() {
        let asks = |file: &str, text: &str| asks_for_its_cache(&[(file, text)].into_iter().collect::<MemorySource>());
        for newer in ["go 1.24", "go 1.24.0", "go 1.25rc1", "go 2.0 // later"] {
            assert!(asks("go.mod", &format!("module x\n\n{newer}\n")), "{newer}");
            assert!(asks("go.work", &format!("{newer}\nuse .\n")), "{newer}");
        }
        for older in ["go 1.23.9", "go 1.9", "", "toolchain go1.24.0", "go one"] {
            assert!(!asks("go.mod", &format!("module x\n\n{older}\n")), "{older}");
        }
    }
}
