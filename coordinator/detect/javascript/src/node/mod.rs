//! Node: npm, pnpm, yarn and Bun.
//!
//! Two layers, both keyed by manifests and lock file only: `deps` has everything that the lock file lists, with the
//! dependencies' install scripts; `production` has what a program needs at run time. They see each `package.json`
//! without its version and scripts, so a `postinstall` of the project does not need the sources there and runs in the
//! build step, which has them.

mod bundle;
mod local;
mod locks;
mod managers;
mod manifest;
mod members;
mod pinned;
mod product;
mod scripts;
mod site;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Detected, Error, Identity, compiled,
    found::{COMPILER_MEMORY_BYTES, artifact, compile_step, fetch_step, strings},
    staging::OUT,
    tree,
};
use kiln_plan::{ArtifactKind, Source, Step};
use locks::Tool;
use managers::Manager;
use manifest::Package;
pub use manifest::{is_member, package_paths};
pub use members::MEMBER;
use members::{Member, RUNTIME};
use pinned::Pinned;
pub use product::{build_scripts, product};

/// The name and version of the root package.
pub fn identity(source: &dyn Source) -> Identity {
    tree::json(source, "package.json").ok().flatten().map(|root| stated(&root)).unwrap_or_default()
}

/// A package's name and version in its manifest.
fn stated(manifest: &Value) -> Identity {
    let field = |key: &str| manifest.get(key).and_then(Value::as_str).map(str::to_owned);
    Identity { name: field("name"), version: field("version") }
}

/// Detects a Node project in the root of the tree.
pub fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some(root) = tree::json(source, "package.json")? else { return Ok(None) };
    let tool = Tool::of(source, &root);
    let packages = manifest::packages(source, &root, tool)?;
    let lock = locks::choose(source, &root, tool, &packages)?;
    let mut because = vec!["`package.json` is a package".to_owned()];
    because.push(match lock {
        Some(lock) => format!("`{lock}` locks its dependencies"),
        None => "it has no dependencies".to_owned(),
    });
    let pinned = lock.and_then(|_| Pinned::of(&root, tool));
    because.extend(pinned.as_ref().map(|pinned| format!("it asks for {}", pinned.show())));
    let member = Member::of(source, &packages, tool);
    because.extend(member.as_ref().map(|member| member.show(&packages)));
    let Some(main) = packages.get(member.as_ref().map_or(0, |member| member.own)) else { return Ok(None) };
    let site = site::of(source, main);
    because.extend(site.as_ref().map(|site| site.because.clone()));
    let program = main
        .script("build")
        .filter(|_| tool == Tool::Bun)
        .and_then(|build| compiled::program(build, &["bun", "build", "--compile"], &["--outfile"], &main.directory));
    because.extend(program.as_ref().map(|path| format!("its build compiles the program `{path}`")));
    let identity = stated(&main.content);

    let mut notes = Vec::new();
    let mut steps = Vec::new();
    if lock == Some("bun.lockb") {
        notes.push(
            "`bun.lockb` is binary, so nobody can review it and Kiln cannot compare it with `package.json`: \
             `bun install --save-text-lockfile --lockfile-only` writes a `bun.lock`"
                .to_owned(),
        );
    }
    if let Some(lock) = lock {
        let others = locks::ignored(source, lock);
        if !others.is_empty() {
            let others = kiln_plan::list(others);
            let reason = locks::reason(source, &root, tool);
            notes.push(format!("dependencies come from `{lock}`, because {reason}; {others} beside it is not used"));
        }
    }
    let project = Project { source, tool, packages, member, pinned };
    if let Some(lock) = lock {
        steps.extend(project.layers(lock, site.is_none() && program.is_none())?);
    }
    let layers: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
    steps.push(project.bundle(&layers, site.as_ref(), program.as_deref()));
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    let artifact = match program.as_deref().map(tree::base) {
        Some(file) => artifact(&name, ArtifactKind::Binary, "bundle", &[(&format!("{OUT}/{file}"), file)]),
        None => artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")]),
    };
    Ok(Some(Detected {
        language: format!("node ({})", tool.command()),
        because,
        identity,
        steps,
        artifacts: vec![artifact],
        notes,
    }))
}

/// The layer with the packages that a `package.json` names, for a project of another language; `None` if it names none.
///
/// # Errors
/// If they are not locked.
pub fn deps(source: &dyn Source) -> Result<Option<Step>, Error> {
    let Some(root) = tree::json(source, "package.json")? else { return Ok(None) };
    let tool = Tool::of(source, &root);
    let packages = manifest::packages(source, &root, tool)?;
    let Some(lock) = locks::choose(source, &root, tool, &packages)? else { return Ok(None) };
    let pinned = Pinned::of(&root, tool);
    let project = Project { source, tool, packages, member: None, pinned };
    Ok(project.layers(lock, false)?.into_iter().next())
}

/// A project with a known tool.
struct Project<'a> {
    source: &'a dyn Source,
    tool: Tool,
    packages: Vec<Package>,
    /// The requested package; `None` for all.
    member: Option<Member>,
    pinned: Option<Pinned>,
}

impl Project<'_> {
    /// The dependency layers.
    fn layers(&self, lock: &str, ships: bool) -> Result<Vec<Step>, Error> {
        let manager = Manager::new(self.source, self.tool);
        let mut key: Vec<String> = self.packages.iter().map(|p| p.manifest.clone()).collect();
        let mut unversioned = key.clone();
        unversioned.extend((lock.ends_with(".json") || lock == "bun.lock").then(|| lock.to_owned()));
        key.push(lock.to_owned());
        key.extend(tree::all_of(self.source, manager.configuration));
        if tree::has_directory(self.source, "patches") {
            key.push("patches".to_owned());
        }
        if tree::has_directory(self.source, ".yarn") {
            key.extend(strings([".yarn", "!.yarn/install-state.gz", "!.yarn/unplugged"]));
        }
        key.extend(local::inputs(self.source, &self.packages, self.tool)?);
        let mut seen = BTreeSet::new();
        key.retain(|path| seen.insert(path.clone()));
        let files = self.commands_of_members();

        let modules = self.modules(&manager);
        let mut install = String::new();
        if let Some(pinned) = &self.pinned {
            install = format!("{}{}", pinned.provide(), pinned::PATH);
        }
        install.push_str(manager.install);
        if !modules.is_empty() {
            let words: Vec<String> = modules.iter().map(|m| tree::shell_word(m)).collect();
            install.push_str(&format!("mkdir -p {}\n", words.join(" ")));
        }
        let why = format!("installs what `{lock}` names; keyed by it and each `package.json`");
        let mut deps = fetch_step("deps", &why, install);
        (deps.inputs, deps.unversioned, deps.files) = (key.clone(), unversioned.clone(), files.clone());
        deps.outputs = manager.outputs.iter().map(|path| (*path).to_owned()).chain(modules.clone()).collect();
        deps.outputs.extend(self.pinned.iter().map(|_| pinned::DIRECTORY.to_owned()));
        (deps.env, deps.tools, deps.memory_bytes) = (self.env(), self.tools(), COMPILER_MEMORY_BYTES);
        if !ships || !self.ships(&manager) {
            return Ok(vec![deps]);
        }
        let why = match self.member {
            Some(_) => "keeps what the member needs at run time; keyed like the layer before it",
            None => "removes development dependencies; keyed like the layer before it",
        };
        let mut production = compile_step("production", why, self.production(&manager, &modules));
        (production.inputs, production.unversioned, production.files) = (key, unversioned, files);
        (production.env, production.tools) = (deps.env.clone(), deps.tools.clone());
        (production.needs, production.outputs) = (strings(["deps"]), strings([OUT]));
        self.provide(&mut production);
        Ok(vec![deps, production])
    }

    /// Removes what is not needed at run time.
    fn production(&self, manager: &Manager, modules: &[String]) -> String {
        let Some(member) = self.member.as_ref().and_then(|member| self.packages.get(member.own)) else {
            let prune = self.prunes().then_some(manager.prune);
            return bundle::production(manager, modules, prune, self.prefix());
        };
        match (manager.prune_to_member, member.name()) {
            (Some(prune), Some(name)) => {
                let prune = prune.replace("NAME", &tree::shell_word(name));
                bundle::production(manager, modules, Some(&prune), self.prefix())
            }
            (Some(_), None) => bundle::production(manager, modules, Some(manager.prune), self.prefix()),
            (None, _) => bundle::production_of(member, self.prefix(), self.tool.runtime()),
        }
    }

    /// Gives a step the program that lays out a member, if it runs it.
    fn provide(&self, step: &mut Step) {
        let (path, text) = MEMBER;
        if step.run.contains(path) {
            step.files.insert(path.to_owned(), text.to_owned());
        }
    }

    /// The step that builds and assembles the artifact.
    fn bundle(&self, layers: &[String], site: Option<&site::Site>, program: Option<&str>) -> Step {
        let manager = (!layers.is_empty()).then(|| Manager::new(self.source, self.tool));
        let modules = manager.as_ref().map(|manager| self.modules(manager)).unwrap_or_default();
        let built = match &self.member {
            Some(member) => member.built(&self.packages),
            None => self.packages.iter().collect(),
        };
        let own = self.member.as_ref().and_then(|member| self.packages.get(member.own));
        let scripts = scripts::commands(&built, self.tool, !layers.is_empty(), own);
        let bundled = || match self.handed(manager.as_ref()) {
            Some(handed) => bundle::member(&scripts, &modules, &handed, self.tool.runtime()),
            None => bundle::program(&scripts, &modules, manager.as_ref()),
        };
        let prefix = if layers.is_empty() { "" } else { self.prefix() };
        let (why, run) = match site {
            _ if let Some(path) = program => {
                ("compiles the program", format!("{scripts}mkdir -p {OUT}\nmv {} {OUT}/\n", tree::shell_word(path)))
            }
            Some(site) => ("builds the site", bundle::site(site, &scripts)),
            None if scripts.is_empty() => ("bundles the package with its dependencies", bundled()),
            None => ("runs the package's own scripts, and bundles it with its dependencies", bundled()),
        };
        let mut step = compile_step("bundle", why, format!("{prefix}{run}"));
        (step.needs, step.outputs) = (layers.to_vec(), strings([OUT]));
        (step.env, step.tools) = match manager {
            Some(_) => (self.env(), self.tools()),
            None => (BTreeMap::new(), self.tools()),
        };
        if let Some(member) = &self.member
            && !scripts::is_built_by_root(&built, true)
        {
            step.inputs = member.without_others(self.source, &self.packages);
        }
        self.provide(&mut step);
        step
    }

    /// The contents of a member's artifact.
    fn handed(&self, manager: Option<&Manager>) -> Option<bundle::Handed<'_>> {
        let member = self.member.as_ref()?;
        // Without `node_modules`, the manager's own table says where each package is.
        let in_place = manager.filter(|manager| !manager.modules).map(|manager| {
            let files = ["package.json", "yarn.lock"].into_iter().chain(manager.configuration.iter().copied());
            tree::all_of(self.source, &files.collect::<Vec<_>>())
        });
        Some(bundle::Handed {
            member: self.packages.get(member.own)?,
            others: member.runtime(&self.packages),
            nested: member.nested(&self.packages, in_place.is_some()),
            in_place,
        })
    }

    /// The directories of installed packages, the root's first.
    fn modules(&self, manager: &Manager) -> Vec<String> {
        let installed = self.packages.iter().filter(|package| manager.modules && package.installed);
        installed.filter_map(|package| tree::join(&package.directory, "node_modules")).collect()
    }

    /// Whether the program has run-time dependencies.
    fn ships(&self, manager: &Manager) -> bool {
        let shipped: Vec<&Package> = match &self.member {
            Some(member) => self.packages.get(member.own).into_iter().collect(),
            None => self.packages.iter().collect(),
        };
        !manager.modules || shipped.iter().any(|package| package.names_any(&RUNTIME))
    }

    /// Whether there are development dependencies.
    fn prunes(&self) -> bool {
        self.packages.iter().any(|package| package.names_any(&["devDependencies"]))
    }

    fn env(&self) -> BTreeMap<String, String> {
        Manager::new(self.source, self.tool).env
    }

    /// The required version of the manager is not demanded of workers, because a worker without it may fetch it.
    fn tools(&self) -> Vec<String> {
        match self.pinned {
            // It runs the scripts itself, and needs npm only to fetch another version.
            _ if self.tool == Tool::Bun => strings(["bun"]),
            Some(_) => strings(["node", "npm"]),
            None => strings(["node", self.tool.command()]),
        }
    }

    fn prefix(&self) -> &'static str {
        if self.pinned.is_some() { pinned::PATH } else { "" }
    }

    /// A stub for each command of a package in the tree: package managers only link to existing files.
    fn commands_of_members(&self) -> BTreeMap<String, String> {
        let members = self.packages.iter().skip(1);
        let paths = members.flat_map(Package::commands);
        paths
            .map(|path| {
                let text = tree::text(self.source, &path).unwrap_or_default();
                let first = text.lines().next().filter(|line| line.starts_with("#!"));
                let first = first.unwrap_or("#!/usr/bin/env node").to_owned();
                (path, format!("{first}\n"))
            })
            .collect()
    }
}
