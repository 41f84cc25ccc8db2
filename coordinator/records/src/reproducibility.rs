//! Records of what verifications of artifacts found: apart from an artifact's own record, which never changes.

use kiln_journal::{Batch, Durability};
use kiln_proto::v1::{Artifact, Reproducibility};
use prost::Message;

use super::{Error, REPRODUCIBILITY, Records, encoded};

/// How many verifications of an artifact are remembered, the last ones.
const MOST: usize = 20;

/// What was found of an artifact, oldest first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Found {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Reproducibility>,
}

impl Records {
    /// What verifications of an artifact found, the latest first.
    pub async fn reproducibility(&self, artifact: &str) -> Result<Vec<Reproducibility>, Error> {
        let found = self.journal.get(REPRODUCIBILITY, artifact).await?;
        let found = found.map(Found::decode).transpose()?.unwrap_or_default();
        Ok(found.all.into_iter().rev().collect())
    }

    /// Records what a verification of an artifact found. When this returns, the record survives a power cut.
    pub async fn add_reproducibility(&self, artifact: &str, found: &Reproducibility) -> Result<(), Error> {
        let _one = self.artifacts.lock().await;
        let mut all: Vec<Reproducibility> = self.reproducibility(artifact).await?.into_iter().rev().collect();
        all.push(found.clone());
        let excess = all.len().saturating_sub(MOST);
        all.drain(..excess);
        let batch = Batch::default().put(REPRODUCIBILITY, artifact, encoded(&Found { all }));
        Ok(self.journal.commit(batch, Durability::Durable).await?)
    }

    /// These artifacts, with what verifications of them found.
    pub async fn with_reproducibility(&self, artifacts: Vec<Artifact>) -> Result<Vec<Artifact>, Error> {
        let ids = artifacts.iter().map(|artifact| artifact.id.clone()).collect();
        let found = self.journal.get_many(REPRODUCIBILITY, ids).await?;
        let add = |(artifact, found): (Artifact, Option<bytes::Bytes>)| {
            let found = found.map(Found::decode).transpose()?.unwrap_or_default();
            Ok(Artifact { reproducibility: found.all.into_iter().rev().collect(), ..artifact })
        };
        artifacts.into_iter().zip(found).map(add).collect()
    }
}
