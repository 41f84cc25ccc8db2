//! What the tests of a step take, and which of its shards has them.

use kiln_journal::{Batch, Durability, Range, Space};
use kiln_proto::clock;
use kiln_proto::digest::DigestFunction;
use kiln_runners::{Learned, Unit};
use prost::Message;

use super::{Error, Records};

/// A project's step to what is remembered of its tests.
const TESTS: Space = "test-durations";
/// Most records.
const MAX_RECORDS: usize = 2_000;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(uint32, tag = "2")]
    shards: u32,
    #[prost(uint64, tag = "3")]
    total_ms: u64,
    #[prost(message, repeated, tag = "4")]
    units: Vec<RecordedUnit>,
    /// The sources that the shards were settled for.
    #[prost(string, tag = "5")]
    source: String,
}

#[derive(Clone, PartialEq, Message)]
struct RecordedUnit {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    ms: u64,
    #[prost(uint32, tag = "3")]
    shard: u32,
    #[prost(bool, tag = "4")]
    given: bool,
    #[prost(uint32, tag = "5")]
    unseen: u32,
}

impl From<Record> for Learned {
    fn from(record: Record) -> Self {
        let unit = |unit: RecordedUnit| {
            let RecordedUnit { name, ms, shard, given, unseen } = unit;
            (name, Unit { ms, shard, given, unseen })
        };
        let shards = record.shards.min(10_000);
        Self { shards, total_ms: record.total_ms, units: record.units.into_iter().map(unit).collect() }
    }
}

impl Records {
    /// What is remembered of the tests of a step, and the sources that its shards were settled for.
    pub async fn tests(&self, key: &str) -> Result<(Learned, String), Error> {
        let data = self.journal.get(TESTS, key).await?;
        let record = data.and_then(|data| Record::decode(data).ok()).unwrap_or_default();
        let source = record.source.clone();
        Ok((record.into(), source))
    }

    /// Remembers it.
    pub async fn put_tests(&self, key: &str, learned: &Learned, source: &str) -> Result<(), Error> {
        let unit = |(name, unit): (&String, &Unit)| {
            let Unit { ms, shard, given, unseen } = *unit;
            RecordedUnit { name: name.clone(), ms, shard, given, unseen }
        };
        let (at, units) = (clock::now().seconds, learned.units.iter().map(unit).collect());
        let record =
            Record { at, shards: learned.shards, total_ms: learned.total_ms, units, source: source.to_owned() };
        Ok(self.journal.commit(Batch::default().put(TESTS, key, record.encode_to_vec()), Durability::Relaxed).await?)
    }

    /// Removes the oldest records beyond the limit.
    pub async fn trim_tests(&self) -> Result<(), Error> {
        if self.journal.count(TESTS).await? <= MAX_RECORDS as u64 {
            return Ok(());
        }
        let all = self.journal.list(TESTS, Range::default()).await?.into_iter();
        let mut all: Vec<(i64, String)> =
            all.map(|(key, data)| (Record::decode(data).map_or(0, |record| record.at), key)).collect();
        all.sort();
        let surplus = all.len().saturating_sub(MAX_RECORDS / 10 * 9);
        let batch = all.into_iter().take(surplus).fold(Batch::default(), |batch, (_, key)| batch.remove(TESTS, key));
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }
}

/// What a step's tests are remembered by.
pub fn tests_key(instance: &str, project: &str, step: &str) -> String {
    DigestFunction::Sha256.digest([instance, project, step].join("\0").as_bytes()).hex()
}
