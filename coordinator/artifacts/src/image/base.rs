//! Base images, imported into the store once, from a registry or from the project.
//!
//! Invariant: within one build, a reference resolves to one digest, however many images and platforms use it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_images::blobs::{self, Blobs, ByteStream};
use kiln_images::contents::Contents;
use kiln_images::image::Base;
use kiln_images::manifest::{Descriptor, Document, media_type};
use kiln_images::platform::Platform;
use kiln_images::reference::{self, Reference};
use kiln_images::registry::{self, Registries, Repository};
use kiln_images::{archive, base, digest, layer, layout};
use kiln_planner::plan::{self, ArtifactKind, Plan};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{Entry, Tree};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, OnceCell};

use super::Material;
use super::feed::{self, Piece, Reader};
use kiln_auth::credentials::Credentials;
use kiln_store::files::{self, PutError};
use kiln_store::recipes::Recipes;
use kiln_store::trees;
use kiln_store::{BlobStore, Stores};

/// Increased when the stored form of a base changes.
const VERSION: u32 = 1;
/// Maximum number of layers fetched at once.
const CONCURRENCY: usize = 3;

/// Why a base cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BaseError {
    #[error(transparent)]
    Reference(#[from] reference::Invalid),
    #[error(transparent)]
    Image(#[from] blobs::Error),
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    #[error(
        "there is no `{path}`, neither in the outputs of the artifact's steps nor in the sources; give a path in the project (`kiln docker build` sends a layout from elsewhere)"
    )]
    Absent { path: String },
    #[error("its layer {number} does not match its configuration (expected `{expected}`, found `{found}`)")]
    Layer { number: usize, expected: String, found: String },
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error(transparent)]
    Tree(#[from] trees::Error),
    #[error("cannot unpack a layer: {0}")]
    Unpack(#[from] std::io::Error),
}

impl BaseError {
    /// The platform of the only image that there is, if it is not the one that is wanted.
    pub(super) fn only_platform(&self) -> Option<Platform> {
        let Self::Image(blobs::Error::Platform { there, .. }) = self else { return None };
        match &there.0[..] {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    /// Whether it is the project's fault rather than the farm's or a registry's.
    pub fn is_project_fault(&self) -> bool {
        let names_none = |error: &registry::Error| {
            matches!(error, registry::Error::NotFound { .. } | registry::Error::NotAllowed { .. })
        };
        match self {
            Self::Registry(error) => names_none(error),
            Self::Image(blobs::Error::Elsewhere(error)) => {
                error.downcast_ref::<registry::Error>().is_some_and(names_none)
            }
            Self::Image(error) => !matches!(error, blobs::Error::Io { .. }),
            Self::Reference(_) | Self::Absent { .. } | Self::Layer { .. } | Self::Unpack(_) => true,
            Self::Store(_) | Self::Tree(_) => false,
        }
    }
}

/// Why an image of the plan cannot be made, as far as the plan alone shows.
pub fn invalid_base(plan: &Plan) -> Option<String> {
    plan.artifacts.iter().find_map(|artifact| {
        let ArtifactKind::Image(image) = &artifact.kind else { return None };
        let plan::Base::Reference(text) = &image.base else { return None };
        let error = text.parse::<Reference>().err()?;
        Some(format!("artifact `{}`: its `base` {error}; a path begins with `./`", artifact.name))
    })
}

/// A base in the store.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) base: Base,
    /// The store's digest of each of its layers.
    pub(super) blobs: BTreeMap<digest::Digest, Digest>,
    pub(super) contents: Contents,
    /// Its reference; empty if it is part of the project.
    pub(super) name: String,
    /// Its URI in the provenance.
    pub(super) uri: String,
}

impl Stored {
    /// It as something that an artifact was made from.
    pub(super) fn material(&self) -> Material {
        Material { name: self.name.clone(), uri: self.uri.clone(), sha256: self.base.digest.hex() }
    }
}

#[derive(Serialize)]
struct Recipe<'a> {
    image_base: u32,
    digest: &'a str,
    platform: String,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    digest: digest::Digest,
    config: Map<String, Value>,
    layers: Vec<Descriptor>,
    contents: Contents,
}

/// By reference and platform, or by reference only; computed by the first caller.
type Known<K, V> = Mutex<HashMap<K, Arc<OnceCell<V>>>>;

/// The bases of one build.
#[derive(Debug)]
pub struct Bases {
    stores: Stores,
    instance: String,
    function: DigestFunction,
    options: registry::Options,
    credentials: Credentials,
    registries: OnceCell<Registries>,
    tops: Known<String, Document>,
    /// The manifests that references stand for, in hex, whatever they stand for in their registry.
    pins: BTreeMap<String, String>,
    stored: Known<(String, String), Arc<Stored>>,
}

impl Bases {
    /// Bases for a build in this instance, fetched with these credentials.
    pub fn new(
        stores: Stores,
        instance: &str,
        function: DigestFunction,
        (options, credentials): (registry::Options, Credentials),
    ) -> Self {
        let instance = instance.trim_matches('/').to_owned();
        let (registries, tops, stored) = (OnceCell::new(), Mutex::default(), Mutex::default());
        Self { stores, instance, function, options, credentials, registries, tops, pins: BTreeMap::new(), stored }
    }

    /// Has references stand for these manifests (SHA-256, in hex), wherever they point in their registry.
    pub fn pin(&mut self, manifests: BTreeMap<String, String>) {
        self.pins = manifests;
    }

    /// Fetches the registry bases of a plan for a target, so that a wrong one is reported before anything is built.
    ///
    /// # Errors
    /// The artifact's name and what is wrong with its base.
    pub async fn prepare(&self, plan: &Plan, target: &plan::Target) -> Result<(), super::super::Error> {
        let platform = Platform::linux(target.platform.architecture());
        for artifact in &plan.artifacts {
            let ArtifactKind::Image(image) = &artifact.kind else { continue };
            let plan::Base::Reference(reference) = &image.base else { continue };
            self.of_registry(reference, &platform).await.map_err(|source| super::super::Error::Base {
                artifact: artifact.name.clone(),
                base: reference.clone(),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    async fn registries(&self) -> Result<&Registries, BaseError> {
        let open = || async {
            let credentials = self.credentials.of_images().map_err(Box::new)?;
            Ok(Registries::new(self.options.clone(), credentials))
        };
        self.registries.get_or_try_init(open).await
    }

    /// The base with this reference, for a platform.
    pub(super) async fn of_registry(&self, text: &str, platform: &Platform) -> Result<Arc<Stored>, BaseError> {
        let reference: Reference = text.parse()?;
        let once = self.stored.lock().await.entry((reference.to_string(), platform.to_string())).or_default().clone();
        let stored = once.get_or_try_init(|| async {
            let pin = self.pins.get(&reference.to_string()).and_then(|hex| format!("sha256:{hex}").parse().ok());
            let wanted = pin.map_or_else(|| reference.clone(), |digest| reference.at_digest(digest));
            // A digest that is in the store already needs no registry.
            if let Some(digest) = wanted.digest()
                && let Some(found) = self.find(&digest.to_string(), platform, &reference).await?
            {
                return Ok(Arc::new(found));
            }
            let top = self.top(&wanted).await?;
            let digest = top.descriptor.digest.to_string();
            if let Some(found) = self.find(&digest, platform, &reference).await? {
                return Ok(Arc::new(found));
            }
            let registries = self.registries().await?.clone();
            let blobs = Repository { registries, reference: wanted };
            let base = base::resolve(&blobs, &top, platform).await?;
            let kept = self.keep(&digest, platform, base, &blobs).await?;
            Ok::<_, BaseError>(Arc::new(named(kept, &reference)))
        });
        stored.await.cloned()
    }

    /// The manifest or index that a reference names in this build.
    async fn top(&self, reference: &Reference) -> Result<Document, BaseError> {
        let once = self.tops.lock().await.entry(reference.to_string()).or_default().clone();
        let registries = self.registries().await?;
        let found = once.get_or_try_init(|| async { registries.manifest(reference).await.map_err(Box::new) });
        Ok(found.await?.clone())
    }

    /// A base that is a file or a directory of the project: `PATH[:TAG][@DIGEST]`.
    pub(super) async fn of_project(
        &self,
        text: &str,
        outputs: &Tree,
        sources: &Tree,
        platform: &Platform,
    ) -> Result<Arc<Stored>, BaseError> {
        let store = &*self.stores.blobs;
        let (path, which) = match (outputs.get(text), sources.get(text)) {
            (None, None) => base::Which::read(text),
            _ => (text, base::Which::default()),
        };
        let absent = || BaseError::Absent { path: path.to_owned() };
        let (key, entry) = match outputs.get(path).or_else(|| sources.get(path)).ok_or_else(absent)? {
            Entry::File { digest, .. } => (digest.to_string(), Entry::file(*digest, false)),
            Entry::Directory(tree) => {
                let tree = tree.clone();
                (tree.encode(self.function, &mut |_| {}).to_string(), Entry::Directory(tree))
            }
            _ => return Err(absent()),
        };
        let own = |(base, blobs, contents): (Base, _, _)| {
            let uri = format!("file:{path}");
            Arc::new(Stored { base, blobs, contents, name: String::new(), uri })
        };
        let key = format!("{key}{}", text.strip_prefix(path).unwrap_or_default());
        if let Some(found) = self.find_kept(&key, platform).await? {
            return Ok(own(found));
        }
        let kept = match entry {
            Entry::File { digest, .. } => {
                let file = fetch(store, &digest).await?;
                let (open, shown) = (file.path().to_owned(), path.to_owned());
                let opened = tokio::task::spawn_blocking(move || archive::Archive::open(&open, &shown)).await;
                let archive = opened.map_err(std::io::Error::other)??;
                let base = base::resolve_layout(&archive, archive.top(), which, platform).await?;
                self.keep(&key, platform, base, &archive).await?
            }
            Entry::Directory(tree) => {
                let layout = Layout { path: path.to_owned(), tree, store: self.stores.blobs.clone() };
                let top = layout.index().await?;
                let base = base::resolve_layout(&layout, &top, which, platform).await?;
                self.keep(&key, platform, base, &layout).await?
            }
            _ => return Err(absent()),
        };
        Ok(own(kept))
    }

    fn recipes(&self) -> Recipes<'_> {
        Recipes { stores: &self.stores, instance: &self.instance, function: self.function }
    }

    async fn find(
        &self,
        digest: &str,
        platform: &Platform,
        reference: &Reference,
    ) -> Result<Option<Stored>, BaseError> {
        Ok(self.find_kept(digest, platform).await?.map(|kept| named(kept, reference)))
    }

    async fn find_kept(&self, digest: &str, platform: &Platform) -> Result<Option<InStore>, BaseError> {
        let recipe = Recipe { image_base: VERSION, digest, platform: platform.to_string() };
        let Some((kept, files)) = self.recipes().find::<Cached>(&recipe).await? else { return Ok(None) };
        let blobs = files.iter().filter_map(|(path, digest)| Some((layout::blob_at(path)?, *digest))).collect();
        Ok(Some((Base { digest: kept.digest, config: kept.config, layers: kept.layers }, blobs, kept.contents)))
    }

    /// Imports a base's layers and inspects them.
    async fn keep(
        &self,
        digest: &str,
        platform: &Platform,
        mut base: Base,
        from: &dyn Blobs,
    ) -> Result<InStore, BaseError> {
        let store = &*self.stores.blobs;
        let imports: Vec<_> = base.layers.iter().map(|layer| self.import(layer, from)).collect();
        let imported: Vec<(Descriptor, Digest)> = stream::iter(imports).buffered(CONCURRENCY).try_collect().await?;
        let mut contents = Contents::default();
        for (number, (layer, digest)) in imported.iter().enumerate() {
            let expected = base.config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")?.get(number)).cloned();
            let found;
            (contents, found) = look_through(store, digest, layer, contents).await?;
            if expected.as_ref().and_then(Value::as_str) != Some(&found.to_string()) {
                let expected = expected.as_ref().and_then(Value::as_str).unwrap_or("none").to_owned();
                return Err(BaseError::Layer { number: number.saturating_add(1), expected, found: found.to_string() });
            }
        }
        base.layers = imported.iter().map(|(layer, _)| layer.clone()).collect();
        let blobs: BTreeMap<_, _> = imported.iter().map(|(layer, digest)| (layer.digest, *digest)).collect();
        let recipe = Recipe { image_base: VERSION, digest, platform: platform.to_string() };
        let kept = Cached {
            digest: base.digest,
            config: base.config.clone(),
            layers: base.layers.clone(),
            contents: contents.clone(),
        };
        let files = blobs.iter().map(|(name, digest)| (layout::blob_path(name), *digest)).collect();
        self.recipes().keep(&recipe, &kept, &files).await?;
        // An image of several platforms is known by its own manifest, too.
        let own = base.digest.to_string();
        if own != digest {
            self.recipes().keep(&Recipe { digest: &own, ..recipe }, &kept, &files).await?;
        }
        Ok((base, blobs, contents))
    }

    /// Imports one layer. A plain tar, as written by `docker save`, is compressed on the way.
    async fn import(&self, layer: &Descriptor, from: &dyn Blobs) -> Result<(Descriptor, Digest), BaseError> {
        let store = &*self.stores.blobs;
        let is_plain = layer.media_type == media_type::OCI_LAYER;
        if !is_plain && self.function == DigestFunction::Sha256 {
            let digest = Digest { function: self.function, hash: layer.digest.bytes(), size: layer.size };
            if store.find_missing(&[digest]).await?.is_empty() {
                return Ok((layer.clone(), digest));
            }
            let mut pieces = blobs::checked(from.open(layer).await?, layer);
            let mut writer = store.write(&digest).await?;
            while let Some(piece) = pieces.try_next().await? {
                writer.write(piece).await?;
            }
            writer.commit().await?;
            return Ok((layer.clone(), digest));
        }
        let pieces = blobs::checked(from.open(layer).await?, layer);
        let (path, made) = into_file(pieces, is_plain).await?;
        let (digest, _) = files::put(store, self.function, &path).await.map_err(|error| match error {
            PutError::Store(error) => BaseError::Store(error),
            PutError::Io(error) => BaseError::Unpack(error),
        })?;
        Ok((made.unwrap_or_else(|| layer.clone()), digest))
    }
}

type InStore = (Base, BTreeMap<digest::Digest, Digest>, Contents);

fn named((base, blobs, contents): InStore, reference: &Reference) -> Stored {
    let uri = format!("pkg:docker/{}@{}", reference.repository(), base.digest);
    let uri = format!("{uri}?repository_url={}", reference.registry());
    Stored { base, blobs, contents, name: reference.to_string(), uri }
}

/// Writes a stream to a file. A plain tar is compressed, and gets a new descriptor.
async fn into_file(
    mut pieces: ByteStream,
    compress: bool,
) -> Result<(tempfile::TempPath, Option<Descriptor>), BaseError> {
    let (sender, mut receiver) = feed::channel();
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = tempfile::NamedTempFile::new()?;
        let mut reader = Reader::new(&mut receiver, u64::MAX);
        let made = if compress {
            Some(layer::compress(&mut reader, &mut file, layer::Compression::Gzip)?.descriptor)
        } else {
            std::io::copy(&mut reader, &mut file)?;
            None
        };
        Ok::<_, std::io::Error>((file.into_temp_path(), made))
    });
    let sent = async {
        while let Some(piece) = pieces.try_next().await? {
            if sender.send(Piece::Data(piece)).await.is_err() {
                break;
            }
        }
        Ok::<_, blobs::Error>(())
    };
    let sent = sent.await;
    drop(sender);
    let written = writing.await.map_err(std::io::Error::other)?;
    sent?;
    Ok(written?)
}

/// Adds the contents of a stored layer, and returns the digest of its tar.
pub(super) async fn look_through(
    store: &dyn BlobStore,
    digest: &Digest,
    layer: &Descriptor,
    mut contents: Contents,
) -> Result<(Contents, digest::Digest), BaseError> {
    let (sender, mut receiver) = feed::channel();
    let media_type = layer.media_type.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let found = contents.add(&media_type, Reader::new(&mut receiver, u64::MAX))?;
        Ok::<_, std::io::Error>((contents, found))
    });
    let sent = feed::send_blob(store, digest, &sender).await;
    drop(sender);
    let found = looking.await.map_err(std::io::Error::other)?;
    sent?;
    Ok(found?)
}

async fn fetch(store: &dyn BlobStore, digest: &Digest) -> Result<tempfile::NamedTempFile, BaseError> {
    let file = tempfile::NamedTempFile::new()?;
    let mut to = tokio::fs::File::create(file.path()).await?;
    let mut pieces = store.read(digest, 0, None).await?;
    while let Some(piece) = pieces.try_next().await? {
        tokio::io::AsyncWriteExt::write_all(&mut to, &piece).await?;
    }
    tokio::io::AsyncWriteExt::flush(&mut to).await?;
    Ok(file)
}

/// An OCI layout in a directory of the project.
struct Layout {
    path: String,
    tree: Tree,
    store: Arc<dyn BlobStore>,
}

impl Layout {
    fn entry(&self, path: &str) -> Result<Digest, blobs::Error> {
        match self.tree.get(path) {
            Some(Entry::File { digest, .. }) => Ok(*digest),
            _ => {
                let expected = "an OCI layout: `oci-layout`, `index.json` and `blobs/sha256`";
                Err(blobs::Error::Absent { place: self.path.clone(), path: path.to_owned(), expected })
            }
        }
    }

    async fn index(&self) -> Result<Document, BaseError> {
        let digest = self.entry(layout::INDEX)?;
        if digest.size > blobs::MAX_DOCUMENT_BYTES {
            return Err(blobs::Error::TooLarge { what: layout::INDEX.to_owned(), size: digest.size }.into());
        }
        Ok(Document::new(media_type::OCI_INDEX, self.store.get(&digest).await?))
    }
}

#[async_trait]
impl Blobs for Layout {
    fn place(&self) -> String {
        Path::new(&self.path).display().to_string()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, blobs::Error> {
        let digest = self.entry(&layout::blob_path(&descriptor.digest))?;
        let elsewhere = |error: kiln_store::Error| blobs::Error::Elsewhere(Box::new(error));
        let pieces = self.store.read(&digest, 0, None).await.map_err(elsewhere)?;
        Ok(pieces.map_err(elsewhere).boxed())
    }
}
