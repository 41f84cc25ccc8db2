//! Checks what is published: a complete tree of files that steps could have made.
//!
//! Invariant: the cost is bounded by [`shape::MAX_ENTRIES`], whatever a worker names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_store::BlobStore;
use kiln_store::trees::Stored;
use kiln_trees::root::{Content, Directory, Node, Times};
use kiln_trees::shape;
use kiln_trees::walk::{self, Decoded, Found, Walk};

use crate::{Error, Published};

/// Largest blob of times that is read.
const MAX_TIMES_BYTES: u64 = 64 << 20;

/// Bytes of the distinct files of a tree.
pub(super) async fn check(blobs: &dyn BlobStore, published: &Published) -> Result<u64, Error> {
    let refused = |error: &dyn std::fmt::Display| Error::Refused(error.to_string());
    let mut walk = Walk::new(Decoded::<_, Arc<Directory>>::new(Stored(blobs)), [published.tree]);
    let (mut nodes, mut files, mut absent) = (HashMap::new(), HashSet::from([published.times]), Vec::new());
    loop {
        let (digest, directory) = match walk.next().await {
            Ok(Some((digest, Found::Directory(directory)))) => (digest, directory),
            Ok(Some((digest, Found::Absent))) => {
                absent.push(digest);
                continue;
            }
            Ok(Some((_, Found::Malformed(error)))) => return Err(refused(&error)),
            Ok(None) => break,
            Err(walk::Error::Entries) => return Err(refused(&shape::Error::Entries)),
            Err(walk::Error::Source(error)) => return Err(error.into()),
        };
        if !directory.is_of_root() {
            return Err(refused(&"it has whiteouts, so it is a layer"));
        }
        for (name, node) in &directory.entries {
            match node {
                Node::Leaf(leaf) => match leaf.content {
                    Content::File(digest) => drop(files.insert(digest)),
                    Content::Symlink(_) | Content::Fifo => {}
                    Content::Character(..) | Content::Block(..) => {
                        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
                        return Err(refused(&format!("`{}` is a device, which no step can make", name.escape_debug())));
                    }
                },
                Node::Directory(_) | Node::Whiteout => {}
            }
        }
        nodes.insert(digest, directory.shape());
    }
    shape::measure(&published.tree, &nodes).map_err(|error| refused(&error))?;
    let files: Vec<Digest> = files.into_iter().collect();
    absent.extend(blobs.find_missing(&files).await?);
    if !absent.is_empty() {
        return Err(Error::Missing(absent));
    }
    if published.times.size > MAX_TIMES_BYTES {
        return Err(refused(&format!("its times have {} bytes", published.times.size)));
    }
    Times::decode(&blobs.get(&published.times).await?).map_err(|error| refused(&error))?;
    Ok(files.iter().map(|digest| digest.size).fold(0, u64::saturating_add))
}
