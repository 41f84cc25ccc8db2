//! `WORKDIR`.

use kiln_trees::root::{Attributes, Directory, Follow, Node};

use crate::{Error, Files, Roots, accounts};

impl Roots {
    /// Makes a directory with those above it, all of which belong to `user` where they are new; empty is root.
    ///
    /// # Errors
    /// If something else is in its place, the user is unknown, or the store fails.
    pub async fn workdir(&self, files: &Files, path: &str, user: &str) -> Result<Files, Error> {
        let owner = if user.is_empty() { (0, 0) } else { accounts::owner(self, files, user).await? };
        let attributes = Attributes { uid: owner.0, gid: owner.1, ..Attributes::directory() };
        let root = self
            .operate(|forest| {
                let names = forest.resolve(&files.root, path.as_bytes(), Follow::All)?;
                if let Some(Node::Directory(_)) = forest.lookup(&files.root, path.as_bytes(), Follow::All)? {
                    return Ok(files.root);
                }
                let made = Node::Directory(forest.put(Directory::empty(attributes.clone())));
                forest.graft(&files.root, &names, &made, &attributes)
            })
            .await?;
        Ok(Files { root, times: files.times.clone() })
    }
}
