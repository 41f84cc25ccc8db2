//! Merkle trees of directories: building and combining them.
//!
//! Invariant: a [`Directory`](reapi::Directory) made here is canonical as REAPI v2 asks: entries of each kind sorted by
//! name, no name twice, paths relative and without `.` or `..`; so equal trees have equal digests.

use std::collections::{BTreeMap, HashMap, btree_map};

use prost::Message;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;

use crate::shape::Node;

/// Why a tree cannot be built.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid path `{path}` in a tree; expected a relative path without `.`, `..` or empty parts")]
    Path { path: String },
    #[error("`{path}` occurs twice in the tree, as {first} and as {second}")]
    Conflict { path: String, first: &'static str, second: &'static str },
    #[error("symbolic link `{path}` has an invalid target; expected one that is not empty and has no NUL byte")]
    Target { path: String },
    #[error(transparent)]
    Digest(#[from] kiln_proto::digest::Error),
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its content's digest.
        digest: Digest,
        /// Whether it is executable.
        executable: bool,
        /// Its permission bits, unless they are implied by `executable` (0644 or 0755).
        mode: Option<u32>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: String,
    },
    /// A directory whose entries are known.
    Directory(Tree),
    /// A directory of which only the digest is known; nothing can be added to it.
    Sealed {
        /// Digest of its `Directory` message.
        digest: Digest,
    },
}

/// The permission bits that a file or directory keeps in the store: `None` for the usual 0644 and 0755. Group write
/// permission is ignored, because it only depends on the user's umask.
pub fn unusual_mode(mode: u32, executable: bool) -> Option<u32> {
    let mode = mode & 0o7777;
    let usual = if executable { 0o755 } else { 0o644 };
    (mode & !0o020 != usual).then_some(mode)
}

/// The bits of a mode that say that something is a named pipe (`S_IFIFO` of inode(7)). Of the context of a Dockerfile, a pipe is a file
/// without content and with these bits.
pub const PIPE: u32 = 0o010_000;

/// The mode that a file or directory of a Dockerfile's context keeps: `None` for exactly 0644 and 0755, otherwise the permission bits,
/// with [`PIPE`] for a pipe.
pub fn exact_mode(mode: u32, executable: bool) -> Option<u32> {
    if mode & 0o170_000 == PIPE {
        return Some(PIPE | mode & 0o7777);
    }
    let mode = mode & 0o7777;
    let usual = if executable { 0o755 } else { 0o644 };
    (mode != usual).then_some(mode)
}

/// Node properties for unusual permission bits.
pub fn node_properties(mode: Option<u32>) -> Option<reapi::NodeProperties> {
    mode.map(|mode| reapi::NodeProperties {
        unix_mode: Some(kiln_proto::protobuf::UInt32Value { value: mode }),
        ..Default::default()
    })
}

/// The unusual permission bits in an entry's node properties.
pub fn mode_of(properties: Option<&reapi::NodeProperties>, executable: bool) -> Option<u32> {
    exact_mode(properties?.unix_mode.as_ref()?.value, executable)
}

impl Entry {
    /// A file with the usual permission bits.
    pub fn file(digest: Digest, executable: bool) -> Self {
        Self::File { digest, executable, mode: None }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "a file",
            Self::Symlink { .. } => "a symbolic link",
            Self::Directory(_) | Self::Sealed { .. } => "a directory",
        }
    }
}

/// A directory under construction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// Entries by name.
    pub entries: BTreeMap<String, Entry>,
    /// Its own permission bits, unless they are 0755.
    pub mode: Option<u32>,
}

/// Builds a tree from many sorted paths, and seals directories as soon as they are complete: it is then much smaller, and encoded already.
#[derive(Debug)]
pub struct Builder<'a> {
    function: DigestFunction,
    /// The permission bits of directories, by path.
    modes: &'a HashMap<&'a str, u32>,
    /// Directories that contain one of these paths stay open, because others may add to them.
    shared: [String; 2],
    root: Tree,
    /// The directories from the root to the last path, by name.
    open: Vec<(String, Tree)>,
    /// The path of the last of them.
    path: String,
    sealed: Vec<Encoded>,
}

impl<'a> Builder<'a> {
    /// For a part of a tree, from the `first` to the `last` of the paths that will be inserted. Other parts may have entries of the
    /// directories above these two. Directories with entries have these `modes`, if not 0755.
    pub fn sealing(function: DigestFunction, [first, last]: [&str; 2], modes: &'a HashMap<&'a str, u32>) -> Self {
        let (root, open, path, sealed) = Default::default();
        Self { function, modes, shared: [first.to_owned(), last.to_owned()], root, open, path, sealed }
    }

    /// Adds an entry as [`Tree::insert`] does.
    ///
    /// # Errors
    /// Those of [`Tree::insert`], some only for a later path. [`Error::Conflict`] also if paths do not arrive in order.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<(), Error> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if directory != self.path {
            self.enter(directory)?;
        }
        let tree = self.open.last_mut().map_or(&mut self.root, |(_, tree)| tree);
        tree.put(path, &segments(name)?, entry, false)
    }

    /// The tree, and the directories that it has sealed entries of.
    ///
    /// # Errors
    /// Those of [`Tree::insert`].
    pub fn finish(mut self) -> Result<(Tree, Vec<Encoded>), Error> {
        self.enter("")?;
        Ok((self.root, self.sealed))
    }

    fn enter(&mut self, directory: &str) -> Result<(), Error> {
        let wanted = if directory.is_empty() { Vec::new() } else { segments(directory)? };
        let same = self.open.iter().zip(&wanted).take_while(|((name, _), wanted)| name == *wanted).count();
        while self.open.len() > same {
            self.leave()?;
        }
        for (at, name) in wanted.iter().enumerate().skip(same) {
            let path = wanted.iter().take(at).chain([name]).copied().collect::<Vec<_>>().join("/");
            let mode = self.modes.get(path.as_str()).copied();
            self.open.push(((*name).to_owned(), Tree { mode, ..Tree::default() }));
        }
        directory.clone_into(&mut self.path);
        Ok(())
    }

    /// Closes the last directory.
    fn leave(&mut self) -> Result<(), Error> {
        let Some((name, tree)) = self.open.pop() else { return Ok(()) };
        let above = self.open.iter().flat_map(|(above, _)| [above.as_str(), "/"]);
        let path: String = above.chain([name.as_str()]).collect();
        let holds =
            |shared: &String| shared.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let entry = if self.shared.iter().any(holds) {
            Entry::Directory(tree)
        } else {
            let (function, sealed) = (self.function, &mut self.sealed);
            Entry::Sealed { digest: tree.encode(function, &mut |encoded| sealed.push(encoded)) }
        };
        let above = self.open.last_mut().map_or(&mut self.root, |(_, tree)| tree);
        above.put(&path, &[&name], entry, false)
    }
}

/// A directory's canonical message with its digest.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Digest of `data`.
    pub digest: Digest,
    /// The encoded `Directory`.
    pub data: Vec<u8>,
}

fn segments(path: &str) -> Result<Vec<&str>, Error> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") || path.contains('\0') {
        return Err(Error::Path { path: path.to_owned() });
    }
    Ok(parts)
}

/// Resolves a path relative to the directory `base` of a tree, to a path relative to the root; `None` if it is absolute
/// or leaves the tree on its way. `..` within the tree is allowed.
pub fn resolve(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Tree {
    /// Adds an entry at a relative path, creating parent directories.
    ///
    /// Two directories at the same path are merged; any other duplicate is an [`Error::Conflict`] unless it is equal.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<(), Error> {
        let parts = segments(path)?;
        self.put(path, &parts, entry, false)
    }

    /// Like [`insert`](Self::insert), but replaces an existing entry.
    pub fn replace(&mut self, path: &str, entry: Entry) -> Result<(), Error> {
        let parts = segments(path)?;
        self.put(path, &parts, entry, true)
    }

    /// Adds all that another tree has.
    ///
    /// # Errors
    /// [`Error::Conflict`] if both have an entry that is not equal.
    pub fn merge(&mut self, other: Self) -> Result<(), Error> {
        self.mode = other.mode.or(self.mode);
        other.entries.into_iter().try_for_each(|(name, entry)| self.put(&name, &[name.as_str()], entry, false))
    }

    fn put(&mut self, path: &str, parts: &[&str], entry: Entry, replace: bool) -> Result<(), Error> {
        let (name, rest) = parts.split_first().ok_or_else(|| Error::Path { path: path.to_owned() })?;
        if !rest.is_empty() {
            let below = self.entries.entry((*name).to_owned()).or_insert_with(|| Entry::Directory(Tree::default()));
            return match below {
                Entry::Directory(tree) => tree.put(path, rest, entry, replace),
                other => {
                    Err(Error::Conflict { path: path.to_owned(), first: other.kind(), second: "a directory above it" })
                }
            };
        }
        let there = match self.entries.entry((*name).to_owned()) {
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
                return Ok(());
            }
            btree_map::Entry::Occupied(there) => there.into_mut(),
        };
        match there {
            Entry::Directory(there) if !replace => {
                if let Entry::Directory(new) = entry {
                    there.mode = new.mode.or(there.mode);
                    return new.entries.into_iter().try_for_each(|(child, entry)| {
                        there.put(&format!("{path}/{child}"), &[child.as_str()], entry, false)
                    });
                }
                Err(Error::Conflict { path: path.to_owned(), first: "a directory", second: entry.kind() })
            }
            there if !replace && *there != entry => {
                Err(Error::Conflict { path: path.to_owned(), first: there.kind(), second: entry.kind() })
            }
            there => {
                *there = entry;
                Ok(())
            }
        }
    }

    /// The entry at a relative path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let (name, rest) = match path.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        match (self.entries.get(name)?, rest) {
            (entry, None) => Some(entry),
            (Entry::Directory(tree), Some(rest)) => tree.get(rest),
            _ => None,
        }
    }

    /// Encodes the tree, children before parents; passes each directory to `emit` and returns the root's digest.
    pub fn encode(&self, function: DigestFunction, emit: &mut impl FnMut(Encoded)) -> Digest {
        let mut directory =
            reapi::Directory { node_properties: node_properties(self.mode), ..reapi::Directory::default() };
        for (name, entry) in &self.entries {
            match entry {
                Entry::File { digest, executable, mode } => directory.files.push(reapi::FileNode {
                    name: name.clone(),
                    digest: Some(digest.to_wire()),
                    is_executable: *executable,
                    node_properties: node_properties(*mode),
                }),
                Entry::Symlink { target } => directory.symlinks.push(reapi::SymlinkNode {
                    name: name.clone(),
                    target: target.clone(),
                    node_properties: None,
                }),
                Entry::Directory(tree) => {
                    let digest = tree.encode(function, emit);
                    directory
                        .directories
                        .push(reapi::DirectoryNode { name: name.clone(), digest: Some(digest.to_wire()) });
                }
                Entry::Sealed { digest } => directory
                    .directories
                    .push(reapi::DirectoryNode { name: name.clone(), digest: Some(digest.to_wire()) }),
            }
        }
        let data = directory.encode_to_vec();
        let digest = function.digest(&data);
        emit(Encoded { digest, data });
        digest
    }

    /// What this directory alone adds to the shape of a tree.
    pub fn node(&self) -> Node {
        let below = self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Sealed { digest } => Some((*digest, name.len())),
            _ => None,
        });
        Node {
            entries: self.entries.len() as u64,
            longest: self.entries.keys().map(String::len).max().unwrap_or(0),
            below: below.collect(),
        }
    }

    /// Reads one level of a tree from its message; subdirectories become [`Entry::Sealed`].
    ///
    /// # Errors
    /// If a digest is invalid, or a name is a duplicate or would leave the tree. So the tree is safe to write to disk.
    pub fn from_directory(function: DigestFunction, directory: &reapi::Directory) -> Result<Self, Error> {
        let mode = mode_of(directory.node_properties.as_ref(), true);
        let mut tree = Self { mode, ..Self::default() };
        for file in &directory.files {
            let digest = Digest::required(function, file.digest.as_ref())?;
            let mode = mode_of(file.node_properties.as_ref(), file.is_executable);
            tree.add(&file.name, Entry::File { digest, executable: file.is_executable, mode })?;
        }
        for link in &directory.symlinks {
            if link.target.is_empty() || link.target.contains('\0') {
                return Err(Error::Target { path: link.name.clone() });
            }
            tree.add(&link.name, Entry::Symlink { target: link.target.clone() })?;
        }
        for below in &directory.directories {
            let digest = Digest::required(function, below.digest.as_ref())?;
            tree.add(&below.name, Entry::Sealed { digest })?;
        }
        Ok(tree)
    }

    fn add(&mut self, name: &str, entry: Entry) -> Result<(), Error> {
        if name.contains('/') {
            return Err(Error::Path { path: name.to_owned() });
        }
        segments(name)?;
        let second = entry.kind();
        match self.entries.insert(name.to_owned(), entry) {
            None => Ok(()),
            Some(first) => Err(Error::Conflict { path: name.to_owned(), first: first.kind(), second }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: DigestFunction = DigestFunction::Sha256;

    fn file(text: &str) -> Entry {
        Entry::file(F.digest(text.as_bytes()), false)
    }

    #[test]
    fn order_of_insertion_does_not_change_the_digest() {
        let mut one = Tree::default();
        one.insert("a/b/c", file("1")).unwrap();
        one.insert("a/d", file("2")).unwrap();
        let mut other = Tree::default();
        other.insert("a/d", file("2")).unwrap();
        other.insert("a/b/c", file("1")).unwrap();
        assert_eq!(one.encode(F, &mut |_| {}), other.encode(F, &mut |_| {}));
    }

    #[test]
    fn a_path_may_go_up_as_long_as_it_stays_in_the_tree() {
        assert_eq!(resolve("a", "../b/x").as_deref(), Some("b/x"));
        assert_eq!(resolve("", "a/./b//c/").as_deref(), Some("a/b/c"));
        assert_eq!(resolve("a/b", "../..").as_deref(), Some(""));
        for (base, path) in [("", "../x"), ("a", "../../x"), ("a", "/x"), ("", "a/../../a"), ("", "a\0")] {
            assert_eq!(resolve(base, path), None, "{base} {path}");
        }
    }

    #[test]
    fn unusual_modes_are_kept_and_those_of_a_umask_are_not() {
        assert_eq!([0o644, 0o664].map(|mode| unusual_mode(mode, false)), [None, None]);
        assert_eq!([0o755, 0o775].map(|mode| unusual_mode(mode, true)), [None, None]);
        assert_eq!(unusual_mode(0o100600, false), Some(0o600));
        assert_eq!(unusual_mode(0o104755, true), Some(0o4755));
        assert_eq!([exact_mode(0o100644, false), exact_mode(0o40755, true)], [None, None]);
        assert_eq!([exact_mode(0o100664, false), exact_mode(0o40775, true)], [Some(0o664), Some(0o775)]);
        assert_eq!(exact_mode(0o010600, false), Some(PIPE | 0o600));
        let tree = |mode, own| {
            let mut tree = Tree::default();
            tree.insert("key", Entry::File { digest: F.digest(b"k"), executable: false, mode }).unwrap();
            tree.insert("spool", Entry::Directory(Tree { mode: own, ..Tree::default() })).unwrap();
            tree
        };
        let mut encoded = Vec::new();
        let private = tree(Some(0o600), Some(0o700));
        let digest = private.encode(F, &mut |one| encoded.push(one));
        assert_ne!(digest, tree(None, Some(0o700)).encode(F, &mut |_| {}));
        assert_ne!(digest, tree(Some(0o600), None).encode(F, &mut |_| {}));
        let [spool, root] = &encoded[..] else { panic!("two directories") };
        let read = |one: &Encoded| Tree::from_directory(F, &reapi::Directory::decode(&one.data[..]).unwrap()).unwrap();
        assert_eq!(read(spool).mode, Some(0o700));
        assert_eq!(read(root).entries["key"], private.entries["key"]);
    }

    #[test]
    fn two_contents_at_one_path_conflict() {
        let mut tree = Tree::default();
        tree.insert("a", file("1")).unwrap();
        tree.insert("a", file("1")).unwrap();
        assert!(tree.insert("a", file("2")).is_err());
        assert!(tree.insert("a/b", file("2")).is_err());
        assert!(tree.insert("../x", file("2")).is_err());
        assert!(tree.insert("/x", file("2")).is_err());
    }

    #[test]
    fn a_message_with_a_name_that_leads_out_or_stands_twice_is_no_directory() {
        let node = |name: &str| reapi::FileNode {
            name: name.into(),
            digest: Some(F.digest(b"").to_wire()),
            ..Default::default()
        };
        let read = |files| Tree::from_directory(F, &reapi::Directory { files, ..Default::default() });
        for name in ["..", ".", "", "a/b", "../a", "/etc", "a\0b"] {
            assert!(matches!(read(vec![node(name)]), Err(Error::Path { .. })), "{name:?}");
        }
        assert!(matches!(read(vec![node("a"), node("a")]), Err(Error::Conflict { .. })));
        assert!(read(vec![node("a"), node("..b")]).is_ok());
    }

    proptest::proptest! {
        /// However sorted paths are cut into parts, the parts together are the same tree with the same directories.
        #[test]
        fn parts_that_are_sealed_are_the_same_tree(
            paths in proptest::collection::btree_map("[ab-]{1,2}(/[ab-]{1,2}){0,3}", 0..3u32, 1..30),
            size in 1..12usize,
        ) {
            // No path is a directory above another.
            let below = |path: &str| format!("{path}/");
            let is_leaf = |path: &str| !paths.keys().any(|other| other.starts_with(&below(path)));
            let leaves: Vec<(&String, &u32)> = paths.iter().filter(|(path, _)| is_leaf(path)).collect();
            let inner = paths.iter().filter(|(path, _)| !is_leaf(path));
            let modes: HashMap<&str, u32> = inner.map(|(path, mode)| (path.as_str(), 0o700 + mode)).collect();
            let mut whole = Tree::default();
            for (path, mode) in &leaves {
                whole.insert(path, Entry::file(F.digest(&[**mode as u8]), false)).unwrap();
            }
            for (path, mode) in &modes {
                whole.insert(path, Entry::Directory(Tree { mode: Some(*mode), ..Tree::default() })).unwrap();
            }
            let mut expected = Vec::new();
            let digest = whole.encode(F, &mut |encoded| expected.push(encoded.digest));
            let (mut root, mut found) = (Tree::default(), Vec::new());
            for part in leaves.chunks(size) {
                let edges = [part[0].0.as_str(), part[part.len() - 1].0.as_str()];
                let mut builder = Builder::sealing(F, edges, &modes);
                for (path, mode) in part {
                    builder.insert(path, Entry::file(F.digest(&[**mode as u8]), false)).unwrap();
                }
                let (tree, sealed) = builder.finish().unwrap();
                root.merge(tree).unwrap();
                found.extend(sealed.into_iter().map(|encoded| encoded.digest));
            }
            proptest::prop_assert_eq!(root.encode(F, &mut |encoded| found.push(encoded.digest)), digest);
            expected.sort();
            found.sort();
            proptest::prop_assert_eq!(found, expected);
        }

        #[test]
        fn encoding_is_canonical(paths in proptest::collection::btree_set("[a-c]{1,2}(/[d-f]{1,2}){0,2}", 0..20)) {
            let mut tree = Tree::default();
            for path in &paths {
                let _ = tree.insert(path, file(path));
            }
            let mut seen = Vec::new();
            tree.encode(F, &mut |encoded| seen.push(encoded));
            for encoded in &seen {
                let directory = reapi::Directory::decode(encoded.data.as_slice()).unwrap();
                proptest::prop_assert!(directory.files.is_sorted_by(|a, b| a.name < b.name));
                proptest::prop_assert!(directory.directories.is_sorted_by(|a, b| a.name < b.name));
                let again = Tree::from_directory(F, &directory).unwrap().encode(F, &mut |_| {});
                proptest::prop_assert_eq!(again, encoded.digest);
            }
        }
    }
}
