//! What a source of `COPY` names.

use kiln_dockerfile::patterns::{Glob, Patterns, has_wildcards};
use kiln_proto::digest::Digest;
use kiln_trees::root::{Error as TreeError, Follow, Forest, Node};

use crate::Error;
use crate::subtree::Kept;

/// A node to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The node, with links followed.
    pub(crate) node: Node,
    /// Its last name, as the source has it.
    pub(crate) name: Vec<u8>,
    /// Where it is, below the root of the source.
    pub(crate) path: Vec<u8>,
}

/// What a path or a pattern names. A pattern may match nothing.
///
/// # Errors
/// [`TreeError::Unread`].
pub(crate) fn select(forest: &mut Forest, root: &Digest, path: &str) -> Result<Option<Vec<Found>>, TreeError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
    if plain == parts.len() {
        return Ok(followed(forest, root, &parts.join("/"))?.map(|found| vec![found]));
    }
    // Links are followed up to the first pattern. A walk from there does not leave what it is in.
    let Some(top) = followed(forest, root, &parts.get(..plain).unwrap_or_default().join("/"))? else {
        return Ok(Some(Vec::new()));
    };
    let mut matching = vec![top];
    for (at, part) in parts.iter().enumerate().skip(plain) {
        let Ok(glob) = Glob::new(part) else { return Ok(Some(Vec::new())) };
        let mut next = Vec::new();
        for found in &matching {
            let Node::Directory(digest) = &found.node else { continue };
            let directory = forest.get(digest).cloned().ok_or_else(|| TreeError::Unread(vec![*digest]))?;
            for (name, node) in &directory.entries {
                if glob.matches(&String::from_utf8_lossy(name.as_bytes())) {
                    let path = [found.path.as_slice(), name.as_bytes()].join(&b'/');
                    let path = path.strip_prefix(b"/").map(<[u8]>::to_vec).unwrap_or(path);
                    next.push(Found { node: node.clone(), name: name.as_bytes().to_vec(), path });
                }
            }
        }
        matching = next;
        if at.saturating_add(1) == parts.len() {
            break;
        }
    }
    let mut all = Vec::new();
    for found in matching {
        let node = forest.lookup(root, &found.path, Follow::All);
        match node {
            Ok(Some(node)) => all.push(Found { node, ..found }),
            // A link that leads nowhere is copied as it is.
            Ok(None) | Err(TreeError::NotDirectory { .. } | TreeError::Links { .. }) => all.push(found),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(all))
}

/// What is at a path; none where nothing is.
fn followed(forest: &mut Forest, root: &Digest, path: &str) -> Result<Option<Found>, TreeError> {
    let node = match forest.lookup(root, path.as_bytes(), Follow::All) {
        Ok(Some(node)) => node,
        Ok(None) | Err(TreeError::NotDirectory { .. } | TreeError::Links { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let resolved = forest.resolve(root, path.as_bytes(), Follow::All)?;
    let resolved: Vec<&[u8]> = resolved.iter().map(kiln_trees::root::Name::as_bytes).collect();
    let name = path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
    Ok(Some(Found { node, name, path: resolved.join(&b'/') }))
}

/// What of a source is copied: what matches `only`, if there is such a pattern, and does not match `excludes`.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    only: Option<Patterns>,
    excludes: Option<Patterns>,
}

impl Filter {
    /// Reads patterns.
    pub(crate) fn read(only: Option<&str>, excludes: &[String]) -> Result<Self, Error> {
        let read = |patterns: &[String]| {
            Patterns::new(patterns).map_err(|(at, error)| Error::Pattern {
                path: patterns.get(at).cloned().unwrap_or_default(),
                reason: error.to_string(),
            })
        };
        let only = only.map(|pattern| read(&[pattern.to_owned()])).transpose()?;
        let excludes = (!excludes.is_empty()).then(|| read(excludes)).transpose()?;
        Ok(Self { only, excludes })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.only.is_none() && self.excludes.is_none()
    }

    /// Whether a node below the source is copied. The source itself has the empty path.
    pub(crate) fn keeps(&self, path: &str, is_directory: bool) -> Kept {
        let is_excluded = self.excludes.as_ref().is_some_and(|patterns| !path.is_empty() && patterns.matches(path));
        if is_excluded {
            let may_return = self.excludes.as_ref().is_some_and(|patterns| is_directory && !patterns.covers(path));
            return if may_return { Kept::IfNeeded } else { Kept::No };
        }
        match &self.only {
            Some(only) if !path.is_empty() && only.matches(path) => Kept::Yes,
            Some(_) if is_directory => Kept::IfNeeded,
            Some(_) => Kept::No,
            None => Kept::Yes,
        }
    }
}
