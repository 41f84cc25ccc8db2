//! What the farm remembers of builds and artifacts: an embedded index (redb).
//!
//! Invariant: a record that was written is there after a kill; an artifact's id never changes its content.

use std::path::Path;
use std::sync::Arc;

use kiln_proto::v1::{Artifact, Build};
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Bytes of the index that are kept in memory at most.
const CACHE_BYTES: usize = 64 << 20;
/// Build id to [`Build`]. Ids sort by time.
const BUILDS: TableDefinition<&str, &[u8]> = TableDefinition::new("builds");
/// The client's own request id to the build id.
const REQUESTS: TableDefinition<&str, &str> = TableDefinition::new("requests");
/// Artifact id to [`Artifact`].
const ARTIFACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("artifacts");
/// Artifact id in order of creation.
const ARTIFACT_ORDER: TableDefinition<u64, &str> = TableDefinition::new("artifact_order");

/// An index that does not answer, or that refuses.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the index of builds and artifacts failed: {0}; is the disk full?")]
    Index(#[from] Box<redb::Error>),
    #[error("the index of builds and artifacts has an invalid record: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("artifact `{id}` exists with content `{existing}`; refused: `{offered}`")]
    Conflict { id: String, existing: String, offered: String },
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for Error {
            fn from(error: redb::$kind) -> Self {
                Self::Index(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// The index. Cheap to clone. Its calls block for a disk write.
#[derive(Debug, Clone)]
pub struct Records {
    database: Arc<Database>,
}

impl Records {
    /// Opens the index, made where there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = kiln_state::database::open(path, CACHE_BYTES)?;
        let write = database.begin_write()?;
        write.open_table(BUILDS)?;
        write.open_table(REQUESTS)?;
        write.open_table(ARTIFACTS)?;
        write.open_table(ARTIFACT_ORDER)?;
        write.commit()?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Writes a build; a request id that is not empty leads to it from now on.
    pub fn put_build(&self, build: &Build, request_id: &str) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(BUILDS)?.insert(build.id.as_str(), build.encode_to_vec().as_slice())?;
        if !request_id.is_empty() {
            write.open_table(REQUESTS)?.insert(request_id, build.id.as_str())?;
        }
        write.commit()?;
        Ok(())
    }

    /// A build by its id.
    pub fn build(&self, id: &str) -> Result<Option<Build>, Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(BUILDS)?;
        let found = table.get(id)?;
        found.map(|data| Build::decode(data.value()).map_err(Error::from)).transpose()
    }

    /// The builds whose ids begin so, oldest first, at most `limit`.
    pub fn builds_like(&self, prefix: &str, limit: usize) -> Result<Vec<Build>, Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(BUILDS)?;
        let mut found = Vec::new();
        for row in table.range(prefix..)?.take(limit) {
            let (id, data) = row?;
            if !id.value().starts_with(prefix) {
                break;
            }
            found.push(Build::decode(data.value())?);
        }
        Ok(found)
    }

    /// The build that a request started.
    pub fn request(&self, request_id: &str) -> Result<Option<String>, Error> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(REQUESTS)?.get(request_id)?.map(|id| id.value().to_owned()))
    }

    /// The latest builds, newest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<Build>, Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(BUILDS)?;
        table.iter()?.rev().take(limit).map(|row| Ok(Build::decode(row?.1.value())?)).collect()
    }

    /// Forgets all builds but the latest `keep`; returns the ids that went.
    pub fn trim_builds(&self, keep: usize) -> Result<Vec<String>, Error> {
        let write = self.database.begin_write()?;
        let mut gone = Vec::new();
        {
            let mut builds = write.open_table(BUILDS)?;
            for row in builds.iter()?.rev().skip(keep) {
                gone.push(row?.0.value().to_owned());
            }
            for id in &gone {
                builds.remove(id.as_str())?;
            }
            if !gone.is_empty() {
                let mut requests = write.open_table(REQUESTS)?;
                requests.retain(|_, id| !gone.iter().any(|gone| gone == id))?;
            }
        }
        write.commit()?;
        Ok(gone)
    }

    /// Writes an artifact, once: the same content again gives back the first record, another is [`Error::Conflict`].
    pub fn put_artifact(&self, artifact: Artifact) -> Result<Artifact, Error> {
        if let Some(existing) = self.artifact(&artifact.id)? {
            return same(existing, &artifact);
        }
        let write = self.database.begin_write()?;
        {
            let mut artifacts = write.open_table(ARTIFACTS)?;
            let existing =
                artifacts.get(artifact.id.as_str())?.map(|data| Artifact::decode(data.value())).transpose()?;
            if let Some(existing) = existing {
                return same(existing, &artifact);
            }
            artifacts.insert(artifact.id.as_str(), artifact.encode_to_vec().as_slice())?;
            let mut order = write.open_table(ARTIFACT_ORDER)?;
            let next = order.last()?.map_or(0, |(last, _)| last.value() + 1);
            order.insert(next, artifact.id.as_str())?;
        }
        write.commit()?;
        Ok(artifact)
    }

    /// An artifact by its id.
    pub fn artifact(&self, id: &str) -> Result<Option<Artifact>, Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(ARTIFACTS)?;
        let found = table.get(id)?;
        found.map(|data| Artifact::decode(data.value()).map_err(Error::from)).transpose()
    }

    /// The latest artifacts, newest first; of one name where `name` is not empty.
    pub fn artifacts(&self, name: &str, limit: usize) -> Result<Vec<Artifact>, Error> {
        let read = self.database.begin_read()?;
        let (order, artifacts) = (read.open_table(ARTIFACT_ORDER)?, read.open_table(ARTIFACTS)?);
        let mut found = Vec::new();
        for row in order.iter()?.rev() {
            let Some(data) = artifacts.get(row?.1.value())? else { continue };
            let artifact = Artifact::decode(data.value())?;
            if name.is_empty() || artifact.name == name {
                found.push(artifact);
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

fn same(existing: Artifact, offered: &Artifact) -> Result<Artifact, Error> {
    if existing.root == offered.root && existing.digest_function == offered.digest_function {
        return Ok(existing);
    }
    let hash = |artifact: &Artifact| artifact.root.as_ref().map(|root| root.hash.clone()).unwrap_or_default();
    Err(Error::Conflict { id: existing.id.clone(), existing: hash(&existing), offered: hash(offered) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;

    fn artifact(id: &str, content: &[u8]) -> Artifact {
        let root = Some(DigestFunction::Sha256.digest(content).to_wire());
        Artifact { id: id.into(), name: "shop".into(), root, ..Default::default() }
    }

    #[test]
    fn another_content_under_the_same_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("index")).unwrap();
        let first = Artifact { build: "first".into(), ..artifact("shop-1", b"one") };
        records.put_artifact(first.clone()).unwrap();
        let again = records.put_artifact(Artifact { build: "second".into(), ..artifact("shop-1", b"one") }).unwrap();
        assert_eq!(again, first, "expected the first record to stand");
        let refused = records.put_artifact(artifact("shop-1", b"two")).unwrap_err();
        assert!(refused.to_string().contains("`shop-1`"), "{refused}");
        assert_eq!(records.artifact("shop-1").unwrap(), Some(first));
    }

    #[test]
    fn builds_are_listed_newest_first_and_trimmed_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("index")).unwrap();
        for id in ["a", "b", "c"] {
            records.put_build(&Build { id: id.into(), ..Default::default() }, &format!("request-{id}")).unwrap();
        }
        assert_eq!(records.request("request-b").unwrap().as_deref(), Some("b"));
        assert_eq!(records.trim_builds(2).unwrap(), ["a"]);
        let ids: Vec<String> = records.builds(10).unwrap().into_iter().map(|build| build.id).collect();
        assert_eq!(ids, ["c", "b"]);
        assert_eq!(records.request("request-a").unwrap(), None);
    }
}
