//! What a request asks for, whatever the dialect it came in.

use std::collections::BTreeMap;

use axum::http::StatusCode;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// An entry, with its body.
    Get(String),
    /// Whether there is an entry.
    Head(String),
    /// To store an entry.
    Put(Put),
    /// To remove an entry.
    Delete(String),
    /// Which of the entries that the body lists exist (Turborepo).
    List,
    /// To take note of the body, which is of no use here; then this answer.
    Ignore(Fixed),
    /// An answer that depends on nothing.
    Answer(Fixed),
    /// A file or a directory (WebDAV).
    Find(String),
    /// A blob by its SHA-256 (Bazel).
    Blob([u8; 32], Verb),
    /// A result by its action's SHA-256 (Bazel).
    Result([u8; 32], Verb),
}

/// What is done to a blob or a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is read.
    Get,
    /// It is asked for.
    Head,
    /// It is stored.
    Put,
}

/// An entry to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Its key.
    pub key: String,
    /// Headers that come back with the entry.
    pub headers: BTreeMap<String, String>,
    /// Whether an entry that exists is replaced.
    pub replaces: bool,
    /// The answer.
    pub answer: Fixed,
}

/// An answer that is known in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The status.
    pub status: StatusCode,
    /// Headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: &'static str,
}

impl Fixed {
    /// A status without a body.
    pub const fn status(status: StatusCode) -> Self {
        Self { status, headers: &[], body: "" }
    }

    /// JSON.
    pub const fn json(status: StatusCode, body: &'static str) -> Self {
        Self { status, headers: &[("content-type", "application/json")], body }
    }
}

impl Put {
    /// An entry without headers that may be replaced.
    pub fn plain(key: String) -> Self {
        Self { key, headers: BTreeMap::new(), replaces: true, answer: Fixed::status(StatusCode::OK) }
    }
}

impl Ask {
    /// Whether it changes what others see.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Delete(_) | Self::Result(_, Verb::Put))
    }

    /// What it does, for metrics and the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get(_) | Self::Blob(_, Verb::Get) | Self::Result(_, Verb::Get) => "get",
            Self::Head(_) | Self::List | Self::Find(_) | Self::Blob(_, Verb::Head) | Self::Result(_, Verb::Head) => {
                "look"
            }
            Self::Put(_) | Self::Blob(_, Verb::Put) | Self::Result(_, Verb::Put) => "put",
            Self::Delete(_) => "remove",
            Self::Ignore(_) | Self::Answer(_) => "other",
        }
    }

    /// What it is about, for the audit log.
    pub fn subject(&self) -> String {
        match self {
            Self::Get(key) | Self::Head(key) | Self::Delete(key) | Self::Find(key) => key.clone(),
            Self::Put(put) => put.key.clone(),
            Self::Blob(hash, _) | Self::Result(hash, _) => hex::encode(hash),
            Self::List | Self::Ignore(_) | Self::Answer(_) => String::new(),
        }
    }
}
