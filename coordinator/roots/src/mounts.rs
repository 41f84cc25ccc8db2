//! What is mounted for a command, as a directory of numbered trees and files.

use kiln_proto::digest::Digest;
use kiln_trees::root::{Attributes, Content, Directory, Error as TreeError, Follow, Leaf, Name, Node};

use crate::{Error, Files, Roots};

/// One thing that is mounted.
#[derive(Debug, Clone)]
pub enum Mounted {
    /// A tree or a file of other files.
    Files(Files, String),
    /// A program with this content.
    Program(String),
}

impl Roots {
    /// A directory with each of these under its number.
    ///
    /// # Errors
    /// If a path does not exist, or the store fails.
    pub async fn mounts(&self, mounted: &[Mounted]) -> Result<Digest, Error> {
        let mut directory = Directory::empty(Attributes::directory());
        for (number, one) in mounted.iter().enumerate() {
            let node = match one {
                Mounted::Files(files, path) => {
                    let found = self.operate(|forest| forest.lookup(&files.root, path.as_bytes(), Follow::All)).await?;
                    let node = found.ok_or_else(|| Error::Absent { path: path.clone(), there: String::new() })?;
                    match node {
                        Node::Leaf(leaf) => Node::Leaf(Leaf { links: None, ..leaf }),
                        node => node,
                    }
                }
                Mounted::Program(text) => {
                    let digest = self.function.digest(text.as_bytes());
                    self.blobs().put(&digest, text.clone().into_bytes().into()).await?;
                    Node::Leaf(Leaf::new(Content::File(digest), Attributes::of_root(0o755)))
                }
            };
            directory.entries.insert(Name::new(number.to_string()).map_err(TreeError::from)?, node);
        }
        self.operate(move |forest| Ok(forest.put(directory.clone()))).await
    }
}
