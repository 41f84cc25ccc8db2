//! Calls to the master of one slot, over a connection that is made again whenever it fails.
//!
//! Invariants: no call takes longer than its limit. Calls are sent in the order in which they are made.

use std::time::Duration;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Mutex;

use crate::address::Address;
use crate::connection::pipeline;
use crate::error::{Error, failure};
use crate::master;

/// Slots of a cluster, see <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.
const SLOTS: u16 = 16_384;

/// A script in Lua, which Redis remembers by its hash.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// A script with this text.
    pub fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// A script with its keys and arguments.
#[derive(Debug)]
pub struct Call<'a> {
    /// The script.
    pub script: &'a Script,
    /// Its keys, all in one slot.
    pub keys: Vec<String>,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
}

impl Call<'_> {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// Where calls go. A failure concerns only the call that it happened to: the next one connects again.
#[derive(Debug)]
pub struct Wire {
    address: Address,
    slot: u16,
    /// Connections are numbered, so that a failure of an old one is not attributed to the new one.
    connection: Mutex<(u64, Option<MultiplexedConnection>)>,
}

impl Wire {
    /// Calls to the master that has the keys with this hash tag: those that contain `{TAG}`. Nothing is connected yet.
    pub fn new(address: Address, tag: &str) -> Self {
        let slot = crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % SLOTS;
        Self { address, slot, connection: Mutex::default() }
    }

    /// The address without its password.
    pub fn shown(&self) -> &str {
        self.address.shown()
    }

    /// Runs a script, and then commands on the same connection. Where the script is not known yet, all of it is sent again with its text.
    ///
    /// # Errors
    /// If Redis is away or too slow, or refuses the script. Errors of the commands behind it are in the answers.
    pub async fn script(
        &self,
        call: &Call<'_>,
        behind: &[Cmd],
        limit: Duration,
    ) -> Result<(Value, Vec<RedisResult<Value>>), Error> {
        let sent = |first: Cmd| [vec![first], behind.to_vec()].concat();
        let began = tokio::time::Instant::now();
        let mut answers = self.calls(sent(call.command("EVALSHA", &call.script.hash)), limit).await?;
        if matches!(answers.first(), Some(Err(error)) if error.code() == Some("NOSCRIPT")) {
            let left = limit.saturating_sub(began.elapsed());
            answers = self.calls(sent(call.command("EVAL", call.script.text)), left).await?;
        }
        let mut answers = answers.into_iter();
        match answers.next() {
            Some(Ok(value)) => Ok((value, answers.collect())),
            Some(Err(error)) => Err(failure(self.shown(), &error)),
            None => Ok((Value::Nil, Vec::new())),
        }
    }

    /// Runs commands in their order on one connection; an error of one of them does not keep the others from running.
    ///
    /// # Errors
    /// If Redis is away or too slow.
    pub async fn calls(&self, commands: Vec<Cmd>, limit: Duration) -> Result<Vec<RedisResult<Value>>, Error> {
        let mut number = None;
        // Boxed, because the future of connecting is a large one.
        let attempt: BoxFuture<'_, _> = Box::pin(self.attempt(commands, &mut number));
        let answered = tokio::time::timeout(limit, attempt).await;
        let (fails, answered) = match answered {
            Ok(Ok(answers)) => {
                let fails = answers.iter().filter_map(|answer| answer.as_ref().err()).any(is_over);
                (fails, Ok(answers))
            }
            Ok(Err(error)) => (true, Err(error)),
            Err(_) => {
                let why = format!("no response within {:.1} s", limit.as_secs_f64());
                (true, Err(Error::Away { shown: self.shown().to_owned(), why }))
            }
        };
        if fails && let Some(number) = number {
            let mut connection = self.connection.lock().await;
            if connection.0 == number {
                *connection = (number.saturating_add(1), None);
            }
        }
        answered
    }

    async fn attempt(&self, commands: Vec<Cmd>, number: &mut Option<u64>) -> Result<Vec<RedisResult<Value>>, Error> {
        let mut connection = {
            let mut current = self.connection.lock().await;
            *number = Some(current.0);
            match &current.1 {
                Some(connection) => connection.clone(),
                None => current.1.insert(master::connect(&self.address, self.slot).await?).clone(),
            }
        };
        let answers = pipeline(commands).query_async(&mut connection).await;
        answers.map_err(|error| failure(self.shown(), &error))
    }
}

/// Whether an error says that this server is not, or not any more, the one to ask.
fn is_over(error: &redis::RedisError) -> bool {
    !matches!(failure("", error), Error::Refused { .. }) || matches!(error.code(), Some("MOVED" | "ASK" | "UNBLOCKED"))
}
