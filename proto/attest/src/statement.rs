//! Statements: what somebody says about files.
//!
//! Source: in-toto attestation framework, "Statement" v1, and v0.1, which differs in its name only.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// The type of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const OLDER: &str = "https://in-toto.io/Statement/v0.1";

/// A file that a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subject {
    /// Its name; for the reader.
    #[serde(default)]
    pub name: String,
    /// Its digests by algorithm, in hex.
    #[serde(default)]
    pub digest: BTreeMap<String, String>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// What it says about that: a URI.
    pub predicate_type: String,
    /// What it says.
    #[serde(default)]
    pub predicate: Value,
}

impl Statement {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Error> {
        let statement: Self = serde_json::from_slice(data).map_err(|error| Error::malformed("statement", error))?;
        if statement.kind != STATEMENT_TYPE && statement.kind != OLDER {
            let reason = format!("it is `{}`; expected `{STATEMENT_TYPE}`", statement.kind);
            return Err(Error::malformed("statement", reason));
        }
        Ok(statement)
    }

    /// Whether it is about the file with this digest, whatever its name.
    pub fn is_about(&self, algorithm: &str, hex: &str) -> bool {
        let same =
            |subject: &Subject| subject.digest.get(algorithm).is_some_and(|digest| digest.eq_ignore_ascii_case(hex));
        !hex.is_empty() && self.subject.iter().any(same)
    }
}
