//! What a source is written in.

/// A language whose calls are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// A C header that is precompiled.
    CHeader,
    /// A C++ header that is precompiled.
    CxxHeader,
    /// Assembler that is preprocessed. The assembler reads files that no include names (`.incbin`, `.include`), so such a call is
    /// cached only where its reads are recorded.
    AssemblerWithCpp,
    /// Rust.
    Rust,
}

impl Language {
    /// The name, for the languages of gcc as after `-x`.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::CHeader => "c-header",
            Self::CxxHeader => "c++-header",
            Self::AssemblerWithCpp => "assembler-with-cpp",
            Self::Rust => "rust",
        }
    }

    /// Whether the result is a precompiled header.
    pub fn is_header(self) -> bool {
        matches!(self, Self::CHeader | Self::CxxHeader)
    }

    /// Whether C++'s rules for comments, strings and header directories hold.
    pub fn is_cxx(self) -> bool {
        matches!(self, Self::Cxx | Self::CxxHeader)
    }
}
