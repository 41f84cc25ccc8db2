//! Paths in a root: what is there, and putting something there.

use std::collections::VecDeque;

use kiln_proto::digest::Digest;

use super::{Attributes, Content, Directory, Error, Forest, Leaf, Name, Node, split};

/// Symbolic links that are followed on the way to a path, as Linux has it.
const MAX_LINKS: usize = 40;

/// Which symbolic links are followed on the way to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// None: a link on the way is not a directory.
    Never,
    /// Those on the way, not one at the path itself.
    Parents,
    /// All.
    All,
}

impl Forest {
    /// What is at a path of a root; none where nothing is. Links are followed inside the root, never out of it.
    ///
    /// # Errors
    /// [`Error::Unread`]; [`Error::NotDirectory`] where something on the way is not a directory; [`Error::Links`].
    pub fn lookup(&mut self, root: &Digest, path: &[u8], follow: Follow) -> Result<Option<Node>, Error> {
        self.whole(|forest| Ok(forest.resolved(root, path, follow)?.map(|resolved| resolved.node)))
    }

    /// The path that a path of a root leads to once its links are followed: parents that exist are real, what is missing stays as it is.
    ///
    /// # Errors
    /// As those of [`lookup`](Self::lookup).
    pub fn resolve(&mut self, root: &Digest, path: &[u8], follow: Follow) -> Result<Vec<Name>, Error> {
        self.whole(|forest| Ok(forest.resolved(root, path, follow)?.map(|resolved| resolved.path)))
    }

    fn resolved(&mut self, root: &Digest, path: &[u8], follow: Follow) -> Result<Option<Resolved>, Error> {
        let mut left: VecDeque<Vec<u8>> = parts(path);
        let mut way: Vec<(Name, Digest)> = Vec::new();
        let (mut links, mut missing) = (0_usize, Vec::new());
        while let Some(part) = left.pop_front() {
            if part == b".." {
                if missing.pop().is_none() {
                    way.pop();
                }
                continue;
            }
            let name = Name::new(part)?;
            if !missing.is_empty() {
                missing.push(name);
                continue;
            }
            let at = way.last().map_or(*root, |(_, digest)| *digest);
            let Some(directory) = self.open(&at) else { return Ok(None) };
            match directory.entries.get(&name) {
                Some(Node::Directory(digest)) => way.push((name, *digest)),
                Some(Node::Leaf(Leaf { content: Content::Symlink(target), .. }))
                    if follow == Follow::All || (follow == Follow::Parents && !left.is_empty()) =>
                {
                    links = links.saturating_add(1);
                    if links > MAX_LINKS {
                        return Err(Error::Links { path: shown(path) });
                    }
                    if target.first() == Some(&b'/') {
                        way.clear();
                    }
                    for part in parts(target).into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Some(Node::Leaf(leaf)) => {
                    if !left.is_empty() {
                        way.push((name, at));
                        return Err(Error::NotDirectory { path: joined(way.iter().map(|(name, _)| name)) });
                    }
                    let path = way.into_iter().map(|(name, _)| name).chain([name]).collect();
                    return Ok(Some(Resolved { path, node: Some(Node::Leaf(leaf.clone())) }));
                }
                Some(Node::Whiteout) | None => missing.push(name),
            }
        }
        let digest = way.last().map_or(*root, |(_, digest)| *digest);
        let node = if missing.is_empty() { Some(Node::Directory(digest)) } else { None };
        let path = way.into_iter().map(|(name, _)| name).chain(missing).collect();
        Ok(Some(Resolved { path, node }))
    }

    /// Puts a node at a path of a root, and returns the new root. Directories that are missing on the way are made with the attributes
    /// `parents`. A directory over a directory merges with it, and has its attributes; a file replaces a file. Links are not followed:
    /// [`resolve`](Self::resolve) does that.
    ///
    /// # Errors
    /// [`Error::Unread`]; [`Error::NotDirectory`] and [`Error::IsDirectory`] where one is a directory and the other is not.
    pub fn graft(&mut self, root: &Digest, path: &[Name], node: &Node, parents: &Attributes) -> Result<Digest, Error> {
        self.whole(|forest| {
            let done = forest.grafted(Some(&Node::Directory(*root)), path, node, parents, &mut Vec::new())?;
            Ok(done.and_then(|node| if let Node::Directory(digest) = node { Some(digest) } else { None }))
        })
    }

    fn grafted(
        &mut self,
        there: Option<&Node>,
        path: &[Name],
        node: &Node,
        parents: &Attributes,
        way: &mut Vec<Name>,
    ) -> Result<Option<Node>, Error> {
        let at = |way: &[Name]| joined(way.iter());
        let Some((name, rest)) = path.split_first() else {
            return match (there, node) {
                (Some(Node::Directory(below)), Node::Directory(over)) => self.united(*below, *over, way),
                (Some(Node::Directory(_)), _) => Err(Error::IsDirectory { path: at(way) }),
                (Some(Node::Leaf(_)), Node::Directory(_)) => Err(Error::NotDirectory { path: at(way) }),
                _ => Ok(Some(node.clone())),
            };
        };
        let mut directory = match there {
            None | Some(Node::Whiteout) => Directory::empty(parents.clone()),
            Some(Node::Leaf(_)) => return Err(Error::NotDirectory { path: at(way) }),
            Some(Node::Directory(digest)) => match self.open_root(digest)? {
                Some(directory) => Directory::clone(&directory),
                None => return Ok(None),
            },
        };
        way.push(name.clone());
        let below = self.grafted(directory.entries.get(name), rest, node, parents, way)?;
        way.pop();
        let Some(below) = below else { return Ok(None) };
        directory.entries.insert(name.clone(), below);
        Ok(Some(Node::Directory(self.put(directory))))
    }

    /// One directory with the entries of two.
    fn united(&mut self, below: Digest, over: Digest, way: &mut Vec<Name>) -> Result<Option<Node>, Error> {
        if below == over {
            return Ok(Some(Node::Directory(over)));
        }
        let (old, new) = (self.open_root(&below)?, self.open_root(&over)?);
        let (Some(old), Some(new)) = (old, new) else { return Ok(None) };
        let mut united = Directory { entries: old.entries.clone(), ..Directory::clone(&new) };
        let mut whole = true;
        for (name, node) in &new.entries {
            way.push(name.clone());
            match self.grafted(old.entries.get(name), &[], node, &Attributes::directory(), way)? {
                Some(node) => drop(united.entries.insert(name.clone(), node)),
                None => whole = false,
            }
            way.pop();
        }
        Ok(whole.then(|| Node::Directory(self.put(united))))
    }
}

struct Resolved {
    path: Vec<Name>,
    node: Option<Node>,
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

fn joined<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(ToString::to_string).collect::<Vec<_>>().join("/")
}

fn shown(path: &[u8]) -> String {
    split(path).map_or_else(|_| String::from_utf8_lossy(path).into_owned(), |names| joined(names.iter()))
}
