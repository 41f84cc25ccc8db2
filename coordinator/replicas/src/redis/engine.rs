//! A tenant's journal in Redis: a Redis Stream for each stream, with ids `POSITION-1`, and for each space a hash of its records and a
//! sorted set of their keys.
//!
//! Invariants: a commit changes something only if its term holds the lease at that moment, and if all commits that were answered before
//! are there. A commit that reaches Redis after a later one changes nothing. What is read was sealed by this farm, for this place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_journal::{Engine, Entry, Error, Range, Space, Write};
use kiln_redis::{CALL, Call, Wire};
use parking_lot::Mutex;
use redis::{Cmd, RedisResult, Value};

use super::answers;
use super::group::{Part, entry_place, parts, position, record_place};
use super::keys::{JournalKeys, Keys};
use super::scripts::{COMMIT, LIST, READ};
use super::seal::{self, Sealer};
use crate::replica::Term;

/// How long a commit waits for the disk of Redis.
const DISK: Duration = Duration::from_secs(3);
/// How long a commit waits for a replica of Redis.
const REPLICA: Duration = Duration::from_secs(1);
/// Bytes of one answer; more is read in several.
const PAGE_BYTES: usize = 4 << 20;
/// Records of one answer.
const PAGE_RECORDS: usize = 1_000;

/// What all journals of a farm share.
#[derive(Debug)]
pub(super) struct Farm {
    pub(super) keys: Keys,
    pub(super) sealer: Sealer,
    /// Where is read. Commits wait for the disk, so each journal has a connection for its own.
    pub(super) reads: Wire,
    /// The number of the next commit: they grow for all journals of this process.
    pub(super) commits: AtomicU64,
    /// Whether Redis knows `WAITAOF`, as far as is known.
    pub(super) waits_for_disk: AtomicBool,
}

/// What is known of the commits of a term.
#[derive(Debug, Default)]
struct Known {
    /// The last one that was answered, and the last one that was also synced.
    answered: u64,
    synced: u64,
    /// Replicas of Redis that were connected at the last sync.
    replicas: u64,
}

/// A tenant's journal, written by one term.
#[derive(Debug)]
pub(super) struct RedisEngine {
    farm: Arc<Farm>,
    keys: JournalKeys,
    tenant: String,
    term: Term,
    writes: Wire,
    known: Mutex<Known>,
    /// One commit at a time.
    turn: tokio::sync::Mutex<()>,
}

impl RedisEngine {
    pub(super) fn new(farm: Arc<Farm>, writes: Wire, tenant: &str, term: Term) -> Self {
        let keys = farm.keys.journal(tenant);
        Self { farm, keys, tenant: tenant.to_owned(), term, writes, known: Mutex::default(), turn: Default::default() }
    }

    fn name(&self) -> String {
        format!("{} at {}", self.keys.last().trim_end_matches(":last"), self.writes.shown())
    }

    fn away(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Away { journal: self.name(), lost: false, source: Arc::new(error) }
    }

    fn refused(&self, why: String) -> Error {
        self.away(kiln_redis::Error::Refused { shown: self.writes.shown().to_owned(), why })
    }

    fn forged(&self, what: String) -> Error {
        Error::Forged { journal: self.name(), what }
    }

    /// Commits one part. With `sync` it is on the disk of Redis, and on one of its replicas, when this returns.
    async fn commit_part(&self, part: Part, sync: bool) -> Result<(), Error> {
        let waits_for_disk = sync && self.farm.waits_for_disk.load(Ordering::Relaxed);
        let waits_for_replica = sync && self.known.lock().replicas > 0;
        let mut behind = Vec::new();
        if waits_for_disk {
            behind.push(redis::cmd("WAITAOF").arg(1).arg(0).arg(DISK.as_millis() as u64).to_owned());
        }
        if waits_for_replica {
            behind.push(redis::cmd("WAIT").arg(1).arg(REPLICA.as_millis() as u64).to_owned());
        }
        let (number, replicas, waited) = self.run(part, sync, &behind).await?;
        let mut waited = waited.into_iter();
        if waits_for_disk {
            self.check_disk(waited.next())?;
        }
        if sync {
            self.known.lock().replicas = replicas;
        }
        if sync && replicas > 0 {
            if waits_for_replica {
                self.check_replica(waited.next())?;
            } else {
                // A replica has appeared: an empty commit, and with it all before, is waited for.
                return Box::pin(self.commit_part(Part::default(), sync)).await;
            }
        }
        if sync {
            let mut known = self.known.lock();
            known.synced = known.synced.max(number);
        }
        Ok(())
    }

    /// Runs the script and the commands behind it. Returns the commit's number, and how many replicas Redis has.
    async fn run(&self, part: Part, sync: bool, behind: &[Cmd]) -> Result<(u64, u64, Vec<RedisResult<Value>>), Error> {
        let number = self.farm.commits.fetch_add(1, Ordering::Relaxed) + 1;
        let (answered, synced) = {
            let known = self.known.lock();
            (known.answered, known.synced)
        };
        let numbers = [number, answered, synced].map(|number| number.to_string().into_bytes());
        let mut arguments = vec![self.term.epoch.to_string().into_bytes(), self.term.nonce.clone().into_bytes()];
        arguments.extend(numbers);
        arguments.extend([self.tenant.clone().into_bytes(), seal::BYTES.to_string().into_bytes()]);
        arguments.extend([if sync { b"sync".to_vec() } else { Vec::new() }, part.types.into_bytes()]);
        arguments.extend(part.changes);
        let mut keys = vec![self.farm.keys.lease(), self.keys.last(), self.farm.keys.tenants()];
        keys.extend(part.keys);
        let call = Call { script: &COMMIT, keys, arguments };
        let (answer, waited) = self.writes.script(&call, behind, CALL).await.map_err(|error| self.away(error))?;
        let read = answers::read::<(String, u64, u64)>(self.writes.shown(), answer);
        let (word, last, replicas) = read.map_err(|error| self.away(error))?;
        let mut known = self.known.lock();
        match word.as_str() {
            "OK" => known.answered = known.answered.max(last),
            "FENCED" => return Err(Error::Fenced { journal: self.name() }),
            "LOST" => {
                // The writer commits again what it had not synced, and goes on from here.
                known.answered = last;
                let lost = self.refused("it has lost the last commits, as after a restart".to_owned());
                return Err(match lost {
                    Error::Away { journal, source, .. } => Error::Away { journal, lost: true, source },
                    other => other,
                });
            }
            "CONFLICT" => {
                return Err(self.refused(format!("another entry has position {last} of a stream, or a later one")));
            }
            other => return Err(self.refused(format!("the commit was overtaken by another one (`{other}`)"))),
        }
        Ok((last, replicas, waited))
    }

    fn check_disk(&self, answer: Option<RedisResult<Value>>) -> Result<(), Error> {
        match answer {
            Some(Ok(value)) => {
                let read = answers::read::<(u64, u64)>(self.writes.shown(), value);
                match read.map_err(|error| self.away(error))?.0 {
                    0 => Err(self.refused(format!("its disk has not confirmed a commit within {} s", DISK.as_secs()))),
                    _ => Ok(()),
                }
            }
            Some(Err(error)) if kiln_redis::message(&error).contains("unknown command") => {
                self.farm.waits_for_disk.store(false, Ordering::Relaxed);
                Ok(())
            }
            Some(Err(error)) => Err(self.away(kiln_redis::failure(self.writes.shown(), &error))),
            None => Ok(()),
        }
    }

    fn check_replica(&self, answer: Option<RedisResult<Value>>) -> Result<(), Error> {
        let Some(answer) = answer else { return Ok(()) };
        let value = answer.map_err(|error| self.away(kiln_redis::failure(self.writes.shown(), &error)))?;
        let confirmed = answers::read::<u64>(self.writes.shown(), value).map_err(|error| self.away(error))?;
        if confirmed == 0 {
            let why = format!("none of its replicas has confirmed a commit within {} s", REPLICA.as_secs());
            return Err(self.refused(why));
        }
        Ok(())
    }

    async fn read_page(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        let arguments = [from.to_string(), bytes.min(PAGE_BYTES).to_string(), seal::BYTES.to_string()];
        let arguments = arguments.map(String::into_bytes).into();
        let call = Call { script: &READ, keys: vec![self.keys.stream(stream)], arguments };
        let found: Vec<(String, Bytes)> = self.call(&call).await?;
        found.iter().map(|(id, sealed)| self.entry(stream, id, sealed)).collect()
    }

    fn entry(&self, stream: &str, id: &str, sealed: &Bytes) -> Result<Entry, Error> {
        let opened = position(id).and_then(|position| {
            let place = position.to_be_bytes();
            let data = self.farm.sealer.open(&entry_place(&self.tenant, stream, &place), sealed)?;
            Some(Entry { position, data })
        });
        opened.ok_or_else(|| self.forged(format!("an entry `{id}` of the stream `{stream}`")))
    }

    fn record(&self, space: Space, key: &str, sealed: Option<Bytes>) -> Result<Bytes, Error> {
        let opened = sealed.and_then(|sealed| self.farm.sealer.open(&record_place(&self.tenant, space, key), &sealed));
        opened.ok_or_else(|| self.forged(format!("a record `{key}` in `{space}`")))
    }

    async fn call<T: redis::FromRedisValue>(&self, call: &Call<'_>) -> Result<T, Error> {
        let wire = &self.farm.reads;
        let (answer, _) = wire.script(call, &[], CALL).await.map_err(|error| self.away(error))?;
        answers::read(wire.shown(), answer).map_err(|error| self.away(error))
    }

    async fn command<T: redis::FromRedisValue>(&self, command: Cmd) -> Result<T, Error> {
        let wire = &self.farm.reads;
        let answers = wire.calls(vec![command], CALL).await.map_err(|error| self.away(error))?;
        let answer = answers.into_iter().next().unwrap_or(Ok(Value::Nil));
        let answer = answer.map_err(|error| self.away(kiln_redis::failure(wire.shown(), &error)))?;
        answers::read(wire.shown(), answer).map_err(|error| self.away(error))
    }

    async fn list_page(&self, space: Space, range: &Range, limit: usize) -> Result<Vec<(String, Bytes)>, Error> {
        let (lowest, highest) = bounds(range);
        let direction = if range.backwards { "down" } else { "up" };
        let numbers = [limit.min(PAGE_RECORDS), PAGE_BYTES].map(|number| number.to_string().into_bytes());
        let mut arguments = vec![direction.as_bytes().to_vec(), lowest, highest];
        arguments.extend(numbers);
        let keys = vec![self.keys.records(space), self.keys.order(space)];
        let found: Vec<(String, Option<Bytes>)> = self.call(&Call { script: &LIST, keys, arguments }).await?;
        let open = |(key, sealed): (String, Option<Bytes>)| {
            let value = self.record(space, &key, sealed)?;
            Ok((key, value))
        };
        found.into_iter().map(open).collect()
    }
}

/// The lowest and the highest key of a range as `ZRANGEBYLEX` takes them, which compares bytes, as Rust compares texts.
fn bounds(range: &Range) -> (Vec<u8>, Vec<u8>) {
    let bound = |kind: u8, key: &[u8]| [&[kind], key].concat();
    let prefix = range.prefix.as_bytes();
    let mut lowest = bound(b'[', prefix);
    // No text has this byte.
    let mut highest = if prefix.is_empty() { b"+".to_vec() } else { bound(b'(', &[prefix, b"\xff"].concat()) };
    match &range.after {
        Some(after) if range.backwards => {
            if !after.starts_with(&range.prefix) && after.as_bytes() > prefix {
                return (lowest, highest);
            }
            highest = bound(b'(', after.as_bytes());
        }
        Some(after) if after.as_bytes() >= prefix => lowest = bound(b'(', after.as_bytes()),
        _ => {}
    }
    (lowest, highest)
}

#[async_trait]
impl Engine for RedisEngine {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error> {
        let parts = parts(&batches, (&self.keys, &self.farm.sealer, &self.tenant)).map_err(|why| self.refused(why))?;
        let _turn = self.turn.lock().await;
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            self.commit_part(part, sync && at == last).await?;
        }
        Ok(())
    }

    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        let mut entries = self.read_page(stream, from, bytes).await?;
        let mut read: usize = entries.iter().map(|entry| entry.data.len()).sum();
        // A page ends because it is full, or with the stream.
        while bytes > PAGE_BYTES
            && read < bytes
            && let Some(next) = entries.last().map(|last| last.position + 1)
        {
            let mut page = self.read_page(stream, next, bytes - read).await?;
            // The first entry of a page may be larger than what is left.
            if page.first().is_none_or(|entry| entry.data.len() > bytes - read) {
                break;
            }
            read += page.iter().map(|entry| entry.data.len()).sum::<usize>();
            entries.append(&mut page);
        }
        Ok(entries)
    }

    async fn end(&self, stream: &str) -> Result<u64, Error> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(self.keys.stream(stream)).arg("+").arg("-").arg("COUNT").arg(1);
        let found: Vec<(String, Vec<Bytes>)> = self.command(newest).await?;
        let Some((id, fields)) = found.into_iter().next() else { return Ok(0) };
        let sealed = fields.into_iter().nth(1).unwrap_or_default();
        Ok(self.entry(stream, &id, &sealed)?.position + 1)
    }

    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.records(space)).arg(&keys);
        let found: Vec<Option<Bytes>> = self.command(get).await?;
        let open = |(key, sealed): (&String, Option<Bytes>)| match sealed {
            Some(sealed) => self.record(space, key, Some(sealed)).map(Some),
            None => Ok(None),
        };
        keys.iter().zip(found).map(open).collect()
    }

    async fn list(&self, space: Space, mut range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut records = Vec::new();
        while records.len() < limit {
            let page = self.list_page(space, &range, limit - records.len()).await?;
            let Some((last, _)) = page.last() else { break };
            range.after = Some(last.clone());
            records.extend(page);
        }
        Ok(records)
    }

    async fn count(&self, space: Space) -> Result<u64, Error> {
        self.command(redis::cmd("ZCARD").arg(self.keys.order(space)).to_owned()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_within_the_prefix() {
        let text = |range: Range| {
            let (lowest, highest) = bounds(&range);
            (String::from_utf8_lossy(&lowest).into_owned(), String::from_utf8_lossy(&highest).into_owned())
        };
        let pair = |lowest: &str, highest: &str| (lowest.to_owned(), highest.to_owned());
        assert_eq!(text(Range::default()), pair("[", "+"));
        assert_eq!(text(Range::prefix("a")), pair("[a", "(a\u{fffd}"));
        assert_eq!(text(Range::prefix("b").after("a")), pair("[b", "(b\u{fffd}"));
        assert_eq!(text(Range::prefix("b").after("bc")), pair("(bc", "(b\u{fffd}"));
        assert_eq!(text(Range { backwards: true, ..Range::prefix("b").after("c") }), pair("[b", "(b\u{fffd}"));
        assert_eq!(text(Range { backwards: true, ..Range::prefix("b").after("a") }), pair("[b", "(a"));
    }
}
