//! The artifacts that depend on what a worker made, as their provenance tells.

use std::time::SystemTime;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{clock, v1};
use serde::Deserialize;
use tonic::Status;

use super::stack::{Stack, Tenants};

/// Maximum number of artifacts that are named.
const NAMED: usize = 1_000;

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
    /// Whether a worker made it, or something in it, since then. What does not say when may have been made since.
    fn is_owed_to(&self, worker: &str, since: SystemTime) -> bool {
        let calls = self.annotations.compiler_calls.iter().flat_map(|calls| &calls.workers);
        let others = calls.map(|maker| (&maker.worker, maker.last_recorded_on));
        let all = std::iter::once((&self.annotations.worker, self.annotations.recorded_on)).chain(others);
        all.into_iter().any(|(maker, at)| maker == worker && at.is_none_or(|at| at >= since))
    }
}

/// The steps in a provenance that are owed to a worker since then; `None` if it cannot be read.
fn steps(provenance: &[u8], worker: &str, since: SystemTime) -> Option<Vec<String>> {
    let statement: Statement = serde_json::from_slice(provenance).ok()?;
    let steps = statement.predicate.run_details.byproducts.into_iter();
    Some(steps.filter(|step| step.is_owed_to(worker, since)).map(|step| step.name).collect())
}

impl Stack {
    /// Adds the tenant's artifacts that depend on what a worker made since then.
    async fn dependents(
        &self,
        tenant: &str,
        (worker, since): (&str, SystemTime),
        found: &mut v1::DistrustResponse,
    ) -> Result<(), Status> {
        let records = self.tenant.builds.records().artifacts("", usize::MAX).await;
        for artifact in records.map_err(|error| Status::unavailable(error.to_string()))? {
            // A step's result is recorded before the artifact.
            let created = artifact.created.as_ref().and_then(clock::read_timestamp);
            if created.is_some_and(|created| created < since) {
                continue;
            }
            match self.steps_of(&artifact, worker, since).await {
                None => found.unreadable += 1,
                Some(steps) if steps.is_empty() => {}
                Some(steps) => {
                    found.total += 1;
                    found.artifacts.push(v1::DependentArtifact {
                        id: artifact.id,
                        tenant: tenant.to_owned(),
                        build: artifact.build,
                        created: artifact.created,
                        steps,
                    });
                }
            }
        }
        Ok(())
    }

    async fn steps_of(&self, artifact: &v1::Artifact, worker: &str, since: SystemTime) -> Option<Vec<String>> {
        let function = DigestFunction::from_wire(artifact.digest_function).ok()?;
        let digest = Digest::required(function, artifact.provenance.as_ref()).ok()?;
        let provenance = self.tenant.stores.artifacts.get(&digest).await.ok()?;
        steps(&provenance, worker, since)
    }
}

impl Tenants {
    /// All tenants' artifacts that depend on what a worker made since then.
    ///
    /// # Errors
    /// If a tenant's records cannot be read.
    pub async fn dependents(&self, worker: &str, since: SystemTime) -> Result<v1::DistrustResponse, Status> {
        let mut found = v1::DistrustResponse::default();
        for name in self.names().await? {
            self.of(&name).await?.dependents(&name, (worker, since), &mut found).await?;
        }
        let created = |artifact: &v1::DependentArtifact| artifact.created.as_ref().and_then(clock::read_timestamp);
        found.artifacts.sort_by_key(|artifact| std::cmp::Reverse(created(artifact)));
        found.artifacts.truncate(NAMED);
        Ok(found)
    }

    /// Empties all tenants' cache mounts that were published since then, and returns how many they are.
    ///
    /// # Errors
    /// If a tenant's cannot be listed or removed.
    pub async fn forget_mounts(&self, since: SystemTime, dry_run: bool) -> Result<u64, Status> {
        let since_ms = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut mounts = 0;
        for name in self.names().await? {
            let forgotten = self.of(&name).await?.mounts.forget_since(since_ms, dry_run).await;
            mounts += forgotten.map_err(|error| Status::unavailable(error.to_string()))? as u64;
        }
        Ok(mounts)
    }
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
            {"name": "old", "annotations": {"worker": "one", "cached": true}}
        ]}}}"#;
        let since = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let found = |worker, seconds| steps(provenance, worker, since(seconds)).unwrap();
        assert_eq!(found("one", 1), ["a", "b", "old"]);
        assert_eq!(found("one", 5), ["a", "old"]);
        assert_eq!(found("one", 8), ["old"], "when it was made is not known");
        assert_eq!(found("two", 9), ["b"]);
        assert_eq!(found("three", 0), Vec::<String>::new());
        assert_eq!(steps(b"{}", "one", since(0)), None);
    }
}
