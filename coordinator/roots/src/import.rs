//! Layers of images and archives of `ADD`, as trees in the store. A layer is imported once.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_images::manifest::Descriptor;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::recipes::Recipes;
use kiln_store::{BlobStore, Stores};
use kiln_trees::Encoded;
use kiln_trees::root::tar::{self, TarError};
use kiln_trees::root::{Forest, Times};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::{Error, Files, Roots, archive};

/// Increased when the same archive would give a different tree.
const VERSION: u32 = 1;
/// Files up to this size stay in memory on their way into the store, in bytes.
const WHOLE_BYTES: u64 = 1 << 20;
/// Files that are stored at once.
const CONCURRENCY: usize = 16;
/// Files that wait to be stored.
const QUEUE: usize = 32;
/// Layers that are imported at once.
const LAYERS: usize = 4;
/// The times among a recipe's files.
const TIMES: &str = "times";

/// An archive as a layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The layer's tree.
    pub layer: Digest,
    /// When its files were modified.
    pub times: Arc<Times>,
}

#[derive(Serialize)]
struct Recipe<'a> {
    layer_tree: u32,
    archive: &'a str,
}

/// All layers of an image, lowest first.
#[derive(Serialize)]
struct BaseRecipe {
    base_root: u32,
    archives: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Description {
    hash: String,
    size: u64,
}

impl Roots {
    /// The files of an image: its layers, lowest first, each with the store's digest of its archive. Layers are imported side by
    /// side, and only those that were not imported before.
    ///
    /// # Errors
    /// If a layer is malformed or missing, or the store fails.
    pub async fn base(&self, image: &str, layers: &[(Descriptor, Digest)]) -> Result<Files, Error> {
        let recipes = Recipes { stores: &self.stores, instance: &self.instance, function: self.function };
        let archives = layers.iter().map(|(layer, blob)| format!("{} {blob}", layer.media_type)).collect();
        let recipe = BaseRecipe { base_root: VERSION, archives };
        if let Some((description, files)) = recipes.find::<Description>(&recipe).await?
            && let Some((root, times)) = self.imported(&description, &files).await?
        {
            return Ok(Files { root, times: times.into() });
        }
        let imports = layers.iter().enumerate().map(|(at, (layer, blob))| async move {
            self.import(&layer.media_type, blob).await.map_err(|error| match error {
                Error::Tar(source) => Error::Layer { image: image.to_owned(), number: at.saturating_add(1), source },
                other => other,
            })
        });
        let imports: Vec<_> = imports.collect();
        let imported: Vec<Imported> = stream::iter(imports).buffered(LAYERS).try_collect().await?;
        let mut files = self.scratch().await?;
        for layer in &imported {
            files = self.apply(&files, &layer.layer, &layer.times).await?;
        }
        self.keep_imported(&recipe, files.root, &files.times.flat()).await?;
        Ok(files)
    }

    /// An archive of this media type as a layer.
    ///
    /// # Errors
    /// If it is malformed or missing, or the store fails.
    pub async fn import(&self, media_type: &str, archive: &Digest) -> Result<Imported, Error> {
        let recipes = Recipes { stores: &self.stores, instance: &self.instance, function: self.function };
        let name = format!("{media_type} {archive}");
        let recipe = Recipe { layer_tree: VERSION, archive: &name };
        if let Some((description, files)) = recipes.find::<Description>(&recipe).await?
            && let Some((layer, times)) = self.imported(&description, &files).await?
        {
            return Ok(Imported { layer, times });
        }
        let imported = read(&self.stores, self.function, media_type.to_owned(), archive).await?;
        self.keep_imported(&recipe, imported.layer, &imported.times).await?;
        Ok(imported)
    }

    /// A tree that was kept, and its times; none if an older coordinator described it.
    async fn imported(
        &self,
        description: &Description,
        files: &BTreeMap<String, Digest>,
    ) -> Result<Option<(Digest, Arc<Times>)>, Error> {
        let (Some(times), Ok(tree)) =
            (files.get(TIMES), Digest::new(self.function, &description.hash, description.size))
        else {
            return Ok(None);
        };
        let times = Times::decode(&self.blobs().get(times).await?);
        Ok(times.ok().map(|times| (tree, times.into())))
    }

    async fn keep_imported(&self, recipe: &impl Serialize, tree: Digest, times: &Times) -> Result<(), Error> {
        let data = Bytes::from(times.encode());
        let digest = self.function.digest(&data);
        self.blobs().put(&digest, data).await?;
        let description = Description { hash: tree.hex(), size: tree.size };
        let recipes = Recipes { stores: &self.stores, instance: &self.instance, function: self.function };
        recipes.keep_trees(recipe, &description, &[(TIMES.to_owned(), digest)].into(), &[tree]).await?;
        Ok(())
    }
}

/// A file on its way into the store.
enum Content {
    Whole(Digest, Bytes),
    Large(Digest, tempfile::NamedTempFile),
}

/// Reads an archive on a thread, and stores its files meanwhile.
async fn read(
    stores: &Stores,
    function: DigestFunction,
    media_type: String,
    archive: &Digest,
) -> Result<Imported, Error> {
    let pieces = stores.blobs.read(archive, 0, None).await?.map_err(io::Error::other);
    let bridge = SyncIoBridge::new(StreamReader::new(pieces));
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    // A few kilobytes can decompress to terabytes: no archive brings more than the store could hold.
    let mut left = stores.blobs.capacity();
    let reading = tokio::task::spawn_blocking(move || {
        let mut forest = Forest::new(function);
        let plain = archive::plain(&media_type, bridge)?;
        let mut store = |content: &mut dyn Read| keep(function, content, &mut left, &sender);
        let (layer, times) = tar::read(&mut forest, plain, &mut store)?;
        Ok::<_, TarError>((forest.take_made(), layer, times))
    });
    let contents = stream::poll_fn(|context| receiver.poll_recv(context));
    let stored = contents
        .map(Ok)
        .try_for_each_concurrent(CONCURRENCY, |content| async {
            match content {
                Content::Whole(digest, data) => stores.blobs.put(&digest, data).await?,
                Content::Large(digest, file) => {
                    kiln_store::files::put_as(&*stores.blobs, &digest, file.path()).await?;
                }
            }
            Ok::<_, Error>(())
        })
        .await;
    // The thread ends where nobody takes what it sends.
    drop(receiver);
    let read = reading.await.map_err(io::Error::other)?;
    stored?;
    let (made, layer, times) = read?;
    put_directories(&*stores.blobs, made).await?;
    Ok(Imported { layer, times: times.into() })
}

async fn put_directories(store: &dyn BlobStore, made: Vec<Encoded>) -> Result<(), Error> {
    let puts: Vec<_> =
        made.into_iter().map(|encoded| async move { store.put(&encoded.digest, encoded.data.into()).await }).collect();
    Ok(stream::iter(puts).buffer_unordered(CONCURRENCY).try_collect().await?)
}

/// Hands on a file's content, and says its digest. `left` is how many bytes the archive may still bring.
fn keep(
    function: DigestFunction,
    content: &mut dyn Read,
    left: &mut u64,
    to: &mpsc::Sender<Content>,
) -> io::Result<Digest> {
    let gone = || io::Error::other("the store failed");
    let mut count = |data: &[u8]| {
        let rest = left.checked_sub(data.len() as u64);
        *left = rest.ok_or_else(|| io::Error::other("its files are larger than the farm's store"))?;
        Ok::<_, io::Error>(())
    };
    let mut data = Vec::new();
    content.take(WHOLE_BYTES).read_to_end(&mut data)?;
    count(&data)?;
    if (data.len() as u64) < WHOLE_BYTES {
        let digest = function.digest(&data);
        to.blocking_send(Content::Whole(digest, data.into())).map_err(|_| gone())?;
        return Ok(digest);
    }
    let mut file = tempfile::NamedTempFile::new()?;
    let mut hasher = function.hasher();
    while !data.is_empty() {
        hasher.update(&data);
        io::Write::write_all(&mut file, &data)?;
        data.clear();
        content.take(WHOLE_BYTES).read_to_end(&mut data)?;
        count(&data)?;
    }
    let digest = hasher.finish();
    to.blocking_send(Content::Large(digest, file)).map_err(|_| gone())?;
    Ok(digest)
}
