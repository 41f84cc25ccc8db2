//! Errors of Redis. None of the texts contains a password.

/// Why Redis cannot be used, temporarily or at all.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "invalid Redis address `{shown}`: {why}; expected `redis://[USER:PASSWORD@]HOST:PORT` or `rediss://…` for TLS, \
         with commas between the nodes of a cluster"
    )]
    Address { shown: String, why: String },
    #[error("cannot read `{path}` for the connection to Redis: {why}")]
    File { path: String, why: String },
    #[error("Redis at `{shown}` rejected the user or password ({why}); correct them in the address")]
    Password { shown: String, why: String },
    #[error(
        "Redis at `{shown}` has a certificate that is not trusted ({why}); pass its authority with `--redis-ca`, and use the host name \
         that is in the certificate"
    )]
    Certificate { shown: String, why: String },
    #[error(
        "the service at `{shown}` does not speak the Redis protocol ({why}); check the port, and `redis` or `rediss`"
    )]
    Protocol { shown: String, why: String },
    #[error("cannot resolve any host of the Redis address `{shown}` ({why}); check its name")]
    Host { shown: String, why: String },
    #[error("Redis at `{shown}` is unreachable ({why}); the farm continues without it")]
    Away { shown: String, why: String },
    #[error("Redis at `{shown}` accepts no writes ({why}); its contents are still used")]
    NoWrites { shown: String, why: String },
    #[error("Redis at `{shown}` refused a command ({why})")]
    Refused { shown: String, why: String },
}
