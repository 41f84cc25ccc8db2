//! Errors of Redis. None of the texts contains a password.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why Redis cannot be used, temporarily or at all.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "invalid Redis address `{shown}`: {why}; expected `redis://[USER:PASSWORD@]HOST:PORT` or `rediss://…` for TLS, \
         with commas between the nodes of a cluster, or `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` for Sentinel"
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
    #[error("Redis at `{shown}` is unreachable ({why})")]
    Away { shown: String, why: String },
    #[error("Redis at `{shown}` accepts no writes ({why})")]
    NoWrites { shown: String, why: String },
    #[error("Redis at `{shown}` refused a command ({why})")]
    Refused { shown: String, why: String },
}

/// What Redis or its client said.
pub fn message(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// What an error of a call means: that Redis takes no writes, that it did not like this command, or that it is away.
pub fn failure(shown: &str, error: &RedisError) -> Error {
    let (shown, why) = (shown.to_owned(), message(error));
    if matches!(error.code(), Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS" | "NOPERM")) {
        return Error::NoWrites { shown, why };
    }
    let busy = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown)
    );
    let about_the_command = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) && !busy;
    if about_the_command { Error::Refused { shown, why } } else { Error::Away { shown, why } }
}

/// Why connecting failed: whether waiting may help, and what is wrong.
pub(crate) fn refusal(shown: &str, error: &RedisError) -> Error {
    let (shown, why) = (shown.to_owned(), message(error));
    let mentions = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if error.kind() == ErrorKind::AuthenticationFailed || mentions(&["NOAUTH", "WRONGPASS", "NOPERM", "AUTH failed"]) {
        Error::Password { shown, why }
    } else if mentions(&["certificate", "CertificateUnknown", "UnknownCA", "BadCertificate"]) {
        Error::Certificate { shown, why }
    } else if mentions(&["lookup address", "Name or service not known", "nodename nor servname"]) {
        Error::Host { shown, why }
    } else if error.kind() == ErrorKind::Parse
        || mentions(&["InvalidContentType", "corrupt message", "received corrupt", "Invalid response"])
    {
        Error::Protocol { shown, why }
    } else {
        Error::Away { shown, why }
    }
}
