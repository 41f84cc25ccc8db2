//! Images: the blobs of an OCI layout are called by their digests, so two that correspond have different names.
//!
//! Source: OCI image layout and image manifest specifications.

use kiln_compare::Node;
use kiln_proto::digest::Digest;
use kiln_store::Stores;
use serde_json::Value;

use super::made::{self, Nodes, Sides};

const INDEX: &str = "index.json";
/// Largest manifest that is read.
const MAX_MANIFEST: u64 = 4 << 20;

/// Calls the blobs of two images what they are: `manifest`, `config`, `layer 1` and so on. Whatever is no image of one manifest stays as it is.
pub(super) async fn name_blobs(stores: &Stores, sides: &mut Sides) {
    let (one, other) = (named(stores, sides, true).await, named(stores, sides, false).await);
    if let (Some(one), Some(other)) = (one, other) {
        (sides.first, sides.second) = (one, other);
    }
}

async fn named(stores: &Stores, sides: &Sides, is_first: bool) -> Option<Nodes> {
    let mut nodes = if is_first { sides.first.clone() } else { sides.second.clone() };
    let index = json(stores, sides, nodes.get(INDEX)?).await?;
    let [manifest] = index.get("manifests")?.as_array()?.as_slice() else { return None };
    let at = path(manifest)?;
    let read = json(stores, sides, nodes.get(&at)?).await?;
    let mut names = vec![(at, "manifest".to_owned()), (path(read.get("config")?)?, "config".to_owned())];
    for (number, layer) in (1_usize..).zip(read.get("layers")?.as_array()?) {
        names.push((path(layer)?, format!("layer {number}")));
    }
    for (at, name) in names {
        // Of two equal layers, the first has the blob.
        if let Some(node) = nodes.remove(&at) {
            nodes.insert(name, node);
        }
    }
    Some(nodes)
}

async fn json(stores: &Stores, sides: &Sides, node: &Node) -> Option<Value> {
    let Node::File { content, .. } = node else { return None };
    let digest: &Digest = sides.digests.get(content)?;
    if digest.size > MAX_MANIFEST {
        return None;
    }
    serde_json::from_slice(&made::content(stores, digest).await.ok()?).ok()
}

/// Where the blob is that a descriptor names.
fn path(descriptor: &Value) -> Option<String> {
    let (function, hex) = descriptor.get("digest")?.as_str()?.split_once(':')?;
    Some(format!("blobs/{function}/{hex}"))
}
