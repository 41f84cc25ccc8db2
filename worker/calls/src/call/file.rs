//! Files that a call's arguments name.

use std::path::PathBuf;

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputKind {
    /// The object, assembler text or precompiled header.
    Object,
    /// Dependencies as rules for make; for Rust, `dep-info`.
    Depfile,
    /// `.gcno`: notes for coverage.
    Coverage,
    /// `.dwo`: debugging information beside the object.
    SplitDebug,
    /// `.su`: stack usage.
    StackUsage,
    /// `.ci`: the call graph.
    CallGraph,
    /// Diagnostics in Clang's binary form.
    Diagnostics,
    /// What a crate declares: `.rmeta`.
    Metadata,
    /// A library, program or plugin of Rust.
    Link,
}

/// A file that a call may write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// The path as written in the arguments, or as derived from them; relative to the working directory.
    pub path: PathBuf,
    /// The absolute path, without `.` and `..`.
    pub absolute: PathBuf,
    /// Whether a successful call always writes it.
    pub required: bool,
}

/// Why a file is an input although no include names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A plugin of the compiler.
    Plugin,
    /// A profile of an earlier run. May be a directory, of which everything counts.
    Profile,
    /// A list of functions and files (sanitizers, XRay).
    List,
    /// Specs of gcc's driver.
    Specs,
    /// A precompiled header.
    PrecompiledHeader,
    /// A virtual file system's description.
    Overlay,
    /// A summary for ThinLTO.
    Index,
    /// A crate that is used.
    Crate,
}

/// A file that a call reads because its arguments say so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Input {
    /// Why it is read.
    pub role: Role,
    /// The absolute path, without `.` and `..`.
    pub path: PathBuf,
    /// Whether the call fails without it. If not, its absence is part of what the result depends on.
    pub required: bool,
}
