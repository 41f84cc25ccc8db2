//! What one file says about others.

/// How a directive names a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Name {
    /// `"x"`.
    Quoted(Vec<u8>),
    /// `<x>`.
    Angled(Vec<u8>),
    /// A macro.
    Macro(Vec<u8>),
    /// Something else that expands to a name.
    Expression(Vec<u8>),
}

/// What a directive does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Use {
    /// `#include`, `#import`.
    Include,
    /// `#include_next`.
    IncludeNext,
    /// `__has_include`, and `#pragma GCC dependency`.
    Probe,
    /// `__has_include_next`.
    ProbeNext,
    /// `#embed`, `__has_embed`.
    Embed,
}

/// What a macro may stand for in an include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// One name.
    Name(Name),
    /// Something that only the preprocessor can tell.
    Opaque,
}

/// All that matters of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Directives {
    /// The files it names, in its order, each once.
    pub(super) uses: Vec<(Use, Name)>,
    /// How many of them come before, or are, the first include that no condition guards. One of these is the first include of the
    /// file, whatever the macros are.
    pub(super) first: usize,
    /// Its definitions of macros that could stand for a file's name.
    pub(super) macros: Vec<(Vec<u8>, Body)>,
    /// Whether `.incbin` occurs, by which the assembler reads a file; also in C.
    pub(super) has_incbin: bool,
    /// Whether `.include` occurs, by which assembler includes assembler.
    pub(super) has_include: bool,
}
