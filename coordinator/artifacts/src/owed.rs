//! Which steps of an artifact are owed to a worker or a client, as its provenance tells.

use std::time::SystemTime;

use kiln_proto::made;
use serde::Deserialize;

/// What is read of a provenance.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate: Predicate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    run_details: RunDetails,
}

#[derive(Deserialize)]
struct RunDetails {
    #[serde(default)]
    byproducts: Vec<Byproduct>,
}

/// A step that contributed.
#[derive(Deserialize)]
struct Byproduct {
    #[serde(default)]
    name: String,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    worker: String,
    written_by: Option<String>,
    #[serde(with = "humantime_serde")]
    recorded_on: Option<SystemTime>,
    compiler_calls: Option<Calls>,
}

#[derive(Deserialize)]
struct Calls {
    #[serde(default)]
    workers: Vec<Maker>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Maker {
    worker: String,
    #[serde(default, with = "humantime_serde")]
    last_recorded_on: Option<SystemTime>,
}

impl Byproduct {
    /// Whether somebody made it, or something in it, since then. What does not say when may have been made since.
    fn is_owed_to(&self, maker: &str, since: SystemTime) -> bool {
        let (own, at) = (&self.annotations, self.annotations.recorded_on);
        let calls = own.compiler_calls.iter().flat_map(|calls| &calls.workers);
        let others = calls.map(|maker| (maker.worker.clone(), maker.last_recorded_on));
        let writer = own.written_by.iter().map(|client| (made::of_client(client), at));
        let all = std::iter::once((own.worker.clone(), at)).chain(writer).chain(others);
        all.into_iter().any(|(one, at)| one == maker && at.is_none_or(|at| at >= since))
    }
}

/// The steps in a provenance whose results a worker has made since a time, or had a part in, or a client has written (named as by
/// [`made::of_client`]); `None` if it cannot be read.
pub fn steps_owed_to(provenance: &[u8], maker: &str, since: SystemTime) -> Option<Vec<String>> {
    let statement: Statement = serde_json::from_slice(provenance).ok()?;
    let steps = statement.predicate.run_details.byproducts.into_iter();
    Some(steps.filter(|step| step.is_owed_to(maker, since)).map(|step| step.name).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_steps_are_found_that_a_worker_made_or_had_a_part_in() {
        let provenance = br#"{"predicate": {"runDetails": {"byproducts": [
            {"name": "a", "annotations": {"worker": "one", "recordedOn": "1970-01-01T00:00:07Z", "compilerCalls": null}},
            {"name": "b", "annotations": {"worker": "two", "recordedOn": "1970-01-01T00:00:09Z", "compilerCalls":
                {"results": 1, "workers": [{"worker": "one", "firstRecordedOn": null, "lastRecordedOn": "1970-01-01T00:00:03Z"}]}}},
            {"name": "written", "annotations": {"worker": "any", "writtenBy": "two", "recordedOn": "1970-01-01T00:00:09Z"}},
            {"name": "old", "annotations": {"worker": "one", "cached": true}}
        ]}}}"#;
        let since = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let found = |worker, seconds| steps_owed_to(provenance, worker, since(seconds)).unwrap();
        assert_eq!(found("one", 1), ["a", "b", "old"]);
        assert_eq!(found("one", 5), ["a", "old"]);
        assert_eq!(found("one", 8), ["old"], "when it was made is not known");
        assert_eq!(found("two", 9), ["b"]);
        assert_eq!(found("client two", 9), ["written"], "it is another than the worker of this name");
        assert_eq!(found("three", 0), Vec::<String>::new());
        assert_eq!(steps_owed_to(b"{}", "one", since(0)), None);
    }
}
