//! A file system as a list of paths, and what unpacking a layer into it does.

use std::collections::BTreeMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::root::{Attributes, Content, Directory, Forest, Leaf, Name, Node};
use proptest::prelude::*;

pub const F: DigestFunction = DigestFunction::Sha256;

pub type Path = Vec<Name>;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Is {
    /// None: implied, in a layer.
    Directory(Option<Attributes>),
    Leaf(Leaf),
    Whiteout,
    /// A directory that hides what is below it.
    Opaque(Option<Attributes>),
}

/// Paths of a root or of a layer. The root itself is the empty path.
pub type Paths = BTreeMap<Path, Is>;

pub fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

pub fn content(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) * 300]
}

pub fn names() -> impl Strategy<Value = Name> {
    let some: Vec<&[u8]> = vec![b"a", b"b", b"c", b"%41", "\u{fc}".as_bytes(), b"\xff", b"\xff%", b" "];
    prop::sample::select(some).prop_map(name)
}

pub fn attributes() -> impl Strategy<Value = Attributes> {
    let xattrs = prop::collection::btree_map("(user\\.[a-c]|security\\.capability)", any::<Vec<u8>>(), 0..2);
    let modes = prop::sample::select(vec![0o644, 0o755, 0o4755, 0o1777, 0]);
    (modes, 0..2_u32, prop::sample::select(vec![0, 33, 65_534]), xattrs)
        .prop_map(|(mode, uid, gid, xattrs)| Attributes { mode, uid, gid, xattrs })
}

pub fn leaf() -> impl Strategy<Value = Leaf> {
    let what = prop_oneof![
        6 => (0..4_u8).prop_map(|number| Content::File(F.digest(&content(number)))),
        2 => prop::sample::select(vec![b"a".to_vec(), b"../b/c".to_vec(), b"/a".to_vec(), b"\xff/x".to_vec()])
            .prop_map(Content::Symlink),
        1 => Just(Content::Fifo),
        1 => (0..300_u32, 0..300_u32).prop_map(|(major, minor)| Content::Character(major, minor)),
        1 => Just(Content::Block(8, 1)),
    ];
    (what, attributes()).prop_map(|(content, mut attributes)| {
        if matches!(content, Content::Symlink(_)) {
            attributes.mode = 0o777;
        }
        Leaf::new(content, attributes)
    })
}

/// Puts directories above each path, and takes away what is below a leaf.
fn lawful(found: Vec<(Path, Is)>, above: impl Fn(&[Name]) -> Is) -> Paths {
    let mut paths = Paths::new();
    for (path, is) in found {
        let blocked =
            (0..path.len()).any(|length| matches!(paths.get(&path[..length]), Some(Is::Leaf(_) | Is::Whiteout)));
        let has_below = paths.keys().any(|other| other.len() > path.len() && other.starts_with(&path));
        if blocked || (has_below && matches!(is, Is::Leaf(_) | Is::Whiteout)) {
            continue;
        }
        for length in 0..path.len() {
            paths.entry(path[..length].to_vec()).or_insert_with(|| above(&path[..length]));
        }
        paths.insert(path, is);
    }
    paths.entry(Path::new()).or_insert_with(|| above(&[]));
    paths
}

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(names(), 1..5)
}

pub fn root() -> impl Strategy<Value = Paths> {
    let is = prop_oneof![3 => leaf().prop_map(Is::Leaf), 1 => attributes().prop_map(|own| Is::Directory(Some(own)))];
    let linked = prop::collection::vec((path(), is), 0..12);
    (linked, any::<u8>()).prop_map(|(found, links)| {
        with_links(lawful(found, |_| Is::Directory(Some(Attributes::directory()))), usize::from(links % 4))
    })
}

pub fn layer() -> impl Strategy<Value = Paths> {
    let own = || prop_oneof![Just(None), attributes().prop_map(Some)];
    let is = prop_oneof![
        4 => leaf().prop_map(Is::Leaf),
        2 => attributes().prop_map(|own| Is::Directory(Some(own))),
        3 => Just(Is::Whiteout),
        1 => own().prop_map(Is::Opaque),
    ];
    (prop::collection::vec((path(), is), 0..12), any::<u8>()).prop_map(|(found, links)| {
        let mut paths = lawful(found, |path| Is::Directory((path.len() % 2 == 0).then(Attributes::directory)));
        // An empty directory that is only implied is nothing that an archive could hold.
        let empty =
            |paths: &Paths, path: &Path| !paths.keys().any(|other| other.len() > path.len() && other.starts_with(path));
        for path in paths.keys().cloned().collect::<Vec<_>>() {
            if paths[&path] == Is::Directory(None) && empty(&paths, &path) {
                paths.insert(path, Is::Directory(Some(Attributes::directory())));
            }
        }
        with_links(paths, usize::from(links % 4))
    })
}

/// Makes some files one group of hard links.
fn with_links(mut paths: Paths, count: usize) -> Paths {
    let files: Vec<Path> =
        paths.iter().filter(|(_, is)| matches!(is, Is::Leaf(_))).map(|(path, _)| path.clone()).collect();
    let members = &files[..count.min(files.len())];
    if members.len() > 1
        && let Is::Leaf(first) = paths[&members[0]].clone()
        && !matches!(first.content, Content::Symlink(_))
    {
        let joined: Vec<Vec<u8>> = members.iter().map(|path| joined(path)).collect();
        let group = Leaf::group(joined.iter().map(Vec::as_slice));
        for path in members {
            paths.insert(path.clone(), Is::Leaf(Leaf { links: Some(group), ..first.clone() }));
        }
    }
    paths
}

pub fn joined(path: &[Name]) -> Vec<u8> {
    path.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
}

fn remove_below(paths: &mut Paths, path: &[Name]) {
    paths.retain(|other, _| other.len() <= path.len() || !other.starts_with(path));
}

fn remove(paths: &mut Paths, path: &[Name]) {
    paths.retain(|other, _| !other.starts_with(path));
}

/// Unpacks a layer as an archive is unpacked: what it removes first, then entry by entry.
pub fn unpacked(mut root: Paths, layer: &Paths) -> Paths {
    for (path, is) in layer {
        match is {
            Is::Whiteout => remove(&mut root, path),
            Is::Opaque(_) => remove_below(&mut root, path),
            Is::Directory(_) | Is::Leaf(_) => {}
        }
    }
    for (path, is) in layer {
        match is {
            Is::Leaf(_) => {
                remove(&mut root, path);
                root.insert(path.clone(), is.clone());
            }
            Is::Directory(own) | Is::Opaque(own) => {
                let kept = match root.get(path) {
                    Some(Is::Directory(kept)) => kept.clone(),
                    _ => None,
                };
                let own = own.clone().or(kept).unwrap_or_else(Attributes::directory);
                root.insert(path.clone(), Is::Directory(Some(own)));
            }
            Is::Whiteout => {}
        }
    }
    root
}

/// The tree of some paths.
pub fn planted(forest: &mut Forest, paths: &Paths) -> Digest {
    fn at(forest: &mut Forest, paths: &Paths, path: &Path) -> Digest {
        let (attributes, opaque) = match &paths[path] {
            Is::Directory(own) => (own.clone(), false),
            Is::Opaque(own) => (own.clone(), true),
            other => panic!("expected a directory at {path:?}, found {other:?}"),
        };
        let mut directory = Directory { attributes, opaque, ..Directory::default() };
        for (below, is) in paths.iter().filter(|(below, _)| below.len() == path.len() + 1 && below.starts_with(path)) {
            let node = match is {
                Is::Leaf(leaf) => Node::Leaf(leaf.clone()),
                Is::Whiteout => Node::Whiteout,
                Is::Directory(_) | Is::Opaque(_) => Node::Directory(at(forest, paths, below)),
            };
            directory.entries.insert(below.last().unwrap().clone(), node);
        }
        forest.put(directory)
    }
    at(forest, paths, &Path::new())
}

/// The paths of a tree.
pub fn listed(forest: &Forest, root: &Digest) -> Paths {
    fn add(forest: &Forest, digest: &Digest, path: &Path, paths: &mut Paths) {
        let directory = forest.get(digest).unwrap();
        let own = directory.attributes.clone();
        paths.insert(path.clone(), if directory.opaque { Is::Opaque(own) } else { Is::Directory(own) });
        for (name, node) in &directory.entries {
            let path: Path = path.iter().chain([name]).cloned().collect();
            match node {
                Node::Leaf(leaf) => drop(paths.insert(path, Is::Leaf(leaf.clone()))),
                Node::Whiteout => drop(paths.insert(path, Is::Whiteout)),
                Node::Directory(below) => add(forest, below, &path, paths),
            }
        }
    }
    let mut paths = Paths::new();
    add(forest, root, &Path::new(), &mut paths);
    paths
}
