//! Why a call is not split from its step.

use std::path::PathBuf;

/// Why a call runs in its step, uncached. Nothing is wrong with such a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("`{program}` is not a compiler that Kiln knows")]
    Program { program: String },
    #[error("`{option}` asks the compiler about itself")]
    Information { option: String },
    #[error("neither `-c` nor `-S` is given, so the call links")]
    Link,
    #[error("`{option}` prints preprocessed text or dependencies")]
    Preprocess { option: String },
    #[error("no source file is given")]
    NoSource,
    #[error("several source files are given: `{first}` and `{second}`")]
    SeveralSources { first: String, second: String },
    #[error("the source is read from standard input")]
    StandardInput,
    #[error("output `{path}` is not a regular file")]
    OutputNotAFile { path: String },
    #[error("output `{path}` is given more than once, is an input too, or stands for several files")]
    OutputAmbiguous { path: String },
    #[error("`{option}` adds to a compilation database")]
    CompilationDatabase { option: String },
    #[error("response file `{}`: {reason}", path.display())]
    ResponseFile { path: PathBuf, reason: &'static str },
    #[error("`{language}` is not a language whose calls are split")]
    Language { language: String },
    #[error("`{argument}` depends on the CPU, and the compiler did not say what it stands for")]
    Native { argument: String },
    #[error("`{option}` writes files whose names cannot be foretold")]
    ExtraFiles { option: String },
    #[error("`{option}` makes no object file")]
    NoObject { option: String },
    #[error("plugin `{plugin}` keeps a connection to the compiler")]
    Plugin { plugin: String },
    #[error("`{option}` uses modules, whose cache is hidden state")]
    Modules { option: String },
    #[error("`{option}` is not an option of the assembler that Kiln knows, or writes a listing")]
    AssemblerOption { option: String },
    #[error("`{option}` is not an option of the preprocessor that Kiln knows")]
    PreprocessorOption { option: String },
    #[error("`{option}` makes the compiler run other programs")]
    OtherPrograms { option: String },
    #[error("`{option}` compiles for a platform that Kiln does not build for")]
    Platform { option: String },
    #[error("`{option}` changes line markers")]
    LineMarkers { option: String },
    #[error("`{option}` reads or writes state that outlives the call")]
    HiddenState { option: String },
    #[error("`{option}` changes where headers are found in a way that Kiln does not follow")]
    HeaderSearch { option: String },
    #[error("environment variable `{name}` makes the compiler write another file")]
    Environment { name: String },
    #[error("`{path}` belongs to a probe of the build's configuration, which is over sooner than a cache would answer")]
    Probe { path: String },
    #[error("crate type `{crate_type}` is not one whose calls are split")]
    CrateType { crate_type: String },
    #[error("`{option}` compiles incrementally, with state that outlives the call; set `CARGO_INCREMENTAL=0`")]
    Incremental { option: String },
    #[error("`{option}` replaces the compiler's own libraries")]
    Sysroot { option: String },
    #[error("`--emit` is not given, so the outputs are unknown")]
    NoEmit,
    #[error("`{option}` is needed to know the names of the outputs, and is not given")]
    NoName { option: &'static str },
    #[error("`{option}` is not an option that Kiln knows")]
    UnknownOption { option: String },
    #[error("`{option}` lacks its argument")]
    MissingArgument { option: String },
}

impl Refusal {
    /// A short stable name of the reason, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Program { .. } => "program",
            Self::Information { .. } => "information",
            Self::Link => "link",
            Self::Preprocess { .. } => "preprocess",
            Self::NoSource => "no_source",
            Self::SeveralSources { .. } => "several_sources",
            Self::StandardInput => "standard_input",
            Self::OutputNotAFile { .. } => "output_not_a_file",
            Self::OutputAmbiguous { .. } => "output_ambiguous",
            Self::CompilationDatabase { .. } => "compilation_database",
            Self::ResponseFile { .. } => "response_file",
            Self::Language { .. } => "language",
            Self::Native { .. } => "native",
            Self::ExtraFiles { .. } => "extra_files",
            Self::NoObject { .. } => "no_object",
            Self::Plugin { .. } => "plugin",
            Self::Modules { .. } => "modules",
            Self::AssemblerOption { .. } => "assembler_option",
            Self::PreprocessorOption { .. } => "preprocessor_option",
            Self::OtherPrograms { .. } => "other_programs",
            Self::Platform { .. } => "platform",
            Self::LineMarkers { .. } => "line_markers",
            Self::HiddenState { .. } => "hidden_state",
            Self::HeaderSearch { .. } => "header_search",
            Self::Environment { .. } => "environment",
            Self::Probe { .. } => "probe",
            Self::CrateType { .. } => "crate_type",
            Self::Incremental { .. } => "incremental",
            Self::Sysroot { .. } => "sysroot",
            Self::NoEmit => "no_emit",
            Self::NoName { .. } => "no_name",
            Self::UnknownOption { .. } => "unknown_option",
            Self::MissingArgument { .. } => "missing_argument",
        }
    }
}
