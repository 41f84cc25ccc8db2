//! Deno: `deno.json` with `deno.lock`.
//!
//! The layer has the npm packages in `node_modules` and everything else that is fetched (JSR, URLs) in `vendor`, so neither
//! the build nor the archive needs Deno's own cache. Invariant: both see a `deno.json` that says so, and otherwise the project's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Detected, Error, Identity, compiled,
    found::{artifact, compile_step, fetch_step, strings},
    node,
    staging::{OUT, move_tree, refuse_empty},
    tree,
};
use kiln_plan::{ArtifactKind, Source, Step, matches};

/// Names of the manifest, as Deno looks for them.
pub const MANIFESTS: [&str; 2] = ["deno.json", "deno.jsonc"];
/// Imports what the lock file names by URL.
const IMPORTS: &str = ".kiln/deps.ts";
/// Where Deno keeps what it fetches for `deno compile`.
const CACHE: &str = ".kiln/deno";
/// Sources of larger projects are not searched for imports.
const SOURCES: usize = 500;
/// Tables of the manifest that do not concern dependencies.
const ASIDE: [&str; 9] = ["bench", "deploy", "exclude", "exports", "fmt", "lint", "publish", "tasks", "test"];

/// A project.
struct Project<'a> {
    source: &'a dyn Source,
    manifest: &'static str,
    root: Map<String, Value>,
    /// The lock file's path and content.
    lock: Option<(String, Value)>,
}

/// The name and version in the manifest.
pub fn identity(source: &dyn Source) -> Identity {
    let path = tree::first_of(source, &MANIFESTS);
    path.and_then(|path| tree::jsonc(source, path).ok().flatten()).map(|root| stated(&root)).unwrap_or_default()
}

fn stated(root: &Value) -> Identity {
    let field = |key: &str| root.get(key).and_then(Value::as_str).map(str::to_owned);
    Identity { name: field("name"), version: field("version") }
}

/// Whether the manifest in the root makes a directory a workspace member.
pub fn is_member(source: &dyn Source, directory: &str) -> bool {
    MANIFESTS.iter().filter_map(|path| tree::jsonc(source, path).ok().flatten()).any(|root| {
        let globs = members(&root);
        !globs.is_empty() && matches(&globs, directory)
    })
}

fn members(root: &Value) -> Vec<String> {
    let workspace = root.get("workspace");
    let list = workspace.and_then(|one| one.as_array().or_else(|| one.get("members")?.as_array()));
    let globs = list.into_iter().flatten().filter_map(Value::as_str);
    globs.map(|glob| glob.trim_start_matches("./").trim_matches('/').to_owned()).collect()
}

/// What the project makes; `None` if the manifest may only be an editor's or a formatter's. One that cannot be read counts, so that its
/// error is reported.
pub fn product(source: &dyn Source) -> Option<String> {
    let manifest = tree::first_of(source, &MANIFESTS)?;
    let Ok(root) = tree::jsonc(source, manifest) else { return Some(format!("`{manifest}` is there")) };
    let root = root.unwrap_or_default();
    let task = ["build", "compile", "start", "serve"].into_iter().find(|name| {
        let task = root.get("tasks").and_then(|tasks| tasks.get(*name));
        let text = task.and_then(|task| task.as_str().or_else(|| task.get("command")?.as_str()));
        text.is_some_and(|text| text.contains("deno "))
    });
    if let Some(task) = task {
        return Some(format!("the task `{task}` runs Deno"));
    }
    if root.get("exports").is_some() {
        return Some("others import what it exports".to_owned());
    }
    let main = ["main.ts", "main.tsx", "mod.ts", "server.ts", "src/main.ts"];
    tree::first_of(source, &main).map(|file| format!("`{file}` is its program"))
}

/// Detects a Deno project in the root of the tree.
///
/// # Errors
/// If dependencies are not locked, or a manifest cannot be read.
pub fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(manifest) = tree::first_of(source, &MANIFESTS) else { return Ok(None) };
    let root = tree::jsonc(source, manifest)?.unwrap_or_default();
    let member = source.member();
    let own = match member {
        Some(member) => own_manifest(source, member)?,
        None => root.clone(),
    };
    let root = root.as_object().cloned().unwrap_or_default();
    let mut project = Project { source, manifest, root, lock: None };
    project.lock = project.locked()?;
    let mut because = vec![format!("`{manifest}` configures Deno")];
    because.push(match &project.lock {
        Some((lock, _)) => format!("`{lock}` locks what it imports"),
        None => "it imports nothing from elsewhere".to_owned(),
    });
    because.extend(member.map(|member| format!("of its packages `{member}` is built")));
    let mut notes = Vec::new();
    let others = ["bun.lock", "bun.lockb", "package-lock.json", "pnpm-lock.yaml", "yarn.lock"];
    let others = tree::all_of(source, &others);
    if let (Some((lock, _)), false) = (&project.lock, others.is_empty()) {
        let others = kiln_plan::list(others.iter().map(String::as_str));
        notes.push(format!(
            "dependencies come from `{lock}`, because `{manifest}` is there; {others} beside it is not used: \
             `--language node` builds with that"
        ));
    }
    let task = build_task(source, &own, member);
    let program = task.as_ref().and_then(|(_, text)| {
        compiled::program(text, &["deno", "compile"], &["--output", "-o"], member.unwrap_or_default())
    });
    because.extend(program.as_ref().map(|path| format!("its build compiles the program `{path}`")));
    let deps = project.lock.as_ref().map(|(lock, content)| project.deps(lock, content, program.is_some()));
    let build = project.build(deps.as_ref(), task.as_ref().map(|(name, _)| name.as_str()), program.as_deref());
    let identity = stated(&own);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    let artifact = match &program {
        Some(path) => {
            let file = tree::base(path);
            artifact(&name, ArtifactKind::Binary, "build", &[(&format!("{OUT}/{file}"), file)])
        }
        None => artifact(&name, ArtifactKind::Archive, "build", &[(OUT, ".")]),
    };
    let steps = deps.into_iter().chain([build]).collect();
    Ok(Some(Detected { language: "deno".into(), because, identity, steps, artifacts: vec![artifact], notes }))
}

fn own_manifest(source: &dyn Source, member: &str) -> Result<Value, Error> {
    for name in MANIFESTS {
        if let Some(own) = tree::jsonc(source, &format!("{member}/{name}"))? {
            return Ok(own);
        }
    }
    Ok(Value::Null)
}

/// The task that builds the project, and its text: `build`, or else `compile`.
fn build_task(source: &dyn Source, own: &Value, member: Option<&str>) -> Option<(String, String)> {
    let package = tree::join(member.unwrap_or_default(), "package.json")?;
    let package = tree::json(source, &package).ok().flatten().unwrap_or_default();
    let text = |table: &Value, key: &str, name: &str| {
        let task = table.get(key)?.get(name)?;
        // A task is its command, or a table with it.
        task.as_str().or_else(|| task.get("command")?.as_str()).map(str::to_owned)
    };
    let named = |name: &str| text(own, "tasks", name).or_else(|| text(&package, "scripts", name));
    ["build", "compile"].into_iter().find_map(|name| Some((name.to_owned(), named(name)?)))
}

impl Project<'_> {
    /// The lock file; `None` if there is nothing to lock.
    fn locked(&self) -> Result<Option<(String, Value)>, Error> {
        let setting = self.root.get("lock");
        let path = setting.and_then(|lock| lock.as_str().or_else(|| lock.get("path")?.as_str()));
        let path = path.and_then(|path| tree::join("", path)).unwrap_or_else(|| "deno.lock".to_owned());
        let off = setting.and_then(Value::as_bool) == Some(false);
        let content = if off { None } else { tree::json(self.source, &path)? };
        let wanted = self.imports();
        let Some(content) = content else {
            let imports = !wanted.is_empty() || self.imports_inline() || self.package_json();
            if !imports {
                return Ok(None);
            }
            let command = if off { "deno install` without `\"lock\": false" } else { "deno install" };
            return Err(Error::MissingLock { manifest: self.manifest.to_owned(), lock: path, command: command.into() });
        };
        let text = content.to_string();
        if let Some(missing) = wanted.iter().find(|import| !text.contains(&format!("{import}@"))) {
            return Err(Error::StaleLock {
                lock: path,
                fact: format!("`{}` imports `{missing}`, which it lacks", self.manifest),
                command: "deno install".into(),
            });
        }
        let holds = ["npm", "jsr", "remote", "specifiers"].iter().any(|key| is_filled(content.get(*key)));
        Ok(holds.then_some((path, content)))
    }

    /// The packages that the import map names, without ranges: `npm:ms`, `jsr:@std/path`.
    fn imports(&self) -> Vec<String> {
        let imports = self.root.get("imports").and_then(Value::as_object).into_iter().flatten();
        imports.filter_map(|(_, value)| package(value.as_str()?)).collect()
    }

    fn package_json(&self) -> bool {
        let package = tree::json(self.source, "package.json").ok().flatten().unwrap_or_default();
        ["dependencies", "devDependencies"].iter().any(|key| is_filled(package.get(*key)))
    }

    /// Whether a source imports a package or a URL by itself.
    fn imports_inline(&self) -> bool {
        let ends = [".ts", ".tsx", ".js", ".jsx", ".mjs", ".mts"];
        let sources = tree::named(self.source, |name| ends.iter().any(|end| name.ends_with(end)));
        sources.iter().take(SOURCES).filter_map(|path| tree::text(self.source, path)).any(|text| {
            let begins = ["\"npm:", "'npm:", "\"jsr:", "'jsr:", "\"https://", "'https://"];
            text.lines().any(|line| {
                let line = line.trim();
                let imports = line.starts_with("import ") || line.starts_with("export ") || line.contains("import(");
                imports && begins.iter().any(|begin| line.contains(begin))
            })
        })
    }

    /// The manifest with other settings of where packages are.
    fn settings(&self, vendor: bool, whole: bool) -> String {
        let mut root = self.root.clone();
        root.insert("nodeModulesDir".into(), "manual".into());
        if vendor {
            root.insert("vendor".into(), true.into());
        }
        if !whole {
            root.remove("version");
            root.retain(|key, _| !ASIDE.contains(&key.as_str()));
        }
        let text = serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default();
        format!("{text}\n")
    }

    fn deps(&self, lock: &str, content: &Value, compiles: bool) -> Step {
        let remote: Vec<&str> = urls(content).collect();
        let vendor = is_vendored(content);
        let mut run = "deno install --frozen --node-modules-dir=auto\n".to_owned();
        if !remote.is_empty() {
            run.push_str(&format!(
                "deno install --frozen --allow-import --node-modules-dir=auto --entrypoint {IMPORTS}\n"
            ));
        }
        if compiles {
            run.push_str(&format!(
                "# what `deno compile` puts a program into\n\
                 echo > .kiln/stub.ts\n\
                 (cd .kiln && deno compile --no-config --output stub stub.ts)\n\
                 mkdir -p {CACHE}/dl\n"
            ));
        }
        let outputs = if vendor { strings(["node_modules", "vendor"]) } else { strings(["node_modules"]) };
        run.push_str(&format!("mkdir -p {}\n", outputs.join(" ")));
        run.push_str(
            "# what differs from one run to the next\n\
             rm -f node_modules/.deno/.setup-cache.bin node_modules/.deno/.deno.lock\n",
        );
        let why = format!("fetches what `{lock}` names; keyed by it and what `{}` says of dependencies", self.manifest);
        let mut deps = fetch_step("deps", &why, run);
        deps.inputs = strings(["package.json", ".npmrc", ".dvmrc"]);
        deps.inputs.retain(|path| tree::has(self.source, path));
        deps.unversioned = tree::all_of(self.source, &["package.json"]);
        deps.inputs.push(lock.to_owned());
        let root = Value::Object(self.root.clone());
        let globs = members(&root);
        for path in tree::named(self.source, |name| MANIFESTS.contains(&name) || name == "package.json") {
            let directory = tree::parent(&path);
            if !directory.is_empty() && matches(&globs, directory) {
                if path.ends_with("package.json") {
                    deps.unversioned.push(path.clone());
                }
                deps.inputs.push(path);
            }
        }
        let map = root.get("importMap").and_then(Value::as_str).and_then(|path| tree::join("", path));
        deps.inputs.extend(map.filter(|path| tree::has(self.source, path)));
        deps.files.insert(self.manifest.to_owned(), self.settings(vendor, false));
        if !remote.is_empty() {
            let imports: BTreeSet<String> =
                remote.iter().map(|url| format!("import {};\n", Value::from(*url))).collect();
            deps.files.insert(IMPORTS.to_owned(), imports.into_iter().collect());
        }
        deps.outputs = outputs;
        deps.outputs.extend(compiles.then(|| format!("{CACHE}/dl")));
        (deps.env, deps.tools) = (environment(compiles), strings(["deno"]));
        deps
    }

    fn build(&self, deps: Option<&Step>, task: Option<&str>, program: Option<&str>) -> Step {
        let mut run = String::new();
        if let Some(task) = task {
            let directory = self.source.member().map(|member| format!("--cwd {} ", tree::shell_word(member)));
            run.push_str(&format!("deno task {}{task}\n", directory.unwrap_or_default()));
        }
        match program {
            Some(path) => run.push_str(&format!("mkdir -p {OUT}\nmv {} {OUT}/\n", tree::shell_word(path))),
            None => {
                run.push_str(&move_tree(&[]));
                run.push_str(&refuse_empty("there is nothing to deliver"));
            }
        }
        let why = match (task, program) {
            (Some(_), Some(_)) => "compiles the program",
            (Some(_), None) => "runs the project's `build`, and bundles it with its dependencies",
            (None, _) => "bundles the project with its dependencies",
        };
        let mut build = compile_step("build", why, run);
        if let Some((_, content)) = &self.lock {
            build.files.insert(self.manifest.to_owned(), self.settings(is_vendored(content), true));
        }
        build.needs = deps.iter().map(|deps| deps.name.clone()).collect();
        (build.env, build.tools, build.outputs) = (environment(program.is_some()), strings(["deno"]), strings([OUT]));
        build
    }
}

/// The URLs that a lock file names.
fn urls(lock: &Value) -> impl Iterator<Item = &str> {
    lock.get("remote").and_then(Value::as_object).into_iter().flatten().map(|(url, _)| url.as_str())
}

/// Whether there is something that only `vendor` can hold.
fn is_vendored(lock: &Value) -> bool {
    is_filled(lock.get("remote")) || is_filled(lock.get("jsr"))
}

fn is_filled(value: Option<&Value>) -> bool {
    value.and_then(Value::as_object).is_some_and(|table| !table.is_empty())
}

/// The package in an import, without its range and the path in it.
fn package(import: &str) -> Option<String> {
    let (scheme, rest) =
        ["npm:", "jsr:"].into_iter().find_map(|scheme| Some((scheme, import.strip_prefix(scheme)?)))?;
    let rest = rest.trim_start_matches('/');
    let (scope, rest) = match rest.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').map(|(scope, rest)| (format!("@{scope}/"), rest))?,
        None => (String::new(), rest),
    };
    let name = rest.split(['@', '/']).next().unwrap_or_default();
    Some(format!("{scheme}{scope}{name}"))
}

fn environment(keeps: bool) -> BTreeMap<String, String> {
    let cache = if keeps { format!("/build/{CACHE}") } else { "/tmp/deno".to_owned() };
    let fixed = [("DENO_NO_PROMPT", "1"), ("DENO_NO_UPDATE_CHECK", "1"), ("NO_COLOR", "1")];
    let mut all: BTreeMap<String, String> = fixed.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    all.insert("DENO_DIR".into(), cache);
    all
}

/// The command that runs a project's tests, if it has any.
pub fn test_command(source: &dyn Source, report: &str) -> Option<String> {
    let directory = source.member().unwrap_or_default();
    let own = MANIFESTS.iter().find_map(|name| tree::jsonc(source, &tree::join(directory, name)?).ok().flatten())?;
    if own.get("tasks").is_some_and(|tasks| tasks.get("test").is_some()) {
        let within =
            if directory.is_empty() { String::new() } else { format!("--cwd {} ", tree::shell_word(directory)) };
        return Some(format!("deno task {within}test"));
    }
    let ends = ["_test.ts", ".test.ts", "_test.js", ".test.js", "_test.tsx", ".test.tsx"];
    let is_test = |path: &String| directory.is_empty() || path.starts_with(&format!("{directory}/"));
    let tests = tree::named(source, |name| ends.iter().any(|end| name.ends_with(end)));
    let word = if directory.is_empty() { String::new() } else { format!(" {}", tree::shell_word(directory)) };
    tests.iter().any(is_test).then(|| format!("deno test --allow-all --junit-path={report}{word}"))
}

/// Whether a tree with both manifests is built by a Node package manager.
pub fn is_node_instead(source: &dyn Source) -> bool {
    let locks = ["bun.lock", "bun.lockb", "npm-shrinkwrap.json", "package-lock.json", "pnpm-lock.yaml", "yarn.lock"];
    !tree::has(source, "deno.lock")
        && tree::first_of(source, &locks).is_some()
        && !node::package_paths(source).is_empty()
}
