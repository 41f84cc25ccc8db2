//! Whose journal it is: a random key that is made at the farm's first start, encrypted with the farm's key. It seals all else.
//!
//! A farm with another key cannot read it, and is told so. After a rotation of the farm's key it is encrypted with the new one by every
//! replica that runs or starts, as the one after that would not open it any more.

use bytes::Bytes;
use kiln_redis::{CALL, Wire};
use kiln_state::farm_key::{self, FarmKey, Purpose};
use parking_lot::Mutex;
use redis::{Cmd, RedisResult, Value};

use super::answers;
use super::keys::Keys;
use crate::error::Error;

/// The key that seals what a farm stores.
pub(super) type Secret = [u8; farm_key::BYTES];

/// The farm's key, and what is kept with it.
#[derive(Debug)]
pub(super) struct Identity {
    key: FarmKey,
    keys: Keys,
    /// What is stored, and what tells whether the farm's key is the one with which it was.
    stored: Mutex<(Bytes, Vec<u8>)>,
}

impl Identity {
    pub(super) fn new(key: FarmKey, keys: Keys) -> Self {
        Self { key, keys, stored: Mutex::default() }
    }

    /// What is stored, unless the farm's key has changed since.
    pub(super) fn stored(&self) -> Option<Bytes> {
        let stored = self.stored.lock();
        (stored.1 == self.mark()).then(|| stored.0.clone())
    }

    fn mark(&self) -> Vec<u8> {
        self.key.seal(Purpose::Journal, &[b"mark"])
    }

    /// The farm's secret, which is stored if there is none: `mine` if this process has had one before.
    pub(super) async fn establish(&self, wire: &Wire, mine: Option<&Secret>) -> Result<Secret, Error> {
        let (shown, key, mark) = (wire.shown(), self.keys.farm(), self.mark());
        let secret = mine.copied().unwrap_or_else(rand::random);
        let put = redis::cmd("SET").arg(&key).arg(self.wrapped(&secret)?).arg("NX").to_owned();
        let get = redis::cmd("GET").arg(&key).to_owned();
        let mut answers = run(wire, vec![put, get]).await?.into_iter();
        answers.next().transpose().map_err(|error| kiln_redis::failure(shown, &error))?;
        let found = answers.next().unwrap_or(Ok(Value::Nil)).map_err(|error| kiln_redis::failure(shown, &error))?;
        let mut found: Bytes = answers::read(shown, found)?;
        let other = || Error::OtherFarm { shown: shown.to_owned(), prefix: self.keys.tag().to_owned() };
        let (opened, is_current) = self.key.unwrap(Purpose::Journal, &self.place(), &found).ok_or_else(other)?;
        let opened: Secret = opened.try_into().map_err(|_| other())?;
        if mine.is_some_and(|mine| *mine != opened) {
            return Err(other());
        }
        if !is_current {
            found = self.wrapped(&opened)?.into();
            let put = redis::cmd("SET").arg(&key).arg(&found[..]).to_owned();
            for answer in run(wire, vec![put]).await? {
                answer.map_err(|error| kiln_redis::failure(shown, &error))?;
            }
            tracing::info!("the journal's key is encrypted with the farm's new key");
        }
        *self.stored.lock() = (found, mark);
        Ok(opened)
    }

    fn place(&self) -> [&[u8]; 1] {
        [self.keys.tag().as_bytes()]
    }

    fn wrapped(&self, secret: &Secret) -> Result<Vec<u8>, Error> {
        let wrapped = self.key.wrap(Purpose::Journal, &self.place(), secret);
        wrapped.ok_or_else(|| Error::Away { why: "the farm's key cannot encrypt".to_owned() })
    }
}

async fn run(wire: &Wire, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>, Error> {
    Ok(wire.calls(commands, CALL).await?)
}
