//! Layers: turns a tree in the store into a compressed tar in the store, once.

use std::collections::BTreeMap;

use kiln_images::layer::{Attributes, Layer, LayerWriter, Options};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{Entry, Tree};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::super::assemble::{Error, Ingredients};
use super::super::check;
use super::feed::{self, Piece, Reader};
use crate::elf::Wants;
use kiln_store::files;
use kiln_store::recipes::Recipes;

/// Increased when the same files would produce a different layer.
const VERSION: u32 = 2;
/// The layer's name among its recipe's blobs.
const BLOB: &str = "layer";

/// Options for an image's layers.
pub(super) struct Layering<'a> {
    pub(super) given: &'a Ingredients<'a>,
    pub(super) options: Options,
}

/// What is stored about a layer besides its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cached {
    pub(super) layer: Layer,
    pub(super) wants: BTreeMap<String, Wants>,
}

/// A layer in the store.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) kept: Cached,
    pub(super) blob: Digest,
}

/// Everything that a layer depends on.
#[derive(Serialize)]
struct Recipe<'a> {
    image_layer: u32,
    files: String,
    owner: (u64, u64),
    mtime: u64,
    compression: &'a kiln_images::layer::Compression,
    directories: BTreeMap<&'a String, &'a Attributes>,
}

impl Layering<'_> {
    /// The layer of these files: an earlier one if it exists, or a new one.
    pub(super) async fn layer(&self, tree: &Tree) -> Result<Made, Error> {
        let given = self.given;
        let recipes = Recipes { stores: given.stores, instance: given.instance, function: given.function };
        let special = self.options.directories.iter();
        let recipe = Recipe {
            image_layer: VERSION,
            files: tree.encode(given.function, &mut |_| {}).to_string(),
            owner: self.options.owner,
            mtime: self.options.mtime,
            compression: &self.options.compression,
            directories: special.filter(|(path, _)| matches!(tree.get(path), Some(Entry::Directory(_)))).collect(),
        };
        if let Some((kept, files)) = recipes.find::<Cached>(&recipe).await?
            && let Some(blob) = files.get(BLOB)
        {
            return Ok(Made { kept, blob: *blob });
        }
        let store = &*given.stores.blobs;
        let wants = check::wants(store, tree).await?;
        let (path, layer) = self.write(tree).await?;
        let blob = match given.function {
            DigestFunction::Sha256 => {
                let descriptor = &layer.descriptor;
                let hash = descriptor.digest.bytes();
                let digest = Digest { function: DigestFunction::Sha256, hash, size: descriptor.size };
                files::put_as(store, &digest, &path).await?;
                digest
            }
            DigestFunction::Blake3 => files::put(store, given.function, &path).await?.0,
        };
        let kept = Cached { layer, wants };
        recipes.keep(&recipe, &kept, &BTreeMap::from([(BLOB.to_owned(), blob)])).await?;
        Ok(Made { kept, blob })
    }

    /// Writes the layer to a file: files are streamed from the store to a thread that packs them.
    async fn write(&self, tree: &Tree) -> Result<(tempfile::TempPath, Layer), Error> {
        let (sender, receiver) = feed::channel();
        let mut options = self.options.clone();
        own_modes(tree, "", &self.options, &mut options.directories);
        let packing = tokio::task::spawn_blocking(move || pack(receiver, options));
        let sent = feed::send_tree(&*self.given.stores.blobs, tree, &sender).await;
        if let Err(error) = &sent {
            let _ = sender.send(Piece::Failed(std::io::Error::other(error.to_string()))).await;
        }
        drop(sender);
        let packed = packing.await.map_err(|error| Error::Pack(std::io::Error::other(error)))?;
        sent?;
        packed
    }
}

/// Directories with modes set by the build: these apply even if the base has the directory.
fn own_modes(tree: &Tree, path: &str, options: &Options, found: &mut BTreeMap<String, Attributes>) {
    for (name, entry) in &tree.entries {
        let Entry::Directory(below) = entry else { continue };
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if let Some(mode) = below.mode {
            let (uid, gid) = options.directories.get(&path).map_or(options.owner, |kept| (kept.uid, kept.gid));
            found.insert(path.clone(), Attributes { mode, uid, gid });
        }
        own_modes(below, &path, options, found);
    }
}

fn pack(mut pieces: mpsc::Receiver<Piece>, options: Options) -> Result<(tempfile::TempPath, Layer), Error> {
    let mut writer = LayerWriter::new(tempfile::NamedTempFile::new()?, options)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Directory(path) => writer.directory(&path)?,
            Piece::Symlink(path, target) => writer.symlink(&path, &target)?,
            Piece::File(path, mode, size) => {
                writer.file(&path, mode, size, Reader::new(&mut pieces, size))?;
            }
            // Data of an empty file.
            Piece::Data(_) => {}
            Piece::Failed(error) => return Err(error.into()),
        }
    }
    let (file, layer) = writer.finish()?;
    Ok((file.into_temp_path(), layer))
}
