//! Why a project's files do not say how to build it.

/// Why a project's files do not say how to build it. Every one is the user's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no file at all.
    #[error("the project is empty: there is no file to build from")]
    Empty,
    /// No file is known.
    #[error(
        "no file says how to build this project (found {found}): expected a manifest such as `Cargo.toml`, `go.mod`, \
         `pom.xml`, `package.json`, `pyproject.toml`, `Gemfile`, `CMakeLists.txt`, `meson.build` or `Makefile` \
         in its root, or write a `kiln.toml`"
    )]
    Unknown {
        /// Some of the files there are, in words.
        found: String,
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
}
