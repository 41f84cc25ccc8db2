//! `COPY` and `ADD`: parts of other roots are grafted, and no byte of a file is read.
//!
//! Source: behaviour of `docker build`, as the Dockerfile reference describes it under `COPY` and `ADD`.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_dockerfile::{Copy, CopySource};
use kiln_proto::digest::Digest;
use kiln_trees::root::{Attributes, Content, Directory, Error as TreeError, Follow, Forest, Leaf, Name, Node, Time};

use crate::mode::Change;
use crate::select::{Filter, Found, select};
use crate::subtree::{Rule, copied};
use crate::{Dates, Error, Files, Roots, accounts};

/// A file or directory that is about to be put somewhere.
struct Item {
    node: Node,
    name: Vec<u8>,
    /// Its times: of which files, and where it is there.
    times: Option<(Dates, Vec<u8>)>,
    /// The content of a directory that an archive described: a layer, which may lack attributes.
    unpacked: bool,
}

/// Where items go.
struct Destination<'a> {
    path: &'a str,
    link: bool,
    /// What directories get that are made on the way.
    parents: Attributes,
}

impl Roots {
    /// Carries out a `COPY` or an `ADD` whose sources are there. `inputs` are the files of other operations by their indices.
    ///
    /// # Errors
    /// If a source does not exist, a file and a directory are in each other's way, an owner is unknown, an archive is malformed, or
    /// the store fails.
    pub async fn copy(&self, files: &Files, copy: &Copy, inputs: &BTreeMap<usize, Files>) -> Result<Files, Error> {
        let owner = match &copy.owner {
            Some(owner) => Some(accounts::owner(self, files, owner).await?),
            None => None,
        };
        let rule = Rule { owner, mode: copy.mode.as_ref().map(Change::read).transpose()? };
        let into = Destination {
            path: &copy.destination,
            link: copy.link,
            parents: rule.attributes(&Attributes::directory(), true, false),
        };
        let base = if copy.link { self.scratch().await? } else { files.clone() };
        let mut done = base;
        for source in &copy.sources {
            for item in self.items(source, copy, &rule, inputs).await? {
                done = self.place(&done, item, &into).await?;
            }
        }
        if copy.link {
            let layer = self.operate(|forest| implied(forest, &done.root)).await?;
            done = self.apply(files, &layer, &done.times.flat()).await?;
        }
        self.settled(files, done).await
    }

    /// What a source brings.
    async fn items(
        &self,
        source: &CopySource,
        copy: &Copy,
        rule: &Rule,
        inputs: &BTreeMap<usize, Files>,
    ) -> Result<Vec<Item>, Error> {
        let of = |from: &usize| inputs.get(from).cloned().ok_or_else(|| absent("the source", ""));
        match source {
            CopySource::Inline { name, data } => {
                let digest = self.function.digest(data.as_bytes());
                self.blobs().put(&digest, data.clone().into_bytes().into()).await?;
                let attributes = rule.attributes(&Attributes::of_root(0o644), false, false);
                let node = Node::Leaf(Leaf::new(Content::File(digest), attributes));
                Ok(vec![Item { node, name: name.clone().into_bytes(), times: None, unpacked: false }])
            }
            CopySource::Repository(from) => {
                let files = of(from)?;
                let found = self.found(&files, "/").await?;
                self.cut(&files, found, rule, &Filter::read(None, &copy.excludes)?).await
            }
            CopySource::Fetched { from, file, unpack } => {
                let files = of(from)?;
                let found = self.found(&files, &format!("/{file}")).await?;
                self.unpacked(&files, found, rule, &Filter::default(), *unpack).await
            }
            CopySource::Files { from, path, parents, unpack } => {
                let files = of(from)?;
                let found = self.found(&files, path).await?;
                let Some(parents) = parents else {
                    let filter = Filter::read(None, &copy.excludes)?;
                    return self.unpacked(&files, found, rule, &filter, *unpack).await;
                };
                if let Some(required) = &parents.required {
                    self.found(&files, required).await?;
                }
                let filter = Filter::read(Some(&parents.pattern), &copy.excludes)?;
                self.cut(&files, found, rule, &filter).await
            }
        }
    }

    /// What a path names, which must exist unless it is a pattern.
    async fn found(&self, files: &Files, path: &str) -> Result<Vec<Found>, Error> {
        if let Some(found) = self.operate(|forest| select(forest, &files.root, path)).await? {
            return Ok(found);
        }
        Err(absent(path, &self.beside(files, path).await))
    }

    /// What is where a path should be, for people.
    async fn beside(&self, files: &Files, path: &str) -> String {
        const SHOWN: usize = 8;
        let parent = path.trim_end_matches('/').rsplit_once('/').map_or("/", |(parent, _)| parent);
        let found = self.operate(|forest| {
            let Some(Node::Directory(digest)) = forest.lookup(&files.root, parent.as_bytes(), Follow::All)? else {
                return Ok(None);
            };
            let directory = forest.get(&digest).cloned().ok_or_else(|| TreeError::Unread(vec![digest]))?;
            Ok(Some(directory.entries.keys().map(ToString::to_string).collect::<Vec<_>>()))
        });
        let shown = if parent.is_empty() { "/" } else { parent };
        match found.await {
            Ok(Some(names)) if names.is_empty() => format!("; `{shown}` is empty"),
            Ok(Some(names)) => {
                let more = if names.len() > SHOWN {
                    format!(" and {} more", names.len().saturating_sub(SHOWN))
                } else {
                    String::new()
                };
                let names: Vec<String> = names.into_iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
                format!("; `{shown}` has {}{more}", names.join(", "))
            }
            _ => format!("; nor does `{shown}`"),
        }
    }

    /// The nodes as they are copied.
    async fn cut(&self, files: &Files, found: Vec<Found>, rule: &Rule, filter: &Filter) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for one in found {
            let is_directory = matches!(one.node, Node::Directory(_));
            let name = String::from_utf8_lossy(&one.name).into_owned();
            let keeps = |path: &str, directory: bool| match is_directory {
                true => filter.keeps(path, directory),
                false => filter.keeps(&name, directory),
            };
            let keeps = (!filter.is_empty()).then_some(&keeps as &crate::subtree::Keeps<'_>);
            let node = self.operate(|forest| copied(forest, &one.node, rule, keeps, &one.path)).await?;
            let times = Some((files.times.clone(), one.path));
            items.extend(node.map(|node| Item { node, name: one.name, times, unpacked: false }));
        }
        Ok(items)
    }

    /// The nodes as they are copied, archives unpacked.
    async fn unpacked(
        &self,
        files: &Files,
        found: Vec<Found>,
        rule: &Rule,
        filter: &Filter,
        unpack: bool,
    ) -> Result<Vec<Item>, Error> {
        if !unpack {
            return self.cut(files, found, rule, filter).await;
        }
        let mut items = Vec::new();
        for one in found {
            if let Node::Leaf(Leaf { content: Content::File(digest), .. }) = &one.node
                && let Some(archive) = self.archive(digest, &String::from_utf8_lossy(&one.name)).await?
            {
                let rule = Rule { mode: None, ..rule.clone() };
                let node = Node::Directory(archive.layer);
                let node = self.operate(|forest| copied(forest, &node, &rule, None, b"")).await?;
                let times = Some((archive.times.into(), Vec::new()));
                items.extend(node.map(|node| Item { node, name: one.name, times, unpacked: true }));
                continue;
            }
            items.extend(self.cut(files, vec![one], rule, filter).await?);
        }
        Ok(items)
    }

    /// Puts an item where it belongs.
    async fn place(&self, files: &Files, item: Item, into: &Destination<'_>) -> Result<Files, Error> {
        let follow = if into.link { Follow::Never } else { Follow::All };
        let done = self.operate(|forest| put(forest, &files.root, &item, into, follow)).await;
        let (root, at) = done.map_err(|error| in_the_way(error, &item, into.path))?;
        let mut moved = item.times.as_ref().map(|(of, from)| of.moved(from, &at)).unwrap_or_default();
        if !matches!(item.node, Node::Directory(_)) {
            // What it replaces has a time of its own.
            moved.0.entry(at).or_insert(Time::UNDATED);
        }
        Ok(Files { root, times: files.times.under(moved) })
    }
}

/// The new root, and where the item is in it.
fn put(
    forest: &mut Forest,
    root: &Digest,
    item: &Item,
    into: &Destination<'_>,
    follow: Follow,
) -> Result<(Digest, Vec<u8>), TreeError> {
    let mut names = forest.resolve(root, into.path.as_bytes(), follow)?;
    let there = forest.lookup(root, into.path.as_bytes(), follow)?;
    let node = match &item.node {
        Node::Directory(digest) => {
            let mut copy = forest.get(digest).cloned().ok_or_else(|| TreeError::Unread(vec![*digest]))?;
            if let Some(Node::Directory(existing)) = &there {
                // Its files are copied into the directory, which stays what it is.
                let existing = forest.get(existing).cloned().ok_or_else(|| TreeError::Unread(vec![*existing]))?;
                let kept = existing.attributes.clone();
                copy = Arc::new(Directory { attributes: kept, ..Directory::clone(&copy) });
            } else {
                // A new one only takes what is in the source: neither its owner nor its mode.
                copy = Arc::new(Directory { attributes: Some(into.parents.clone()), ..Directory::clone(&copy) });
            }
            Node::Directory(forest.put(Directory::clone(&copy)))
        }
        node => {
            if into.path.ends_with('/') || matches!(there, Some(Node::Directory(_))) {
                names.push(Name::new(item.name.clone())?);
            }
            node.clone()
        }
    };
    let at = names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
    let root = match (item.unpacked, &node) {
        (true, Node::Directory(layer)) => {
            let layer = below(forest, &names, *layer);
            forest.apply(root, &layer)?
        }
        _ => forest.graft(root, &names, &node, &into.parents)?,
    };
    Ok((root, at))
}

/// A layer that has another at a path, and says nothing of the directories on the way.
fn below(forest: &mut Forest, names: &[Name], layer: Digest) -> Digest {
    names.iter().rev().fold(layer, |below, name| {
        let entries = BTreeMap::from([(name.clone(), Node::Directory(below))]);
        forest.put(Directory { entries, ..Directory::default() })
    })
}

/// A root as a layer that says nothing of the root directory itself.
fn implied(forest: &mut Forest, root: &Digest) -> Result<Digest, TreeError> {
    let directory = forest.get(root).cloned().ok_or_else(|| TreeError::Unread(vec![*root]))?;
    Ok(forest.put(Directory { attributes: None, ..Directory::clone(&directory) }))
}

fn absent(path: &str, there: &str) -> Error {
    Error::Absent { path: path.to_owned(), there: there.to_owned() }
}

/// A conflict in the words of the instruction.
fn in_the_way(error: Error, item: &Item, destination: &str) -> Error {
    let path = String::from_utf8_lossy(&item.name).into_owned();
    match error {
        Error::Tree(TreeError::NotDirectory { path: over }) => {
            Error::DirectoryOverFile { path: if path.is_empty() { destination.to_owned() } else { path }, over }
        }
        Error::Tree(TreeError::IsDirectory { path: over }) => Error::FileOverDirectory { path, over },
        other => other,
    }
}
