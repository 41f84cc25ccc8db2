//! Answers of scripts as values.

use redis::{FromRedisValue, Value};

use kiln_redis::Error;

/// An answer as a type; anything else comes from another program, or from a Redis that is none.
pub(super) fn read<T: FromRedisValue>(shown: &str, value: Value) -> Result<T, Error> {
    redis::from_redis_value(value)
        .map_err(|error| Error::Refused { shown: shown.to_owned(), why: format!("unexpected answer: {error}") })
}
