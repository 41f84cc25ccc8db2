//! Entries by key, as results in the action cache.
//!
//! Invariant: an entry's digest is that of no action. It has a size that no blob has, so no client can store an action
//! with it, and every key is separated by what stands before it from keys of other tools and scopes.

use std::collections::BTreeMap;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_store::{Error, Stores};

use crate::body::FUNCTION;
use crate::tool::Tool;

/// The REAPI instance that entries are in.
pub(crate) const INSTANCE: &str = "";
/// Begins what keys are hashed with, and says which rules they follow.
const DOMAIN: &str = "kiln.cache/1";
/// The size in an entry's digest: larger than any blob's.
const SIZE: u64 = i64::MAX as u64;
/// The name of an entry's body among its result's files.
const BODY: &str = "body";
/// The worker that results of tools name.
pub(crate) const WORKER: &str = "build tool";

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawer<'a> {
    pub(crate) tool: Tool,
    /// What kind of the tool's entries; empty if it has only one.
    pub(crate) kind: &'static str,
    /// Its scope; the base if none.
    pub(crate) scope: Option<&'a str>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) body: Digest,
    pub(crate) headers: BTreeMap<String, String>,
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
pub(crate) async fn find(stores: &Stores, drawer: Drawer<'_>, key: &str) -> Result<Option<Entry>, Error> {
    for drawer in drawer.searched() {
        let result = stores.cached_result(INSTANCE, &drawer.digest(key)).await?;
        if let Some(entry) = result.as_ref().and_then(decode) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Stores an entry whose body is stored.
pub(crate) async fn keep(stores: &Stores, drawer: Drawer<'_>, key: &str, entry: &Entry) -> Result<(), Error> {
    stores.actions.put(INSTANCE, &drawer.digest(key), encode(entry)).await
}

/// Removes an entry of this drawer; `false` if there was none.
pub(crate) async fn remove(stores: &Stores, drawer: Drawer<'_>, key: &str) -> Result<bool, Error> {
    let digest = drawer.digest(key);
    let was = stores.actions.get(INSTANCE, &digest).await?.is_some();
    stores.actions.remove(INSTANCE, &digest).await?;
    Ok(was)
}

fn encode(entry: &Entry) -> reapi::ActionResult {
    let file = reapi::OutputFile { path: BODY.to_owned(), digest: Some(entry.body.to_wire()), ..Default::default() };
    let headers =
        if entry.headers.is_empty() { Vec::new() } else { serde_json::to_vec(&entry.headers).unwrap_or_default() };
    reapi::ActionResult {
        output_files: vec![file],
        stdout_raw: headers,
        execution_metadata: Some(reapi::ExecutedActionMetadata { worker: WORKER.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn decode(result: &reapi::ActionResult) -> Option<Entry> {
    let [file] = &result.output_files[..] else { return None };
    let body = Digest::required(FUNCTION, file.digest.as_ref()).ok().filter(|_| file.path == BODY)?;
    let headers =
        if result.stdout_raw.is_empty() { BTreeMap::new() } else { serde_json::from_slice(&result.stdout_raw).ok()? };
    Some(Entry { body, headers })
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

    #[test]
    fn an_entry_is_a_result_that_names_its_body() {
        let headers = BTreeMap::from([("x-artifact-tag".to_owned(), "t".to_owned())]);
        for headers in [BTreeMap::new(), headers] {
            let entry = Entry { body: FUNCTION.digest(b"body"), headers };
            assert_eq!(decode(&encode(&entry)), Some(entry));
        }
        assert_eq!(decode(&reapi::ActionResult::default()), None);
    }
}
