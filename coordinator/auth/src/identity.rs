//! Who calls, and what they may do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Builds and runs actions; reads and uploads blobs, and reads results.
    Builder,
    /// Reads blobs, results and artifacts.
    CacheReader,
    /// Writes results, beside what a reader may; for CI that other builds may trust.
    CacheWriter,
    /// Runs what the farm gives it.
    Worker,
    /// Administers a tenant: prunes what it has cached, beside what all others of it but workers may.
    Admin,
    /// Runs the farm: drains workers, says who belongs to it. Nothing of any tenant's builds.
    FarmAdmin,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Builder, Self::CacheReader, Self::CacheWriter, Self::Worker, Self::Admin, Self::FarmAdmin];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::CacheReader => "cache-reader",
            Self::CacheWriter => "cache-writer",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::FarmAdmin => "farm-admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid role `{0}`; expected `builder`, `cache-reader`, `cache-writer`, `worker`, `admin` or `farm-admin`")]
pub struct Unknown(
    /// What was found.
    pub String,
);

impl FromStr for Role {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Such as `ann`, `ci` or a worker's name; empty for one whom nobody asked.
    pub name: String,
    /// Whose builds and cache they use; empty is the default tenant.
    pub tenant: String,
    /// What they may do.
    pub roles: BTreeSet<Role>,
    /// The pool that a worker belongs to, where it is bound to one.
    pub pool: Option<String>,
    /// The serial number of the certificate that says so, in hex.
    pub serial: Option<String>,
    /// The serial number of the certificate from which that one was renewed, directly or by others between.
    pub family: Option<String>,
    /// The SHA-256, in hex, of the static token that says so.
    pub token: Option<String>,
    /// When it is no longer so.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// Whoever calls a coordinator that asks nobody who they are.
    pub fn anonymous() -> Self {
        Self {
            name: String::new(),
            tenant: String::new(),
            roles: Role::ALL.into_iter().collect(),
            pool: None,
            serial: None,
            family: None,
            token: None,
            expires: None,
        }
    }

    /// Whether nobody asked who this is.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether any of these is a role of theirs.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }
}

/// Names of people, workers and tenants: what may stand in a log line, a URL and a file name.
///
/// # Errors
/// Says what was expected.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(lawful) || name.starts_with(['.', '-']) {
        return Err(format!(
            "invalid name `{name}` of a {what}; expected up to 128 letters, digits, `.`, `_`, `-` and `@`, beginning with a letter or digit"
        ));
    }
    Ok(())
}
