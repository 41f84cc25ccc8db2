//! Which variant a step's files match now.

use std::path::{Path, PathBuf};

use kiln_proto::digest::Digest;

use super::{Manifest, Read, Variant};

/// The files of a step as they are now. All paths are absolute.
pub trait Present {
    /// The content of a regular file, symbolic links followed; `None` if there is none.
    fn digest(&self, path: &Path) -> Option<Read>;

    /// Whether there is nothing at a path.
    fn absent(&self, path: &Path) -> bool;

    /// A digest of the names in a directory; `None` if there is none.
    fn listing(&self, path: &Path) -> Option<Digest>;
}

/// Where a variant and the files differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Difference {
    /// A file has another content, or became executable or ceased to be.
    Changed(PathBuf),
    /// A file that was read is not there.
    Missing(PathBuf),
    /// There is something where nothing was.
    Appeared(PathBuf),
    /// A directory has other names.
    Listing(PathBuf),
}

impl Difference {
    /// The path that differs.
    pub fn path(&self) -> &Path {
        match self {
            Self::Changed(path) | Self::Missing(path) | Self::Appeared(path) | Self::Listing(path) => path,
        }
    }
}

/// What a manifest says about the files as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match<'a> {
    /// A variant has exactly these inputs.
    Hit(&'a Variant),
    /// None has. The one that differs least, and where; nothing if there are no variants.
    Miss(Option<(&'a Variant, Vec<Difference>)>),
}

impl Variant {
    /// The differences between this variant and the files, in the order of their paths within each kind.
    pub fn differences<'a>(&'a self, present: &'a dyn Present) -> impl Iterator<Item = Difference> + 'a {
        let read = self.read.iter().filter_map(|(path, read)| match present.digest(path) {
            Some(now) if now == *read => None,
            Some(_) => Some(Difference::Changed(path.clone())),
            None => Some(Difference::Missing(path.clone())),
        });
        let absent =
            self.absent.iter().filter(|path| !present.absent(path)).map(|path| Difference::Appeared(path.clone()));
        let listed = self
            .listed
            .iter()
            .filter(|(path, digest)| present.listing(path).as_ref() != Some(digest))
            .map(|(path, _)| Difference::Listing(path.clone()));
        read.chain(absent).chain(listed)
    }

    /// Whether the files are exactly this variant's inputs.
    pub fn matches(&self, present: &dyn Present) -> bool {
        self.differences(present).next().is_none()
    }
}

impl Manifest {
    /// The newest variant whose inputs the files are. On a miss, the variant with the fewest differences, of several the newest.
    pub fn find(&self, present: &dyn Present) -> Match<'_> {
        if let Some(hit) = self.variants().iter().find(|variant| variant.matches(present)) {
            return Match::Hit(hit);
        }
        let nearest = self.variants().iter().map(|variant| (variant, variant.differences(present).collect::<Vec<_>>()));
        Match::Miss(nearest.min_by_key(|(_, differences)| differences.len()))
    }
}
