//! What is particular to Rust.

use std::path::PathBuf;

/// What a crate is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrateType {
    /// `lib` and `rlib`.
    Lib,
    /// `staticlib`.
    StaticLib,
    /// `cdylib`.
    CDyLib,
    /// `proc-macro`.
    ProcMacro,
    /// `bin`, build scripts too, and test harnesses.
    Bin,
}

impl CrateType {
    /// Whether the linker runs. It reads libraries of the system that no argument names, so such a call is cached only where its
    /// reads are recorded.
    pub fn runs_linker(self) -> bool {
        matches!(self, Self::CDyLib | Self::ProcMacro | Self::Bin)
    }

    /// Whether the code of dependencies is needed (`.rlib`), and not only what they declare (`.rmeta`).
    pub fn needs_code(self) -> bool {
        self != Self::Lib
    }
}

/// `--extern`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extern {
    /// The crate's name.
    pub name: String,
    /// Its file, absolute. Without one, it is found in the search directories or the compiler's own.
    pub path: Option<PathBuf>,
}

/// What is particular to a call of rustc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RustDetails {
    /// `--crate-name`.
    pub crate_name: String,
    /// `--crate-type`; `[Bin]` for a test harness.
    pub crate_types: Vec<CrateType>,
    /// `--extern`.
    pub externs: Vec<Extern>,
    /// `-L dependency=` and the like, absolute. Of such a directory rustc reads the names, the `.rmeta` of transitive dependencies,
    /// the `.so` of procedural macros, and the `.rlib` if [`RustDetails::needs_code`].
    pub dependency_directories: Vec<PathBuf>,
    /// `-L native=` and the like, absolute: what build scripts made for the linker.
    pub native_directories: Vec<PathBuf>,
    /// `OUT_DIR`, absolute: what a build script made for `include!`.
    pub out_dir: Option<PathBuf>,
    /// `CARGO_MANIFEST_DIR`, absolute: the package's directory, of which procedural macros may read anything.
    pub manifest_directory: Option<PathBuf>,
    /// Whether the compiler tells on standard error when the `.rmeta` is there, and the caller starts dependents then. That line
    /// must be passed on at once, after the file.
    pub announces_artifacts: bool,
    /// `-C target-cpu=native`: the result depends on the CPU, which must be part of the call's key, and the call must run on that CPU. It
    /// is not expanded as for C, because a crate's metadata has a hash of the option as it is written.
    pub native: bool,
    /// Whether `link` is emitted.
    pub links: bool,
}

impl RustDetails {
    /// Whether the linker runs.
    pub fn runs_linker(&self) -> bool {
        self.links && self.crate_types.iter().any(|kind| kind.runs_linker())
    }

    /// Whether the `.rlib` of dependencies are read, and not only their `.rmeta`.
    pub fn needs_code(&self) -> bool {
        self.links && self.crate_types.iter().any(|kind| kind.needs_code())
    }
}
