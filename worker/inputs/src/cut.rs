//! How a tree is cut into units: large subtrees on their own, the rest together.
//!
//! Invariant: a unit depends on its path, its directory and the threshold alone, so that trees which share a large
//! subtree at the same place share its unit.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::shape::MAX_DEPTH;
use kiln_trees::{Closure, Entry, Tree};

use super::Error;
use super::key::Key;

/// Entries from which a subtree is a unit of its own.
const LARGE: u64 = 64;
/// Units of one tree. An overlay looks through all its layers.
const MAX_UNITS: usize = 24;

/// One unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name on disk.
    pub(super) name: String,
    /// Where it belongs, relative to the input root.
    pub(super) path: String,
    digest: Digest,
    threshold: u64,
}

/// What a unit consists of, with paths relative to the input root.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Parents before children.
    pub(super) directories: Vec<String>,
    pub(super) files: Vec<(String, Key)>,
    pub(super) links: Vec<(String, String)>,
}

fn unit(path: &str, digest: Digest, threshold: u64) -> Unit {
    let mut name = DigestFunction::Sha256.digest(format!("{threshold}\n{digest}\n{path}").as_bytes()).hex();
    name.truncate(32);
    Unit { name, path: path.to_owned(), digest, threshold }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The directories in a directory of a closure, by name.
fn below(directory: &Tree) -> impl Iterator<Item = (&String, &Digest)> {
    directory.entries.iter().filter_map(|(name, entry)| match entry {
        Entry::Sealed { digest } => Some((name, digest)),
        _ => None,
    })
}

/// Entries of each subtree, itself not counted.
fn count(closure: &Closure, digest: &Digest, counts: &mut HashMap<Digest, u64>, depth: usize) -> Result<u64, Error> {
    if let Some(known) = counts.get(digest) {
        return Ok(*known);
    }
    if depth > MAX_DEPTH {
        return Err(Error::Invalid(format!("the input tree is deeper than {MAX_DEPTH} directories")));
    }
    let Some(directory) = closure.get(digest) else { return Err(Error::Missing(vec![*digest])) };
    let mut entries = directory.entries.len() as u64;
    for (_, below) in below(directory) {
        entries = entries.saturating_add(count(closure, below, counts, depth.saturating_add(1))?);
    }
    counts.insert(*digest, entries);
    Ok(entries)
}

/// Cuts a tree: the unit of the root first.
pub(super) fn cut(closure: &Closure, root: &Digest) -> Result<Vec<Unit>, Error> {
    let mut counts = HashMap::new();
    count(closure, root, &mut counts, 0)?;
    let mut threshold: u64 = LARGE;
    loop {
        let mut units = vec![unit("", *root, threshold)];
        large(closure, &counts, root, "", threshold, &mut units);
        if units.len() <= MAX_UNITS {
            return Ok(units);
        }
        threshold = threshold.saturating_mul(2);
    }
}

fn large(
    closure: &Closure,
    counts: &HashMap<Digest, u64>,
    digest: &Digest,
    path: &str,
    threshold: u64,
    units: &mut Vec<Unit>,
) {
    let Some(directory) = closure.get(digest) else { return };
    for (name, below) in below(directory) {
        if counts.get(below).is_some_and(|entries| *entries >= threshold) && units.len() <= MAX_UNITS {
            let path = join(path, name);
            units.push(unit(&path, *below, threshold));
            large(closure, counts, below, &path, threshold, units);
        }
    }
}

/// What a unit consists of: its directory, without the large subtrees that are units of their own.
pub(super) fn content(closure: &Closure, unit: &Unit) -> Result<Content, Error> {
    let mut counts = HashMap::new();
    count(closure, &unit.digest, &mut counts, 0)?;
    let mut content = Content::default();
    collect(closure, &counts, &unit.digest, &unit.path, unit.threshold, &mut content)?;
    Ok(content)
}

fn collect(
    closure: &Closure,
    counts: &HashMap<Digest, u64>,
    digest: &Digest,
    path: &str,
    threshold: u64,
    content: &mut Content,
) -> Result<(), Error> {
    let Some(directory) = closure.get(digest) else { return Err(Error::Missing(vec![*digest])) };
    for (name, entry) in &directory.entries {
        let path = join(path, name);
        match entry {
            Entry::File { digest, executable, mode } => {
                content.files.push((path, Key::new(*digest, *executable, *mode)));
            }
            Entry::Symlink { target } => content.links.push((path, target.clone())),
            Entry::Sealed { digest } if counts.get(digest).is_some_and(|entries| *entries >= threshold) => {}
            Entry::Sealed { digest } => {
                content.directories.push(path.clone());
                collect(closure, counts, digest, &path, threshold, content)?;
            }
            Entry::Directory(_) => {}
        }
    }
    Ok(())
}
