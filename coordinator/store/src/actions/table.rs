//! The tables of results, and the operations within one transaction.

use kiln_proto::digest::{Digest, DigestFunction};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use crate::clock::Stamp;

/// Maps an action's key to its place in the order and its encoded result.
const RESULTS: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("results");
/// Maps a place in the order of use to the key.
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");

/// Total bytes of all results with their keys, in a single row.
const TOTAL: TableDefinition<'_, (), u64> = TableDefinition::new("total");

/// Bits of a place that distinguish results used in the same millisecond.
const COUNT_BITS: u32 = 20;
/// Places below this are from earlier versions, which only counted writes.
const FIRST: u64 = 1 << 40;

/// A result's place in the order of use: the time of its last use, and a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Place {
    fn first_at(at: Stamp) -> Self {
        Self(at.min(u64::MAX >> COUNT_BITS) << COUNT_BITS)
    }

    pub(crate) fn used(self) -> Stamp {
        self.0 >> COUNT_BITS
    }
}

/// What the keys of all actions with a hash begin with.
pub(super) fn start(function: DigestFunction, hash: &[u8; 32]) -> Vec<u8> {
    let function = match function {
        DigestFunction::Sha256 => 0,
        DigestFunction::Blake3 => 1,
    };
    let mut start = vec![function];
    start.extend_from_slice(hash);
    start
}

pub(super) fn key(instance: &str, action: &Digest) -> Vec<u8> {
    let mut key = start(action.function, &action.hash);
    key.extend_from_slice(&action.size.to_be_bytes());
    key.extend_from_slice(instance.as_bytes());
    key
}

/// The action in a key.
pub(super) fn action(key: &[u8]) -> Option<Digest> {
    let (function, rest) = key.split_first()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let size = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    let function = match function {
        0 => DigestFunction::Sha256,
        1 => DigestFunction::Blake3,
        _ => return None,
    };
    Some(Digest { function, hash: *hash, size })
}

/// Both tables within one transaction.
pub(super) struct Tables<'a> {
    results: Table<'a, &'static [u8], (u64, &'static [u8])>,
    order: Table<'a, u64, &'static [u8]>,
    bytes: u64,
}

/// Limits on the results that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// Maximum number of results.
    pub(crate) entries: u64,
    /// Maximum bytes of results.
    pub(crate) bytes: u64,
}

/// The bytes that a result counts for: it is in both tables with its key.
fn weight(key: &[u8], value: &[u8]) -> u64 {
    key.len().saturating_mul(2).saturating_add(value.len()).saturating_add(16) as u64
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        let results = transaction.open_table(RESULTS)?;
        let bytes = match transaction.open_table(TOTAL)?.get(())?.map(|total| total.value()) {
            Some(bytes) => bytes,
            // A file of an earlier version.
            None => results.iter()?.try_fold(0_u64, |sum, row| {
                let (key, value) = row?;
                Ok::<u64, redb::Error>(sum.saturating_add(weight(key.value(), value.value().1)))
            })?,
        };
        Ok(Self { results, order: transaction.open_table(ORDER)?, bytes })
    }

    /// The first free place at this time.
    fn free(&self, at: Stamp) -> Result<Place, redb::Error> {
        let (first, next) = (Place::first_at(at), Place::first_at(at.saturating_add(1)));
        let last = self.order.range(first.0..next.0)?.next_back().transpose()?;
        Ok(last.map_or(first, |(place, _)| Place(place.value().saturating_add(1))))
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], at: Stamp) -> Result<(), redb::Error> {
        self.remove(key)?;
        let place = self.free(at)?;
        self.results.insert(key, (place.0, value))?;
        self.bytes = self.bytes.saturating_add(weight(key, value));
        self.order.insert(place.0, key)?;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        if let Some(before) = self.results.remove(key)? {
            self.bytes = self.bytes.saturating_sub(weight(key, before.value().1));
            self.order.remove(before.value().0)?;
        }
        Ok(())
    }

    /// Moves a result to a later place. A removed one is ignored.
    pub(super) fn used(&mut self, key: &[u8], at: Stamp) -> Result<(), redb::Error> {
        let value = match self.results.get(key)? {
            Some(row) if Place(row.value().0).used() < at => row.value().1.to_vec(),
            _ => return Ok(()),
        };
        self.put(key, &value, at)
    }

    /// Removes the results last used before this time, and the oldest beyond the limits; returns their number.
    pub(super) fn expire(&mut self, before: Stamp, most: Most) -> Result<u64, redb::Error> {
        let mut removed = 0;
        loop {
            let oldest = self.order.first()?.map(|(place, key)| (place.value(), key.value().to_vec()));
            let Some((place, key)) = oldest else { return Ok(removed) };
            if Place(place).used() >= before && self.order.len()? <= most.entries && self.bytes <= most.bytes {
                return Ok(removed);
            }
            self.order.remove(place)?;
            self.remove(&key)?;
            removed = removed.saturating_add(1);
        }
    }
}

/// Runs one transaction. When this returns, it is on disk.
pub(super) fn change<T>(
    database: &Database,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let (done, bytes) = {
        let mut tables = Tables::open(&transaction)?;
        (work(&mut tables)?, tables.bytes)
    };
    transaction.open_table(TOTAL)?.insert((), bytes)?;
    transaction.commit()?;
    Ok(done)
}

/// Creates missing tables. Results of an earlier version count as used now, because their last use is unknown.
pub(super) fn prepare(database: &Database, most: Most, now: Stamp) -> Result<(), redb::Error> {
    change(database, |tables| {
        loop {
            let oldest = tables.order.first()?.map(|(place, key)| (place.value(), key.value().to_vec()));
            let Some((_, key)) = oldest.filter(|(place, _)| *place < FIRST) else { break };
            let value = tables.results.get(key.as_slice())?.map(|row| row.value().1.to_vec()).unwrap_or_default();
            tables.put(&key, &value, now)?;
        }
        tables.expire(0, most)
    })
    .map(|_| ())
}

/// Total bytes of all results.
pub(super) fn bytes(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_read()?;
    Ok(transaction.open_table(TOTAL)?.get(())?.map_or(0, |total| total.value()))
}

type Row = (Place, Vec<u8>, Vec<u8>);

/// A result by its key.
pub(super) fn get(database: &Database, key: &[u8]) -> Result<Option<(Place, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let results = transaction.open_table(RESULTS)?;
    Ok(results.get(key)?.map(|row| (Place(row.value().0), row.value().1.to_vec())))
}

/// The action with a hash that has a result in this instance.
pub(super) fn by_hash(database: &Database, start: &[u8], instance: &str) -> Result<Option<Digest>, redb::Error> {
    let transaction = database.begin_read()?;
    let results = transaction.open_table(RESULTS)?;
    for row in results.range(start..)? {
        let (key, _) = row?;
        let Some(rest) = key.value().strip_prefix(start) else { break };
        // After the size.
        if rest.get(8..) == Some(instance.as_bytes()) {
            return Ok(action(key.value()));
        }
    }
    Ok(None)
}

/// The next results after a place, with their keys.
pub(super) fn page(database: &Database, after: Option<Place>, count: usize) -> Result<Vec<Row>, redb::Error> {
    let transaction = database.begin_read()?;
    let (results, order) = (transaction.open_table(RESULTS)?, transaction.open_table(ORDER)?);
    let mut rows = Vec::new();
    for row in order.range(after.map_or(0, |place| place.0.saturating_add(1))..)?.take(count) {
        let (place, key) = row?;
        if let Some(found) = results.get(key.value())? {
            rows.push((Place(place.value()), key.value().to_vec(), found.value().1.to_vec()));
        }
    }
    Ok(rows)
}
