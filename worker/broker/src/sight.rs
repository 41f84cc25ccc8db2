//! What a call looked at, told by the worker that ran it to the worker of its step.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_calls::Kind;
use kiln_calls::manifest::Read;
use kiln_executor::{BUILD, Finished};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{reapi, v1};

use super::area::Area;
use super::cell::files_below;
use super::view::{Node, View, plain};

/// Describes what a finished job looked at: below the inputs as it has them, elsewhere as all jobs of this machine have it (`system`), or
/// as it has that too. Blocks.
pub(super) fn describe(finished: &Finished, command: &reapi::Command, system: Option<&View>) -> v1::CallSight {
    sight(finished, command, system).unwrap_or_else(|reason| {
        tracing::debug!(reason, "cannot say what a call looked at");
        v1::CallSight { incomplete: true, ..Default::default() }
    })
}

fn sight(finished: &Finished, command: &reapi::Command, system: Option<&View>) -> Result<v1::CallSight, &'static str> {
    let accesses = finished.accesses.as_ref().filter(|seen| !seen.incomplete).ok_or("it was not recorded")?;
    let root = finished.tree.root().parent().ok_or("it has no root")?;
    let own = View::open(root, Area::Build, system.map(|_| Arc::default())).map_err(|_| "its files are gone")?;
    let mut sight = v1::CallSight::default();
    let outputs: Vec<PathBuf> = outputs(command).collect();
    let of = |path: &Path| system.filter(|_| !Area::Build.has(path)).unwrap_or(&own);
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("a path is not UTF-8");
    for path in accesses.paths.iter().map(|path| plain(path)).filter(|path| !outputs.contains(path)) {
        let (text, view) = (text(&path)?, of(&path));
        match view.look(&path).map_err(|_| "a path cannot be looked at")? {
            Node::Absent => sight.absent.push(text),
            Node::Directory => sight.directories.push(text),
            Node::Other => sight.others.push(text),
            Node::File(place) => match view.digest_of(&path, &place) {
                Ok(digest) => {
                    let (digest, executable) = (Some(digest.to_wire()), place.executable);
                    sight.files.push(v1::SeenFile { path: text, digest, executable });
                }
                Err(_) => sight.others.push(text),
            },
        }
    }
    for path in accesses.listed.iter().map(|path| plain(path)) {
        if let Ok(names) = of(&path).listing_of(&path) {
            sight.listings.push(v1::SeenListing { path: text(&path)?, names: Some(names.to_wire()) });
        }
    }
    let mut left = Default::default();
    let written = finished.tree.written().ok_or("it is not known what it wrote")?;
    files_below(written, Path::new(BUILD), &mut left).map_err(|_| "what it wrote cannot be listed")?;
    let unforeseen = left.into_iter().filter(|path| !outputs.contains(path));
    sight.unforeseen = unforeseen.map(|path| path.to_string_lossy().into_owned()).collect();
    Ok(sight)
}

/// The absolute paths of a command's outputs.
fn outputs(command: &reapi::Command) -> impl Iterator<Item = PathBuf> {
    let resolve = |path: &String| kiln_trees::tree::resolve(&command.working_directory, path);
    command.output_paths.iter().filter_map(resolve).map(|path| Path::new(BUILD).join(path))
}

/// What was where, as another worker tells it.
#[derive(Debug, Default)]
pub(super) struct Sight {
    nodes: HashMap<PathBuf, Seen>,
    listings: HashMap<PathBuf, Digest>,
    /// All paths that were looked at.
    pub(super) accesses: kiln_executor::calls::Accesses,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Absent,
    Directory,
    File(Read),
    Other,
}

impl Sight {
    /// Reads what another worker says; none if its call is of no use.
    pub(super) fn read(wire: v1::CallSight) -> Option<Self> {
        if wire.incomplete || !wire.unforeseen.is_empty() {
            return None;
        }
        let mut sight = Self::default();
        let digest = |digest: &Option<_>| Digest::required(DigestFunction::Sha256, digest.as_ref()).ok();
        for file in &wire.files {
            let read = Read { digest: digest(&file.digest)?, executable: file.executable };
            sight.nodes.insert(PathBuf::from(&file.path), Seen::File(read));
        }
        for listing in &wire.listings {
            sight.listings.insert(PathBuf::from(&listing.path), digest(&listing.names)?);
        }
        let others = [(&wire.absent, Seen::Absent), (&wire.directories, Seen::Directory), (&wire.others, Seen::Other)];
        for (paths, seen) in others {
            sight.nodes.extend(paths.iter().map(|path| (PathBuf::from(path), seen)));
        }
        let files = wire.files.into_iter().map(|file| file.path);
        sight.accesses.paths = files.chain(wire.absent).chain(wire.directories).chain(wire.others).collect();
        sight.accesses.listed = wire.listings.into_iter().map(|listing| listing.path).collect();
        Some(sight)
    }

    /// What there was; nothing if there was nothing, or if it was not looked at.
    pub(super) fn kind(&self, path: &Path) -> Option<Kind> {
        match self.nodes.get(path)? {
            Seen::Absent => None,
            Seen::Directory => Some(Kind::Directory),
            Seen::File(_) => Some(Kind::File),
            Seen::Other => Some(Kind::Other),
        }
    }

    /// A regular file.
    pub(super) fn file(&self, path: &Path) -> Option<Read> {
        match self.nodes.get(path)? {
            Seen::File(read) => Some(*read),
            _ => None,
        }
    }

    /// The names in a directory, as a digest.
    pub(super) fn listing(&self, path: &Path) -> Option<Digest> {
        self.listings.get(path).copied()
    }
}
