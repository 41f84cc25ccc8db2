//! A directory of a source tree, seen as a tree.

use crate::Source;
use crate::paths::below;

/// A directory of a source tree, seen as a tree.
pub struct View<'a> {
    whole: &'a dyn Source,
    directory: &'a str,
    paths: Vec<String>,
}

impl<'a> View<'a> {
    /// Views the directory as a root.
    pub fn new(whole: &'a dyn Source, directory: &'a str) -> Self {
        let paths = whole.paths().iter().filter_map(|path| below(path, directory)).filter(|path| !path.is_empty());
        View { whole, directory, paths: paths.map(str::to_owned).collect() }
    }
}

impl Source for View<'_> {
    fn paths(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.whole.read(&format!("{}/{path}", self.directory))
    }
}
