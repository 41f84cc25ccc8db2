//! Matches paths against `.kilnignore` files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::Gitignore;

/// The `.kilnignore` files of a tree, read on demand.
pub(super) struct Excluded<'a> {
    root: &'a Path,
    read: HashMap<PathBuf, Option<Gitignore>>,
}

impl<'a> Excluded<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, read: HashMap::new() }
    }

    /// Whether a path of the tree is excluded. The nearest file with a matching pattern decides.
    pub(super) fn names(&mut self, path: &str, is_dir: bool) -> bool {
        let full = self.root.join(path);
        for dir in full.ancestors().skip(1) {
            let rules = self.read.entry(dir.to_owned()).or_insert_with(|| {
                let file = dir.join(".kilnignore");
                file.is_file().then(|| Gitignore::new(&file).0)
            });
            match rules.as_ref().map(|rules| rules.matched_path_or_any_parents(&full, is_dir)) {
                Some(Match::Ignore(_)) => return true,
                Some(Match::Whitelist(_)) => return false,
                Some(Match::None) | None => {}
            }
            if dir == self.root {
                break;
            }
        }
        false
    }
}
