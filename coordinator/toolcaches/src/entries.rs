//! Entries by key, as results in the action cache.
//!
//! Invariant: an entry's digest is that of no action. It has a size that no blob has, so no client can store an action
//! with it, and every key is separated by what stands before it from keys of other tools and scopes.

use kiln_dialects::{Entry, Refusal, Tool};
use kiln_proto::digest::Digest;
use kiln_proto::made;
use kiln_store::Stores;

use crate::body::FUNCTION;
use crate::caller::Caller;
use crate::refusal::failed;

/// The REAPI instance that entries are in.
pub(crate) const INSTANCE: &str = "";
/// Begins what keys are hashed with, and says which rules they follow.
const DOMAIN: &str = "kiln.cache/1";
/// The size in an entry's digest: larger than any blob's.
const SIZE: u64 = i64::MAX as u64;

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawer<'a> {
    pub(crate) tool: Tool,
    /// What kind of the tool's entries; empty if it has only one.
    pub(crate) kind: &'static str,
    /// Its scope; the base if none.
    pub(crate) scope: Option<&'a str>,
}

impl Drawer<'_> {
    /// The digest of a key.
    pub(crate) fn digest(&self, key: &str) -> Digest {
        // Neither names nor scopes nor keys contain a NUL.
        let text = [DOMAIN, self.tool.name(), self.kind, self.scope.unwrap_or_default(), key].join("\0");
        Digest { size: SIZE, ..FUNCTION.digest(text.as_bytes()) }
    }

    /// The same in the base.
    pub(crate) fn base(self) -> Self {
        Self { scope: None, ..self }
    }

    /// The drawers in which an entry is looked for, in order.
    pub(crate) fn searched(self) -> impl Iterator<Item = Self> {
        std::iter::once(self).chain(self.scope.map(|_| self.base()))
    }
}

/// An entry that is complete, from its scope or else from the base.
pub(crate) async fn find(stores: &Stores, drawer: Drawer<'_>, key: &str) -> Result<Option<Entry>, Refusal> {
    for drawer in drawer.searched() {
        let result = stores.cached_result(INSTANCE, &drawer.digest(key)).await.map_err(failed)?;
        if let Some(entry) = result.as_ref().and_then(|result| Entry::decode(FUNCTION, result)) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Stores an entry of a caller's whose body is stored.
pub(crate) async fn keep(caller: &Caller, drawer: Drawer<'_>, key: &str, entry: &Entry) -> Result<(), Refusal> {
    let mut result = entry.encode();
    made::written_by(result.execution_metadata.get_or_insert_default(), &caller.identity.name);
    caller.stores.actions.put(INSTANCE, &drawer.digest(key), result).await.map_err(failed)
}

/// Removes an entry of this drawer; `false` if there was none.
pub(crate) async fn remove(stores: &Stores, drawer: Drawer<'_>, key: &str) -> Result<bool, Refusal> {
    let digest = drawer.digest(key);
    let was = stores.actions.get(INSTANCE, &digest).await.map_err(failed)?.is_some();
    stores.actions.remove(INSTANCE, &digest).await.map_err(failed)?;
    Ok(was)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_have_one_digest_and_no_blob_has_any() {
        let drawer = |tool, kind, scope| Drawer { tool, kind, scope };
        let all = [
            drawer(Tool::Ccache, "", None).digest("a"),
            drawer(Tool::Ccache, "", None).digest("b"),
            drawer(Tool::Ccache, "", Some("a")).digest("a"),
            drawer(Tool::Ccache, "a", None).digest("a"),
            drawer(Tool::Go, "", None).digest("a"),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|digest| digest.size == i64::MAX as u64));
    }
}
