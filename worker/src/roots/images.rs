//! Roots as EROFS images: names and attributes are in the image, content stays where the cache of inputs has it.
//!
//! After the image, its file has the list of the objects that it names.
//!
//! Invariant: what an image names is in the cache for as long as an action uses the image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_erofs::{Kind, Node};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::root::{Attributes, Content, Directory, Forest, Leaf, Times};
use kiln_trees::root::{Node as Entry, Time};
use parking_lot::Mutex;

use super::{attributes, scan};
use crate::inputs::{self, Error, MTIME, disk};

/// Images whose objects are remembered.
const REMEMBERED: usize = 64;
/// Bytes of an object in the list: its size and its hash.
const OBJECT: usize = 8 + 32;
/// Bytes at the end: how many objects there are.
const END: u64 = 8;

/// The objects of images, by their files.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<HashMap<PathBuf, Arc<[Digest]>>>);

impl Objects {
    /// The objects that images among these layers name; none where no layer is an image.
    pub(super) fn of(&self, layers: &[PathBuf], function: DigestFunction) -> io::Result<Option<Arc<[Digest]>>> {
        let Some(image) = layers.last().filter(|layer| layer.is_file()) else { return Ok(None) };
        if let Some(known) = self.0.lock().get(image) {
            return Ok(Some(known.clone()));
        }
        let objects: Arc<[Digest]> = read(image, function)?.into();
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(image.clone(), objects.clone());
        Ok(Some(objects))
    }
}

fn read(image: &Path, function: DigestFunction) -> io::Result<Vec<Digest>> {
    let mut file = File::open(image)?;
    file.seek(SeekFrom::End(-(END as i64)))?;
    let mut count = [0; END as usize];
    file.read_exact(&mut count)?;
    let bytes = u64::from_le_bytes(count).saturating_mul(OBJECT as u64);
    let length = i64::try_from(bytes.saturating_add(END)).map_err(io::Error::other)?;
    file.seek(SeekFrom::End(-length))?;
    let mut list = Vec::new();
    file.take(bytes).read_to_end(&mut list)?;
    let object = |object: &[u8; OBJECT]| {
        let (size, hash) = object.split_at(8);
        let mut digest = Digest::empty(function);
        digest.size = u64::from_le_bytes(size.try_into().unwrap_or_default());
        digest.hash.copy_from_slice(hash);
        digest
    };
    Ok(list.as_chunks::<OBJECT>().0.iter().map(object).collect())
}

/// Writes the image of a root, and returns how many bytes it takes.
pub(super) fn write(
    forest: &Forest,
    root: &Digest,
    to: &Path,
    content: &inputs::Content,
    times: &Times,
    marks: &str,
) -> Result<Option<u64>, Error> {
    let (nodes, objects) = nodes(forest, root, content, times)?;
    let mut file = BufWriter::new(File::create(to).map_err(disk(to))?);
    match kiln_erofs::write(&nodes, marks, &mut file) {
        Ok(()) => {}
        Err(kiln_erofs::Error::Io(error)) => return Err(disk(to)(error)),
        Err(error) => {
            tracing::debug!(%error, "a root does not fit into an image; it is unpacked");
            drop(file);
            std::fs::remove_file(to).map_err(disk(to))?;
            return Ok(None);
        }
    }
    let mut list = Vec::with_capacity(objects.len() * OBJECT + END as usize);
    for object in &objects {
        list.extend_from_slice(&object.size.to_le_bytes());
        list.extend_from_slice(&object.hash);
    }
    list.extend_from_slice(&(objects.len() as u64).to_le_bytes());
    let bytes = file.write_all(&list).and_then(|()| file.flush()).and_then(|()| file.get_ref().metadata());
    Ok(Some(bytes.map_err(disk(to))?.len()))
}

/// The nodes of an image, and the distinct content of its files.
fn nodes(
    forest: &Forest,
    root: &Digest,
    content: &inputs::Content,
    times: &Times,
) -> Result<(Vec<Node>, Vec<Digest>), Error> {
    let open = |digest: &Digest| forest.get(digest).cloned().ok_or_else(|| Error::Missing(vec![*digest]));
    let time = |within: &[u8]| {
        let Time { seconds, nanos } = times.0.get(within).copied().unwrap_or(Time { seconds: MTIME, nanos: 0 });
        (seconds, nanos)
    };
    let top = open(root)?;
    let mut nodes = vec![node(Kind::Directory(Vec::new()), &own(&top), time(b""))];
    let (mut groups, mut objects) = (HashMap::new(), HashMap::new());
    let mut waiting = vec![(0, Vec::new(), top)];
    while let Some((at, within, directory)) = waiting.pop() {
        let mut names = Vec::with_capacity(directory.entries.len());
        for (name, entry) in &directory.entries {
            let path = scan::joined(&within, name);
            let next = nodes.len();
            let number = match entry {
                Entry::Whiteout => return Err(Error::Invalid("root: it has whiteouts".to_owned())),
                Entry::Directory(digest) => {
                    let below = open(digest)?;
                    nodes.push(node(Kind::Directory(Vec::new()), &own(&below), time(&path)));
                    waiting.push((next, path, below));
                    next
                }
                Entry::Leaf(leaf) => match leaf.links.and_then(|group| groups.get(&group)) {
                    Some(first) => *first,
                    None => {
                        groups.extend(leaf.links.map(|group| (group, next)));
                        if let Content::File(digest) = leaf.content
                            && !digest.is_empty()
                        {
                            objects.insert(digest, ());
                        }
                        nodes.push(node(kind(leaf, content), &leaf.attributes, time(&path)));
                        next
                    }
                },
            };
            names.push((name.as_bytes().to_vec(), number));
        }
        nodes[at].kind = Kind::Directory(names);
    }
    let mut objects: Vec<Digest> = objects.into_keys().collect();
    objects.sort_unstable();
    Ok((nodes, objects))
}

fn own(directory: &Directory) -> Attributes {
    directory.attributes.clone().unwrap_or_else(Attributes::directory)
}

fn kind(leaf: &Leaf, content: &inputs::Content) -> Kind {
    match &leaf.content {
        Content::File(digest) if digest.is_empty() => Kind::File(0, Vec::new()),
        Content::File(digest) => Kind::File(digest.size, content.object(digest).into_bytes()),
        Content::Symlink(target) => Kind::Symlink(target.clone()),
        Content::Fifo => Kind::Fifo,
        Content::Character(major, minor) => Kind::Character(*major, *minor),
        Content::Block(major, minor) => Kind::Block(*major, *minor),
    }
}

fn node(kind: Kind, attributes: &Attributes, modified: (i64, u32)) -> Node {
    let kept = attributes.xattrs.iter().filter(|(name, _)| attributes::is_kept(name));
    // As on disk, where these cannot have them.
    let has = |name: &str| matches!(kind, Kind::File(..) | Kind::Directory(_)) || !name.starts_with("user.");
    let xattrs = kept.filter(|(name, _)| has(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    Node { kind, mode: attributes.mode, uid: attributes.uid, gid: attributes.gid, modified, xattrs }
}
