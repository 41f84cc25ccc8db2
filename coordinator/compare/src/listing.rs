//! Two lists of files: what only one of them has, and what is not the same kind of thing.

use std::collections::BTreeMap;

use super::place::shown;
use super::{Difference, Kind, Runs, classify};

/// Something at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file, by what names its content, with its permission bits.
    File {
        /// Equal for equal contents.
        content: String,
        /// Permission bits.
        mode: u32,
        /// Its owner and other attributes, if they are known.
        attributes: String,
    },
    /// A symbolic link, with its target.
    Link(String),
    /// An empty directory.
    Directory,
}

/// How two lists compare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// What their nodes show.
    pub differences: Vec<Difference>,
    /// Files in both whose contents differ: the path in the first and in the second, which are the same unless the name itself differs.
    pub changed: Vec<(String, String)>,
}

/// Compares what two runs made, by path.
pub fn listings(first: &BTreeMap<String, Node>, second: &BTreeMap<String, Node>, runs: Runs<'_>) -> Listing {
    let mut listing = Listing::default();
    let mut add = |path: &str, kind, words: String| {
        listing.differences.push(Difference { path: path.to_owned(), kind, words });
    };
    for (path, a) in first {
        match (a, second.get(path)) {
            (_, None) => {}
            (Node::File { content: a, .. }, Some(Node::File { content: b, .. })) if a != b => {
                listing.changed.push((path.clone(), path.clone()));
            }
            (Node::Link(a), Some(Node::Link(b))) if a != b => {
                let (kind, ..) = classify::texts(a, b, runs);
                let kind = if kind == Kind::Content { Kind::Path } else { kind };
                add(path, kind, format!("links to `{}` against `{}`", shown(a), shown(b)));
            }
            (a, Some(b)) if name(a) != name(b) => {
                add(path, Kind::Content, format!("{} in one run and {} in the other", name(a), name(b)));
            }
            _ => {}
        }
    }
    for (path, a) in first {
        if let Some(b) = second.get(path) {
            attributes(path, a, b, &mut listing);
        }
    }
    unmatched(first, second, runs, &mut listing);
    listing.differences.sort_by(|a, b| a.path.cmp(&b.path));
    listing
}

fn attributes(path: &str, a: &Node, b: &Node, listing: &mut Listing) {
    let (Node::File { mode: a, attributes: one, .. }, Node::File { mode: b, attributes: other, .. }) = (a, b) else {
        return;
    };
    let mut add = |words| {
        listing.differences.push(Difference { path: path.to_owned(), kind: Kind::Permission, words });
    };
    if a != b {
        add(format!("permissions {a:o} against {b:o}"));
    }
    if one != other {
        add(format!("attributes {} against {}", shown(one), shown(other)));
    }
}

/// What only one run made. Two such files of one directory that differ by their names alone are one under two names.
fn unmatched(first: &BTreeMap<String, Node>, second: &BTreeMap<String, Node>, runs: Runs<'_>, listing: &mut Listing) {
    let only = |these: &BTreeMap<String, Node>, those: &BTreeMap<String, Node>| {
        these.keys().filter(|path| !those.contains_key(*path)).cloned().collect::<Vec<_>>()
    };
    let (gone, new) = (only(first, second), only(second, first));
    let pairs = gone.len() == new.len();
    for (a, b) in gone.iter().zip(&new).filter(|_| pairs) {
        let (kind, ..) = classify::texts(a, b, runs);
        let is_named = !matches!(kind, Kind::Content | Kind::Path);
        let kind = if is_named { kind } else { Kind::Missing };
        let words = format!("called `{}` in the other run", shown(b));
        listing.differences.push(Difference { path: a.clone(), kind, words });
        if is_named && first.get(a) != second.get(b) && is_file(first.get(a)) && is_file(second.get(b)) {
            listing.changed.push((a.clone(), b.clone()));
        }
    }
    for (path, which) in gone.iter().map(|path| (path, "first")).chain(new.iter().map(|path| (path, "second"))) {
        if !pairs {
            let words = format!("only the {which} run made it");
            listing.differences.push(Difference { path: path.clone(), kind: Kind::Missing, words });
        }
    }
}

fn is_file(node: Option<&Node>) -> bool {
    matches!(node, Some(Node::File { .. }))
}

fn name(node: &Node) -> &'static str {
    match node {
        Node::File { .. } => "a file",
        Node::Link(_) => "a symbolic link",
        Node::Directory => "an empty directory",
    }
}
