//! Calls of compilers that a step's worker gives away: actions that only their inputs and their command tell from the step's own.
//!
//! Invariant: a call runs in the environment of its lease's action, without network and secrets, charged to that lease's build.

use std::sync::Arc;
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::reapi::platform::Property;
use kiln_proto::{calls, clock, property, reapi, root};
use kiln_scheduler::Requirements;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::prepare::invalid;
use super::requirements::asked;
use super::{Attached, ExecutionHandle, Known, LeaseAccess, Request};

/// Reserved for a call that does not say what it needs: 512 MiB.
const MEMORY_BYTES: u64 = 512 << 20;
/// The most that a call may reserve: 64 GiB.
const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// Longest run of a call.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// A call that waits or runs, and its lease's place for it.
#[derive(Debug)]
pub struct Call {
    /// The caller's view of it.
    pub attached: Attached,
    _place: OwnedSemaphorePermit,
}

impl ExecutionHandle {
    /// How many calls of this lease's step would start at once on the farm's workers.
    ///
    /// # Errors
    /// If its action is not split into calls, or cannot be read.
    pub async fn room_for_calls(&self, lease: &LeaseAccess) -> Result<usize, Status> {
        lease.calls()?;
        if !lease.may_spread() {
            return Ok(0);
        }
        let platform = self.platform_of_calls(lease, MEMORY_BYTES).await?;
        let action = reapi::Action { platform: Some(platform), ..Default::default() };
        let asked = asked(&action, &reapi::Command::default(), &self.preparer.rules());
        let asked = asked.map_err(|error| invalid(error.to_string()))?;
        let requirements = Requirements { tenant: self.tenant.clone(), opportunistic: true, ..asked.requirements };
        Ok(self.room(requirements).await)
    }

    /// Runs a call of this lease's step on whichever worker is free. `memory_bytes` of 0: the default.
    ///
    /// # Errors
    /// If the lease may have no (more) calls, if its worker names a blob that it does not have, or as [`execute`](Self::execute).
    pub async fn run_call(
        &self,
        lease: &LeaseAccess,
        mut command: reapi::Command,
        input_root: Digest,
        memory_bytes: u64,
    ) -> Result<Call, Status> {
        let (charge, place) = lease.charge()?;
        // Whoever runs it may read all of that.
        lease.has_all(self.preparer.tree_ahead(&input_root).await?.digests()).await?;
        let memory_bytes = if memory_bytes == 0 { MEMORY_BYTES } else { memory_bytes.min(MAX_MEMORY_BYTES) };
        #[allow(deprecated)]
        {
            command.platform = None;
        }
        let action = reapi::Action {
            command_digest: Some(self.store_message(lease, &command).await?.to_wire()),
            input_root_digest: Some(input_root.to_wire()),
            timeout: Some(clock::duration(TIMEOUT)),
            // Its result is kept by whoever knows whether it is the step's.
            do_not_cache: true,
            platform: Some(self.platform_of_calls(lease, memory_bytes).await?),
            ..Default::default()
        };
        let action_digest = self.store_message(lease, &action).await?;
        let known = Known { action, command, call: true, times: lease.times(), ..Known::default() };
        let request = Request {
            instance: lease.instance().to_owned(),
            action_digest,
            skip_cache_lookup: true,
            priority: charge.priority,
            share: charge.share,
            build: charge.build,
            path_weight: 0,
            secrets: Vec::new(),
            agents: None,
            shell: None,
            queue_timeout: None,
            known: Some(Arc::new(known)),
        };
        Ok(Call { attached: self.execute(request).await?, _place: place })
    }

    /// What a worker must offer for this lease's calls: what its step requires, and that it runs calls.
    async fn platform_of_calls(&self, lease: &LeaseAccess, memory_bytes: u64) -> Result<reapi::Platform, Status> {
        let (action, command) = self.preparer.load(lease.action()).await?;
        #[allow(deprecated)]
        let of_step = action.platform.or(command.platform).unwrap_or_default();
        let mut properties = of_step.properties;
        // A root is a part of the inputs, and who runs the step in it runs its calls.
        let of_root = |name: &str| matches!(name, root::ROOT | root::USER | root::HOSTNAME);
        properties.retain(|property| property::is_matched(&property.name) || of_root(&property.name));
        let mut add = |name: &str, value: String| properties.push(Property { name: name.to_owned(), value });
        add(property::CALLS, calls::RULES.to_string());
        add(property::CPUS, "1".to_owned());
        add(property::MEMORY, memory_bytes.to_string());
        properties.sort_by(|one, other| (&one.name, &one.value).cmp(&(&other.name, &other.value)));
        Ok(reapi::Platform { properties })
    }

    async fn store_message(&self, lease: &LeaseAccess, message: &impl prost::Message) -> Result<Digest, Status> {
        let data = message.encode_to_vec();
        let digest = lease.function().digest(&data);
        if !self.stores.blobs.find_missing(&[digest]).await?.is_empty() {
            self.stores.blobs.put(&digest, data.into()).await?;
        }
        Ok(digest)
    }
}
