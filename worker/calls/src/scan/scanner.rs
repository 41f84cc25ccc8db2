//! Remembers what files say, by their content.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_proto::digest::Digest;

use super::closure::closure;
use super::directives::Directives;
use super::lexer::directives;
use super::sources::{Fallback, Sources};
use crate::call::{Call, Details, SystemSearch};
use crate::manifest::Variant;

/// How many files are remembered. One takes about 2 KiB.
const MAX_FILES: usize = 50_000;

/// Finds what calls include. One for a process: it remembers each file by its content, for all calls.
#[derive(Debug, Default)]
pub struct Scanner {
    /// By content and by whether it is read as C++.
    files: Mutex<HashMap<(Digest, bool), Arc<Directives>>>,
}

impl Scanner {
    /// The inputs that a call may have: the source, all that it may include and what its arguments name, the paths that were looked
    /// for in vain before each, and directories that are where a file was looked for. A superset, whatever the macros are.
    ///
    /// `system` is what the driver says about its own directories ([`crate::search_directories`]).
    pub fn scan(&self, call: &Call, system: &SystemSearch, sources: &dyn Sources) -> Result<Variant, Fallback> {
        match &call.details {
            Details::C(details) => closure(self, call, details, system, sources),
            Details::Rust(_) => Err(Fallback::Language),
        }
    }

    /// What the file at a path says.
    pub(super) fn directives(
        &self,
        path: &Path,
        digest: &Digest,
        is_cxx: bool,
        sources: &dyn Sources,
    ) -> Result<Arc<Directives>, Fallback> {
        // Nothing is left half done where the lock is held, so a panic of another thread leaves it sound.
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files().get(&(*digest, is_cxx)) {
            return Ok(known.clone());
        }
        let content = sources.content(path).ok_or_else(|| Fallback::Unreadable { path: path.to_owned() })?;
        let found = Arc::new(directives(&content, is_cxx));
        let mut files = files();
        if files.len() >= MAX_FILES {
            files.clear();
        }
        files.insert((*digest, is_cxx), found.clone());
        Ok(found)
    }
}
