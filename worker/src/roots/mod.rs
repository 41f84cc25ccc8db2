//! Root file systems of actions: laid out on disk as stacks of directories, and what a command changed in one.
//!
//! A root is known by its tree. One that is not here becomes an EROFS image, where the kernel can use one, unless it differs by a few nodes from
//! one that is here. Elsewhere it is laid out over the most similar one that is here. In both cases only what differs is unpacked, as one
//! more directory. What a command wrote becomes a directory of the root that it led
//! to, by a rename.
//!
//! Invariants: nothing that was only partly unpacked is used; what an action uses stays; with equal trees, roots are equal but for the times of
//! their nodes.

mod agents;
mod attributes;
mod caches;
mod dated;
mod directories;
mod files;
mod images;
mod layer;
mod merge;
mod mounts;
mod owners;
mod scan;
mod stacks;
mod step;
mod unpack;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_proto::transfer::Client;
use kiln_sandbox::{Layout, OnDisk};
use kiln_trees::root::{self, Directory, Forest, Leaf, Name, Node, Times};

use crate::inputs::session::Session;
use crate::inputs::{Content, Error, Inputs};
use caches::Latest;
use dated::Dated;
use directories::Known;
use images::Objects;
use stacks::{MAX_LAYERS, Pinned, Stacks};

pub(crate) use caches::{Beside, Left};
pub(crate) use files::Files;
pub use step::{Changed, Step};
pub(crate) use step::{is_rooted, mounts};

/// Roots with which one that is not here is compared.
const COMPARED: usize = 8;
/// Nodes, and bytes of files, of a layer that is unpacked over another root rather than made a part of an image.
const STEP_NODES: usize = 512;
const STEP_BYTES: u64 = 8 << 20;
/// Directories of a stack over which such a layer goes; on more, an image is made.
const MAX_STEPS: usize = 16;
/// What the keys of roots begin with.
const ROOT: &str = "root:";

/// Where roots are kept, and what they are like.
#[derive(Debug, Clone)]
pub struct Config {
    /// A directory of its own, on the file system on which actions write.
    pub directory: PathBuf,
    /// Most bytes of everything in it. What is in use at once may be more.
    pub max_bytes: u64,
    /// What roots are on disk.
    pub layout: Layout,
    /// What files of roots are on disk.
    pub on_disk: OnDisk,
}

#[derive(Debug)]
struct Shared {
    inputs: Inputs,
    stacks: Stacks,
    known: Known,
    latest: Latest,
    dated: Dated,
    objects: Objects,
    layout: Layout,
    on_disk: OnDisk,
    max_bytes: u64,
    session: Session,
    /// Where the sockets of agents are.
    agents: PathBuf,
}

/// The roots of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Roots {
    shared: Arc<Shared>,
}

/// A root on disk, kept there until this is dropped.
#[derive(Debug)]
pub(crate) struct Root {
    digest: Digest,
    stack: Pinned,
    /// Its directories.
    forest: Forest,
    /// Content that its image names.
    _content: Option<Content>,
}

/// Where the times of a root's nodes are.
#[derive(Debug, Clone, Copy)]
enum When<'a> {
    /// In this blob, if it has any.
    Stored(Option<&'a Digest>),
    Known(&'a Times),
}

fn key(digest: &Digest) -> String {
    format!("{ROOT}{}:{}:{}", digest.function.name(), digest.hex(), digest.size)
}

fn failed(error: &root::Error) -> Error {
    Error::Invalid(format!("root: {error}"))
}

impl Roots {
    /// Opens the directory; what an earlier run left half made is removed.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(config: Config, inputs: Inputs) -> Result<Self, Error> {
        let session = Session::open(&config.directory)?;
        // There are set-user-ID files of root's in it.
        std::fs::set_permissions(&config.directory, std::fs::Permissions::from_mode(0o700))
            .map_err(crate::inputs::disk(&config.directory))?;
        // Layers of another kind could not be read.
        let OnDisk { layers, marks, .. } = config.on_disk;
        let kind = format!("{layers} {marks} {:?}", config.layout);
        let note = config.directory.join("kind");
        let is_same = std::fs::read_to_string(&note).is_ok_and(|text| text == kind);
        let stacks = Stacks::open(&config.directory, session.is_trusted() && is_same)?;
        std::fs::write(&note, kind).map_err(crate::inputs::disk(&note))?;
        let shared = Shared {
            inputs,
            stacks,
            known: Known::default(),
            latest: Latest::default(),
            dated: Dated::default(),
            objects: Objects::default(),
            layout: config.layout,
            on_disk: config.on_disk,
            max_bytes: config.max_bytes,
            session,
            agents: config.directory.join("agents"),
        };
        // Sockets that an earlier process served.
        let _ = std::fs::remove_dir_all(&shared.agents);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Bytes of everything that is kept.
    pub fn bytes(&self) -> u64 {
        self.shared.stacks.bytes()
    }

    /// Writes to disk what is here, and that it is whole. For an orderly end.
    pub fn close(&self) {
        if let Err(error) = self.shared.session.close() {
            tracing::warn!(%error, "cannot write the roots to disk; they are made again at the next start");
        }
    }

    /// Makes a root available, with these times where it has to be unpacked. Callers at the same time share the work.
    async fn root(&self, client: &Client, digest: &Digest, times: Option<&Digest>) -> Result<Root, Error> {
        let forest = self.shared.known.forest(client, digest).await?;
        self.laid_out(client, digest, forest, When::Stored(times), None).await
    }

    /// A tree whose only entry is this file.
    async fn file(&self, client: &Client, leaf: Leaf) -> Result<Root, Error> {
        let mut forest = Forest::new(client.function());
        let mut directory = Directory::empty(root::Attributes::directory());
        let name = Name::new(kiln_executor::rooted::FILE).map_err(|error| failed(&error.into()))?;
        directory.entries.insert(name, Node::Leaf(leaf));
        let digest = forest.put(directory);
        self.laid_out(client, &digest, forest, When::Stored(None), None).await
    }

    /// `near`: a root that it is likely to be much like.
    async fn laid_out(
        &self,
        client: &Client,
        digest: &Digest,
        forest: Forest,
        times: When<'_>,
        near: Option<Digest>,
    ) -> Result<Root, Error> {
        let key = key(digest);
        let alone = self.shared.stacks.flight(&key).lock_owned().await;
        if let Some(stack) = self.shared.stacks.get(&key) {
            match self.hold(client, &stack).await {
                Ok(content) => return Ok(Root { digest: *digest, stack, forest, _content: content }),
                Err(error @ (Error::Connection(_) | Error::Disk { .. })) => return Err(error),
                // What it was made from is gone: it is made again.
                Err(error) => tracing::debug!(%error, "a root on disk lacks content"),
            }
        }
        let times = match times {
            When::Stored(Some(digest)) => {
                let data = client.get(digest).await.map_err(crate::inputs::transfer_failed)?;
                Times::decode(&data).map_err(|error| Error::Invalid(error.to_string()))?
            }
            When::Stored(None) => Times::default(),
            When::Known(times) => times.clone(),
        };
        let (mut forest, digest) = (forest, *digest);
        let is_erofs = self.shared.layout == Layout::Erofs;
        let times = Arc::new(times);
        let below = match is_erofs {
            true => self.one_step_below(&mut forest, &digest, near, &times),
            false => self.most_similar(&mut forest, &digest, near),
        };
        let (below, held) = match below {
            None => (None, None),
            Some((stack, layer)) => match self.hold(client, &stack).await {
                Ok(held) => (Some((stack, layer)), held),
                Err(error @ (Error::Connection(_) | Error::Disk { .. })) => return Err(error),
                // It lacks content.
                Err(_) => (None, None),
            },
        };
        let as_image = is_erofs && below.is_none();
        let what = below.as_ref().map_or(digest, |(_, layer)| *layer);
        let files = unpack::files(&forest, &what)?;
        let content = self.shared.inputs.content(client, files.into_iter()).await?;
        let shared = self.shared.clone();
        // Who waits for this may be cancelled; the work goes on, and with it what keeps others from the same.
        let make = move || {
            let _alone = alone;
            let made = shared.stacks.temporary();
            let image = match as_image {
                true => images::write(&forest, &what, made.path(), &content, &times, shared.on_disk.marks)?,
                false => None,
            };
            let bytes = match image {
                Some(bytes) => bytes,
                None => unpack::unpack(&forest, &what, made.path(), &content, &times, shared.on_disk)?,
            };
            let lower = below.as_ref().map_or(&[][..], |(stack, _)| stack.layers());
            let stack = shared.stacks.put(&key, &made, bytes, lower)?;
            shared.dated.remember(key, times);
            shared.make_room();
            forest.take_made();
            Ok(Root { digest, stack, forest, _content: held.or(image.map(|_| content)) })
        };
        tokio::task::spawn_blocking(make).await.map_err(|error| Error::Farm(error.to_string()))?
    }

    /// Keeps what the image of a stack names, fetching what is not here any more.
    async fn hold(&self, client: &Client, stack: &Pinned) -> Result<Option<Content>, Error> {
        let objects = self.shared.objects.of(stack.layers(), client.function());
        let objects = objects.map_err(|error| Error::Invalid(error.to_string()))?;
        let Some(objects) = objects else { return Ok(None) };
        match self.shared.inputs.held(&objects) {
            Some(content) => Ok(Some(content)),
            None => self.shared.inputs.content(client, objects.iter().copied()).await.map(Some),
        }
    }

    /// A root here from which this one differs so little that a directory over it is made sooner than an image of everything, as after an
    /// edit of one source file; and the layer between them. What both have was modified at the same times.
    fn one_step_below(
        &self,
        forest: &mut Forest,
        digest: &Digest,
        near: Option<Digest>,
        times: &Times,
    ) -> Option<(Pinned, Digest)> {
        let mut best: Option<(usize, Pinned, Digest)> = None;
        for key in near.as_ref().map(key).into_iter().chain(self.shared.stacks.recent(ROOT, COMPARED)) {
            let (Some(other), Some(before)) = (parse(&key, digest), self.shared.dated.of(&key)) else { continue };
            let diff = self.shared.known.with(forest, |forest| forest.diff(&other, digest));
            let Ok(Some(layer)) = diff else { continue };
            let is_small = unpack::count(forest, &layer).is_some_and(|count| count <= STEP_NODES);
            if !is_small || bytes(forest, &layer) > STEP_BYTES || !dated::agree(forest, &layer, &before, times) {
                continue;
            }
            // The lowest, so that edits one after another do not pile up.
            if let Some(stack) = self.shared.stacks.get(&key)
                && stack.layers().len() < best.as_ref().map_or(MAX_STEPS, |(depth, ..)| *depth)
            {
                best = Some((stack.layers().len(), stack, layer));
            }
        }
        best.map(|(_, stack, layer)| (stack, layer))
    }

    /// The root here that differs least from this one, and the layer between them; none if unpacking all of it is less.
    fn most_similar(&self, forest: &mut Forest, digest: &Digest, near: Option<Digest>) -> Option<(Pinned, Digest)> {
        let all = unpack::count(forest, digest)?;
        let mut best: Option<(usize, Pinned, Digest)> = None;
        for key in near.as_ref().map(key).into_iter().chain(self.shared.stacks.recent(ROOT, COMPARED)) {
            let Some(other) = parse(&key, digest) else { continue };
            let diff = self.shared.known.with(forest, |forest| forest.diff(&other, digest));
            let Ok(Some(layer)) = diff else { continue };
            let Some(count) = unpack::count(forest, &layer) else { continue };
            // Half of a root is better laid out whole, once, than looked for in two places for ever.
            let most = best.as_ref().map_or(all / 2, |(count, ..)| *count);
            if count < most
                && let Some(stack) = self.shared.stacks.get(&key)
            {
                best = Some((count, stack, layer));
            }
        }
        best.map(|(_, stack, layer)| (stack, layer))
    }
}

impl Shared {
    fn make_room(&self) {
        if self.stacks.bytes() > self.max_bytes {
            self.stacks.evict(self.max_bytes / 10 * 9);
        }
    }

    /// Takes a directory that a command wrote to, with owners as layers have them.
    fn take_over(&self, written: &std::path::Path) -> Result<stacks::Temporary, Error> {
        if self.on_disk.written != Some(self.on_disk.layers) {
            owners::settle(written, owners::base(written, self.on_disk)?, self.on_disk.layers)?;
        }
        let made = self.stacks.temporary();
        std::fs::rename(written, made.path()).map_err(crate::inputs::disk(written))?;
        Ok(made)
    }

    /// Keeps what a command wrote over a root as the root that it led to.
    fn keep(&self, before: &Root, written: &std::path::Path, after: &Digest) -> Result<(), Error> {
        let below = before.stack.layers();
        if before.digest == *after || below.len() >= MAX_LAYERS || self.stacks.get(&key(after)).is_some() {
            return Ok(());
        }
        let bytes = kiln_executor::scratch::written_below(written).bytes;
        let made = self.take_over(written)?;
        self.stacks.put(&key(after), &made, bytes, below)?;
        self.make_room();
        Ok(())
    }
}

/// Bytes of the files of a layer.
fn bytes(forest: &Forest, layer: &Digest) -> u64 {
    let files = unpack::files(forest, layer).unwrap_or_default();
    files.iter().map(|digest| digest.size).sum()
}

/// The root with this key, if its digests are like another's.
fn parse(key: &str, like: &Digest) -> Option<Digest> {
    let mut parts = key.strip_prefix(ROOT)?.split(':');
    let (function, hash, size) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    Digest::new(like.function, hash, size).ok().filter(|_| function == like.function.name())
}
