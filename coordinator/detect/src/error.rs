//! Why a project's files do not say how to build it.

/// Why a project's files do not say how to build it. Every one is the user's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no file at all.
    #[error("the project is empty: there is no file to build from")]
    Empty,
    /// No file is known.
    #[error(
        "nothing here says how to build this project (found {found}): expected a manifest that describes a project, such as \
         `Cargo.toml`, `go.mod`, `pom.xml`, `package.json`, `pyproject.toml`, `Gemfile`, `CMakeLists.txt`, `meson.build` or \
         `Makefile`, or a `kiln.toml`"
    )]
    Unknown {
        /// Some of the files there are, in words.
        found: String,
    },
    /// The root holds a file of a tool that Kiln does not support.
    #[error("`{file}` is for {what}, which Kiln does not support: {fix}")]
    Unsupported {
        /// The file.
        file: String,
        /// The tool.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// The projects are in directories of the tree.
    #[error("there is no project in the root of the tree, but in directories below it: {projects}")]
    Below {
        /// The commands that build them, in words.
        projects: String,
    },
    /// The language that was asked for is not the project's.
    #[error("the project cannot be built as {language}: expected {expected} in its root")]
    NotInLanguage {
        /// The language.
        language: super::Language,
        /// The files it needs, in words.
        expected: &'static str,
    },
    /// The lock file is there for the user, and not for the build.
    #[error(
        "`{lock}` exists but is left out of the build, because `.gitignore` or `.kilnignore` matches it: remove that pattern and commit \
         `{lock}`"
    )]
    IgnoredLock {
        /// The lock file.
        lock: String,
    },
    /// Dependencies are not locked.
    #[error(
        "`{manifest}` names dependencies but there is no `{lock}`, so two builds of one commit could differ: \
         run `{command}` and commit `{lock}`"
    )]
    MissingLock {
        /// The manifest.
        manifest: String,
        /// The lock file that is not there.
        lock: String,
        /// What makes it.
        command: String,
    },
    /// The lock file is older than the manifest.
    #[error("`{lock}` is stale: {fact}: run `{command}` and commit `{lock}`")]
    StaleLock {
        /// The lock file.
        lock: String,
        /// What the manifest has and the lock has not, in words.
        fact: String,
        /// What brings it up to date.
        command: String,
    },
    /// The lock file of a tool that Kiln does not know.
    #[error(
        "`{lock}` is for {tool}, which is not supported: write a `kiln.toml` whose steps call {tool} \
         (a worker or an `image` must have it)"
    )]
    UnsupportedLock {
        /// The lock file, or the manifest that asks for the tool.
        lock: String,
        /// The tool.
        tool: String,
    },
    /// A dependency in the tree that is not there.
    #[error(
        "`{manifest}` depends on `{name}` at `{path}`, which is not in the project: add it, and see that no ignore \
         file names it"
    )]
    LocalDependency {
        /// The manifest.
        manifest: String,
        /// The dependency.
        name: String,
        /// Where it should be.
        path: String,
    },
    /// A manifest that cannot be read.
    #[error("`{path}` cannot be read: {message}")]
    Manifest {
        /// The file.
        path: String,
        /// The parser's words.
        message: String,
    },
    /// The project builds nothing that can be handed over.
    #[error("`{manifest}` builds nothing to hand over: {hint}")]
    NothingToBuild {
        /// The manifest.
        manifest: String,
        /// What to do about it.
        hint: String,
    },
    /// A submodule that the build reads is not checked out.
    #[error("{note}; `{by}` reads it")]
    MissingSubmodule {
        /// Which, and what to do about it.
        note: String,
        /// The file that names it.
        by: String,
    },
}
