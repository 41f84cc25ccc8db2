//! Identities of callers, and their roles.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Builds and runs actions; reads and uploads blobs; reads results.
    Builder,
    /// Reads blobs, results and artifacts.
    CacheReader,
    /// Writes results, in addition to what a reader may; for CI whose results other builds trust.
    CacheWriter,
    /// Runs leases.
    Worker,
    /// Administers a tenant: prunes its cache, and may do whatever its other roles except workers may.
    Admin,
    /// Administers the farm: drains workers, manages members. No access to any tenant's builds.
    FarmAdmin,
    /// One of the farm's coordinators. They issue themselves certificates with it; nobody else can be given it.
    Coordinator,
}

impl Role {
    /// All roles that a caller can be given.
    pub const ALL: [Self; 6] =
        [Self::Builder, Self::CacheReader, Self::CacheWriter, Self::Worker, Self::Admin, Self::FarmAdmin];

    /// The role's name in tokens and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::CacheReader => "cache-reader",
            Self::CacheWriter => "cache-writer",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::FarmAdmin => "farm-admin",
            Self::Coordinator => "coordinator",
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
    /// The text that was found.
    pub String,
);

impl FromStr for Role {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// A caller's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Such as `ann`, `ci` or a worker's name; empty without authentication.
    pub name: String,
    /// The tenant whose builds and cache they use; empty for the default tenant.
    pub tenant: String,
    /// Their permissions.
    pub roles: BTreeSet<Role>,
    /// The pool that a worker is bound to, if any.
    pub pool: Option<String>,
    /// Serial number of the presented certificate, in hex.
    pub serial: Option<String>,
    /// Serial number, in hex, of the first certificate in its line of renewals.
    pub family: Option<String>,
    /// SHA-256 of the presented static token, in hex.
    pub token: Option<String>,
    /// When the credentials expire.
    pub expires: Option<SystemTime>,
    /// The branch scope that they are confined to: what they write to the caches of build tools is seen within it
    /// only, and they write no results that others see.
    pub scope: Option<String>,
}

impl Identity {
    /// The caller of a coordinator that requires no authentication.
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
            scope: None,
        }
    }

    /// Whether the caller was not authenticated.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether the caller has any of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }
}

/// Checks a name of a person, worker or tenant: it must be usable in log lines, URLs and file names.
///
/// # Errors
/// What was expected.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(lawful) || name.starts_with(['.', '-']) {
        return Err(format!(
            "invalid {what} name `{name}`; expected up to 128 letters, digits, `.`, `_`, `-` and `@`, beginning with a letter or digit"
        ));
    }
    Ok(())
}

/// Maximum length of a scope's name, in bytes.
const MAX_SCOPE: usize = 256;

/// Checks the name of a branch scope: any text without control characters, such as `refs/pull/7/merge`.
///
/// # Errors
/// What was expected.
pub fn check_scope(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_SCOPE || name.chars().any(char::is_control) {
        return Err(format!(
            "invalid scope `{}`; expected 1 to {MAX_SCOPE} bytes without control characters, such as a branch's name",
            name.escape_debug()
        ));
    }
    Ok(())
}
