//! What can go wrong with Redis. No text of these holds a password.

/// A Redis that cannot be used, now or at all.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "`{shown}` is no Redis address: {why}; expected `redis://[USER:PASSWORD@]HOST:PORT` or `rediss://…` for TLS, \
         several of one cluster separated by commas"
    )]
    Address { shown: String, why: String },
    #[error("cannot read `{path}` for the connection to Redis: {why}")]
    File { path: String, why: String },
    #[error("Redis at `{shown}` refuses the user or password ({why}); correct them in the address")]
    Password { shown: String, why: String },
    #[error(
        "Redis at `{shown}` has a certificate that is not trusted ({why}); name its authority's by `--redis-ca`, and the host \
         as the certificate does"
    )]
    Certificate { shown: String, why: String },
    #[error("what answers at `{shown}` does not speak Redis ({why}); is it the right port, and `redis` or `rediss`?")]
    Protocol { shown: String, why: String },
    #[error("no host of the Redis address `{shown}` is known ({why}); correct its name")]
    Host { shown: String, why: String },
    #[error("Redis at `{shown}` is away ({why}); the farm goes on without it")]
    Away { shown: String, why: String },
    #[error("Redis at `{shown}` takes no writes ({why}); what it holds is still used")]
    NoWrites { shown: String, why: String },
    #[error("Redis at `{shown}` refused a command ({why})")]
    Refused { shown: String, why: String },
}
