//! Where the arguments and the environment say that headers are.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::call::{Directory, DirectoryKind, Language, Search};
use crate::paths::absolute;
use crate::refusal::Refusal;

/// Options about directories of headers, in the arguments' order.
#[derive(Debug, Default)]
pub(super) struct Directories {
    listed: Vec<(DirectoryKind, OsString)>,
    prefix: Option<OsString>,
    sysroot: Option<OsString>,
    header_sysroot: Option<OsString>,
    pub(super) no_standard: bool,
    pub(super) no_standard_cxx: bool,
}

impl Directories {
    pub(super) fn add(&mut self, kind: DirectoryKind, path: &OsStr) {
        self.listed.push((kind, path.to_owned()));
    }

    pub(super) fn prefix(&mut self, prefix: &OsStr) {
        self.prefix = Some(prefix.to_owned());
    }

    /// `-iwithprefix`: the default prefix is a directory of the compiler, which is not known here.
    pub(super) fn add_after_prefix(&mut self, kind: DirectoryKind, path: &OsStr) -> Result<(), Refusal> {
        let refuse = || Refusal::HeaderSearch { option: format!("-iwithprefix {}", path.to_string_lossy()) };
        let mut full = self.prefix.clone().ok_or_else(refuse)?;
        full.push(path);
        self.listed.push((kind, full));
        Ok(())
    }

    pub(super) fn sysroot(&mut self, path: &OsStr) {
        self.sysroot = Some(path.to_owned());
    }

    pub(super) fn header_sysroot(&mut self, path: &OsStr) {
        self.header_sysroot = Some(path.to_owned());
    }

    /// All directories in the compiler's order.
    pub(super) fn search(
        self,
        directory: &Path,
        language: Language,
        environment: &BTreeMap<OsString, OsString>,
    ) -> Result<Search, Refusal> {
        let sysroot = self.header_sysroot.or(self.sysroot);
        let mut listed = Vec::new();
        for (kind, path) in &self.listed {
            listed.push((*kind, below_sysroot(path, sysroot.as_deref())?));
        }
        let variable = if language.is_cxx() { "CPLUS_INCLUDE_PATH" } else { "C_INCLUDE_PATH" };
        for (kind, name) in [(DirectoryKind::Normal, "CPATH"), (DirectoryKind::System, variable)] {
            if let Some(list) = environment.get(OsStr::new(name)) {
                let paths = list.as_bytes().split(|c| *c == b':');
                listed.extend(paths.map(|path| (kind, OsString::from_vec(path.to_vec()))));
            }
        }
        // Stable: within a kind, the order stays. An empty part of a variable is the working directory, as `absolute` has it.
        listed.sort_by_key(|(kind, _)| *kind);
        Ok(Search {
            directories: listed
                .into_iter()
                .map(|(kind, path)| Directory { kind, path: absolute(directory, Path::new(&path)) })
                .collect(),
            no_standard: self.no_standard,
            no_standard_cxx: self.no_standard_cxx,
            sysroot: sysroot.map(|path| absolute(directory, Path::new(&path))),
        })
    }
}

/// Replaces `=` and `$SYSROOT` at the beginning of a directory.
fn below_sysroot(path: &OsStr, sysroot: Option<&OsStr>) -> Result<OsString, Refusal> {
    let bytes = path.as_bytes();
    let Some(below) = bytes.strip_prefix(b"=").or_else(|| bytes.strip_prefix(b"$SYSROOT")) else {
        return Ok(path.to_owned());
    };
    // Without an option, the compiler has a default that is not known here.
    let mut full =
        sysroot.ok_or_else(|| Refusal::HeaderSearch { option: path.to_string_lossy().into_owned() })?.to_owned();
    full.push(OsStr::from_bytes(below));
    Ok(full)
}
