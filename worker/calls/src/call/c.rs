//! What is particular to C, C++ and preprocessed assembler.

use std::ffi::OsString;
use std::path::PathBuf;

/// In which list of directories a directory is.
///
/// `#include "x"` looks beside the including file, then in `Quote` and all that follow; `#include <x>` begins with `Normal`.
/// Source: GCC's manual, "Options for Directory Search".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DirectoryKind {
    /// `-iquote`.
    Quote,
    /// `-I`, `CPATH`, `-iwithprefixbefore`.
    Normal,
    /// `-isystem`, `C_INCLUDE_PATH` and the like. The compiler's own follow.
    System,
    /// `-idirafter`, `-iwithprefix`: after the compiler's own.
    After,
}

/// A directory of headers that the arguments or the environment name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Directory {
    /// Its list.
    pub kind: DirectoryKind,
    /// The absolute path, without `.` and `..`.
    pub path: PathBuf,
}

/// The compiler's own directories, as its driver prints them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemSearch {
    /// For `#include "x"` only.
    pub quote: Vec<PathBuf>,
    /// For both forms.
    pub bracket: Vec<PathBuf>,
    /// Those that the compiler has, but that do not exist.
    pub missing: Vec<PathBuf>,
}

/// Where a call looks for headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// Directories of arguments and environment in the compiler's order: all `Quote`, then `Normal`, `System`, `After`.
    pub directories: Vec<Directory>,
    /// `-nostdinc`: the compiler's own directories are not used.
    pub no_standard: bool,
    /// `-nostdinc++`: those of the C++ library are not used.
    pub no_standard_cxx: bool,
    /// `--sysroot` or `-isysroot`, absolute. [`crate::search_query`] passes it on.
    pub sysroot: Option<PathBuf>,
}

/// A file that is read before the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forced {
    /// As written: looked for in the working directory first, then as by `#include "x"`.
    pub path: PathBuf,
    /// `-imacros`: only its macros are kept.
    pub macros_only: bool,
}

/// `-D` or `-U`, in the arguments' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    /// The name, with parameters if there are any.
    pub name: Vec<u8>,
    /// The text; `1` for `-DNAME`, `None` for `-U`.
    pub value: Option<Vec<u8>>,
}

/// What is particular to a call of a C or C++ compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CDetails {
    /// Where headers are looked for.
    pub search: Search,
    /// `-include` and `-imacros`: first all of `-imacros`, then all of `-include`, as the preprocessor reads them.
    pub forced: Vec<Forced>,
    /// Macros of the command line.
    pub defined: Vec<Defined>,
    /// The `-march=native`, `-mcpu=native` and `-mtune=native` that occur. Unless this is empty, ask the driver
    /// ([`crate::native_query`]) and call [`crate::with_native`] before anything is keyed.
    pub native: Vec<OsString>,
    /// Whether two runs give equal bytes. gcc seeds names at random for `-flto`, `--coverage` and precompiled headers, unless
    /// `-frandom-seed=` is given.
    pub reproducible: bool,
}
