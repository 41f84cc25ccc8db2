//! The sources of a project as the root that `COPY` copies from.

use kiln_dockerfile::patterns::Ignore;
use kiln_proto::digest::Digest;
use kiln_store::trees;
use kiln_trees::root::{Attributes, Content, Directory, Forest, Leaf, Name, Node, Time, Times};
use kiln_trees::tree::{Entry, PIPE, Tree};

use crate::{Error, Files, Roots};

impl Roots {
    /// A context that the client uploaded, without what `ignore` leaves out. Everything in it belongs to root, and modes are as they
    /// were. `times` are those that are known.
    ///
    /// # Errors
    /// If a directory is missing or malformed, or the store fails.
    pub async fn context(&self, sources: Digest, ignore: Option<&Ignore>, times: &Times) -> Result<Files, Error> {
        let mut tree = trees::expand(self.blobs(), sources).await.map_err(|error| match error {
            trees::Error::Store(error) => Error::Store(error),
            trees::Error::Malformed(malformed) => Error::Malformed(malformed),
        })?;
        if let Some(ignore) = ignore {
            leave_out(&mut tree, "", ignore);
        }
        let root = self.operate(move |forest| root_of(forest, &tree)).await?;
        Ok(Files { root, times: times.clone().into() })
    }
}

impl Roots {
    /// The same files, all of them modified at this time, in seconds since the epoch.
    ///
    /// # Errors
    /// If a directory is missing, or the store fails.
    pub async fn dated(&self, files: &Files, seconds: i64) -> Result<Files, Error> {
        let paths = self.operate(|forest| paths(forest, &files.root)).await?;
        let time = Time { seconds, nanos: 0 };
        let times = Times(paths.into_iter().map(|path| (path, time)).collect());
        Ok(Files { times: times.into(), ..files.clone() })
    }
}

/// The paths of all nodes, the root's among them.
fn paths(forest: &mut Forest, root: &Digest) -> Result<Vec<Vec<u8>>, kiln_trees::root::Error> {
    let (mut found, mut next) = (Vec::new(), vec![(Vec::new(), *root)]);
    while let Some((path, digest)) = next.pop() {
        let unread = || kiln_trees::root::Error::Unread(vec![digest]);
        let directory = forest.get(&digest).cloned().ok_or_else(unread)?;
        for (name, node) in &directory.entries {
            let below = if path.is_empty() { name.as_bytes().to_vec() } else { [&path, name.as_bytes()].join(&b'/') };
            match node {
                Node::Directory(digest) => next.push((below, *digest)),
                _ => found.push(below),
            }
        }
        found.push(path);
    }
    Ok(found)
}

/// Removes what is ignored. A directory that is ignored stays if something in it is not.
fn leave_out(tree: &mut Tree, prefix: &str, ignore: &Ignore) {
    tree.entries.retain(|name, entry| {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let is_ignored = ignore.excludes(&path);
        match entry {
            Entry::Directory(below) => {
                if !is_ignored || ignore.patterns().has_exceptions() {
                    leave_out(below, &path, ignore);
                    !is_ignored || !below.entries.is_empty()
                } else {
                    false
                }
            }
            _ => !is_ignored,
        }
    });
}

fn root_of(forest: &mut Forest, tree: &Tree) -> Result<Digest, kiln_trees::root::Error> {
    let mut directory = Directory::empty(Attributes::of_root(tree.mode.unwrap_or(0o755)));
    for (name, entry) in &tree.entries {
        let leaf = |content, mode| Node::Leaf(Leaf::new(content, Attributes::of_root(mode)));
        let node = match entry {
            Entry::File { mode: Some(mode), .. } if mode & PIPE != 0 => leaf(Content::Fifo, mode & 0o7777),
            Entry::File { digest, executable, mode } => {
                leaf(Content::File(*digest), mode.unwrap_or(if *executable { 0o755 } else { 0o644 }))
            }
            Entry::Symlink { target } => leaf(Content::Symlink(target.clone().into_bytes()), 0o777),
            Entry::Directory(below) => Node::Directory(root_of(forest, below)?),
            // An expanded tree has none.
            Entry::Sealed { digest } => return Err(kiln_trees::root::Error::Unread(vec![*digest])),
        };
        directory.entries.insert(Name::new(name.as_bytes())?, node);
    }
    Ok(forest.put(directory))
}
