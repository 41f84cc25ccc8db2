//! What an instruction added, as a layer of an image. A layer is packed once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use kiln_images::layer::{self, Compression, Packer};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::files;
use kiln_store::recipes::Recipes;
use kiln_trees::root::{Content, Directory, Error as TreeError, Forest, Leaf, Node, Time, Times, tar};
use serde::{Deserialize, Serialize};

use crate::contents::Contents;
use crate::{Dates, Error, Files, Roots};

/// Increased when the same tree would give a different archive.
const VERSION: u32 = 3;
/// The layer among its recipe's files.
const BLOB: &str = "layer";

/// How layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packing {
    /// How they are compressed.
    pub compression: Compression,
    /// The time of the image, and the latest of all files with `clamp`, in seconds since the epoch.
    pub epoch: i64,
    /// The time of files that have none, in seconds since the epoch.
    pub undated: i64,
    /// Whether no file is younger than `epoch`: `rewrite-timestamp`.
    pub clamp: bool,
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its descriptor and the digest of its tar.
    pub layer: layer::Layer,
    /// The store's digest of it.
    pub blob: Digest,
    /// Bytes of files in it that the root below has unchanged under the same path: an instruction that only changes owners or modes
    /// adds them again.
    pub repeated_bytes: u64,
}

#[derive(Serialize)]
struct Recipe<'a> {
    root_layer: u32,
    tree: String,
    times: String,
    compression: &'a Compression,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    layer: layer::Layer,
}

impl Roots {
    /// The layer that makes `after` of `before`: an earlier one if it exists, or a new one.
    ///
    /// # Errors
    /// If a blob is missing, or the store fails.
    pub async fn layer(&self, before: &Files, after: &Files, packing: Packing) -> Result<Layer, Error> {
        let tree = self.operate(|forest| forest.diff(&before.root, &after.root)).await?;
        let directories = self.operate(|forest| all(forest, &tree)).await?;
        let repeated_bytes = self.operate(|forest| repeated(forest, &before.root, &tree)).await?;
        let times = times(&directories, &tree, &after.times, packing);
        let recipe = Recipe {
            root_layer: VERSION,
            tree: tree.to_string(),
            times: self.function.digest(&times.encode()).to_string(),
            compression: &packing.compression,
        };
        let recipes = Recipes { stores: &self.stores, instance: &self.instance, function: self.function };
        if let Some((kept, files)) = recipes.find::<Cached>(&recipe).await?
            && let Some(blob) = files.get(BLOB)
        {
            return Ok(Layer { layer: kept.layer, blob: *blob, repeated_bytes });
        }
        let (path, layer) = self.pack(directories, tree, times, packing.compression).await?;
        let stored = match self.function {
            DigestFunction::Sha256 => {
                let hash = layer.descriptor.digest.bytes();
                let digest = Digest { function: DigestFunction::Sha256, hash, size: layer.descriptor.size };
                files::put_as(self.blobs(), &digest, &path).await.map(|()| digest)
            }
            DigestFunction::Blake3 => files::put(self.blobs(), self.function, &path).await.map(|(digest, _)| digest),
        };
        let blob = stored?;
        let kept = Cached { layer };
        recipes.keep(&recipe, &kept, &[(BLOB.to_owned(), blob)].into()).await?;
        Ok(Layer { layer: kept.layer, blob, repeated_bytes })
    }

    async fn pack(
        &self,
        directories: Vec<(Digest, Arc<Directory>)>,
        tree: Digest,
        times: Times,
        compression: Compression,
    ) -> Result<(tempfile::TempPath, layer::Layer), Error> {
        let mut forest = Forest::new(self.function);
        for (digest, directory) in directories {
            forest.add(digest, directory);
        }
        let mut contents = Contents::read_ahead(self.stores.blobs.clone(), tar::contents(&forest, &tree)?);
        let packing = tokio::task::spawn_blocking(move || {
            let mut open = |digest: &Digest| contents.open(digest);
            let mut packer = Packer::new(tempfile::NamedTempFile::new()?, compression)?;
            tar::write(&forest, &tree, &times, &mut open, &mut packer)?;
            let (file, layer) = packer.finish()?;
            Ok::<_, Error>((file.into_temp_path(), layer))
        });
        packing.await.map_err(io::Error::other)?
    }
}

/// All directories of a layer.
fn all(forest: &mut Forest, layer: &Digest) -> Result<Vec<(Digest, Arc<Directory>)>, TreeError> {
    let (mut found, mut unread): (BTreeMap<Digest, Arc<Directory>>, _) = (BTreeMap::new(), Vec::new());
    let mut next = vec![*layer];
    while let Some(digest) = next.pop() {
        if found.contains_key(&digest) {
            continue;
        }
        let Some(directory) = forest.get(&digest).cloned() else {
            unread.push(digest);
            continue;
        };
        next.extend(directory.entries.values().filter_map(|node| match node {
            Node::Directory(below) => Some(*below),
            _ => None,
        }));
        found.insert(digest, directory);
    }
    if unread.is_empty() { Ok(found.into_iter().collect()) } else { Err(TreeError::Unread(unread)) }
}

/// The times of what is in a layer.
fn times(directories: &[(Digest, Arc<Directory>)], layer: &Digest, of: &Dates, packing: Packing) -> Times {
    let known: BTreeMap<&Digest, &Arc<Directory>> = directories.iter().map(|(digest, one)| (digest, one)).collect();
    let mut times = Times::default();
    let mut next = vec![(Vec::new(), *layer)];
    let default = Time { seconds: packing.undated, nanos: 0 };
    let latest = Time { seconds: packing.epoch, nanos: 0 };
    let mut note = |path: &[u8]| {
        let mut time = of.get(path).filter(|time| *time != Time::UNDATED).unwrap_or(default);
        // Archives have whole seconds.
        time.nanos = 0;
        if packing.clamp {
            time = time.min(latest);
        }
        times.0.insert(path.to_vec(), time);
    };
    while let Some((path, digest)) = next.pop() {
        let Some(directory) = known.get(&digest) else { continue };
        note(&path);
        for (name, node) in &directory.entries {
            let below = if path.is_empty() { name.as_bytes().to_vec() } else { [&path, name.as_bytes()].join(&b'/') };
            match node {
                Node::Directory(digest) => next.push((below, *digest)),
                Node::Leaf(_) => note(&below),
                Node::Whiteout => {}
            }
        }
    }
    times
}

/// Bytes of files in a layer that have the same content at the same path below it.
fn repeated(forest: &mut Forest, before: &Digest, layer: &Digest) -> Result<u64, TreeError> {
    let (mut bytes, mut unread) = (0_u64, Vec::new());
    let mut next = vec![(*before, *layer)];
    while let Some((before, layer)) = next.pop() {
        let (Some(old), Some(new)) = (forest.get(&before).cloned(), forest.get(&layer).cloned()) else {
            unread.extend([before, layer].into_iter().filter(|digest| forest.get(digest).is_none()));
            continue;
        };
        for (name, node) in &new.entries {
            match (old.entries.get(name), node) {
                (Some(Node::Directory(old)), Node::Directory(new)) => next.push((*old, *new)),
                (
                    Some(Node::Leaf(Leaf { content: Content::File(old), .. })),
                    Node::Leaf(Leaf { content: Content::File(new), .. }),
                ) if old == new => bytes = bytes.saturating_add(new.size),
                _ => {}
            }
        }
    }
    if unread.is_empty() { Ok(bytes) } else { Err(TreeError::Unread(unread)) }
}
