//! The call itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::{CDetails, Input, Language, Output, RustDetails};

/// A compiler call that can run as an action of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The compiler as called: a name to be found in `PATH`, or a path.
    pub program: OsString,
    /// What the source is written in.
    pub language: Language,
    /// The source file, absolute, without `.` and `..`.
    pub source: PathBuf,
    /// The arguments of the call, without `argv[0]`: response files are expanded, nothing is reordered.
    pub arguments: Vec<OsString>,
    /// The absolute working directory.
    pub directory: PathBuf,
    /// The environment that the call has: only what its result may depend on.
    pub environment: BTreeMap<OsString, OsString>,
    /// Files that it writes.
    pub outputs: Vec<Output>,
    /// Files that it reads, besides the source and what is included.
    pub inputs: Vec<Input>,
    /// What is particular to the language.
    pub details: Details,
}

/// What is particular to a language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Details {
    /// C, C++ and preprocessed assembler.
    C(CDetails),
    /// Rust.
    Rust(RustDetails),
}
