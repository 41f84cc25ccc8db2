//! Small values of which each coordinator stores its own part, by group and name.
//!
//! | key | kind | holds |
//! | --- | --- | --- |
//! | `l:{bytes of the name}:{name}:{group}` | hash | each coordinator's part, in the format of [`super::value`] |
//! | `li:{group}` | sorted set | the group's names, by when one of their parts was last written, in milliseconds |
//!
//! Invariant: a coordinator writes only its own field of a hash, in one command, so that none overwrites another's.
//! Values that nobody writes within the lifetime of the farm's keys expire. A part that is unreadable, or from another
//! version, counts as missing.

use bytes::Bytes;
use redis::Cmd;

use super::link::{Access, Link};
use super::{Error, Keys, value};

/// Values requested in one call, so that a large group stays within a call's time limit.
const BATCH: usize = 500;
/// Maximum size of a part, in bytes.
const MAX_PART_BYTES: usize = 4 << 20;

/// The coordinators' parts of one name: the owner and its part.
pub type Found = Vec<(String, Bytes)>;

/// The name under which a coordinator's part is sealed.
fn field(hash: &str, owner: &str) -> String {
    format!("{owner}:{hash}")
}

/// Values in parts, in one Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Parts {
    link: Link,
    keys: Keys,
    most: usize,
}

impl Parts {
    /// Parts over this connection, with at most `most` names in a group; the least recently written are removed first.
    pub fn new(link: Link, keys: Keys, most: usize) -> Self {
        Self { link, keys, most }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// How long values are kept without being written, in milliseconds.
    pub fn life_ms(&self) -> i64 {
        i64::try_from(self.keys.life.as_millis()).unwrap_or(i64::MAX)
    }

    /// The names in a group that were written within the lifetime of the farm's keys before `now_ms` (since the epoch).
    ///
    /// # Errors
    /// If Redis fails.
    pub async fn names(&self, group: &str, now_ms: i64) -> Result<Vec<String>, Error> {
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range.arg(self.index(group)).arg(format!("({}", now_ms.saturating_sub(self.life_ms()))).arg("+inf");
        let found = self.link.call(Access::Read, range).await?;
        Ok(redis::from_redis_value(found).unwrap_or_default())
    }

    /// All parts of each name, in the same order.
    ///
    /// # Errors
    /// If Redis fails.
    pub async fn get(&self, group: &str, names: &[String]) -> Result<Vec<Found>, Error> {
        let commands = names.iter().map(|name| {
            let mut all = redis::cmd("HGETALL");
            all.arg(self.hash(group, name));
            all
        });
        let mut found = Vec::with_capacity(names.len());
        for (answer, name) in self.batches(Access::Read, commands.collect()).await?.into_iter().zip(names) {
            let hash = self.hash(group, name);
            let parts: Vec<(String, Vec<u8>)> =
                answer.ok().and_then(|value| redis::from_redis_value(value).ok()).unwrap_or_default();
            let readable = parts.into_iter().filter_map(|(owner, part)| {
                let opened = value::open(&self.keys.farm, &field(&hash, &owner), &part.into())?;
                Some((owner, value::decode(opened, MAX_PART_BYTES)?))
            });
            found.push(readable.collect());
        }
        Ok(found)
    }

    /// Writes one coordinator's parts of these names.
    ///
    /// # Errors
    /// If Redis fails or accepts no writes. Some of the parts may have been written.
    pub async fn put(&self, group: &str, owner: &str, parts: &[(String, Vec<u8>)], now_ms: i64) -> Result<(), Error> {
        let (index, seconds) = (self.index(group), self.keys.seconds());
        let mut commands = Vec::new();
        let mut add = |name: &str, key: &str, arguments: &[&[u8]]| {
            let mut command = redis::cmd(name);
            command.arg(key);
            for argument in arguments {
                command.arg(*argument);
            }
            commands.push(command);
        };
        let (seconds, now) = (seconds.to_string(), now_ms.to_string());
        for (name, part) in parts {
            let hash = self.hash(group, name);
            let sealed = value::seal(&self.keys.farm, &field(&hash, owner), &value::encode(part));
            add("HSET", &hash, &[owner.as_bytes(), &sealed]);
            add("EXPIRE", &hash, &[seconds.as_bytes()]);
            add("ZADD", &index, &[now.as_bytes(), name.as_bytes()]);
        }
        let old = now_ms.saturating_sub(self.life_ms()).to_string();
        let over = format!("-{}", self.most.saturating_add(1));
        add("ZREMRANGEBYSCORE", &index, &[b"-inf", old.as_bytes()]);
        add("ZREMRANGEBYRANK", &index, &[b"0", over.as_bytes()]);
        add("EXPIRE", &index, &[seconds.as_bytes()]);
        self.write(commands).await
    }

    /// Removes names with all coordinators' parts.
    ///
    /// # Errors
    /// If Redis fails or accepts no writes.
    pub async fn remove(&self, group: &str, names: &[String]) -> Result<(), Error> {
        let mut commands = Vec::new();
        for name in names {
            let (mut index, mut hash) = (redis::cmd("ZREM"), redis::cmd("DEL"));
            index.arg(self.index(group)).arg(name);
            hash.arg(self.hash(group, name));
            commands.extend([index, hash]);
        }
        self.write(commands).await
    }

    async fn write(&self, commands: Vec<Cmd>) -> Result<(), Error> {
        for answer in self.batches(Access::Write, commands).await? {
            answer?;
        }
        Ok(())
    }

    async fn batches(&self, access: Access, mut commands: Vec<Cmd>) -> Result<Vec<Result<redis::Value, Error>>, Error> {
        let mut answers = Vec::with_capacity(commands.len());
        while !commands.is_empty() {
            let rest = commands.split_off(commands.len().min(BATCH));
            answers.extend(self.link.calls(access, std::mem::replace(&mut commands, rest)).await?);
        }
        Ok(answers)
    }

    fn hash(&self, group: &str, name: &str) -> String {
        // The length separates the name, which may contain any character, from the group.
        format!("{}l:{}:{name}:{group}", self.keys.prefix, name.len())
    }

    fn index(&self, group: &str) -> String {
        format!("{}li:{group}", self.keys.prefix)
    }
}
