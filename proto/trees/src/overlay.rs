//! Plain trees expanded, laid over one another, and listed.

use std::sync::Arc;

use kiln_proto::digest::Digest;

use crate::closure::{Closure, Error, closure};
use crate::tree::{Entry, Tree};
use crate::walk::{Found, Malformed, Source};

/// Reads a tree with everything below it.
///
/// # Errors
/// As those of [`closure`].
pub async fn expand<S>(source: S, digest: Digest) -> Result<Tree, Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    let mut tree = Tree::default();
    tree.entries.insert(String::new(), Entry::Sealed { digest });
    expand_in_place(source, &mut tree).await?;
    match tree.entries.pop_first() {
        Some((_, Entry::Directory(tree))) => Ok(tree),
        _ => Ok(Tree::default()),
    }
}

/// Reads what is sealed in a tree, everything below included.
///
/// # Errors
/// As those of [`closure`].
pub async fn expand_in_place<S>(source: S, tree: &mut Tree) -> Result<(), Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    let mut roots = Vec::new();
    sealed(tree, &mut roots);
    let known = closure(source, &roots).await?;
    lay_out(tree, &known);
    Ok(())
}

/// The sealed directories of a tree, at every place where they stand.
fn sealed(tree: &Tree, found: &mut Vec<Digest>) {
    for entry in tree.entries.values() {
        match entry {
            Entry::Sealed { digest } => found.push(*digest),
            Entry::Directory(below) => sealed(below, found),
            Entry::File { .. } | Entry::Symlink { .. } => {}
        }
    }
}

/// Puts directories in the places of their digests.
fn lay_out(tree: &mut Tree, known: &Closure) {
    for entry in tree.entries.values_mut() {
        if let Entry::Sealed { digest } = entry {
            *entry = Entry::Directory(known.get(digest).map(|tree| Tree::clone(tree)).unwrap_or_default());
        }
        if let Entry::Directory(below) = entry {
            lay_out(below, known);
        }
    }
}

/// Every file and symbolic link of an expanded tree, by path.
pub fn flatten(tree: &Tree) -> Vec<(String, Entry)> {
    fn list(tree: &Tree, prefix: &str, found: &mut Vec<(String, Entry)>) {
        for (name, entry) in &tree.entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match entry {
                Entry::Directory(below) => list(below, &path, found),
                Entry::File { .. } | Entry::Symlink { .. } => found.push((path, entry.clone())),
                Entry::Sealed { .. } => {}
            }
        }
    }
    let mut found = Vec::new();
    list(tree, "", &mut found);
    found
}

/// Lays `over` onto `base`: files replace, directories merge. A directory that only one of them has stays sealed.
///
/// # Errors
/// Where a directory that both have cannot be read.
pub async fn overlay<S>(source: &S, base: &mut Tree, over: Tree) -> Result<(), Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    base.mode = over.mode.or(base.mode);
    for (name, entry) in over.entries {
        let both = match (base.entries.get(&name), &entry) {
            (Some(Entry::Sealed { digest: a }), Entry::Sealed { digest: b }) if a == b => continue,
            (Some(Entry::Directory(_) | Entry::Sealed { .. }), Entry::Directory(_) | Entry::Sealed { .. }) => true,
            _ => false,
        };
        if !both {
            base.entries.insert(name, entry);
            continue;
        }
        let mut below = open(source, base.entries.remove(&name)).await?;
        let over = open(source, Some(entry)).await?;
        Box::pin(overlay(source, &mut below, over)).await?;
        base.entries.insert(name, Entry::Directory(below));
    }
    Ok(())
}

async fn open<S>(source: &S, entry: Option<Entry>) -> Result<Tree, Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    match entry {
        Some(Entry::Directory(tree)) => Ok(tree),
        Some(Entry::Sealed { digest }) => read(source, digest).await,
        _ => Ok(Tree::default()),
    }
}

/// Reads one directory; those below it are sealed.
///
/// # Errors
/// Where it is absent or malformed.
pub async fn read<S>(source: &S, digest: Digest) -> Result<Tree, Error<S::Error>>
where
    S: Source<Directory = Arc<Tree>>,
{
    crate::shape::check_size(&digest).map_err(|error| Error::Malformed(Malformed::Shape(error)))?;
    match source.read(&[digest]).await.map_err(Error::Source)?.pop() {
        Some(Found::Directory(tree)) => Ok(Arc::unwrap_or_clone(tree)),
        Some(Found::Malformed(malformed)) => Err(Error::Malformed(malformed)),
        Some(Found::Absent) | None => Err(Error::Absent(digest)),
    }
}
