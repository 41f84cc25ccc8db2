//! Tells the coordinator what becomes of a step while it runs: its compiler calls, and what it uses.

use std::sync::Arc;
use std::time::Duration;

use kiln_executor::samples::SoFar;
use kiln_proto::{usage, v1};
use tokio_util::task::AbortOnDropHandle;

use crate::leases::Leases;

/// How often, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Tells the counts of a lease when they have changed, until the answer is dropped.
pub(crate) fn tell(
    counts: impl Fn() -> v1::SplitCalls + Send + 'static,
    lease: u64,
    leases: Arc<Leases>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut last = v1::SplitCalls::default();
        loop {
            tokio::time::sleep(EVERY).await;
            let now = counts();
            if now != last {
                leases.calls(lease, now.clone()).await;
                last = now;
            }
        }
    }))
}

/// Tells what a lease's command uses whenever its executor has looked, less often the longer it runs, until the answer is dropped.
pub(crate) fn tell_usage(
    so_far: Arc<SoFar>,
    limits: v1::Capacity,
    lease: u64,
    leases: Arc<Leases>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pause = EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let Some(used) = so_far.take() else { continue };
            pause = usage::pause(used.run_ms);
            let (memory_limit_bytes, reserved_milli_cpus) = (limits.memory_bytes, limits.milli_cpus);
            leases.usage(lease, v1::UsageSoFar { memory_limit_bytes, reserved_milli_cpus, ..used }).await;
        }
    }))
}
