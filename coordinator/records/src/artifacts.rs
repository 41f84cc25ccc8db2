//! Records of artifacts.

use kiln_journal::{Batch, Durability, Range};
use kiln_proto::v1::{Artifact, Attestation, GateResult};
use prost::Message;

use super::{ARTIFACT_ORDER, ARTIFACTS, Error, Records, encoded, same};

/// Records that are read at a time.
const PAGE: usize = 256;

/// The number of the next artifact, once it is known.
#[derive(Debug, Default)]
pub(crate) struct Order(Option<u64>);

/// A number as a key that sorts numerically.
pub(super) fn order_key(number: u64) -> String {
    format!("{number:020}")
}

impl Records {
    /// Records an artifact once: the same content returns the first record, other content is [`Error::Conflict`]. When
    /// this returns, the record survives a power cut.
    pub async fn put_artifact(&self, artifact: Artifact) -> Result<Artifact, Error> {
        let mut order = self.artifacts.lock().await;
        if let Some(existing) = self.artifact(&artifact.id).await? {
            return same(existing, &artifact);
        }
        let number = match order.0 {
            Some(number) => number,
            None => self.next_number().await?,
        };
        let batch = Batch::default().put(ARTIFACTS, &artifact.id, encoded(&artifact)).put(
            ARTIFACT_ORDER,
            order_key(number),
            artifact.id.clone(),
        );
        self.journal.commit(batch, Durability::Durable).await?;
        order.0 = Some(number + 1);
        Ok(artifact)
    }

    /// Adds the gates that an artifact has passed since it was recorded, and what is stated about it since then. What was known by the same name
    /// is replaced.
    ///
    /// # Errors
    /// If it is not there, or the journal fails.
    pub async fn add_statements(
        &self,
        id: &str,
        gates: Vec<GateResult>,
        attestations: Vec<Attestation>,
    ) -> Result<Artifact, Error> {
        let _order = self.artifacts.lock().await;
        let mut artifact = self.artifact(id).await?.ok_or_else(|| Error::NoArtifact { id: id.to_owned() })?;
        artifact.gates.retain(|known| !gates.iter().any(|gate| gate.name == known.name));
        artifact.gates.extend(gates);
        artifact.attestations.retain(|known| !attestations.iter().any(|one| one.name == known.name));
        artifact.attestations.extend(attestations);
        let batch = Batch::default().put(ARTIFACTS, &artifact.id, encoded(&artifact));
        self.journal.commit(batch, Durability::Durable).await?;
        Ok(artifact)
    }

    /// Replaces what is stated about an artifact: its provenance, its bills of materials, and their attestations. Its content, and which build
    /// made it first, stay as they are.
    ///
    /// # Errors
    /// If it is not there, or the journal fails.
    pub async fn describe_again(&self, other: Artifact) -> Result<Artifact, Error> {
        let _order = self.artifacts.lock().await;
        let known = self.artifact(&other.id).await?.ok_or_else(|| Error::NoArtifact { id: other.id.clone() })?;
        let artifact = Artifact {
            provenance: other.provenance,
            sbom: other.sbom,
            spdx: other.spdx,
            checksums: other.checksums,
            attestations: other.attestations,
            gates: other.gates,
            ..known
        };
        let batch = Batch::default().put(ARTIFACTS, &artifact.id, encoded(&artifact));
        self.journal.commit(batch, Durability::Durable).await?;
        Ok(artifact)
    }

    async fn next_number(&self) -> Result<u64, Error> {
        let last = self.journal.list(ARTIFACT_ORDER, Range::last(1)).await?;
        Ok(last.first().and_then(|(key, _)| key.parse::<u64>().ok()).map_or(0, |last| last + 1))
    }

    /// An artifact by its id.
    pub async fn artifact(&self, id: &str) -> Result<Option<Artifact>, Error> {
        let found = self.journal.get(ARTIFACTS, id).await?;
        Ok(found.map(Artifact::decode).transpose()?)
    }

    /// The latest artifacts, newest first; only those named `name` if it is not empty.
    pub async fn artifacts(&self, name: &str, limit: usize) -> Result<Vec<Artifact>, Error> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit {
            let range = Range { after: after.take(), ..Range::last(PAGE) };
            let page = self.journal.list(ARTIFACT_ORDER, range).await?;
            let ids = page.iter().map(|(_, id)| String::from_utf8_lossy(id).into_owned()).collect();
            for data in self.journal.get_many(ARTIFACTS, ids).await?.into_iter().flatten() {
                let artifact = Artifact::decode(data)?;
                if name.is_empty() || artifact.name == name {
                    found.push(artifact);
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}
