//! What a step left, together with what other steps have published since it began.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::BlobStore;
use kiln_store::trees::Stored;
use kiln_trees::root::{self, Forest, Node, Times};

use crate::{Error, Published};

/// The tree with both: what is published now, and over it what the step changed of what it began with. What it began with is none if that
/// was nothing.
pub(super) async fn merged(
    blobs: &dyn BlobStore,
    function: DigestFunction,
    began: Option<Digest>,
    own: &Published,
    now: &Published,
) -> Result<Published, Error> {
    let refused = |error: &dyn std::fmt::Debug| Error::Refused(format!("its changes cannot be merged: {error:?}"));
    let mut forest = Forest::new(function);
    let merged = root::read(Stored(blobs), &mut forest, |forest| {
        let changes = match &began {
            Some(began) => forest.diff(began, &own.tree)?,
            None => own.tree,
        };
        forest.apply(&now.tree, &changes)
    });
    let tree = merged.await.map_err(|error| refused(&error))?;
    // The changes themselves are a layer that nobody needs.
    let mut made: HashMap<Digest, Vec<u8>> =
        forest.take_made().into_iter().map(|encoded| (encoded.digest, encoded.data)).collect();
    let mut waiting = vec![tree];
    while let Some(digest) = waiting.pop() {
        let Some(data) = made.remove(&digest) else { continue };
        blobs.put(&digest, data.into()).await?;
        let entries = forest.get(&digest).map(|directory| directory.entries.values().cloned().collect::<Vec<_>>());
        waiting.extend(entries.into_iter().flatten().filter_map(|node| match node {
            Node::Directory(below) => Some(below),
            Node::Leaf(_) | Node::Whiteout => None,
        }));
    }
    let mut times = Times::decode(&blobs.get(&now.times).await?).map_err(|error| refused(&error))?;
    times.0.extend(Times::decode(&blobs.get(&own.times).await?).map_err(|error| refused(&error))?.0);
    let data = times.encode();
    let times = function.digest(&data);
    blobs.put(&times, data.into()).await?;
    Ok(Published { tree, times })
}
