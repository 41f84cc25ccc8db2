//! The result of a detector.
//!
//! Invariant: its steps and artifacts would pass the planner's validation.

use kiln_plan::{Artifact, ArtifactFile, ArtifactKind, Step};

/// A way to build a project, derived from its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The language and its tool.
    pub language: String,
    /// The files that led to it, and why.
    pub because: Vec<String>,
    /// The project's name and version according to the manifest.
    pub identity: Identity,
    /// The steps to run.
    pub steps: Vec<Step>,
    /// The artifacts to deliver.
    pub artifacts: Vec<Artifact>,
    /// Warnings.
    pub notes: Vec<String>,
}

/// A project's name and version according to its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// Memory limit of a compile step: 2 GiB.
pub const COMPILER_MEMORY_BYTES: u64 = 2 << 30;
/// CPU reservation of a compile step, in thousandths of a CPU.
pub const COMPILER_MILLI_CPUS: u32 = 2000;

/// An artifact of one kind from one step, with the destinations of its files.
pub fn artifact(name: &str, kind: ArtifactKind, from: &str, files: &[(&str, &str)]) -> Artifact {
    Artifact {
        name: artifact_name(name),
        from: vec![from.to_owned()],
        files: files
            .iter()
            .map(|(path, dest)| ArtifactFile { path: (*path).to_owned(), dest: Some((*dest).to_owned()) })
            .collect(),
        kind,
        check_elf: true,
        bundle_libraries: false,
    }
}

/// A project's name as an artifact's name, with invalid characters replaced: `@acme/shop` becomes `acme-shop`.
pub fn artifact_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "artifact".to_owned() } else { name.to_owned() }
}

/// Owned strings.
pub fn strings<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(String::from).to_vec()
}

/// A step with network access that fetches what the lock file names.
pub fn fetch_step(name: &str, why: &str, run: impl Into<String>) -> Step {
    Step { why: why.to_owned(), network: true, ..Step::new(name, run) }
}

/// A step that compiles.
pub fn compile_step(name: &str, why: &str, run: impl Into<String>) -> Step {
    Step {
        why: why.to_owned(),
        milli_cpus: COMPILER_MILLI_CPUS,
        memory_bytes: COMPILER_MEMORY_BYTES,
        ..Step::new(name, run)
    }
}
