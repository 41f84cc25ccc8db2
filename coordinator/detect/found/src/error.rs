//! Why a project's files do not show how to build it.

/// Why a project's files do not show how to build it. Every error is the user's to fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no files.
    #[error("the project is empty: there is no file to build from")]
    Empty,
    /// No known file was found.
    #[error(
        "nothing here says how to build this project (found {found}): expected a manifest that describes a project, such as \
         `Cargo.toml`, `go.mod`, `pom.xml`, `package.json`, `deno.json`, `pyproject.toml`, `Gemfile`, `composer.json`, `build.zig`, `CMakeLists.txt`, `meson.build` or \
         `Makefile`, or a `kiln.toml`"
    )]
    Unknown {
        /// Some of the files that were found.
        found: String,
    },
    /// The root contains a file of a tool that Kiln does not support.
    #[error("`{file}` is for {what}, which Kiln does not build by itself: {fix}")]
    Unsupported {
        /// The file.
        file: String,
        /// The tool.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// The root is not a project, but subdirectories are.
    #[error("the root of the tree is not a project, but directories below it are: {projects}")]
    Below {
        /// The commands that build them.
        projects: String,
    },
    /// The project cannot be built in the requested language.
    #[error("the project cannot be built as {language}: expected {expected} in its root")]
    NotInLanguage {
        /// The language.
        language: crate::Language,
        /// The files that the language requires.
        expected: &'static str,
    },
    /// The lock file exists, but an ignore file excludes it from the build.
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
        /// The missing lock file.
        lock: String,
        /// The command that creates it.
        command: String,
    },
    /// The lock file does not match the manifest.
    #[error("`{lock}` is stale: {fact}: run `{command}` and commit `{lock}`")]
    StaleLock {
        /// The lock file.
        lock: String,
        /// The difference.
        fact: String,
        /// The command that updates it.
        command: String,
    },
    /// The lock file of an unsupported tool.
    #[error(
        "`{lock}` is for {tool}, which is not supported: write a `kiln.toml` whose steps call {tool} \
         (a worker or an `image` must have it)"
    )]
    UnsupportedLock {
        /// The lock file, or the manifest that requires the tool.
        lock: String,
        /// The tool.
        tool: String,
    },
    /// A dependency in the tree that is missing.
    #[error(
        "`{manifest}` depends on `{name}` at `{path}`, which is not in the project: add it, and check that no ignore \
         file matches it"
    )]
    LocalDependency {
        /// The manifest.
        manifest: String,
        /// The dependency.
        name: String,
        /// Its expected path.
        path: String,
    },
    /// An invalid manifest.
    #[error("`{path}` cannot be read: {message}")]
    Manifest {
        /// The file.
        path: String,
        /// The parser's message.
        message: String,
    },
    /// The project produces nothing that can become an artifact.
    #[error("`{manifest}` produces no artifact: {hint}")]
    NothingToBuild {
        /// The manifest.
        manifest: String,
        /// What to do about it.
        hint: String,
    },
    /// One of several languages of a root cannot be planned.
    #[error("{source}; this is for {language}, which is built beside {first}: `--language {first}` builds that alone")]
    Beside {
        /// The language.
        language: crate::Language,
        /// The one with the strongest evidence.
        first: crate::Language,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A submodule that the build needs is not checked out.
    #[error("{note}; `{by}` reads it")]
    MissingSubmodule {
        /// Which one, and what to do about it.
        note: String,
        /// The file that needs it.
        by: String,
    },
}

impl Error {
    /// What is wrong, whichever of the root's languages it is in.
    pub fn cause(&self) -> &Error {
        match self {
            Self::Beside { source, .. } => source.cause(),
            error => error,
        }
    }
}
