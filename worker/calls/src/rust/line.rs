//! What a command line has said so far.

use std::path::{Path, PathBuf};

use super::emit::Emit;
use crate::call::{CrateType, Extern, Input, Role};
use crate::paths::absolute;

/// The state of reading a command line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The working directory.
    pub(super) directory: &'a Path,
    pub(super) sources: Vec<PathBuf>,
    pub(super) crate_name: Option<String>,
    pub(super) crate_types: Vec<CrateType>,
    pub(super) test: bool,
    /// `-C extra-filename`.
    pub(super) extra_filename: String,
    pub(super) emit: Vec<(Emit, Option<PathBuf>)>,
    pub(super) out_dir: Option<PathBuf>,
    pub(super) externs: Vec<Extern>,
    pub(super) dependency_directories: Vec<PathBuf>,
    pub(super) native_directories: Vec<PathBuf>,
    pub(super) inputs: Vec<Input>,
    pub(super) announces_artifacts: bool,
    /// `-C target-cpu=native`.
    pub(super) native: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            sources: Vec::new(),
            crate_name: None,
            crate_types: Vec::new(),
            test: false,
            extra_filename: String::new(),
            emit: Vec::new(),
            out_dir: None,
            externs: Vec::new(),
            dependency_directories: Vec::new(),
            native_directories: Vec::new(),
            inputs: Vec::new(),
            announces_artifacts: false,
            native: false,
        }
    }

    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        absolute(self.directory, path)
    }

    /// An option names a file that is read.
    pub(super) fn reads(&mut self, role: Role, path: &Path) {
        self.inputs.push(Input { role, path: self.absolute(path), required: true });
    }
}
