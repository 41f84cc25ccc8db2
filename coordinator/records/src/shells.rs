//! Records of the shells that were opened in the places of a build's steps: apart from the build's own record, which is not written any more once
//! the build has ended.

use std::collections::HashMap;

use kiln_journal::{Batch, Durability, Range};
use kiln_proto::v1::ShellOpened;
use prost::Message;

use super::{Error, Records, SHELLS, encoded};

/// How many shells of a build are remembered, the last ones.
const MOST: usize = 100;

/// The shells of a build.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shells {
    #[prost(message, repeated, tag = "1")]
    opened: Vec<ShellOpened>,
}

impl Records {
    /// The shells of a build, oldest first.
    pub async fn shells(&self, build: &str) -> Result<Vec<ShellOpened>, Error> {
        let found = self.journal.get(SHELLS, build).await?;
        Ok(found.map(Shells::decode).transpose()?.unwrap_or_default().opened)
    }

    /// The shells of all builds, by the build's id.
    pub async fn all_shells(&self) -> Result<HashMap<String, Vec<ShellOpened>>, Error> {
        let found = self.journal.list(SHELLS, Range::default()).await?;
        found.into_iter().map(|(build, data)| Ok((build, Shells::decode(data)?.opened))).collect()
    }

    /// Records a shell.
    pub async fn add_shell(&self, build: &str, shell: ShellOpened) -> Result<(), Error> {
        let _one = self.shells.lock().await;
        let mut opened = self.shells(build).await?;
        opened.push(shell);
        let excess = opened.len().saturating_sub(MOST);
        opened.drain(..excess);
        let batch = Batch::default().put(SHELLS, build, encoded(&Shells { opened }));
        Ok(self.journal.commit(batch, Durability::Durable).await?)
    }
}
