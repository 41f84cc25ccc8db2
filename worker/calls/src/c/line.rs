//! What a command line has said so far.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::clang::Awaits;
use super::driver::Driver;
use super::search::Directories;
use crate::call::{Defined, Forced, Input, Language, OutputKind, Role};
use crate::paths::absolute;

/// The state of reading a command line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) driver: Driver,
    /// The working directory.
    pub(super) directory: &'a Path,
    /// Files that are not options' values, each with the `-x` in force.
    pub(super) files: Vec<(OsString, Option<Language>)>,
    /// The `-x` in force.
    pub(super) language: Option<Language>,
    pub(super) compile: bool,
    pub(super) assembly: bool,
    /// All of `-o`.
    pub(super) outputs: Vec<OsString>,
    /// `-MD` or `-MMD`.
    pub(super) dependencies: bool,
    /// The last `-MF`.
    pub(super) depfile: Option<OsString>,
    /// `-Wp,-MD,FILE`.
    pub(super) passed_depfile: bool,
    /// Outputs that are named after the object.
    pub(super) beside: Vec<OutputKind>,
    /// Outputs that options name.
    pub(super) written: Vec<(OutputKind, OsString)>,
    pub(super) inputs: Vec<Input>,
    /// Profiles that are named after the object.
    pub(super) profile_beside: bool,
    pub(super) directories: Directories,
    pub(super) includes: Vec<Forced>,
    pub(super) defined: Vec<Defined>,
    pub(super) native: Vec<OsString>,
    /// An option that makes the compiler seed names at random.
    pub(super) seeded: bool,
    /// `-frandom-seed=`.
    pub(super) seed_given: bool,
    /// What the next `-Xclang` is for.
    pub(super) frontend_awaits: Option<Awaits>,
    /// The next `-Xassembler` is `--defsym`'s.
    pub(super) assembler: Vec<Vec<u8>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(driver: Driver, directory: &'a Path) -> Self {
        Self {
            driver,
            directory,
            files: Vec::new(),
            language: None,
            compile: false,
            assembly: false,
            outputs: Vec::new(),
            dependencies: false,
            depfile: None,
            passed_depfile: false,
            beside: Vec::new(),
            written: Vec::new(),
            inputs: Vec::new(),
            profile_beside: false,
            directories: Directories::default(),
            includes: Vec::new(),
            defined: Vec::new(),
            native: Vec::new(),
            seeded: false,
            seed_given: false,
            frontend_awaits: None,
            assembler: Vec::new(),
        }
    }

    pub(super) fn absolute(&self, path: &OsStr) -> PathBuf {
        absolute(self.directory, Path::new(path))
    }

    /// An option names a file that is written.
    pub(super) fn writes(&mut self, kind: OutputKind, path: &[u8]) {
        self.written.push((kind, OsString::from_vec(path.to_vec())));
    }

    /// An option names a file that is read.
    pub(super) fn reads(&mut self, role: Role, path: &[u8]) {
        self.input(role, path, true);
    }

    /// An option names a file that is read if it exists.
    pub(super) fn may_read(&mut self, role: Role, path: &[u8]) {
        self.input(role, path, false);
    }

    fn input(&mut self, role: Role, path: &[u8], required: bool) {
        let path = self.absolute(OsStr::from_bytes(path));
        self.inputs.push(Input { role, path, required });
    }

    pub(super) fn include(&mut self, path: &[u8], macros_only: bool) {
        self.includes.push(Forced { path: PathBuf::from(OsStr::from_bytes(path)), macros_only });
    }

    /// The text of a `-D`.
    pub(super) fn define(&mut self, text: &[u8]) {
        let mut parts = text.splitn(2, |c| *c == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(b"1"));
        self.defined.push(Defined { name: name.to_vec(), value: Some(value.to_vec()) });
    }

    /// The name of a `-U`.
    pub(super) fn undefine(&mut self, name: &[u8]) {
        self.defined.push(Defined { name: name.to_vec(), value: None });
    }
}
