//! The types of a plan.
//!
//! Invariant: they are plain data, independent of their origin, so that a detected plan and the `kiln.toml` written
//! from it are equal.

use std::{collections::BTreeMap, time::Duration};

use crate::{Cache, Dockerfile, Gate, Image, Notify, Platform};

/// Default memory limit of a step: 1 GiB.
pub const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// Default CPU reservation of a step, in thousandths: one CPU.
pub const DEFAULT_MILLI_CPUS: u32 = 1000;

/// Among the reports of a step's tests: what the step prints.
pub const PRINTED: &str = "-";

/// A whole build: its steps, targets and artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The project's name.
    pub name: String,
    /// The project's version, if known. A build without a version is named after its commit.
    pub version: Option<String>,
    /// Where the version comes from.
    pub version_origin: VersionOrigin,
    /// Where the plan came from.
    pub origin: Origin,
    /// Targets to build for: at least one.
    pub targets: Vec<Target>,
    /// The steps, sorted so that each follows those it needs.
    pub steps: Vec<Step>,
    /// The artifacts that the build delivers.
    pub artifacts: Vec<Artifact>,
    /// What they must pass before they are stored.
    pub gates: Vec<Gate>,
    /// Globs of source paths that are inputs of no step.
    pub exclude: Vec<String>,
    /// Documentation and similar files that a detected step would take as input; they can be excluded if no step reads
    /// them.
    pub excludable: Vec<String>,
    /// Warnings that do not stop the build, such as a requirement without a pin, an additional language, or an input
    /// that matches no file.
    pub notes: Vec<String>,
    /// The project's webhook.
    pub notify: Option<Notify>,
}

/// Where a plan came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The project's `kiln.toml`.
    KilnToml,
    /// Detected from the project's files.
    Detected {
        /// What is built, the language with the strongest evidence first: at least one.
        parts: Vec<Part>,
        /// Other languages that were found, with the reason.
        considered: Vec<String>,
    },
}

impl Origin {
    /// What was detected; nothing in a plan of a `kiln.toml`.
    pub fn parts(&self) -> &[Part] {
        match self {
            Self::KilnToml => &[],
            Self::Detected { parts, .. } => parts,
        }
    }
}

/// What is detected in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The language and its tool: `rust`, `python (uv)`.
    pub language: String,
    /// The files that led to the detection, and why.
    pub because: Vec<String>,
    /// The names of its steps.
    pub steps: Vec<String>,
}

impl Part {
    /// Whether a step is one of it.
    pub fn has(&self, step: &str) -> bool {
        self.steps.iter().any(|name| name == step)
    }

    /// Whether an artifact is made of its steps.
    pub fn makes(&self, artifact: &Artifact) -> bool {
        artifact.from.iter().any(|step| self.has(step))
    }
}

/// Where the project's version comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionOrigin {
    /// The key `version` of `kiln.toml`.
    KilnToml,
    /// The manifest of the project's language.
    Manifest,
    /// `git describe`.
    Git,
    /// The directory's name, as in `fmt-9.1.0` for an unpacked release.
    Directory,
    /// There is no version.
    Unknown,
}

/// A production environment to build for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in `kiln.toml`, or its platform's.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Its operating system and version, such as `debian:12`.
    pub os: Option<String>,
    /// The newest GLIBC symbol version that it provides, as major and minor.
    pub glibc: Option<(u32, u32)>,
    /// The C library that workers must have to build for it.
    pub libc: Option<Libc>,
    /// The CPU level that workers must have, such as `x86-64-v3`.
    pub cpu_level: Option<String>,
    /// Labels that workers must have to build for it.
    pub labels: BTreeMap<String, String>,
    /// Shared libraries that it provides, by file name: artifacts may depend on them without including them.
    pub libraries: Vec<String>,
    /// The image whose file system its steps run in, unless they name their own.
    pub image: Option<String>,
}

impl Target {
    /// A target of which only the platform is known.
    pub fn bare(platform: Platform) -> Self {
        Self {
            name: platform.to_string().replace('/', "-"),
            platform,
            os: None,
            glibc: None,
            libc: None,
            cpu_level: None,
            labels: BTreeMap::new(),
            libraries: default_libraries(),
            image: None,
        }
    }

    /// The image that a step runs in for this target: its own, or else the target's.
    pub fn image_of<'a>(&'a self, step: &'a Step) -> Option<&'a str> {
        step.image.as_deref().or(self.image.as_deref())
    }

    /// The platform of the workers that run a step for this target: its own, or else the target's.
    pub fn platform_of(&self, step: &Step) -> Platform {
        step.platform.unwrap_or(self.platform)
    }

    /// Whether the project describes the target. If not, it is assumed to equal the machine that builds for it.
    pub fn is_declared(&self) -> bool {
        *self != Self::bare(self.platform)
    }
}

/// A C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU's.
    Glibc,
    /// musl.
    Musl,
}

impl Libc {
    /// The name that workers report.
    pub fn name(self) -> &'static str {
        match self {
            Libc::Glibc => "glibc",
            Libc::Musl => "musl",
        }
    }
}

/// A command with its input and output files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name: `[a-z0-9_-]+`, unique in the plan.
    pub name: String,
    /// Its purpose, shown to the user.
    pub why: String,
    /// The steps whose outputs are among its inputs.
    pub needs: Vec<String>,
    /// Globs of source paths that are inputs; a directory includes everything below it. Empty: the whole tree.
    pub inputs: Vec<String>,
    /// Globs of inputs from which the project's own version is removed.
    pub unversioned: Vec<String>,
    /// Literal files placed in the input tree, replacing source files of the same path.
    pub files: BTreeMap<String, String>,
    /// The command, run by `sh -e -c` in the root of the tree.
    pub run: String,
    /// Files and directories that it must produce, relative to the root of the tree.
    pub outputs: Vec<String>,
    /// Globs of the reports of its tests, among its outputs, and [`PRINTED`].
    pub reports: Vec<String>,
    /// How often its failed tests are run again.
    pub retries: u32,
    /// Environment variables, in addition to those that the runner sets.
    pub env: BTreeMap<String, String>,
    /// Names of the secrets that it gets as variables; whoever builds provides the values.
    pub secrets: Vec<String>,
    /// Whether it may use the network.
    pub network: bool,
    /// CPU reservation, in thousandths of a CPU.
    pub milli_cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whether what it reserves follows from what earlier runs used; `memory_bytes` is for the first one.
    pub memory_auto: bool,
    /// Time limit; the farm's limit if absent.
    pub timeout: Option<Duration>,
    /// Number of actions that it is divided into: each gets its index in `KILN_SHARD` and the count in `KILN_SHARDS`.
    pub shards: u32,
    /// Whether that number follows from what its tests took before; `shards` is for the first time.
    pub shards_auto: bool,
    /// Whether cached results may be used.
    pub cache: bool,
    /// Ids of the SSH agents of whoever builds that it may ask. The first is the one that `SSH_AUTH_SOCK` names.
    pub agents: Vec<String>,
    /// Directories that outlive it and are no part of its key, by their paths: relative to the root of the tree, absolute, or below `~/`.
    pub caches: BTreeMap<String, Cache>,
    /// The container image that it runs in; `None` for the worker's own root.
    pub image: Option<String>,
    /// The platform of the workers that it runs on, whatever its target's is; the target's if absent. If its command, variables or files
    /// name `KILN_TARGET_PLATFORM`, it finds the target's there.
    pub platform: Option<Platform>,
    /// Packages that its image gets before it runs, by the image's own package manager.
    pub packages: Vec<String>,
    /// Tools that it requires; a missing one is reported to the user.
    pub tools: Vec<String>,
    /// Working directory, relative to the root of the tree.
    pub working_directory: Option<String>,
    /// Whether it gets the build's version and commit as variables, see `stamp`. They become part of its key and of no
    /// other step's.
    pub stamp: bool,
    /// Whether its outputs depend on the CPU that it runs on: results are only shared between workers with the same
    /// CPU.
    pub native: bool,
    /// Whether its calls of compilers run as actions of their own. The outputs are the same.
    pub split: Split,
    /// Whether it only tests the project: `kiln test` runs it, `kiln build` does not.
    pub test: bool,
}

/// What becomes of a step's calls of compilers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// Kiln decides: they are cached, and run on other workers too, where that pays.
    #[default]
    Auto,
    /// They are cached, and run on the step's own worker.
    Cache,
    /// They run in the step.
    Off,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Cache, Self::Off];

    /// The value in a `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cache => "cache",
            Self::Off => "off",
        }
    }
}

impl Step {
    /// A step with this name and command, and default values for everything else.
    pub fn new(name: impl Into<String>, run: impl Into<String>) -> Self {
        Step {
            name: name.into(),
            why: String::new(),
            needs: Vec::new(),
            inputs: Vec::new(),
            unversioned: Vec::new(),
            files: BTreeMap::new(),
            run: run.into(),
            outputs: Vec::new(),
            reports: Vec::new(),
            retries: 0,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            network: false,
            milli_cpus: DEFAULT_MILLI_CPUS,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            memory_auto: false,
            timeout: None,
            shards: 1,
            shards_auto: false,
            cache: true,
            agents: Vec::new(),
            caches: BTreeMap::new(),
            image: None,
            platform: None,
            packages: Vec::new(),
            tools: Vec::new(),
            working_directory: None,
            stamp: false,
            native: false,
            split: Split::Auto,
            test: false,
        }
    }
}

/// Something that the build delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name, unique in the plan.
    pub name: String,
    /// The steps whose outputs contain its files.
    pub from: Vec<String>,
    /// Its files.
    pub files: Vec<ArtifactFile>,
    /// Its form.
    pub kind: ArtifactKind,
    /// Whether its executables are checked against the target before it is accepted.
    pub check_elf: bool,
    /// Whether shared libraries that its executables need and the target lacks are included, copied from the system
    /// that it is built on.
    pub bundle_libraries: bool,
}

/// A selection of files for an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// A path or glob in the outputs of the artifact's steps; a directory includes everything below it.
    pub path: String,
    /// Destination in the artifact: the new path of a single file or directory; unchanged if absent. `.` puts a
    /// directory's content at the artifact's root.
    pub dest: Option<String>,
}

/// The form of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactKind {
    /// Plain files.
    Binary,
    /// A reproducible `.tar.zst`.
    Archive,
    /// A container image of the outputs of steps.
    Image(Box<Image>),
    /// A container image that a Dockerfile builds.
    Dockerfile(Box<Dockerfile>),
}

impl ArtifactKind {
    /// The name used in `kiln.toml`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Archive => "archive",
            Self::Image(_) | Self::Dockerfile(_) => "image",
        }
    }
}

/// The shared libraries that every target is assumed to have: the C library's family, and the compiler run time in
/// Debian's and Red Hat's base images.
pub fn default_libraries() -> Vec<String> {
    [
        "ld-linux-aarch64.so.1",
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libresolv.so.2",
        "librt.so.1",
        "libstdc++.so.6",
        "libutil.so.1",
    ]
    .map(String::from)
    .to_vec()
}
