//! A tree with every directory below it.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_proto::digest::Digest;

use crate::shape::{self, Shape};
use crate::tree::Tree;
use crate::walk::{self, Found, Malformed, Source, Walk};

/// The directories of some trees, by digest. Each was read, and none is missing.
pub type Closure = HashMap<Digest, Arc<Tree>>;

/// Trees that cannot be read as a whole.
#[derive(Debug)]
pub enum Error<E> {
    /// A directory is not stored.
    Absent(Digest),
    /// A directory is not acceptable, or the trees are too large.
    Malformed(Malformed),
    /// The source failed.
    Source(E),
}

impl<E> From<walk::Error<E>> for Error<E> {
    fn from(error: walk::Error<E>) -> Self {
        match error {
            walk::Error::Entries => Self::Malformed(shape::Error::Entries.into()),
            walk::Error::Source(error) => Self::Source(error),
        }
    }
}

/// Reads every directory of the trees under `roots`.
///
/// # Errors
/// Where one is absent or malformed, or where the trees, laid out at every place where a root names them, would be larger than
/// [`shape`] allows. What is returned can be followed by recursion: it is no deeper than [`shape::MAX_DEPTH`].
pub async fn closure<S>(source: S, roots: &[Digest]) -> Result<Closure, Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    let mut closure = Closure::new();
    let mut walk = Walk::new(source, roots.iter().copied());
    while let Some((digest, found)) = walk.next().await? {
        match found {
            Found::Directory(directory) => closure.insert(digest, directory),
            Found::Absent => return Err(Error::Absent(digest)),
            Found::Malformed(malformed) => return Err(Error::Malformed(malformed)),
        };
    }
    measure(&closure, roots).map_err(|error| Error::Malformed(error.into()))?;
    Ok(closure)
}

/// The trees' entries together.
fn measure(closure: &Closure, roots: &[Digest]) -> Result<u64, shape::Error> {
    let nodes = closure.iter().map(|(digest, tree)| (*digest, tree.node())).collect();
    let mut entries = 0_u64;
    for root in roots {
        let Shape { entries: own, .. } = shape::measure(root, &nodes)?;
        entries = entries.saturating_add(own);
        if entries > shape::MAX_ENTRIES {
            return Err(shape::Error::Entries);
        }
    }
    Ok(entries)
}
