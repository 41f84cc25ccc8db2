//! The steps and artifacts of a Cargo build.
//!
//! Invariant: `deps` compiles with the same command as `compile`, so that Cargo finds the results under the same names.
//! It leaves nothing of the project itself, because all files have the same timestamp, so Cargo would mistake a stub's
//! result for the source's.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    super::{
        Detected, Error,
        found::{compile_step, fetch_step, strings},
        git::{self, GitUse},
        tree,
        unread::Readers,
    },
    lock::{self, Lock},
    manifest::{self, Package, local_packages},
    outputs::{Handed, handed},
    targets,
};
use kiln_plan::{Source, Step};

const HOME: &str = ".cargo-home";
/// Removes what Cargo notes about its own program, which is something else each time.
const UNDATED: &str = "rm -f target/.rustc_info.json";
/// Removes what Cargo notes about when it used each package.
const UNUSED: &str = "rm -f .cargo-home/.global-cache*";
const CONFIGURATION: [&str; 4] = ["rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"];

/// Detects a Cargo project in the root of the tree.
pub(crate) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(root) = tree::toml(source, "Cargo.toml")? else {
        return Ok(None);
    };
    let packages = local_packages(source, &root)?;
    let member = source.member().and_then(|member| packages.iter().find(|package| package.directory == member));
    let mut notes = Vec::new();
    let mut because = vec![match root.contains_key("workspace") && packages.len() > 1 {
        true => format!("`Cargo.toml` is a workspace of {} packages", packages.len()),
        false => "`Cargo.toml` is a package".to_owned(),
    }];
    let lock = tree::toml(source, "Cargo.lock")?.map(|table| lock::read(&table));
    match &lock {
        Some(lock) => {
            lock::check(lock, &packages, &root)?;
            because.push("`Cargo.lock` locks its dependencies".to_owned());
        }
        None if packages.iter().any(needs_lock) => {
            return Err(Error::MissingLock {
                manifest: "Cargo.toml".into(),
                lock: "Cargo.lock".into(),
                command: "cargo generate-lockfile".into(),
            });
        }
        None => notes.push("there is no `Cargo.lock`; there are no dependencies to lock".to_owned()),
    }
    let project = Project { source, root: &root, packages: &packages, lock: lock.as_ref(), member };
    let mut identity = manifest::identity(source);
    if let Some(member) = member {
        because.push(format!("of its packages `{}` is built", member.name));
        identity.name = Some(member.name.clone());
    }
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    let handed = handed(&project, &name)?;
    notes.extend(handed.notes.iter().cloned());
    let used = project.asks_git();
    if let Some(used) = &used {
        because.push(format!("`{}` asks git, so the step gets the version and the commit", used.path));
    }
    Ok(Some(Detected {
        language: "rust".into(),
        because,
        identity,
        steps: project.steps(&handed, used),
        artifacts: handed.artifacts,
        notes,
    }))
}

/// Crates with which a package gets its version from git.
const ASKING: [&str; 7] =
    ["built", "git-testament", "git-version", "shadow-rs", "vergen", "vergen-gitcl", "vergen-git2"];

/// Whether a package depends on anything outside the tree.
fn needs_lock(package: &Package) -> bool {
    package.dependencies().into_iter().flatten().any(|(_, d)| d.get("path").is_none())
}

/// A Cargo project: its root manifest, its packages and its lock.
pub(super) struct Project<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) root: &'a Table,
    pub(super) packages: &'a [Package],
    lock: Option<&'a Lock>,
    /// The requested package; `None` for those that a plain `cargo build` builds.
    pub(super) member: Option<&'a Package>,
}

impl Project<'_> {
    fn steps(&self, handed: &Handed, used: Option<GitUse>) -> Vec<Step> {
        let env = BTreeMap::from([
            ("CARGO_HOME".to_owned(), format!("/build/{HOME}")),
            ("CARGO_TARGET_DIR".to_owned(), "/build/target".to_owned()),
            // Whoever displays the output removes colours if necessary.
            ("CARGO_TERM_COLOR".to_owned(), "always".to_owned()),
        ]);
        let build = format!(
            "cargo build --release --offline{}{}",
            if self.lock.is_some() { " --locked" } else { "" },
            self.member.map(|member| self.specs(&[member])).unwrap_or_default()
        );
        let tools = strings(["cargo", "rustc", "cc"]);
        let run = format!("{build}{}", handed.apart(&build));
        let mut compile = compile_step("compile", "compiles the project's own packages", run);
        (compile.env, compile.tools, compile.outputs) = (env.clone(), tools.clone(), handed.outputs.clone());
        compile.inputs = self.unread();
        if let Some(used) = used {
            git::answer(&mut compile, &used);
        }
        if !self.lock.is_some_and(|lock| lock.foreign) {
            return vec![compile];
        }
        let vendored = self.vendored();
        let key: Vec<String> = self.packages.iter().map(Package::manifest_path).collect();
        let key: Vec<String> = std::iter::once("Cargo.toml".to_owned())
            .chain(key.into_iter().filter(|path| path != "Cargo.toml"))
            .chain(std::iter::once("Cargo.lock".to_owned()))
            .collect();
        let inputs: Vec<String> = key.iter().cloned().chain(tree::all_of(self.source, &CONFIGURATION)).collect();
        let stubs = |packages: &mut dyn Iterator<Item = &Package>| -> BTreeMap<String, String> {
            packages.flat_map(|package| targets::stubs(self.source, package)).collect()
        };
        let (whole, stubbed): (Vec<&Package>, Vec<&Package>) =
            self.packages.iter().partition(|package| self.is_needed_from_outside(package));
        let mut deps = compile_step(
            "deps",
            "compiles the dependencies; keyed by the manifests and the lock file, with the sources stubbed",
            format!("{build}\ncargo clean --release --offline{}\n{UNDATED}", self.specs(&stubbed)),
        );
        (deps.inputs, deps.unversioned) = (inputs.clone(), key.clone());
        deps.files = stubs(&mut stubbed.into_iter());
        deps.inputs.extend(whole.iter().map(|package| match package.directory.as_str() {
            "" => ".".to_owned(),
            directory => directory.to_owned(),
        }));
        (deps.env, deps.tools, deps.outputs) = (env.clone(), tools, strings(["target"]));
        compile.needs = strings(["deps"]);
        if let Some(directory) = vendored {
            deps.inputs.push(directory);
            return vec![deps, compile];
        }
        let run = format!("cargo fetch --locked\n{UNUSED}");
        let mut fetch = fetch_step("fetch", "fetches the packages that `Cargo.lock` names", &run);
        (fetch.inputs, fetch.unversioned, fetch.files) = (inputs, key, stubs(&mut self.packages.iter()));
        (fetch.env, fetch.tools, fetch.outputs) = (env, strings(["cargo"]), strings([HOME]));
        deps.needs = strings(["fetch"]);
        compile.needs = strings(["fetch", "deps"]);
        vec![fetch, deps, compile]
    }

    /// Whether a package outside the tree is compiled against this one, which `[patch]` makes possible.
    fn is_needed_from_outside(&self, package: &Package) -> bool {
        self.lock.is_some_and(|lock| lock.needed_from_outside.contains(&package.name))
    }

    /// What calls git when the project is compiled: a build script, or a crate that it uses.
    fn asks_git(&self) -> Option<GitUse> {
        let script = GitUse::first(self.source, |path| tree::base(path) == "build.rs");
        script.or_else(|| {
            self.packages.iter().find_map(|package| {
                let names = package.dependencies().into_iter().flat_map(Table::keys);
                let asks = names.into_iter().any(|name| ASKING.contains(&name.as_str()));
                asks.then(|| GitUse::by_looking(&package.manifest_path()))
            })
        })
    }

    /// Globs that exclude what no source reads.
    fn unread(&self) -> Vec<String> {
        let own = |path: &&String| path.ends_with(".rs") && !path.starts_with("target/");
        let Some(readers) = Readers::of(self.source, self.source.paths().iter().filter(own)) else { return Vec::new() };
        // A source that includes whole directories may include any file.
        if readers.say(&[
            "include_dir",
            "RustEmbed",
            "rust_embed",
            "read_dir(\".",
            "CARGO_MANIFEST_DIR\")).read",
            "WalkDir",
        ]) {
            return Vec::new();
        }
        let packages: Vec<&str> = self.packages.iter().map(|package| package.directory.as_str()).collect();
        readers.unread(self.source, &packages)
    }

    /// The directory of vendored packages, if Cargo's configuration names one.
    fn vendored(&self) -> Option<String> {
        let sources = self.configuration()?.get("source")?.as_table()?.clone();
        let directory = sources.values().find_map(|s| s.get("directory")?.as_str().map(str::to_owned))?;
        tree::join("", &directory).filter(|d| tree::has_directory(self.source, d))
    }

    pub(super) fn configuration(&self) -> Option<Table> {
        let path = tree::first_of(self.source, &CONFIGURATION[2..])?;
        tree::toml(self.source, path).ok().flatten()
    }

    /// Arguments that name packages of the tree; with the version if another package has the same name.
    fn specs(&self, packages: &[&Package]) -> String {
        packages.iter().filter_map(|package| self.spec(package)).map(|spec| format!(" -p {spec}")).collect()
    }

    /// A package as an argument of Cargo's `-p`; `None` if the lock file does not contain it.
    pub(super) fn spec(&self, package: &Package) -> Option<String> {
        let lock = tree::toml(self.source, "Cargo.lock").ok().flatten();
        let all = lock.as_ref().and_then(|l| l.get("package")).and_then(Value::as_array);
        let same = all.into_iter().flatten().filter(|p| p.get("name").and_then(Value::as_str) == Some(&package.name));
        let mut same: Vec<&Value> = same.collect();
        // Packages of the tree have no source; they come first.
        same.sort_by_key(|p| p.get("source").is_some());
        let versions: Vec<&str> = same.iter().filter_map(|p| p.get("version")?.as_str()).collect();
        match versions.as_slice() {
            [] => None,
            [_] => Some(package.name.clone()),
            [own, ..] => Some(format!("{}@{own}", package.name)),
        }
    }
}
