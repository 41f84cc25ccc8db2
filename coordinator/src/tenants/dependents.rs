//! The artifacts that depend on what a worker made or a client wrote, as their provenance tells.

use std::time::SystemTime;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{clock, v1};
use tonic::Status;

use super::stack::{Stack, Tenants};
use crate::services::membership::Made;

/// Maximum number of artifacts that are named.
const NAMED: usize = 1_000;

impl Stack {
    /// Adds the tenant's artifacts that depend on what somebody made since then.
    async fn dependents(
        &self,
        tenant: &str,
        (maker, since): (&str, SystemTime),
        found: &mut v1::DistrustResponse,
    ) -> Result<(), Status> {
        let records = self.tenant.builds.records().artifacts("", usize::MAX).await;
        for artifact in records.map_err(|error| Status::unavailable(error.to_string()))? {
            // A step's result is recorded before the artifact.
            let created = artifact.created.as_ref().and_then(clock::read_timestamp);
            if created.is_some_and(|created| created < since) {
                continue;
            }
            match self.steps_of(&artifact, maker, since).await {
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

    async fn steps_of(&self, artifact: &v1::Artifact, maker: &str, since: SystemTime) -> Option<Vec<String>> {
        let function = DigestFunction::from_wire(artifact.digest_function).ok()?;
        let digest = Digest::required(function, artifact.provenance.as_ref()).ok()?;
        let provenance = self.tenant.stores.artifacts.get(&digest).await.ok()?;
        kiln_artifacts::steps_owed_to(&provenance, maker, since)
    }
}

#[tonic::async_trait]
impl Made for Tenants {
    async fn dependents(&self, maker: &str, since: SystemTime) -> Result<v1::DistrustResponse, Status> {
        let mut found = v1::DistrustResponse::default();
        for name in self.names().await? {
            self.of(&name).await?.dependents(&name, (maker, since), &mut found).await?;
        }
        let created = |artifact: &v1::DependentArtifact| artifact.created.as_ref().and_then(clock::read_timestamp);
        found.artifacts.sort_by_key(|artifact| std::cmp::Reverse(created(artifact)));
        found.artifacts.truncate(NAMED);
        Ok(found)
    }

    async fn forget_mounts(&self, since: SystemTime, dry_run: bool) -> Result<u64, Status> {
        let since_ms = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut mounts = 0;
        for name in self.names().await? {
            let forgotten = self.of(&name).await?.mounts.forget_since(since_ms, dry_run).await;
            mounts += forgotten.map_err(|error| Status::unavailable(error.to_string()))? as u64;
        }
        Ok(mounts)
    }
}
