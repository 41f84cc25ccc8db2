//! Action results in Redis, by instance and action.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use prost::Message;
use redis::Value;

use super::link::{Access, Link};
use super::{Keys, value};
use crate::{ActionStore, Error};

/// Maximum size of a result, in bytes.
const MAX_RESULT_BYTES: usize = 64 << 20;

/// Results in Redis. Reading a result extends its lifetime. A removed one leaves a tombstone and is reported as
/// [`Error::NotFound`], so that no coordinator answers with its own copy.
#[derive(Debug, Clone)]
pub struct RedisActions {
    link: Link,
    keys: Keys,
}

impl RedisActions {
    /// Results over this connection.
    pub fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys }
    }
}

#[async_trait]
impl ActionStore for RedisActions {
    async fn get(&self, instance: &str, action: &Digest) -> Result<Option<reapi::ActionResult>, Error> {
        let key = self.keys.action(instance, action);
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(self.keys.seconds());
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let mut answers = self.link.calls(Access::Read, vec![get, expire]).await?.into_iter();
        let Some(Ok(Value::BulkString(found))) = answers.next() else { return Ok(None) };
        if value::is_removed(&found) {
            return Err(Error::NotFound { digest: *action });
        }
        let opened = value::open(&self.keys.farm, &self.keys.action(instance, action), &Bytes::from(found));
        let decoded = opened.and_then(|value| value::decode(value, MAX_RESULT_BYTES));
        let result = decoded.and_then(|data| reapi::ActionResult::decode(data).ok());
        if result.is_none() {
            tracing::warn!(%action, "a result in Redis is unreadable or not sealed by this farm; the action will run again");
        }
        Ok(result)
    }

    async fn put(&self, instance: &str, action: &Digest, result: reapi::ActionResult) -> Result<(), Error> {
        let mut set = redis::cmd("SET");
        let key = self.keys.action(instance, action);
        let sealed = value::seal(&self.keys.farm, &key, &value::encode(&result.encode_to_vec()));
        set.arg(key).arg(sealed);
        set.arg("EX").arg(self.keys.seconds());
        self.link.call(Access::Write, set).await?;
        Ok(())
    }

    async fn remove(&self, instance: &str, action: &Digest) -> Result<(), Error> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.action(instance, action)).arg(value::encode_removed()).arg("EX").arg(self.keys.seconds());
        self.link.call(Access::Write, set).await?;
        Ok(())
    }
}
