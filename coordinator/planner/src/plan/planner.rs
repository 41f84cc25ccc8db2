//! Turns a source tree into a validated plan, from `kiln.toml` if there is one, otherwise from the project's files.
//!
//! Invariant: every plan that is returned has passed `check`.

use super::{
    Artifact, ArtifactKind, DOCKERFILE, Dockerfile, Origin, Part, Plan, Platform, Scope, Source, Step, Target,
    Toolchains, VersionOrigin, View, caches, check, gated, gates, go_cache, runnable, scope, toolchains, unmatched,
    within, words,
};
use crate::project;
use kiln_detect::{self as detect, Language};

/// What the caller asks for, and facts that the planner cannot see.
#[derive(Debug, Clone)]
pub struct Options {
    /// Platforms to build for. Empty: the project's targets, or else the host's platform.
    pub platforms: Vec<Platform>,
    /// Names of targets to build for. Empty: all.
    pub targets: Vec<String>,
    /// The caller's platform.
    pub host: Platform,
    /// The output of `git describe`, if there is a repository.
    pub describe: Option<String>,
    /// The project's name if nothing else provides one.
    pub directory_name: String,
    /// The language to build it as, if the caller chooses one.
    pub language: Option<Language>,
    /// Lock files that the caller has but that are not in the tree because they are ignored.
    pub ignored: Vec<String>,
    /// The project's directory in the tree; empty for the root.
    pub directory: String,
    /// How the caller wants a Dockerfile built. Without a `file`, this is about those of the plan.
    pub dockerfile: Option<Dockerfile>,
    /// The base of an image that is wanted of a detected project in place of its files; empty for the usual one.
    pub image: Option<String>,
    /// The farm's images for languages.
    pub toolchains: Toolchains,
}

impl Options {
    /// Options for a caller on `host` without other wishes.
    pub fn new(host: Platform) -> Self {
        Self {
            platforms: Vec::new(),
            targets: Vec::new(),
            host,
            describe: None,
            directory_name: "project".to_owned(),
            language: None,
            ignored: Vec::new(),
            directory: String::new(),
            dockerfile: None,
            image: None,
            toolchains: Toolchains::default(),
        }
    }
}

/// Why there is no plan. Every error is the user's to fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Invalid `kiln.toml`.
    #[error(transparent)]
    Project(#[from] project::Error),
    /// The project's files do not show how to build it.
    #[error(transparent)]
    Detect(#[from] detect::Error),
    /// The steps do not form a valid build.
    #[error(transparent)]
    Invalid(#[from] check::Error),
    /// An unknown target was requested.
    #[error("the project has no target `{name}`: {hint}")]
    UnknownTarget {
        /// The requested name.
        name: String,
        /// A suggestion: the nearest name, or all names.
        hint: String,
    },
    /// `kiln test` in a project without tests.
    #[error(
        "the project has no test steps: set up its tests where `cargo test`, `ctest`, `deno test`, `go test`, `npm test`, `pytest` or \
         `zig build test` finds them, or add a `[steps.NAME]` with `test = true` to `kiln.toml`"
    )]
    NoTests,
    /// A Dockerfile that the project does not have.
    #[error("the project has no file `{file}`: name the Dockerfile by its path in the project (`--file`)")]
    NoDockerfile {
        /// The path.
        file: String,
    },
    /// Options for Dockerfiles in a project whose plan has none.
    #[error(
        "`--stage`, `--build-arg`, `--build-context` and `--ssh` are for Dockerfiles, and the project's plan has none: name one by `--file`"
    )]
    NoDockerfiles,
    /// Packages for a step that runs on the worker's own system.
    #[error(
        "step `{step}` has `packages`, which are installed into its image, and for target `{target}` it has none: set `image` of the \
         step or of the target"
    )]
    NoImage {
        /// The step.
        step: String,
        /// The target.
        target: String,
    },
    /// `--image` where the project says itself what it delivers.
    #[error(
        "`--image` is for a project without artifacts of its own in `kiln.toml`; set `kind = \"image\"` and `base` of an artifact there"
    )]
    NotDetected,
    /// `kiln build` in a project that only has tests.
    #[error("the project has only test steps: run `kiln test`, or add a `[steps.NAME]` without `test = true`")]
    OnlyTests,
}

/// The plan for building a source tree.
pub fn plan(source: &dyn Source, options: &Options) -> Result<Plan, Error> {
    plan_for(source, options, Scope::Build)
}

/// The plan for a source tree, with the steps in `scope`.
pub fn plan_for(source: &dyn Source, options: &Options, scope: Scope) -> Result<Plan, Error> {
    if options.directory.is_empty() {
        return plan_root(source, options, scope);
    }
    if let Some(language) = within::member_language(source, &options.directory, options.language) {
        let member = within::Member { whole: source, directory: &options.directory };
        let options = Options { language: Some(language), ..options.clone() };
        return plan_root(&member, &options, scope);
    }
    let plan = plan_root(&View::new(source, &options.directory), options, scope)?;
    Ok(within::moved(plan, source, &options.directory))
}

fn plan_root(source: &dyn Source, options: &Options, scope: Scope) -> Result<Plan, Error> {
    if source.paths().is_empty() {
        return Err(detect::Error::Empty.into());
    }
    let options = &in_release_directory(options);
    let named = options.dockerfile.as_ref().filter(|dockerfile| !dockerfile.file.is_empty());
    let plan = match (named, source.read("kiln.toml")) {
        (Some(dockerfile), _) if !source.paths().contains(&dockerfile.file) => {
            return Err(Error::NoDockerfile { file: dockerfile.file.clone() });
        }
        (Some(dockerfile), _) => Ok(from_dockerfile(options, dockerfile.clone())),
        (None, Some(text)) => from_kiln_toml(source, options, &text),
        (None, None) => from_files(source, options, scope),
    };
    let mut plan = plan.map_err(|error| explain_ignored(error, options))?;
    if let (None, Some(wanted)) = (named, &options.dockerfile) {
        change_dockerfiles(&mut plan, wanted)?;
    }
    plan.notes.extend(options.ignored.iter().map(|lock| detect::Error::IgnoredLock { lock: lock.clone() }.to_string()));
    let detected = matches!(plan.origin, Origin::Detected { .. });
    for path in detect::owned(source, &plan.steps, detected) {
        if !plan.exclude.contains(&path) {
            plan.exclude.push(path);
        }
    }
    for step in &mut plan.steps {
        check::plain_outputs(step);
        step.inputs.extend(plan.exclude.iter().map(|glob| format!("!{glob}")));
    }
    for gate in &mut plan.gates {
        if let gates::Check::Command(command) = &mut gate.check {
            command.step.inputs.extend(plan.exclude.iter().map(|glob| format!("!{glob}")));
        }
    }
    plan.targets = choose(plan.targets, options)?;
    toolchains::apply(&mut plan, &options.toolchains);
    go_cache::apply(&mut plan, source);
    if let Some(base) = &options.image {
        runnable::apply(&mut plan, source, base)?;
    }
    plan.steps = check::check(plan.steps, &plan.artifacts)?;
    gated::check(&plan)?;
    scope::apply(&mut plan, scope)?;
    for target in &plan.targets {
        let in_none = |step: &&Step| !step.packages.is_empty() && target.image_of(step).is_none();
        if let Some(step) = plan.steps.iter().find(in_none) {
            return Err(Error::NoImage { step: step.name.clone(), target: target.name.clone() });
        }
        for step in &plan.steps {
            caches::check_on(step, target).map_err(check::Error::from)?;
        }
    }
    if detected {
        plan.excludable = excludable(source, &plan);
    }
    Ok(plan)
}

/// Files about the project that are inputs of a step that takes the whole tree.
fn excludable(source: &dyn Source, plan: &Plan) -> Vec<String> {
    let sees_all = |step: &&Step| step.inputs.iter().all(|glob| glob.starts_with('!') && glob != "!**");
    let whole: Vec<&Step> = plan.steps.iter().filter(sees_all).collect();
    if whole.is_empty() {
        return Vec::new();
    }
    let mut found = detect::about(source);
    found.retain(|path| {
        let out = format!("!{path}");
        !plan.exclude.contains(path) && whole.iter().any(|step| !step.inputs.contains(&out))
    });
    found
}

/// The options, with the directory's name split into name and version if it is that of an unpacked release.
struct Named {
    options: Options,
    version: Option<String>,
}

impl std::ops::Deref for Named {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

/// Splits `fmt-9.1.0`. A checkout's directory may have any name, and git knows its version.
fn in_release_directory(options: &Options) -> Named {
    let whole = &options.directory_name;
    let parts = whole.match_indices('-').find_map(|(at, dash)| {
        let (name, version) = whole.split_at(at);
        let version = version.strip_prefix(dash)?.trim_start_matches('v');
        let is_version = version.starts_with(|c: char| c.is_ascii_digit())
            && version.contains('.')
            && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~' | '-' | '_'));
        (is_version && !name.is_empty()).then(|| (name.to_owned(), version.to_owned()))
    });
    match parts.filter(|_| options.describe.is_none()) {
        Some((name, version)) => {
            Named { options: Options { directory_name: name, ..options.clone() }, version: Some(version) }
        }
        None => Named { options: options.clone(), version: None },
    }
}

/// A lock file that is only missing because it is ignored need not be created.
fn explain_ignored(error: Error, options: &Options) -> Error {
    if let Error::Detect(detected) = &error
        && let detect::Error::MissingLock { lock, .. } = detected.cause()
        && options.ignored.contains(lock)
    {
        return detect::Error::IgnoredLock { lock: lock.clone() }.into();
    }
    error
}

fn from_kiln_toml(source: &dyn Source, options: &Named, text: &[u8]) -> Result<Plan, Error> {
    let head = project::head(text)?;
    if head.is_whole {
        let project = project::parse(text, options.host, project::Base::default())?;
        let identity = detect::identity(source);
        return Ok(assemble(source, options, project, identity, Origin::KilnToml, Vec::new()));
    }
    let language = options.language.or(head.language);
    let (found, considered) = match detect::detect(source, &options.directory_name, language) {
        Ok(found) => found,
        // If nothing was detected that the file could change, it stands alone, and what it lacks is the error.
        Err(error) => {
            let project = project::parse(text, options.host, project::Base::default())?;
            if project.steps.is_empty() && project.artifacts.is_empty() {
                return Err(error.into());
            }
            let identity = detect::identity(source);
            return Ok(assemble(source, options, project, identity, Origin::KilnToml, Vec::new()));
        }
    };
    let (identity, mut parts, base, notes) = joined(found);
    let mut project = project::parse(text, options.host, base)?;
    if let (Some(name), Some(old)) = (&project.name, &identity.name) {
        rename_artifact(&mut project.artifacts, old, name);
    }
    for part in &mut parts {
        part.because.push("`kiln.toml` changes what was detected".to_owned());
    }
    Ok(assemble(source, options, project, identity, Origin::Detected { parts, considered }, notes))
}

/// What was found in each language as one plan, with the identity that the strongest evidence gives.
fn joined(found: Vec<detect::Detected>) -> (detect::Identity, Vec<Part>, project::Base, Vec<String>) {
    let identity = found.first().map(|first| first.identity.clone()).unwrap_or_default();
    let (mut parts, mut base, mut notes) = (Vec::new(), project::Base::default(), Vec::new());
    for one in found {
        let steps = one.steps.iter().map(|step| step.name.clone()).collect();
        parts.push(Part { language: one.language, because: one.because, steps });
        base.steps.extend(one.steps);
        base.artifacts.extend(one.artifacts);
        notes.extend(one.notes);
    }
    (identity, parts, base, notes)
}

/// Keeps an artifact named after the project when the project is renamed.
fn rename_artifact(artifacts: &mut [Artifact], old: &str, new: &str) {
    let (old, new) = (detect::artifact_name(old), detect::artifact_name(new));
    if artifacts.iter().all(|artifact| artifact.name != new)
        && let Some(artifact) = artifacts.iter_mut().find(|artifact| artifact.name == old)
    {
        artifact.name = new;
    }
}

fn assemble(
    source: &dyn Source,
    options: &Named,
    project: project::Project,
    identity: detect::Identity,
    origin: Origin,
    mut notes: Vec<String>,
) -> Plan {
    let (version, version_origin) = match project.version {
        Some(version) => (Some(version), VersionOrigin::KilnToml),
        None => version(identity.version, options),
    };
    notes.extend(unmatched::notes(&project.steps, &project.exclude, source.paths()));
    Plan {
        name: project.name.or(identity.name).unwrap_or_else(|| options.directory_name.clone()),
        version,
        version_origin,
        origin,
        targets: project.targets,
        artifacts: project.artifacts,
        gates: project.gates,
        notes,
        steps: project.steps,
        exclude: project.exclude,
        excludable: Vec::new(),
        notify: project.notify,
    }
}

fn from_files(source: &dyn Source, options: &Named, scope: Scope) -> Result<Plan, Error> {
    let has_dockerfile = source.paths().iter().any(|path| path == DOCKERFILE);
    // A Dockerfile says nothing about tests.
    if has_dockerfile && options.language.is_none() && scope != Scope::Tests {
        let mut plan = from_dockerfile(options, Dockerfile { file: DOCKERFILE.to_owned(), ..Dockerfile::default() });
        if let Origin::Detected { considered, .. } = &mut plan.origin {
            let languages = detect::weighed(source).into_iter();
            considered
                .extend(languages.map(|language| format!("{language} (`--language {language}` builds that instead)")));
        }
        return Ok(plan);
    }
    let (found, considered) = detect::detect(source, &options.directory_name, options.language)?;
    let (identity, parts, base, notes) = joined(found);
    let (version, version_origin) = version(identity.version, options);
    Ok(Plan {
        name: identity.name.unwrap_or_else(|| options.directory_name.clone()),
        version,
        version_origin,
        origin: Origin::Detected { parts, considered },
        targets: Vec::new(),
        steps: base.steps,
        artifacts: base.artifacts,
        gates: Vec::new(),
        exclude: Vec::new(),
        excludable: Vec::new(),
        notes,
        notify: None,
    })
}

/// Applies what the caller wants to the Dockerfiles of a plan.
fn change_dockerfiles(plan: &mut Plan, wanted: &Dockerfile) -> Result<(), Error> {
    let mut any = false;
    for artifact in &mut plan.artifacts {
        let ArtifactKind::Dockerfile(dockerfile) = &mut artifact.kind else { continue };
        any = true;
        dockerfile.stage = wanted.stage.clone().or(dockerfile.stage.take());
        dockerfile.args.extend(wanted.args.clone());
        dockerfile.contexts.extend(wanted.contexts.clone());
        dockerfile.ssh.extend(wanted.ssh.clone());
    }
    if any { Ok(()) } else { Err(Error::NoDockerfiles) }
}

/// The plan that is a Dockerfile: the caller names it, or the project has one and no `kiln.toml`.
fn from_dockerfile(options: &Named, dockerfile: Dockerfile) -> Plan {
    let (version, version_origin) = version(None, options);
    let because = match &options.dockerfile {
        Some(wanted) if !wanted.file.is_empty() => format!("`{}` was named", dockerfile.file),
        _ => format!("there is a `{DOCKERFILE}` and no `kiln.toml`"),
    };
    Plan {
        name: options.directory_name.clone(),
        version,
        version_origin,
        origin: Origin::Detected {
            parts: vec![Part { language: "dockerfile".to_owned(), because: vec![because], steps: Vec::new() }],
            considered: Vec::new(),
        },
        targets: Vec::new(),
        steps: Vec::new(),
        artifacts: vec![Artifact {
            name: detect::artifact_name(&options.directory_name),
            from: Vec::new(),
            files: Vec::new(),
            kind: ArtifactKind::Dockerfile(Box::new(dockerfile)),
            check_elf: false,
            bundle_libraries: false,
        }],
        gates: Vec::new(),
        exclude: Vec::new(),
        excludable: Vec::new(),
        notes: Vec::new(),
        notify: None,
    }
}

fn version(manifest: Option<String>, options: &Named) -> (Option<String>, VersionOrigin) {
    match (manifest, &options.describe, &options.version) {
        (Some(version), ..) => (Some(version), VersionOrigin::Manifest),
        (None, Some(describe), _) => (Some(describe.clone()), VersionOrigin::Git),
        (None, None, Some(version)) => (Some(version.clone()), VersionOrigin::Directory),
        (None, None, None) => (None, VersionOrigin::Unknown),
    }
}

/// The requested targets. A target requested on a platform other than its own is built for that platform in the same
/// environment, under a name that includes the platform.
fn choose(mut targets: Vec<Target>, options: &Options) -> Result<Vec<Target>, Error> {
    if let Some(name) = options.targets.iter().find(|name| !targets.iter().any(|t| t.name == **name)) {
        let hint = words::hint(name, targets.iter().map(|t| t.name.as_str()));
        return Err(Error::UnknownTarget { name: name.clone(), hint });
    }
    if !options.targets.is_empty() {
        targets.retain(|t| options.targets.contains(&t.name));
    }
    if targets.is_empty() {
        let platforms = if options.platforms.is_empty() { vec![options.host] } else { options.platforms.clone() };
        return Ok(platforms.into_iter().map(Target::bare).collect());
    }
    if options.platforms.is_empty() {
        return Ok(targets);
    }
    let mut chosen: Vec<Target> = Vec::new();
    for platform in &options.platforms {
        let mut native = targets.iter().filter(|t| t.platform == *platform).cloned().peekable();
        if native.peek().is_some() {
            chosen.extend(native);
        } else {
            chosen.extend(targets.iter().map(|t| Target {
                name: format!("{}-{}", t.name, platform.architecture()),
                platform: *platform,
                // A CPU level of one architecture means nothing on another.
                cpu_level: None,
                ..t.clone()
            }));
        }
    }
    chosen.dedup();
    Ok(chosen)
}
