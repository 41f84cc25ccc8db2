//! From the files of a tree to its directories' messages, on all processors.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{self, Builder, Encoded, Entry, Tree};

use super::walk::{Found, Kind};

/// Files below which one thread is faster.
const FEW: usize = 4096;
const MOST_THREADS: usize = 8;

/// The digest of the tree that has these entries, sorted by path, and all its directories. `contents` has the digest of each file.
pub(super) fn tree(
    found: &[Found],
    contents: &[Option<Digest>],
    function: DigestFunction,
) -> Result<(Digest, Vec<Encoded>), tree::Error> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let threads = processors.min(found.len().div_ceil(FEW)).max(1);
    let size = found.len().div_ceil(threads).max(1);
    let parts = found.chunks(size).zip(contents.chunks(size));
    let whole = &Whole::new(found, function);
    let built: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            parts.map(|(found, contents)| scope.spawn(move || part(whole, (found, contents)))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(built) => built,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    });
    let mut root = Tree::default();
    let mut directories = Vec::new();
    for built in built {
        let (tree, mut sealed) = built?;
        root.merge(tree)?;
        directories.append(&mut sealed);
    }
    let digest = root.encode(function, &mut |encoded| directories.push(encoded));
    Ok((digest, directories))
}

/// What each part has to know of the others.
struct Whole<'a> {
    function: DigestFunction,
    found: &'a [Found],
    /// Unusual permission bits of directories.
    modes: HashMap<&'a str, u32>,
}

impl<'a> Whole<'a> {
    fn new(found: &'a [Found], function: DigestFunction) -> Self {
        let mode = |one: &'a Found| match &one.kind {
            Kind::Directory { mode } => Some((one.path.as_str(), (*mode)?)),
            _ => None,
        };
        Self { function, found, modes: found.iter().filter_map(mode).collect() }
    }

    /// Whether there is something in a directory. Such a directory is added with its entries, which need not follow it at once: `a-b`
    /// is between `a` and `a/b`.
    fn has_entries(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        let first = self.found.partition_point(|one| one.path < below);
        self.found.get(first).is_some_and(|one| one.path.starts_with(&below))
    }
}

/// A part of the tree. Its directories are sealed, except those that the parts before and after it may have entries of.
fn part(
    whole: &Whole<'_>,
    (found, contents): (&[Found], &[Option<Digest>]),
) -> Result<(Tree, Vec<Encoded>), tree::Error> {
    let edges = [found.first(), found.last()].map(|one| one.map_or("", |one| one.path.as_str()));
    let mut builder = Builder::sealing(whole.function, edges, &whole.modes);
    let empty = Digest::empty(whole.function);
    for (one, content) in found.iter().zip(contents) {
        let entry = match (&one.kind, content) {
            (Kind::Symlink { target }, _) => Entry::Symlink { target: target.clone() },
            (Kind::Directory { .. }, _) if whole.has_entries(&one.path) => continue,
            (Kind::Directory { mode }, _) => Entry::Directory(Tree { mode: *mode, ..Tree::default() }),
            (Kind::Empty { mode, executable }, _) => {
                Entry::File { digest: empty, executable: *executable, mode: *mode }
            }
            (Kind::File { executable, mode, .. }, content) => {
                Entry::File { digest: content.unwrap_or(empty), executable: *executable, mode: *mode }
            }
        };
        builder.insert(&one.path, entry)?;
    }
    builder.finish()
}
