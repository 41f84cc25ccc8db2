//! Cache mounts: directories that outlive the commands that use them, on whichever worker those run.
//!
//! The farm keeps a tree for each name. A command works on a copy-on-write snapshot of it. When it has succeeded, what it left is published
//! whole, with what it began with, so that the farm keeps what others have published meanwhile: only what is new travels, and where two
//! wrote the same file, the last one wins. On disk, such trees are roots like others.
//!
//! Invariant: what keeps a cache from being taken or published is no fault of the command that mounts it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kiln_executor::rooted::Mount;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::Challenge;
use kiln_proto::root::{self as contract, entitlement};
use kiln_proto::transfer::{self, Blob, Client};
use kiln_proto::v1;
use kiln_proto::v1::cache_mounts_client::CacheMountsClient;
use kiln_trees::root::{Attributes, Directory, Forest, Node, Time, Times};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::layer::{self, Changes};
use super::mounts::Mounted;
use super::scan::{self, Upper};
use super::{Root, Roots, When, merge, owners};
use crate::inputs::Error;
use crate::inputs::fetching::in_place;
use crate::outputs::{self, MAX_BYTES};

/// Directories of a cache; more are merged.
const MAX_LAYERS: usize = 8;
/// Names whose last tree is remembered.
const REMEMBERED: usize = 1024;

/// The tree that each name had last here: the next one is likely to be much like it.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<HashMap<[u8; 16], Digest>>);

impl Latest {
    fn get(&self, name: &v1::CacheName) -> Option<Digest> {
        self.0.lock().get(&entitlement(name)).copied()
    }

    fn set(&self, name: &v1::CacheName, tree: Digest) {
        let mut latest = self.0.lock();
        if latest.len() >= REMEMBERED {
            latest.clear();
        }
        latest.insert(entitlement(name), tree);
    }
}

/// What was published when a command took a cache.
#[derive(Debug, Clone, Copy, Default)]
enum Began {
    /// That could not be used.
    #[default]
    Unknown,
    Nothing,
    With(Digest),
}

/// A cache that a command uses.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The name under which it is published, unless what the command leaves is thrown away.
    published_as: Option<v1::CacheMount>,
    /// What it begins with; none: nothing.
    base: Option<Root>,
    /// What was published when it began.
    began: Began,
    times: Times,
    /// While this lives, no other command has the cache.
    _alone: Option<DropGuard>,
}

/// What a command left in a cache.
#[derive(Debug)]
pub(crate) struct Left {
    mount: v1::CacheMount,
    number: usize,
    began: Began,
    changes: Changes,
    forest: Forest,
    times: Digest,
    blobs: Vec<(Digest, Blob)>,
    below: Vec<PathBuf>,
}

impl Taken {
    /// The directories that it begins with, topmost first.
    pub(super) fn layers(&self) -> &[PathBuf] {
        self.base.as_ref().map_or(&[], |base| base.stack.layers())
    }

    /// Begins with this tree if nothing was published.
    pub(super) fn begin_with(&mut self, tree: Root) {
        self.base.get_or_insert(tree);
    }

    /// Reads what a command left, given where it wrote; none if it left everything as it was.
    async fn left(
        &mut self,
        roots: &Roots,
        written: PathBuf,
        (mode, uid, gid): (u32, u32, u32),
        function: DigestFunction,
    ) -> Result<Option<(Changes, Forest, Times, Vec<PathBuf>)>, outputs::Error> {
        if std::fs::read_dir(&written).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(None);
        }
        let on_disk = roots.shared.on_disk;
        let below = self.layers().to_vec();
        let (mut forest, known) = match &mut self.base {
            Some(base) => (std::mem::replace(&mut base.forest, Forest::new(function)), Some(base.digest)),
            None => (Forest::new(function), None),
        };
        let times = std::mem::take(&mut self.times);
        let base = owners::base(&written, on_disk).map_err(|error| outputs::Error::Farm(error.to_string()))?;
        let cancel = CancellationToken::new();
        let _unwanted = cancel.clone().drop_guard();
        let read = move || {
            let empty = Directory::empty(Attributes { uid, gid, ..Attributes::of_root(mode) });
            let before = known.unwrap_or_else(|| forest.put(empty));
            let upper = Upper { path: &written, base, marks: on_disk.marks, function, most_bytes: MAX_BYTES };
            let changes = layer::changes(upper, &mut forest, &before, &cancel)?;
            let times = times_of(&forest, &changes.root, &changes.touched, &times);
            Ok(Some((changes, forest, times, below)))
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| outputs::Error::Farm(error.to_string()))?
    }
}

/// The times of a tree: those that were read where there are some, else the ones from before.
fn times_of(forest: &Forest, root: &Digest, touched: &BTreeMap<Vec<u8>, Time>, before: &Times) -> Times {
    let mut times = Times::default();
    let mut waiting = vec![(*root, Vec::new())];
    let mut keep = |path: Vec<u8>| {
        if let Some(time) = touched.get(&path).or_else(|| before.0.get(&path)) {
            times.0.insert(path, *time);
        }
    };
    while let Some((digest, within)) = waiting.pop() {
        keep(within.clone());
        let Some(directory) = forest.get(&digest) else { continue };
        for (name, node) in &directory.entries {
            let path = scan::joined(&within, name);
            match node {
                Node::Directory(below) => waiting.push((*below, path)),
                Node::Leaf(_) | Node::Whiteout => keep(path),
            }
        }
    }
    times
}

/// What a step on the worker's own system has beside its inputs, its caches and the sockets of agents, on disk until this is dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    roots: Roots,
    mounted: Mounted,
}

impl Beside {
    /// What is mounted, and where.
    pub(crate) fn mounts(&self) -> &[Mount] {
        &self.mounted.mounts
    }

    /// What a step that succeeded left in them, given where it wrote.
    pub(crate) async fn left(&mut self, written: &Path, function: DigestFunction) -> Vec<Left> {
        self.roots.left(&mut self.mounted.caches, written, function).await
    }

    /// Keeps what was published for the steps that follow.
    pub(crate) fn keep(&self, written: &Path, published: &[Left]) {
        self.roots.keep_caches(written, published);
    }
}

impl Left {
    /// Sends or shows what is new, and publishes it.
    ///
    /// # Errors
    /// If the connection breaks, or the farm does not take it.
    pub(crate) async fn publish(&self, client: &Client, challenge: Option<&Challenge>) -> Result<(), transfer::Error> {
        client.give(self.blobs.clone(), challenge).await?;
        let request = v1::PublishCacheRequest {
            name: self.mount.name.clone(),
            sharing: self.mount.sharing,
            tree: Some(self.changes.root.to_wire()),
            times: Some(self.times.to_wire()),
            began: match self.began {
                Began::With(tree) => Some(tree.to_wire()),
                Began::Nothing | Began::Unknown => None,
            },
            began_empty: matches!(self.began, Began::Nothing),
        };
        CacheMountsClient::new(client.channel()).publish(request).await?;
        Ok(())
    }

    /// The cache's id, for people.
    pub(crate) fn id(&self) -> &str {
        self.mount.name.as_ref().map_or("", |name| &name.id)
    }
}

impl Roots {
    /// Takes the cache of a mount for a command.
    pub(super) async fn cache(&self, client: &Client, caches: &[v1::CacheMount], target: &str) -> Result<Taken, Error> {
        let Some(mount) = caches.iter().find(|cache| cache.target == target) else { return Ok(Taken::default()) };
        let Some(name) = &mount.name else { return Ok(Taken::default()) };
        let request = v1::TakeCacheRequest { name: Some(name.clone()), sharing: mount.sharing };
        let (answer, alone) = match take(client, request).await {
            Ok(taken) => taken,
            Err(status) => {
                let error = transfer::Error::from(status);
                if error.is_connection() {
                    return Err(Error::Connection(error.to_string()));
                }
                tracing::warn!(%error, cache = name.id, "cannot take a cache mount; the step begins with an empty one");
                return Ok(Taken::default());
            }
        };
        let published_as = (!answer.discard).then(|| mount.clone());
        let mut taken = Taken { published_as, _alone: alone, ..Taken::default() };
        let function = client.function();
        let digest = |wire: Option<&kiln_proto::reapi::Digest>| Digest::required(function, wire).ok();
        let Some((tree, times)) = digest(answer.tree.as_ref()).zip(digest(answer.times.as_ref())) else {
            taken.began = Began::Nothing;
            return Ok(taken);
        };
        match self.published(client, name, &tree, &times).await {
            Ok((base, times)) => {
                (taken.base, taken.times, taken.began) = (Some(base), times, Began::With(tree));
            }
            Err(error @ (Error::Connection(_) | Error::Disk { .. })) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, cache = name.id, "cannot use what a cache mount has; the step begins with an empty one");
                // What is whole replaces what is not.
                if !matches!(error, Error::Missing(_) | Error::Invalid(_)) {
                    taken.published_as = None;
                }
            }
        }
        Ok(taken)
    }

    async fn published(
        &self,
        client: &Client,
        name: &v1::CacheName,
        tree: &Digest,
        times: &Digest,
    ) -> Result<(Root, Times), Error> {
        let data = client.get(times).await.map_err(crate::inputs::transfer_failed)?;
        let times = Times::decode(&data).map_err(|error| Error::Invalid(error.to_string()))?;
        let forest = self.shared.known.forest(client, tree).await?;
        let near = self.shared.latest.get(name);
        let root = self.laid_out(client, tree, forest, When::Known(&times), near).await?;
        self.shared.latest.set(name, *tree);
        Ok((root, times))
    }

    /// Reads what a command that succeeded left in its caches, given where it wrote.
    pub(super) async fn left(
        &self,
        caches: &mut [(usize, Taken, (u32, u32, u32))],
        written: &Path,
        function: DigestFunction,
    ) -> Vec<Left> {
        let mut all = Vec::new();
        for (number, taken, top) in caches {
            let Some(mount) = taken.published_as.clone() else { continue };
            let path = kiln_executor::rooted::written_to_mount(written, *number);
            match taken.left(self, path, *top, function).await {
                Ok(Some((changes, forest, times, below))) => {
                    let data = times.encode();
                    let times = function.digest(&data);
                    let files = changes.files.iter().map(|(digest, path)| (*digest, Blob::File(path.clone())));
                    let directories =
                        changes.made.iter().map(|made| (made.digest, Blob::Bytes(made.data.clone().into())));
                    let blobs = files.chain(directories).chain([(times, Blob::Bytes(data.into()))]).collect();
                    let began = taken.began;
                    all.push(Left { mount, number: *number, began, changes, forest, times, blobs, below });
                }
                Ok(None) => {}
                Err(error) => {
                    let id = mount.name.map(|name| name.id);
                    tracing::warn!(%error, cache = id, "cannot publish what a step left in a cache mount; it stays as it was");
                }
            }
        }
        all
    }

    /// Takes the caches of a step on the worker's own system, and serves the sockets of its agents.
    ///
    /// # Errors
    /// If the connection breaks, the disk fails, or the step mounts something else.
    pub(crate) async fn beside(
        &self,
        client: &Client,
        lease: &v1::Lease,
        mounts: &[contract::Mount],
    ) -> Result<Beside, Error> {
        let mut mounted = Mounted::default();
        self.of_step(client, lease, &mut mounted).await?;
        for mount in mounts {
            self.socket(client, mount, &mut mounted)?;
        }
        Ok(Beside { roots: self.clone(), mounted })
    }

    /// Keeps what was published for the steps that follow. That it cannot be kept is nobody's fault.
    pub(super) fn keep_caches(&self, written: &Path, published: &[Left]) {
        let kept = in_place(|| published.iter().try_for_each(|left| self.keep_cache(left, written)));
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep what a step left in a cache; the next one unpacks it again");
        }
    }

    /// Keeps what a command left in a cache, once it is published, for the steps that follow. Blocks.
    pub(super) fn keep_cache(&self, left: &Left, written: &Path) -> Result<(), Error> {
        let shared = &self.shared;
        let (root, key) = (left.changes.root, super::key(&left.changes.root));
        shared.known.remember(super::step::reached(&left.forest, &root));
        if let Some(name) = &left.mount.name {
            shared.latest.set(name, root);
        }
        if shared.stacks.get(&key).is_some() {
            return Ok(());
        }
        let has_image = left.below.last().is_some_and(|lowest| lowest.is_file());
        if has_image && left.below.len() >= MAX_LAYERS {
            // The next step makes an image of it.
            return Ok(());
        }
        let written = kiln_executor::rooted::written_to_mount(written, left.number);
        let bytes = kiln_executor::scratch::written_below(&written).bytes;
        let made = shared.take_over(&written)?;
        if left.below.len() < MAX_LAYERS {
            shared.stacks.put(&key, &made, bytes, &left.below)?;
        } else {
            let layers: Vec<PathBuf> =
                std::iter::once(made.path().to_owned()).chain(left.below.iter().cloned()).collect();
            let merged = shared.stacks.temporary();
            merge::merge(&layers, merged.path(), shared.on_disk.marks)?;
            let bytes = kiln_executor::scratch::written_below(merged.path()).bytes;
            shared.stacks.put(&key, &merged, bytes, &[])?;
        }
        shared.make_room();
        Ok(())
    }
}

/// What the farm answers, and what keeps others from the cache if it is this command's alone.
async fn take(
    client: &Client,
    request: v1::TakeCacheRequest,
) -> Result<(v1::TakenCache, Option<DropGuard>), tonic::Status> {
    let is_shared = request.sharing() == v1::CacheSharing::CacheShared;
    let mut answers = CacheMountsClient::new(client.channel()).take(request).await?.into_inner();
    let answer = answers.message().await?.ok_or_else(|| tonic::Status::internal("the farm answered nothing"))?;
    if is_shared {
        return Ok((answer, None));
    }
    let ended = CancellationToken::new();
    let alone = ended.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            () = ended.cancelled() => {}
            _ = answers.message() => {}
        }
    });
    Ok((answer, Some(alone)))
}
