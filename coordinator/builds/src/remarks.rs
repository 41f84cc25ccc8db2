//! Warnings found in a step's output: notes of Kiln's own commands, and hints that a step tried to use the network.
//!
//! Invariant: a remark is a warning and never changes the outcome. Output that is no longer in the store gives no remarks.

use futures::StreamExt;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::v1::{self, event};

use super::Work;
use super::steps::Job;

/// Notes are at the end of what a step prints.
const LAST_BYTES: i64 = 256 << 10;
/// The prefix of a line that a step wants reported as a warning.
const NOTE: &str = "kiln: note: ";
/// What programs print if a name cannot be resolved or there is no network.
const UNRESOLVED: [&str; 16] = [
    "Could not resolve host",
    "Couldn't resolve host",
    "Could not resolve proxy",
    "this-step-has-no-network.invalid",
    "Temporary failure in name resolution",
    "Name or service not known",
    "nodename nor servname provided",
    "Network is unreachable",
    "network is unreachable",
    "failed to lookup address information",
    "getaddrinfo EAI_AGAIN",
    "getaddrinfo ENOTFOUND",
    "no such host",
    "UnknownHostException",
    "Unknown host",
    "unable to resolve host",
];

/// Adds the remarks in an action's output to the build's events.
pub(super) async fn tell(work: &Work, job: &Job, result: Option<&reapi::ActionResult>) {
    let Some(result) = result else { return };
    let stderr = end_of(work, result.stderr_digest.as_ref(), &result.stderr_raw).await;
    let mut remarks = notes(&stderr);
    if result.exit_code != 0 && !job.step.network {
        let stdout = end_of(work, result.stdout_digest.as_ref(), &result.stdout_raw).await;
        remarks.extend(missed_network(&job.step.name, &[&stderr, &stdout]));
    }
    for text in remarks {
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
}

fn notes(stderr: &str) -> Vec<String> {
    stderr.lines().filter_map(|line| line.strip_prefix(NOTE)).map(str::to_owned).collect()
}

/// Suggests a fix if a step without network tried to resolve a name.
fn missed_network(step: &str, outputs: &[&str]) -> Option<String> {
    let line = outputs.iter().flat_map(|text| text.lines()).find(|line| UNRESOLVED.iter().any(|w| line.contains(w)))?;
    Some(format!(
        "step `{step}` has no network, and failed after `{}`: fetch what it needs in an earlier step, or give it \
         `network = true` in `kiln.toml` (`kiln init` writes one)",
        line.trim()
    ))
}

/// The end of an output, if the store still has it.
async fn end_of(work: &Work, digest: Option<&reapi::Digest>, raw: &[u8]) -> String {
    let read = async {
        let wire = digest.filter(|digest| digest.size_bytes > 0)?;
        let digest = Digest::required(work.function, Some(wire)).ok()?;
        let offset = u64::try_from((wire.size_bytes - LAST_BYTES).max(0)).ok()?;
        let mut pieces = work.stores.blobs.read(&digest, offset, None).await.ok()?;
        let mut data = Vec::new();
        while let Some(piece) = pieces.next().await {
            data.extend_from_slice(&piece.ok()?);
        }
        Some(data)
    };
    let data = if raw.is_empty() { read.await.unwrap_or_default() } else { raw.to_vec() };
    String::from_utf8_lossy(&data).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_the_lines_that_say_so() {
        assert_eq!(notes("cc a.c\nkiln: note: one\nkiln: other\n kiln: note: no\nkiln: note: two"), ["one", "two"]);
    }

    #[test]
    fn a_name_that_was_not_resolved_is_the_network_missed() {
        let said = missed_network("compile", &["", "x\n  curl: (6) Could not resolve host: example.com\n"]).unwrap();
        assert!(said.starts_with("step `compile` has no network, and failed after `curl: (6)"), "{said}");
        assert_eq!(missed_network("compile", &["main.c: error: expected `;`"]), None);
    }
}
