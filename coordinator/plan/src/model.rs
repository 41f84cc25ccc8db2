//! The types that a plan is made of.
//!
//! Invariant: they are plain data, independent of where they came from, so that a detected plan and the `kiln.toml`
//! written from it compare equal.

use std::{collections::BTreeMap, time::Duration};

use crate::{Image, Platform};

/// What a step may use of memory where nothing is said: 1 GiB.
pub const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// What a step may use of processors where nothing is said, in thousandths: one.
pub const DEFAULT_MILLI_CPUS: u32 = 1000;

/// A whole build: what runs, for which targets, and what comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The project's name.
    pub name: String,
    /// The project's version, where one is known. A build without one is named by its commit.
    pub version: Option<String>,
    /// Who said the version.
    pub version_origin: VersionOrigin,
    /// Where the plan came from.
    pub origin: Origin,
    /// What to build for: at least one.
    pub targets: Vec<Target>,
    /// The steps, each after those it needs.
    pub steps: Vec<Step>,
    /// What the build hands over.
    pub artifacts: Vec<Artifact>,
    /// Globs of source paths that enter no step.
    pub exclude: Vec<String>,
    /// Documentation and the like that a detected step sees whole: where none reads it, it is better excluded.
    pub excludable: Vec<String>,
    /// Warnings that do not stop the build: a requirement without a pin, another language beside the one chosen, an
    /// input that matches no file.
    pub notes: Vec<String>,
}

/// Where a plan came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The project's `kiln.toml`.
    KilnToml,
    /// The project's files.
    Detected {
        /// The language and its tool: `rust`, `python (uv)`.
        language: String,
        /// The files that said so, and what each said.
        because: Vec<String>,
        /// Other languages that the files speak for, with the reason.
        considered: Vec<String>,
    },
}

/// Who said the project's version.
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
    /// Nobody.
    Unknown,
}

/// An environment to build for: what production looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in `kiln.toml`, or that of its platform.
    pub name: String,
    /// Its machine.
    pub platform: Platform,
    /// Its operating system and version, as in `debian:12`.
    pub os: Option<String>,
    /// The newest GLIBC symbol version it has, as major and minor.
    pub glibc: Option<(u32, u32)>,
    /// The C library that its workers must have.
    pub libc: Option<Libc>,
    /// The CPU level that its workers must reach, such as `x86-64-v3`.
    pub cpu_level: Option<String>,
    /// What else a worker must have to build for it.
    pub labels: BTreeMap<String, String>,
    /// Shared libraries that it has, by file name: an artifact may need them without carrying them.
    pub libraries: Vec<String>,
}

impl Target {
    /// A target of which nothing but the platform is known.
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
        }
    }

    /// Whether the project says what it is like. If not, it is whatever machine builds it.
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
    /// As workers name it.
    pub fn name(self) -> &'static str {
        match self {
            Libc::Glibc => "glibc",
            Libc::Musl => "musl",
        }
    }
}

/// One command, the files it sees and the files it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name: `[a-z0-9_-]+`, unique in the plan.
    pub name: String,
    /// Why it is there, in words for the user.
    pub why: String,
    /// The steps whose outputs it sees. It sees no other's.
    pub needs: Vec<String>,
    /// Globs of source paths that enter; one that names a directory means all under it. Empty: the whole tree.
    pub inputs: Vec<String>,
    /// Globs of inputs that enter with the project's own version left out.
    pub unversioned: Vec<String>,
    /// Literal files placed in the input tree, in place of the source's where it has them.
    pub files: BTreeMap<String, String>,
    /// The command, for `sh -e -c`, in the root of the tree.
    pub run: String,
    /// Files and directories it must leave, relative to the root of the tree.
    pub outputs: Vec<String>,
    /// Environment variables, beside those that the runner sets.
    pub env: BTreeMap<String, String>,
    /// Variables that whoever builds has the values of; the plan knows only their names.
    pub secrets: Vec<String>,
    /// Whether it may use the network.
    pub network: bool,
    /// Processors, in thousandths.
    pub milli_cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// After how long it is stopped; the farm's own bound where nothing is said.
    pub timeout: Option<Duration>,
    /// How many actions it is: each has its number in `KILN_SHARD`, and all the count in `KILN_SHARDS`.
    pub shards: u32,
    /// Whether an earlier result may stand for it.
    pub cache: bool,
    /// The container image it runs in, where it is not the worker's own root.
    pub image: Option<String>,
    /// Executables it calls; a missing one is named to the user.
    pub tools: Vec<String>,
    /// Where it starts, relative to the root of the tree.
    pub working_directory: Option<String>,
    /// Whether it is told the build's version and commit, as `stamp` says. They become part
    /// of its key, and of no other step's.
    pub stamp: bool,
    /// Whether what it leaves depends on the CPU that it runs on: only workers with the same CPU share its result.
    pub native: bool,
    /// Whether it only checks the project: `kiln test` runs it, `kiln build` does not.
    pub test: bool,
}

impl Step {
    /// A step of that name and command, with every other field at its default.
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
            env: BTreeMap::new(),
            secrets: Vec::new(),
            network: false,
            milli_cpus: DEFAULT_MILLI_CPUS,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            timeout: None,
            shards: 1,
            cache: true,
            image: None,
            tools: Vec::new(),
            working_directory: None,
            stamp: false,
            native: false,
            test: false,
        }
    }
}

/// Something the build hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name, unique in the plan.
    pub name: String,
    /// The steps whose outputs hold its files.
    pub from: Vec<String>,
    /// Its files.
    pub files: Vec<ArtifactFile>,
    /// Its form.
    pub kind: ArtifactKind,
    /// Whether the executables in it are held against the target before it is accepted.
    pub check_elf: bool,
    /// Whether the shared libraries that its executables need, and that the target does not have, are carried along from the
    /// system that it is built on.
    pub bundle_libraries: bool,
}

/// Files of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// A path or glob in the outputs of the artifact's steps; a directory means all under it.
    pub path: String,
    /// Where they go in the artifact: for a single file its new path, for a directory the new one's. As they are
    /// where nothing is said; `.` for a directory whose content is the artifact's root.
    pub dest: Option<String>,
}

/// The form in which an artifact is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactKind {
    /// The files as they are.
    Binary,
    /// A reproducible `.tar.zst`.
    Archive,
    /// A container image.
    Image(Box<Image>),
}

impl ArtifactKind {
    /// As `kiln.toml` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Archive => "archive",
            Self::Image(_) => "image",
        }
    }
}

/// The shared libraries that every target is taken to have: the C library's family, and the compiler's run-time
/// that Debian's and Red Hat's base images carry.
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
