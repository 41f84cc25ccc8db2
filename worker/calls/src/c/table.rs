//! What each option is: one row an option.
//!
//! Sources: the option tables of GCC 12 (`gcc/common.opt`, `gcc/c-family/c.opt`) and Clang 14 (`Options.td`). An option that has
//! no row is refused, so a missing row costs time and never correctness. The longest name that fits wins.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::call::{DirectoryKind, OutputKind, Role};

/// How an option's value is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// No value.
    Flag,
    /// In the same argument.
    Joined,
    /// In the next argument.
    Separate,
    /// In the same argument, or in the next if nothing follows the name.
    Either,
}

/// What an option means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It changes the result, or nothing, and names no file.
    Pass,
    /// The same for families of options, of which Kiln cannot know all: refused if its value could be a path.
    Family,
    /// `-c`.
    Compile,
    /// `-S`.
    Assembly,
    /// `-o`.
    Output,
    /// `-x`.
    Language,
    /// `-MD` and `-MMD`.
    Dependencies,
    /// `-MF`.
    Depfile,
    /// It makes the compiler write one more file, named after the object.
    Beside(OutputKind),
    /// `--coverage`: `.gcno` too, and names that are seeded at random.
    Coverage,
    /// `-flto`.
    LinkTime,
    /// `-frandom-seed=`.
    Seed,
    /// Its value is a file that is written.
    Writes(OutputKind),
    /// Its value is a file that is read.
    Reads(Role),
    /// Its value may be a file that is read; without a value it is the named file, or one named after the object.
    Profile(&'static str),
    /// Its value is a plugin: a file, or a name in a directory of the system.
    Plugin,
    /// Its value is a file that is looked for in directories of the system first.
    Specs,
    /// A directory of headers.
    Directory(DirectoryKind),
    /// `-iprefix`.
    Prefix,
    /// A directory of headers after the prefix.
    AfterPrefix(DirectoryKind),
    /// `-nostdinc`.
    NoStandard,
    /// `-nostdinc++`.
    NoStandardCxx,
    /// `--sysroot`.
    Sysroot,
    /// `-isysroot`.
    HeaderSysroot,
    /// `-include`, and whether only its macros are kept.
    Include { macros_only: bool },
    /// `-D`.
    Define,
    /// `-U`.
    Undefine,
    /// Its value may be `native`.
    Cpu,
    /// Its value is a list for the assembler.
    Assembler,
    /// Its value is a list for the preprocessor.
    Preprocessor,
    /// Its value is one option of Clang's compiler proper.
    Frontend,
    /// Its value is for the linker, which does not run.
    Linker,
    /// A directory of programs.
    Programs,
    /// It is refused.
    Refuse(Why),
}

/// Reasons to refuse an option, whatever its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Information,
    Preprocess,
    CompilationDatabase,
    ExtraFiles,
    NoObject,
    Modules,
    Preprocessor,
    OtherPrograms,
    Platform,
    LineMarkers,
    HiddenState,
    HeaderSearch,
    Unknown,
}

/// An option.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) meaning: Meaning,
}

const fn row(name: &'static str, form: Form, meaning: Meaning) -> Row {
    Row { name, form, meaning }
}

use Form::{Either, Flag, Joined, Separate};
use Meaning::*;

#[rustfmt::skip]
static ROWS: &[Row] = &[
    // What is made.
    row("-c", Flag, Compile),
    row("-S", Flag, Assembly),
    row("-o", Either, Output),
    row("-x", Either, Language),
    row("-E", Flag, Refuse(Why::Preprocess)),
    row("-EP", Flag, Refuse(Why::Preprocess)),
    row("-M", Flag, Refuse(Why::Preprocess)),
    row("-MM", Flag, Refuse(Why::Preprocess)),
    row("-fsyntax-only", Flag, Refuse(Why::NoObject)),
    row("-analyze", Flag, Refuse(Why::NoObject)),
    row("--analyze", Flag, Refuse(Why::NoObject)),
    row("--analyzer-output", Either, Refuse(Why::NoObject)),
    row("-emit-llvm", Flag, Refuse(Why::NoObject)),
    row("-emit-ast", Flag, Refuse(Why::NoObject)),
    row("-rewrite-objc", Flag, Refuse(Why::NoObject)),

    // Questions about the compiler.
    row("--version", Flag, Refuse(Why::Information)),
    row("--help", Joined, Refuse(Why::Information)),
    row("--target-help", Flag, Refuse(Why::Information)),
    row("--verbose", Flag, Refuse(Why::Information)),
    row("-v", Flag, Refuse(Why::Information)),
    row("-V", Either, Refuse(Why::Information)),
    row("-###", Flag, Refuse(Why::Information)),
    row("-Q", Flag, Refuse(Why::Information)),
    row("-dumpmachine", Flag, Refuse(Why::Information)),
    row("-dumpversion", Flag, Refuse(Why::Information)),
    row("-dumpfullversion", Flag, Refuse(Why::Information)),
    row("-dumpspecs", Flag, Refuse(Why::Information)),
    row("-print-", Joined, Refuse(Why::Information)),
    row("--print-", Joined, Refuse(Why::Information)),

    // Dependencies.
    row("-MD", Flag, Dependencies),
    row("-MMD", Flag, Dependencies),
    row("-MF", Either, Depfile),
    row("-MT", Either, Pass),
    row("-MQ", Either, Pass),
    row("-MP", Flag, Pass),
    row("-MG", Flag, Pass),
    row("-MV", Flag, Pass),
    row("-MJ", Either, Refuse(Why::CompilationDatabase)),
    row("-gen-cdb-fragment-path", Either, Refuse(Why::CompilationDatabase)),

    // Where headers are.
    row("-I", Either, Directory(DirectoryKind::Normal)),
    row("-I-", Flag, Refuse(Why::HeaderSearch)),
    row("-iquote", Either, Directory(DirectoryKind::Quote)),
    row("-isystem", Either, Directory(DirectoryKind::System)),
    row("-idirafter", Either, Directory(DirectoryKind::After)),
    row("-iprefix", Either, Prefix),
    row("-iwithprefix", Either, AfterPrefix(DirectoryKind::After)),
    row("-iwithprefixbefore", Either, AfterPrefix(DirectoryKind::Normal)),
    row("-nostdinc", Flag, NoStandard),
    row("-nostdinc++", Flag, NoStandardCxx),
    row("--sysroot", Separate, Sysroot),
    row("--sysroot=", Joined, Sysroot),
    row("--no-sysroot-suffix", Flag, Pass),
    row("-isysroot", Either, HeaderSysroot),
    row("-imultilib", Either, Refuse(Why::HeaderSearch)),
    row("-imultiarch", Either, Refuse(Why::HeaderSearch)),
    row("-iwithsysroot", Either, Refuse(Why::HeaderSearch)),
    row("-cxx-isystem", Either, Refuse(Why::HeaderSearch)),
    row("-c-isystem", Either, Refuse(Why::HeaderSearch)),
    row("-stdlib++-isystem", Either, Refuse(Why::HeaderSearch)),
    row("-remap", Flag, Refuse(Why::HeaderSearch)),
    row("-include", Either, Include { macros_only: false }),
    row("-imacros", Either, Include { macros_only: true }),
    row("-include-pch", Separate, Reads(Role::PrecompiledHeader)),
    row("-ivfsoverlay", Either, Reads(Role::Overlay)),

    // The preprocessor.
    row("-D", Either, Define),
    row("-U", Either, Undefine),
    row("-A", Either, Pass),
    row("-undef", Flag, Pass),
    row("-trigraphs", Flag, Pass),
    row("-H", Flag, Pass),
    row("-P", Flag, Refuse(Why::LineMarkers)),
    row("-fno-working-directory", Flag, Refuse(Why::LineMarkers)),
    row("-Wp,", Joined, Preprocessor),
    row("-Xpreprocessor", Separate, Refuse(Why::Preprocessor)),

    // Files that are read.
    row("-fplugin=", Joined, Plugin),
    row("-fpass-plugin=", Joined, Reads(Role::Plugin)),
    row("-fplugin-arg-", Joined, Pass),
    row("-iplugindir=", Joined, Programs),
    row("-fsanitize-blacklist=", Joined, Reads(Role::List)),
    row("-fsanitize-ignorelist=", Joined, Reads(Role::List)),
    row("-fsanitize-system-blacklist=", Joined, Reads(Role::List)),
    row("-fsanitize-system-ignorelist=", Joined, Reads(Role::List)),
    row("-fsanitize-coverage-allowlist=", Joined, Reads(Role::List)),
    row("-fsanitize-coverage-whitelist=", Joined, Reads(Role::List)),
    row("-fsanitize-coverage-ignorelist=", Joined, Reads(Role::List)),
    row("-fsanitize-coverage-blocklist=", Joined, Reads(Role::List)),
    row("-fsanitize-coverage-blacklist=", Joined, Reads(Role::List)),
    row("-fxray-always-instrument=", Joined, Reads(Role::List)),
    row("-fxray-never-instrument=", Joined, Reads(Role::List)),
    row("-fxray-attr-list=", Joined, Reads(Role::List)),
    row("-fprofile-list=", Joined, Reads(Role::List)),
    row("-fprofile-use", Flag, Profile("")),
    row("-fprofile-use=", Joined, Profile("")),
    row("-fbranch-probabilities", Flag, Profile("")),
    row("-fauto-profile", Flag, Profile("fbdata.afdo")),
    row("-fauto-profile=", Joined, Profile("fbdata.afdo")),
    row("-fprofile-instr-use", Flag, Profile("default.profdata")),
    row("-fprofile-instr-use=", Joined, Profile("default.profdata")),
    row("-fprofile-sample-use", Flag, Profile("code.prof")),
    row("-fprofile-sample-use=", Joined, Profile("code.prof")),
    row("-fprofile-remapping-file=", Joined, Reads(Role::Profile)),
    row("-fmemory-profile-use=", Joined, Reads(Role::Profile)),
    row("-fthinlto-index=", Joined, Reads(Role::Index)),
    row("-specs=", Joined, Specs),
    row("--specs=", Joined, Specs),
    row("-specs", Separate, Specs),
    row("--specs", Separate, Specs),

    // Files that are written.
    row("-ftest-coverage", Flag, Beside(OutputKind::Coverage)),
    row("-fprofile-arcs", Flag, Coverage),
    row("--coverage", Flag, Coverage),
    row("-coverage", Flag, Coverage),
    row("-fprofile-generate", Flag, Pass),
    row("-fprofile-generate=", Joined, Pass),
    row("-fcs-profile-generate", Flag, Pass),
    row("-fcs-profile-generate=", Joined, Pass),
    row("-fprofile-instr-generate", Flag, Pass),
    row("-fprofile-instr-generate=", Joined, Pass),
    row("-fprofile-note=", Joined, Refuse(Why::ExtraFiles)),
    row("-fprofile-dir=", Joined, Pass),
    row("-fprofile-update=", Joined, Pass),
    row("-fprofile-exclude-files=", Joined, Pass),
    row("-fprofile-filter-files=", Joined, Pass),
    row("-gsplit-dwarf", Flag, Beside(OutputKind::SplitDebug)),
    row("-gsplit-dwarf=", Joined, Beside(OutputKind::SplitDebug)),
    row("-fstack-usage", Flag, Beside(OutputKind::StackUsage)),
    row("-fcallgraph-info", Flag, Beside(OutputKind::CallGraph)),
    row("-fcallgraph-info=", Joined, Beside(OutputKind::CallGraph)),
    row("-serialize-diagnostics", Separate, Writes(OutputKind::Diagnostics)),
    row("--serialize-diagnostics", Separate, Writes(OutputKind::Diagnostics)),
    row("-save-temps", Joined, Refuse(Why::ExtraFiles)),
    row("--save-temps", Joined, Refuse(Why::ExtraFiles)),
    row("-d", Joined, Refuse(Why::ExtraFiles)),
    row("-dumpbase", Separate, Refuse(Why::ExtraFiles)),
    row("-dumpbase-ext", Separate, Refuse(Why::ExtraFiles)),
    row("-dumpdir", Separate, Refuse(Why::ExtraFiles)),
    row("-fdump-", Joined, Refuse(Why::ExtraFiles)),
    row("-fada-spec-parent=", Joined, Refuse(Why::ExtraFiles)),
    row("-fopt-info", Joined, Refuse(Why::ExtraFiles)),
    row("-fsave-optimization-record", Joined, Refuse(Why::ExtraFiles)),
    row("-foptimization-record-", Joined, Refuse(Why::ExtraFiles)),
    row("-fcompare-debug", Joined, Refuse(Why::ExtraFiles)),
    row("-fproc-stat-report", Joined, Refuse(Why::ExtraFiles)),
    row("-fcrash-diagnostics-dir=", Joined, Refuse(Why::ExtraFiles)),
    row("-fdiagnostics-format=", Joined, Refuse(Why::ExtraFiles)),
    row("-fdiagnostics-add-output=", Joined, Refuse(Why::ExtraFiles)),
    row("-fdiagnostics-set-output=", Joined, Refuse(Why::ExtraFiles)),
    row("-ftime-trace", Joined, Refuse(Why::ExtraFiles)),
    row("-ftime-report", Joined, Refuse(Why::ExtraFiles)),
    row("-fmem-report", Joined, Refuse(Why::ExtraFiles)),
    row("-time", Joined, Refuse(Why::ExtraFiles)),
    row("-aux-info", Either, Refuse(Why::ExtraFiles)),
    row("-frepo", Flag, Refuse(Why::ExtraFiles)),
    row("-combine", Flag, Refuse(Why::ExtraFiles)),
    row("-gtoggle", Flag, Refuse(Why::ExtraFiles)),
    row("-gen-reproducer", Joined, Refuse(Why::ExtraFiles)),
    row("-fdeps-", Joined, Refuse(Why::ExtraFiles)),

    // State that outlives a call.
    row("-index-store-path", Separate, Refuse(Why::HiddenState)),
    row("-index-unit-output-path", Separate, Refuse(Why::HiddenState)),
    row("-fbuild-session-file=", Joined, Refuse(Why::HiddenState)),
    row("-fbuild-session-timestamp=", Joined, Refuse(Why::HiddenState)),
    row("-fmodules", Joined, Refuse(Why::Modules)),
    row("-fmodule-", Joined, Refuse(Why::Modules)),
    row("-fmodule-file", Joined, Refuse(Why::Modules)),
    row("-fcxx-modules", Flag, Refuse(Why::Modules)),
    row("-fimplicit-module", Joined, Refuse(Why::Modules)),
    row("-fprebuilt-", Joined, Refuse(Why::Modules)),
    row("--precompile", Flag, Refuse(Why::Modules)),
    row("-gmodules", Flag, Refuse(Why::Modules)),
    row("-fno-modules", Joined, Pass),

    // Other programs, other platforms.
    row("-wrapper", Separate, Refuse(Why::OtherPrograms)),
    row("-B", Either, Programs),
    row("--config", Joined, Refuse(Why::OtherPrograms)),
    row("-fuse-ld=", Joined, Linker),
    row("--gcc-toolchain=", Joined, Programs),
    row("--gcc-install-dir=", Joined, Programs),
    row("-gcc-toolchain", Separate, Programs),
    row("-ccc-", Joined, Refuse(Why::OtherPrograms)),
    row("-cc1", Joined, Refuse(Why::OtherPrograms)),
    row("--driver-mode=", Joined, Refuse(Why::OtherPrograms)),
    row("-fno-integrated-as", Flag, Pass),
    row("-fno-integrated-cc1", Flag, Pass),
    row("-fopenmp-targets=", Joined, Refuse(Why::OtherPrograms)),
    row("-foffload=", Joined, Refuse(Why::OtherPrograms)),
    row("-fembed-offload-object=", Joined, Refuse(Why::OtherPrograms)),
    row("--offload", Joined, Refuse(Why::OtherPrograms)),
    row("--cuda-", Joined, Refuse(Why::Platform)),
    row("-arch", Separate, Refuse(Why::Platform)),
    row("-Xarch_", Joined, Refuse(Why::Platform)),
    row("-framework", Separate, Refuse(Why::Platform)),
    row("-F", Either, Refuse(Why::Platform)),
    row("-iframework", Either, Refuse(Why::Platform)),
    row("-filelist", Separate, Refuse(Why::Platform)),
    row("-force_load", Separate, Refuse(Why::Platform)),
    row("-fapple-", Joined, Refuse(Why::Platform)),
    row("-ObjC", Joined, Refuse(Why::Platform)),

    // The target and the CPU.
    row("-march=", Joined, Cpu),
    row("-mcpu=", Joined, Cpu),
    row("-mtune=", Joined, Cpu),
    row("-m", Joined, Family),
    row("-mllvm", Separate, Refuse(Why::Unknown)),
    row("-mmlir", Separate, Refuse(Why::Unknown)),
    row("-mthread-model", Separate, Pass),
    row("-target", Separate, Pass),
    row("--target=", Joined, Pass),

    // Names of paths in the result. The paths are the same in every cell.
    row("-ffile-prefix-map=", Joined, Pass),
    row("-fmacro-prefix-map=", Joined, Pass),
    row("-fdebug-prefix-map=", Joined, Pass),
    row("-fprofile-prefix-map=", Joined, Pass),
    row("-fprofile-prefix-path=", Joined, Pass),
    row("-fcoverage-prefix-map=", Joined, Pass),
    row("-fcoverage-compilation-dir=", Joined, Pass),
    row("-fdebug-compilation-dir=", Joined, Pass),
    row("-fdebug-compilation-dir", Separate, Pass),
    row("-ffile-compilation-dir=", Joined, Pass),
    row("-frandom-seed=", Joined, Seed),

    // Other programs' arguments.
    row("-Wa,", Joined, Assembler),
    row("-Xassembler", Separate, Assembler),
    row("-Wl,", Joined, Linker),
    row("-Xlinker", Separate, Linker),
    row("-Xclang", Separate, Frontend),

    // Families.
    row("-flto", Joined, LinkTime),
    row("-fno-lto", Flag, Pass),
    row("-f", Joined, Family),
    row("-W", Joined, Family),
    row("-O", Joined, Family),
    row("-g", Joined, Family),
    row("-std=", Joined, Family),
    row("--std=", Joined, Family),
    row("-stdlib=", Joined, Family),
    row("--param", Separate, Pass),
    row("--param=", Joined, Pass),
    row("-ansi", Flag, Pass),
    row("-pedantic", Flag, Pass),
    row("-pedantic-errors", Flag, Pass),
    row("-w", Flag, Pass),
    row("-p", Flag, Pass),
    row("-pg", Flag, Pass),
    row("-pipe", Flag, Pass),
    row("-pthread", Flag, Pass),
    row("-pthreads", Flag, Pass),
    row("-no-canonical-prefixes", Flag, Pass),
    row("-Qunused-arguments", Flag, Pass),
    row("-Qn", Flag, Pass),
    row("-Qy", Flag, Pass),
    row("--start-no-unused-arguments", Flag, Pass),
    row("--end-no-unused-arguments", Flag, Pass),

    // The linker, which does not run.
    row("-l", Either, Linker),
    row("-L", Either, Linker),
    row("-T", Either, Linker),
    row("-Tbss", Either, Linker),
    row("-Tdata", Either, Linker),
    row("-Ttext", Either, Linker),
    row("-u", Separate, Linker),
    row("-z", Either, Linker),
    row("-e", Separate, Linker),
    row("-h", Separate, Linker),
    row("-s", Flag, Linker),
    row("-t", Flag, Linker),
    row("-n", Flag, Linker),
    row("-N", Flag, Linker),
    row("-shared", Flag, Pass),
    row("-static", Flag, Pass),
    row("-static-pie", Flag, Pass),
    row("-static-libgcc", Flag, Linker),
    row("-static-libstdc++", Flag, Linker),
    row("-static-libasan", Flag, Linker),
    row("-static-libubsan", Flag, Linker),
    row("-shared-libgcc", Flag, Linker),
    row("-shared-libasan", Flag, Linker),
    row("-symbolic", Flag, Linker),
    row("-rdynamic", Flag, Linker),
    row("-rpath", Separate, Linker),
    row("-pie", Flag, Pass),
    row("-no-pie", Flag, Pass),
    row("-nopie", Flag, Pass),
    row("-nostdlib", Flag, Linker),
    row("-nostdlib++", Flag, Linker),
    row("-nolibc", Flag, Linker),
    row("-nodefaultlibs", Flag, Linker),
    row("-nostartfiles", Flag, Linker),
    row("--rtlib=", Joined, Linker),
    row("-rtlib=", Joined, Linker),
    row("--unwindlib=", Joined, Linker),
    row("-unwindlib=", Joined, Linker),
];

static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Row>> =
    LazyLock::new(|| ROWS.iter().map(|row| (row.name.as_bytes(), row)).collect());

static LONGEST: LazyLock<usize> = LazyLock::new(|| ROWS.iter().map(|row| row.name.len()).max().unwrap_or_default());

/// The row of an argument that begins with `-`, and the value in the same argument.
pub(super) fn lookup(argument: &[u8]) -> Option<(&'static Row, &[u8])> {
    (1..=argument.len().min(*LONGEST)).rev().find_map(|length| {
        let (name, value) = argument.split_at(length);
        let row = *BY_NAME.get(name)?;
        let fits = match row.form {
            Flag | Separate => value.is_empty(),
            Joined | Either => true,
        };
        fits.then_some((row, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_one_row() {
        assert_eq!(BY_NAME.len(), ROWS.len());
        assert!(ROWS.iter().all(|row| row.name.starts_with('-') && row.name.is_ascii()));
    }

    #[test]
    fn the_longest_name_that_fits_wins() {
        let name = |argument: &'static str| lookup(argument.as_bytes()).map(|(row, _)| row.name);
        assert_eq!(name("-include-pch"), Some("-include-pch"));
        assert_eq!(name("-includefoo.h"), Some("-include"));
        assert_eq!(name("-isystemx"), Some("-isystem"));
        assert_eq!(name("-MMD"), Some("-MMD"));
        assert_eq!(name("-MFx"), Some("-MF"));
        assert_eq!(name("-cx"), None);
        assert_eq!(name("-static-foo"), None);
        assert_eq!(name("-fsyntax-only-not"), Some("-f"));
        assert_eq!(name("--unknown"), None);
        assert_eq!(name("-"), None);
    }
}
