//! Static bearer tokens: a file with each token's hash and identity.
//!
//! Invariant: the file contains no secret. A token has 256 random bits, so its plain SHA-256 cannot be reversed by
//! guessing; slow hashes are for passwords that people choose.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use globset::{Glob, GlobMatcher};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, Identity, Role, check_name, check_scope};

/// Prefix of tokens, so that secret scanners recognise them.
const PREFIX: &str = "kiln_";

/// One token in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The holder's name.
    pub name: String,
    /// The tenant whose builds and cache the holder uses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The holder's roles. Empty for a join token.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<Role>,
    /// Whether workers may exchange it for certificates; a join token grants nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub join: bool,
    /// Number of workers that may join with it; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Pattern for the names of workers that join with it; `*` matches any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<String>,
    /// The pool that joining workers are bound to. Their tenant is `tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The branch scope that the holder is confined to; see [`Identity::scope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// SHA-256 of the token, in hex.
    pub sha256: String,
    /// When it expires, such as `2027-01-31T12:00:00Z`; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_serde::option")]
    pub expires: Option<SystemTime>,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its tokens.
    #[serde(default, rename = "token")]
    pub tokens: Vec<Entry>,
}

/// The known tokens, by their hash.
#[derive(Debug, Clone, Default)]
pub struct Tokens(HashMap<String, Entry>);

/// Creates a token: the secret, and its hash for the file.
pub fn generate() -> (String, String) {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = hash(&token);
    (token, hash)
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

impl File {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or an entry is invalid.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for entry in &file.tokens {
            entry.check().map_err(wrong)?;
        }
        Ok(file)
    }
}

impl Entry {
    /// Checks an entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        check_name("token", &self.name)?;
        if !self.tenant.is_empty() {
            check_name("tenant", &self.tenant)?;
        }
        let is_hash = self.sha256.len() == 64 && self.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hash {
            return Err(format!("invalid `sha256` of token `{}`: expected 64 digits from 0 to f", self.name));
        }
        if self.join != self.roles.is_empty() {
            return Err(format!("token `{}` needs either `roles` or `join = true`", self.name));
        }
        if !self.join && (self.uses.is_some() || self.workers.is_some() || self.pool.is_some()) {
            return Err(format!(
                "`uses`, `workers` and `pool` are for tokens with `join = true`, not for `{}`",
                self.name
            ));
        }
        if let Some(pool) = &self.pool {
            check_name("pool", pool)?;
        }
        if let Some(scope) = &self.scope {
            check_scope(scope)?;
        }
        self.pattern().map_err(|error| format!("the `workers` of token `{}`: {error}", self.name))?;
        Ok(())
    }

    fn pattern(&self) -> Result<Option<GlobMatcher>, globset::Error> {
        self.workers.as_deref().map(|pattern| Ok(Glob::new(pattern)?.compile_matcher())).transpose()
    }

    /// Whether a worker with this name may join with it.
    pub fn takes(&self, worker: &str) -> bool {
        self.pattern().is_ok_and(|pattern| pattern.is_none_or(|pattern| pattern.is_match(worker)))
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl From<File> for Tokens {
    fn from(file: File) -> Self {
        Self(file.tokens.into_iter().map(|entry| (entry.sha256.clone(), entry)).collect())
    }
}

impl Tokens {
    /// All tokens, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    /// Whether this looks like one of Kiln's tokens rather than another system's.
    pub fn is_ours(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// Whether this token is known, valid or not.
    pub fn has(&self, token: &str) -> bool {
        self.0.contains_key(&hash(token))
    }

    /// Whether a token with this hash is known, valid or not.
    pub fn has_hash(&self, sha256: &str) -> bool {
        self.0.contains_key(sha256)
    }

    /// The hashes of all of them, sorted.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        let mut hashes: Vec<&str> = self.0.keys().map(String::as_str).collect();
        hashes.sort_unstable();
        hashes.into_iter()
    }

    /// Identifies the holder of a token.
    ///
    /// # Errors
    /// If it is unknown, expired or a join token.
    pub fn identify(&self, token: &str, now: SystemTime) -> Result<Identity, String> {
        let entry = self.find(token, now)?;
        if entry.join {
            return Err(format!(
                "token `{}` is a join token for workers (`kiln-worker --join`), and grants nothing else",
                entry.name
            ));
        }
        Ok(Identity {
            name: entry.name.clone(),
            tenant: entry.tenant.clone(),
            roles: entry.roles.clone(),
            pool: None,
            serial: None,
            family: None,
            token: Some(entry.sha256.clone()),
            expires: entry.expires,
            scope: entry.scope.clone(),
        })
    }

    /// The token with which a worker joins.
    ///
    /// # Errors
    /// If it is unknown, expired or not a join token.
    pub fn join(&self, token: &str, now: SystemTime) -> Result<&Entry, String> {
        let entry = self.find(token, now)?;
        if entry.join { Ok(entry) } else { Err(format!("token `{}` is not a join token", entry.name)) }
    }

    // Found by its hash, so the time it takes reveals nothing about other tokens.
    fn find(&self, token: &str, now: SystemTime) -> Result<&Entry, String> {
        let entry = self.0.get(&hash(token)).ok_or("unknown token; create one with `kiln farm token`")?;
        if entry.is_over(now) {
            let words =
                entry.expires.map(humantime::format_rfc3339_seconds).map(|at| at.to_string()).unwrap_or_default();
            return Err(format!("token `{}` has expired ({words})", entry.name));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(sha256: String, join: bool, expires: Option<SystemTime>) -> Entry {
        let roles = if join { BTreeSet::new() } else { [Role::Builder].into() };
        Entry { name: "ci".into(), tenant: "shop".into(), roles, join, sha256, expires, ..Entry::default() }
    }

    #[test]
    fn a_token_is_known_by_its_hash_until_it_expires() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (token, hash) = generate();
        let file = File { tokens: vec![entry(hash, false, Some(now + Duration::from_secs(1)))] };
        let text = toml::to_string(&file).unwrap();
        assert!(!text.contains(&token), "expected no secret in the file: {text}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        std::fs::write(&path, &text).unwrap();
        let tokens = Tokens::from(File::read(&path).unwrap());
        let identity = tokens.identify(&token, now).unwrap();
        assert_eq!((identity.name.as_str(), identity.tenant.as_str()), ("ci", "shop"));
        assert!(tokens.identify(&token, now + Duration::from_secs(1)).unwrap_err().contains("has expired"));
        assert!(tokens.identify(&generate().0, now).unwrap_err().contains("unknown token"));
        assert!(tokens.join(&token, now).unwrap_err().contains("not a join token"));
    }

    #[test]
    fn a_join_token_opens_nothing_else() {
        let (token, hash) = generate();
        let tokens = Tokens::from(File { tokens: vec![entry(hash, true, None)] });
        let now = SystemTime::now();
        assert_eq!(tokens.join(&token, now).map(|entry| entry.name.as_str()), Ok("ci"));
        assert!(tokens.identify(&token, now).unwrap_err().contains("kiln-worker --join"));
    }

    #[test]
    fn a_file_that_is_none_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let hash = "0".repeat(64);
        for (text, word) in [
            ("[[token]]\nname = \"a\"\nsha256 = \"12\"\nroles = [\"builder\"]".to_owned(), "expected 64 digits"),
            (format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\""), "needs either"),
            (format!("[[token]]\nname = \"a b\"\nsha256 = \"{hash}\"\njoin = true"), "invalid token name"),
            (format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroles = [\"root\"]"), "root"),
            (
                format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroles = [\"builder\"]\nscope = \"\""),
                "invalid scope",
            ),
            ("[[tokens]]".to_owned(), "tokens"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = File::read(&path).expect_err(word).to_string();
            assert!(error.contains(word) && error.contains("tokens.toml"), "expected `{word}` in: {error}");
        }
    }
}
