//! A part of a root as a copy has it: without what is left out, with other owners and modes, and with its own hard links.

use std::collections::BTreeMap;

use kiln_proto::digest::Digest;
use kiln_trees::root::{Attributes, Content, Directory, Error, Forest, Leaf, Name, Node};

use crate::mode::Change;

/// What changes about the nodes that are copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    /// Whom they belong to, unless they keep their owner.
    pub(crate) owner: Option<(u32, u32)>,
    /// Their modes, unless they keep them.
    pub(crate) mode: Option<Change>,
}

impl Rule {
    /// A node's attributes in the copy.
    pub(crate) fn attributes(&self, attributes: &Attributes, is_directory: bool, is_link: bool) -> Attributes {
        let mut changed = attributes.clone();
        if let Some((uid, gid)) = self.owner {
            (changed.uid, changed.gid) = (uid, gid);
        }
        if let Some(change) = self.mode.as_ref().filter(|_| !is_link) {
            changed.mode = change.of(attributes.mode, is_directory);
        }
        changed
    }

    fn changes_nothing(&self) -> bool {
        self.owner.is_none() && self.mode.is_none()
    }
}

/// Which nodes are copied: told a path below the source, and whether it is a directory.
pub(crate) type Keeps<'a> = dyn Fn(&str, bool) -> Kept + Sync + 'a;

/// Whether a node is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is.
    Yes,
    /// It is not, and nothing below it.
    No,
    /// A directory that is only there for what is copied below it.
    IfNeeded,
}

/// Copies a node. None where nothing of it is copied.
///
/// `to` is where it goes, below the root: only hard links within one copy stay links, and are grouped by where they are then.
///
/// # Errors
/// [`Error::Unread`] where a directory is not in memory.
pub(crate) fn copied(
    forest: &mut Forest,
    node: &Node,
    rule: &Rule,
    keeps: Option<&Keeps<'_>>,
    to: &[u8],
) -> Result<Option<Node>, Error> {
    let mut seen = Seen { forest, keeps, unread: Vec::new(), links: BTreeMap::new() };
    seen.look(node, &mut String::new(), &mut to.to_vec());
    let (unread, mut links) = (seen.unread, seen.links);
    if !unread.is_empty() {
        return Err(Error::Unread(unread));
    }
    if rule.changes_nothing() && keeps.is_none() && links.is_empty() {
        return Ok(Some(node.clone()));
    }
    let new = |paths: &mut Vec<Vec<u8>>| (paths.len() > 1).then(|| Leaf::group(paths.iter().map(Vec::as_slice)));
    let groups = links.iter_mut().map(|(old, paths)| (*old, new(paths))).collect();
    Copier { forest, rule, keeps, groups }.node(node, &mut String::new())
}

/// The path of an entry: names joined by slashes. What is not UTF-8 matches no pattern.
fn enter(path: &mut String, name: &Name) -> usize {
    let before = path.len();
    if before > 0 {
        path.push('/');
    }
    path.push_str(&String::from_utf8_lossy(name.as_bytes()));
    before
}

/// Finds what must be read, and the hard links among what is copied.
struct Seen<'a> {
    forest: &'a Forest,
    keeps: Option<&'a Keeps<'a>>,
    unread: Vec<Digest>,
    /// For each group, where its members go.
    links: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Seen<'_> {
    fn look(&mut self, node: &Node, path: &mut String, to: &mut Vec<u8>) {
        let kept = self.keeps.map_or(Kept::Yes, |keeps| keeps(path, matches!(node, Node::Directory(_))));
        if kept == Kept::No {
            return;
        }
        match node {
            Node::Leaf(Leaf { links: Some(group), .. }) => self.links.entry(*group).or_default().push(to.clone()),
            Node::Leaf(_) | Node::Whiteout => {}
            Node::Directory(digest) => {
                let Some(directory) = self.forest.get(digest).cloned() else {
                    return self.unread.push(*digest);
                };
                for (name, node) in &directory.entries {
                    let (shorter, before) = (to.len(), enter(path, name));
                    to.push(b'/');
                    to.extend_from_slice(name.as_bytes());
                    self.look(node, path, to);
                    to.truncate(shorter);
                    path.truncate(before);
                }
            }
        }
    }
}

struct Copier<'a> {
    forest: &'a mut Forest,
    rule: &'a Rule,
    keeps: Option<&'a Keeps<'a>>,
    /// The new group of each group of hard links; none where only one member is copied.
    groups: BTreeMap<u64, Option<u64>>,
}

impl Copier<'_> {
    fn node(&mut self, node: &Node, path: &mut String) -> Result<Option<Node>, Error> {
        let kept = self.keeps.map_or(Kept::Yes, |keeps| keeps(path, matches!(node, Node::Directory(_))));
        match node {
            _ if kept == Kept::No => Ok(None),
            Node::Whiteout => Ok(None),
            Node::Leaf(leaf) => {
                let is_link = matches!(leaf.content, Content::Symlink(_));
                let attributes = self.rule.attributes(&leaf.attributes, false, is_link);
                let links = leaf.links.and_then(|group| self.groups.get(&group).copied().flatten());
                Ok(Some(Node::Leaf(Leaf { content: leaf.content.clone(), attributes, links })))
            }
            Node::Directory(digest) => {
                let directory = self.forest.get(digest).cloned().ok_or_else(|| Error::Unread(vec![*digest]))?;
                let attributes = directory.attributes.as_ref().map(|own| self.rule.attributes(own, true, false));
                let mut copy = Directory { attributes, opaque: directory.opaque, ..Directory::default() };
                for (name, node) in &directory.entries {
                    let before = enter(path, name);
                    if let Some(node) = self.node(node, path)? {
                        copy.entries.insert(name.clone(), node);
                    }
                    path.truncate(before);
                }
                let is_needed = kept == Kept::Yes || !copy.entries.is_empty();
                Ok(is_needed.then(|| Node::Directory(self.forest.put(copy))))
            }
        }
    }
}
