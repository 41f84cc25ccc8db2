//! Roots in the store.

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::trees::Stored;
use kiln_store::{BlobStore, Stores};
use kiln_trees::root::{self, Attributes, Content, Directory, Follow, Forest, Leaf, Name, Node, Times};
use tokio::sync::Mutex;

use crate::{Dates, Error};

/// The files of an image or a stage at one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The root's digest: the identity of the files.
    pub root: Digest,
    /// When they were modified, which is part of no key.
    pub times: Dates,
}

/// The roots of one build: what is read of the store once is kept until the build ends.
#[derive(Debug)]
pub struct Roots {
    pub(crate) stores: Stores,
    pub(crate) instance: String,
    pub(crate) function: DigestFunction,
    forest: Mutex<Forest>,
}

impl Roots {
    /// The roots of a build in this instance.
    pub fn new(stores: Stores, instance: &str, function: DigestFunction) -> Self {
        let instance = instance.trim_matches('/').to_owned();
        Self { stores, instance, function, forest: Mutex::new(Forest::new(function)) }
    }

    pub(crate) fn blobs(&self) -> &dyn BlobStore {
        &*self.stores.blobs
    }

    /// No files: what `FROM scratch` begins with.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn scratch(&self) -> Result<Files, Error> {
        let root = self.operate(|forest| Ok(forest.put(Directory::empty(Attributes::directory())))).await?;
        Ok(Files { root, times: Dates::default() })
    }

    /// One file in an otherwise empty root.
    ///
    /// # Errors
    /// If it cannot have that name, or the store fails.
    pub async fn file(&self, name: &str, content: Digest, mode: u32) -> Result<Files, Error> {
        let name = Name::new(name.as_bytes()).map_err(root::Error::from)?;
        let node = Node::Leaf(Leaf::new(Content::File(content), Attributes::of_root(mode)));
        let directory = Directory { entries: [(name, node)].into(), ..Directory::empty(Attributes::directory()) };
        let root = self.operate(|forest| Ok(forest.put(directory.clone()))).await?;
        Ok(Files { root, times: Dates::default() })
    }

    /// The content of a file, wherever links lead in the root; none if there is no file of at most `most` bytes.
    ///
    /// # Errors
    /// If a directory is missing, or the store fails.
    pub async fn content(&self, files: &Files, path: &str, most: u64) -> Result<Option<Bytes>, Error> {
        match self.node(files, path).await? {
            Some(Node::Leaf(Leaf { content: Content::File(digest), .. })) if digest.size <= most => {
                Ok(Some(self.blobs().get(&digest).await?))
            }
            _ => Ok(None),
        }
    }

    /// The names in a directory, wherever links lead in the root; none if there is no such directory.
    ///
    /// # Errors
    /// As [`content`](Self::content).
    pub async fn names(&self, files: &Files, path: &str) -> Result<Vec<Vec<u8>>, Error> {
        let Some(Node::Directory(digest)) = self.node(files, path).await? else { return Ok(Vec::new()) };
        let read = |forest: &mut Forest| {
            let directory = forest.get(&digest).ok_or_else(|| root::Error::Unread(vec![digest]))?;
            Ok(directory.entries.keys().map(|name| name.as_bytes().to_vec()).collect())
        };
        self.operate(read).await
    }

    async fn node(&self, files: &Files, path: &str) -> Result<Option<Node>, Error> {
        let found = self.operate(|forest| forest.lookup(&files.root, path.as_bytes(), Follow::All)).await;
        match found {
            // A part of the path is not a directory, or a link is dangling.
            Err(Error::Tree(root::Error::NotDirectory { .. })) => Ok(None),
            found => found,
        }
    }

    /// Does an operation on directories, which are read as it asks for them, and stores what it makes.
    pub(crate) async fn operate<T>(
        &self,
        operation: impl Fn(&mut Forest) -> Result<T, root::Error> + Send,
    ) -> Result<T, Error> {
        let mut forest = self.forest.lock().await;
        let done = root::read(Stored(self.blobs()), &mut forest, operation).await?;
        let made = forest.take_made();
        let digests: Vec<Digest> = made.iter().map(|encoded| encoded.digest).collect();
        let missing: std::collections::HashSet<Digest> =
            self.blobs().find_missing(&digests).await?.into_iter().collect();
        for encoded in made {
            if missing.contains(&encoded.digest) {
                self.blobs().put(&encoded.digest, encoded.data.into()).await?;
            }
        }
        Ok(done)
    }

    /// The root that a layer makes of another: how a command's result continues its stage.
    ///
    /// # Errors
    /// If a directory is missing, or the store fails.
    pub async fn apply(&self, files: &Files, layer: &Digest, times: &Times) -> Result<Files, Error> {
        let root = self.operate(|forest| forest.apply(&files.root, layer)).await?;
        Ok(Files { root, times: files.times.under(times.clone()) })
    }
}
