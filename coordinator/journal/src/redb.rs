//! A journal in one redb file: a table of entries by stream and position, and a table for each space.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_state::Reopening;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError, TableHandle};

use crate::engine::{Engine, Entry, Error, Range, Space, Write};

/// Stream and position to the entry.
const STREAMS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("streams");
/// Memory for the file's pages.
const CACHE_BYTES: usize = 32 << 20;

/// The table of a space.
fn table(space: Space) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(space)
}

/// A redb file.
#[derive(Debug, Clone)]
pub struct RedbEngine {
    name: Arc<str>,
    database: Arc<Reopening>,
}

impl RedbEngine {
    /// Opens a file, which is made if it does not exist. Without `fsync` nothing is ever synced. Blocks.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(path: &Path, fsync: bool) -> Result<Self, Error> {
        let at = path.to_owned();
        Self::by(&path.display().to_string(), move || {
            let open = if fsync { kiln_state::database::open } else { kiln_state::database::open_unsynced };
            Ok(open(&at, CACHE_BYTES)?)
        })
    }

    /// A database that is opened like this, again after each failure. Blocks.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn by(
        name: &str,
        opener: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let database = Reopening::open(opener).map_err(|error| failed(name, error))?;
        Ok(Self { name: name.into(), database: Arc::new(database) })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.database.clone();
        let done = tokio::task::spawn_blocking(move || database.with(work)).await;
        done.map_err(|_| Error::Closed)?.map_err(|error| failed(&self.name, error))
    }
}

fn failed(name: &str, error: redb::Error) -> Error {
    let journal = name.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => Error::Locked { journal },
        other => Error::Engine { journal, source: Arc::new(other) },
    }
}

/// A table, or none where nothing was ever written to it.
fn found<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn commit(database: &Database, batches: &[Arc<Vec<Write>>], sync: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(if sync { redb::Durability::Immediate } else { redb::Durability::None })?;
    {
        let mut streams = transaction.open_table(STREAMS)?;
        let mut spaces = HashMap::new();
        for write in batches.iter().flat_map(|batch| batch.iter()) {
            match write {
                Write::Append { stream, position, data } => {
                    streams.insert((&**stream, *position), &**data)?;
                }
                Write::RemoveStream { stream } => {
                    streams.retain_in((&**stream, 0)..=(&**stream, u64::MAX), |_, _| false)?;
                }
                Write::Put { space, .. } | Write::Remove { space, .. } => {
                    let records = match spaces.entry(*space) {
                        std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                        std::collections::hash_map::Entry::Vacant(place) => {
                            place.insert(transaction.open_table(table(space))?)
                        }
                    };
                    match write {
                        Write::Put { key, value, .. } => records.insert(key.as_str(), &**value)?,
                        Write::Remove { key, .. } => records.remove(key.as_str())?,
                        Write::Append { .. } | Write::RemoveStream { .. } => None,
                    };
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, redb::Error> {
    let mut entries = Vec::new();
    let Some(streams) = found(database.begin_read()?.open_table(STREAMS))? else { return Ok(entries) };
    let mut left = bytes;
    for row in streams.range((stream, from)..=(stream, u64::MAX))? {
        let (key, data) = row?;
        let data = data.value();
        if data.len() > left && !entries.is_empty() {
            break;
        }
        left = left.saturating_sub(data.len());
        entries.push(Entry { position: key.value().1, data: Bytes::copy_from_slice(data) });
    }
    Ok(entries)
}

fn list(database: &Database, space: Space, range: &Range) -> Result<Vec<(String, Bytes)>, redb::Error> {
    let Some(records) = found(database.begin_read()?.open_table(table(space)))? else { return Ok(Vec::new()) };
    let prefix = range.prefix.as_str();
    let beyond = beyond(prefix);
    let mut start = Bound::Included(prefix);
    let mut end = beyond.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    match range.after.as_deref() {
        Some(after) if range.backwards && beyond.as_deref().is_none_or(|beyond| after < beyond) => {
            end = Bound::Excluded(after);
        }
        Some(after) if !range.backwards && after >= prefix => start = Bound::Excluded(after),
        _ => {}
    }
    if is_empty(start, end) {
        return Ok(Vec::new());
    }
    let rows = records.range::<&str>((start, end))?;
    let row = |row: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), redb::StorageError>| {
        let (key, value) = row?;
        Ok((key.value().to_owned(), Bytes::copy_from_slice(value.value())))
    };
    let limit = range.limit.unwrap_or(usize::MAX);
    if range.backwards { rows.rev().take(limit).map(row).collect() } else { rows.take(limit).map(row).collect() }
}

/// The first text behind all that begin like the prefix, if there is one. Texts are in the order of their characters.
fn beyond(prefix: &str) -> Option<String> {
    let mut rest = prefix.to_owned();
    while let Some(last) = rest.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            rest.push(next);
            return Some(rest);
        }
    }
    None
}

/// Whether no key is between these; a database may refuse such a range.
fn is_empty(start: Bound<&str>, end: Bound<&str>) -> bool {
    match (start, end) {
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

/// Records or entries that are copied at once.
const COPIED: usize = 500;
const COPIED_BYTES: usize = 4 << 20;

impl RedbEngine {
    /// Copies everything to another engine, which has it on its disk when this returns. Returns the number of records and entries.
    ///
    /// # Errors
    /// If one of them fails. What was copied stays, and may be copied once more.
    pub async fn copy_to(&self, to: &dyn Engine) -> Result<u64, Error> {
        let mut copied = 0_u64;
        for space in self.with(spaces).await? {
            // As long as the program: there are few, and they are copied once.
            let space: Space = Box::leak(space.into_boxed_str());
            let mut range = Range::first(COPIED);
            loop {
                let records = self.list(space, range.clone()).await?;
                let Some((last, _)) = records.last() else { break };
                range = range.after(last.clone());
                copied = copied.saturating_add(records.len() as u64);
                let put = |(key, value)| Write::Put { space, key, value };
                to.commit(vec![Arc::new(records.into_iter().map(put).collect())], false).await?;
            }
        }
        let mut after = None;
        while let Some(name) = {
            let after = after.clone();
            self.with(move |database| next_stream(database, after.as_deref())).await?
        } {
            let stream: Arc<str> = name.as_str().into();
            let mut from = 0;
            loop {
                let entries = self.read(&name, from, COPIED_BYTES).await?;
                let Some(last) = entries.last() else { break };
                from = last.position.saturating_add(1);
                copied = copied.saturating_add(entries.len() as u64);
                let append =
                    |entry: Entry| Write::Append { stream: stream.clone(), position: entry.position, data: entry.data };
                to.commit(vec![Arc::new(entries.into_iter().map(append).collect())], false).await?;
            }
            after = Some(name);
        }
        to.commit(Vec::new(), true).await?;
        Ok(copied)
    }
}

/// The names of all spaces.
fn spaces(database: &Database) -> Result<Vec<String>, redb::Error> {
    let transaction = database.begin_read()?;
    let names = transaction.list_tables()?.map(|table| table.name().to_owned());
    Ok(names.filter(|name| name != STREAMS.name()).collect())
}

/// The first stream, or the first one after another.
fn next_stream(database: &Database, after: Option<&str>) -> Result<Option<String>, redb::Error> {
    let Some(streams) = found(database.begin_read()?.open_table(STREAMS))? else { return Ok(None) };
    let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded((after, u64::MAX)));
    let mut rows = streams.range::<(&str, u64)>((start, Bound::Unbounded))?;
    Ok(rows.next().transpose()?.map(|(key, _)| key.value().0.to_owned()))
}

#[async_trait]
impl Engine for RedbEngine {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error> {
        self.with(move |database| commit(database, &batches, sync)).await
    }

    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        let stream = stream.to_owned();
        self.with(move |database| read(database, &stream, from, bytes)).await
    }

    async fn end(&self, stream: &str) -> Result<u64, Error> {
        let stream = stream.to_owned();
        self.with(move |database| {
            let Some(streams) = found(database.begin_read()?.open_table(STREAMS))? else { return Ok(0) };
            let last = streams.range((stream.as_str(), 0)..=(stream.as_str(), u64::MAX))?.next_back();
            Ok(last.transpose()?.map_or(0, |(key, _)| key.value().1.saturating_add(1)))
        })
        .await
    }

    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        self.with(move |database| {
            let Some(records) = found(database.begin_read()?.open_table(table(space)))? else {
                return Ok(vec![None; keys.len()]);
            };
            let get = |key: &String| Ok(records.get(key.as_str())?.map(|value| Bytes::copy_from_slice(value.value())));
            keys.iter().map(get).collect()
        })
        .await
    }

    async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        self.with(move |database| list(database, space, &range)).await
    }

    async fn count(&self, space: Space) -> Result<u64, Error> {
        self.with(move |database| {
            let records = found(database.begin_read()?.open_table(table(space)))?;
            Ok(records.map(|records| records.len()).transpose()?.unwrap_or(0))
        })
        .await
    }
}
