//! Which blob an asset is.

use kiln_journal::{Batch, Durability, Journal, Range, Space};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::AssetRecord;
use prost::Message;

/// Name to [`AssetRecord`].
const ASSETS: Space = "assets";
/// Time and name to the name: the oldest records go first.
const ORDER: Space = "asset-order";
/// Records that are kept.
const KEPT: u64 = 50_000;

/// One tenant's records.
#[derive(Debug, Clone)]
pub(crate) struct Records(Journal);

impl Records {
    pub(crate) fn over(journal: Journal) -> Self {
        Self(journal)
    }

    /// The record under a name, for digests of this function.
    pub(crate) async fn get(
        &self,
        name: &str,
        function: DigestFunction,
    ) -> Result<Option<(Digest, AssetRecord)>, kiln_journal::Error> {
        let found = self.0.get(ASSETS, &key(name, function)).await?;
        // A record that cannot be read is none: then the asset is fetched again.
        let record = found.and_then(|data| AssetRecord::decode(data).ok());
        Ok(record.and_then(|record| Some((Digest::required(function, record.digest.as_ref()).ok()?, record))))
    }

    pub(crate) async fn put(
        &self,
        names: &[String],
        digest: Digest,
        record: AssetRecord,
    ) -> Result<(), kiln_journal::Error> {
        let now = kiln_proto::clock::now();
        let record = AssetRecord { digest: Some(digest.to_wire()), recorded: Some(now), ..record };
        let mut batch = self.trimmed().await?;
        for name in names {
            let key = key(name, digest.function);
            let place = format!("{:020}-{key}", now.seconds.max(0));
            batch = batch.put(ASSETS, key.clone(), record.encode_to_vec()).put(ORDER, place, key);
        }
        self.0.commit(batch, Durability::Relaxed).await
    }

    /// Makes room for more.
    async fn trimmed(&self) -> Result<Batch, kiln_journal::Error> {
        let surplus = self.0.count(ORDER).await?.saturating_sub(KEPT);
        let mut batch = Batch::default();
        if surplus == 0 {
            return Ok(batch);
        }
        for (place, key) in self.0.list(ORDER, Range::first(usize::try_from(surplus).unwrap_or(usize::MAX))).await? {
            batch = batch.remove(ORDER, place);
            if let Ok(key) = String::from_utf8(key.to_vec()) {
                batch = batch.remove(ASSETS, key);
            }
        }
        Ok(batch)
    }
}

fn key(name: &str, function: DigestFunction) -> String {
    format!("{}-{name}", function.name())
}
