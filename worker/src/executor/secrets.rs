//! The variables of a job that nobody else may see.
//!
//! Invariant: their values are neither shown by `Debug` nor left behind in the memory that held them.

use std::collections::BTreeMap;
use std::fmt;

use kiln_proto::v1;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Secrets by the names of their variables.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, Zeroizing<String>>);

impl Secrets {
    /// Those of a lease.
    pub fn of(secrets: &[v1::Secret]) -> Self {
        Self(secrets.iter().map(|one| (one.name.clone(), Zeroizing::new(one.value.clone()))).collect())
    }

    /// Names and values.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
