//! Finds the files that differ between two input trees by descending only where digests differ.
//!
//! The trees are those that the actions ran on, so nothing is kept twice: the store holds each directory once, however
//! many records name it.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::BoxFuture;
use kiln_proto::digest::Digest;
use kiln_proto::v1::Difference;
use kiln_proto::v1::difference::Kind;
use kiln_trees::tree::{Entry, Tree};

use kiln_store::BlobStore;
use kiln_store::trees;

/// Differences that are listed; if there are more, only that fact is reported.
pub(super) const MAX_DIFFERENCES: usize = 100;

/// The differences found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) differences: Vec<Difference>,
    /// There are more than [`MAX_DIFFERENCES`].
    pub(super) more: bool,
}

impl Found {
    fn push(&mut self, name: &str, before: Option<String>, after: Option<String>) {
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(Difference { kind: Kind::Input as i32, name: name.to_owned(), before, after });
        } else {
            self.more = true;
        }
    }
}

/// Adds the differences between two directories. A directory that is no longer stored counts as one difference.
pub(super) fn compare<'a>(
    store: &'a dyn BlobStore,
    before: Option<Digest>,
    after: Option<Digest>,
    path: &'a str,
    found: &'a mut Found,
) -> BoxFuture<'a, Result<(), kiln_store::Error>> {
    async move {
        if before == after || found.more {
            return Ok(());
        }
        let (Some(below), Some(now)) = (read(store, before).await?, read(store, after).await?) else {
            let name = if path.is_empty() { "(the whole tree)" } else { path };
            let words = |digest: Option<Digest>| digest.map(|digest| format!("{digest} directory"));
            found.push(name, words(before), words(after));
            return Ok(());
        };
        let names: BTreeSet<&String> = below.entries.keys().chain(now.entries.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let (before, after) = (below.entries.get(name), now.entries.get(name));
            if before == after {
                continue;
            }
            let (sealed_before, sealed_after) = (sealed(before), sealed(after));
            if sealed_before.is_some() || sealed_after.is_some() {
                compare(store, sealed_before, sealed_after, &path, found).await?;
            }
            let (before, after) = (words(before), words(after));
            if before.is_some() || after.is_some() {
                found.push(&path, before, after);
            }
        }
        Ok(())
    }
    .boxed()
}

/// A directory; empty if there is none, `None` if it is not stored or not a directory.
async fn read(store: &dyn BlobStore, digest: Option<Digest>) -> Result<Option<Tree>, kiln_store::Error> {
    let Some(digest) = digest else { return Ok(Some(Tree::default())) };
    match trees::directory(store, &digest).await {
        Ok(tree) => Ok(Some(tree)),
        Err(trees::Error::Store(error)) if !error.is_absent() => Err(error),
        Err(_) => Ok(None),
    }
}

fn sealed(entry: Option<&Entry>) -> Option<Digest> {
    match entry {
        Some(Entry::Sealed { digest }) => Some(*digest),
        _ => None,
    }
}

/// Describes a file or link.
fn words(entry: Option<&Entry>) -> Option<String> {
    match entry? {
        Entry::File { digest, mode: Some(mode), .. } => Some(format!("{digest} mode {mode:04o}")),
        Entry::File { digest, executable: false, .. } => Some(digest.to_string()),
        Entry::File { digest, executable: true, .. } => Some(format!("{digest} executable")),
        Entry::Symlink { target } => Some(format!("-> {target}")),
        Entry::Directory(_) | Entry::Sealed { .. } => None,
    }
}
