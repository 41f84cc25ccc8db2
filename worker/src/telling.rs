//! Tells the coordinator what becomes of a step's compiler calls while it runs.

use std::sync::Arc;
use std::time::Duration;

use kiln_proto::v1;
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
