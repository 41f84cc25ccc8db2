//! An entry, as the result that it is kept as.

use std::collections::BTreeMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;

/// The name of an entry's body among its result's files.
const BODY: &str = "body";
/// The worker that results of tools name.
pub const WORKER: &str = "build tool";

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its body.
    pub body: Digest,
    /// Headers that came with it and go back with it.
    pub headers: BTreeMap<String, String>,
}

impl Entry {
    /// The result that names its body.
    pub fn encode(&self) -> reapi::ActionResult {
        let file = reapi::OutputFile { path: BODY.to_owned(), digest: Some(self.body.to_wire()), ..Default::default() };
        let headers =
            if self.headers.is_empty() { Vec::new() } else { serde_json::to_vec(&self.headers).unwrap_or_default() };
        reapi::ActionResult {
            output_files: vec![file],
            stdout_raw: headers,
            execution_metadata: Some(reapi::ExecutedActionMetadata { worker: WORKER.to_owned(), ..Default::default() }),
            ..Default::default()
        }
    }

    /// Reads such a result, whose digests are of this function; none if it is another.
    pub fn decode(function: DigestFunction, result: &reapi::ActionResult) -> Option<Self> {
        let [file] = &result.output_files[..] else { return None };
        let body = Digest::required(function, file.digest.as_ref()).ok().filter(|_| file.path == BODY)?;
        let headers = if result.stdout_raw.is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_slice(&result.stdout_raw).ok()?
        };
        Some(Self { body, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_result_that_names_its_body() {
        let function = DigestFunction::Sha256;
        let headers = BTreeMap::from([("x-artifact-tag".to_owned(), "t".to_owned())]);
        for headers in [BTreeMap::new(), headers] {
            let entry = Entry { body: function.digest(b"body"), headers };
            assert_eq!(Entry::decode(function, &entry.encode()), Some(entry));
        }
        assert_eq!(Entry::decode(function, &reapi::ActionResult::default()), None);
    }
}
