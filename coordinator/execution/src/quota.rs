//! Limits how many actions a tenant may run at once, and how many more may wait.
//!
//! Invariant: a caller that waits holds one of the waiting places, and releases it when it can run or leaves.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// A tenant's quota. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quota {
    tenant: String,
    actions: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    limits: Arc<Mutex<(usize, usize)>>,
}

fn bounded(actions: usize, queue: usize) -> (usize, usize) {
    (actions.min(Semaphore::MAX_PERMITS), queue.min(Semaphore::MAX_PERMITS))
}

/// Gives a semaphore `to` permits instead of `from`. Those that are in use are taken back as they are released, before anybody else gets one.
fn resize(semaphore: &Arc<Semaphore>, from: usize, to: usize) {
    if to >= from {
        return semaphore.add_permits(to - from);
    }
    let used = (from - to) - semaphore.forget_permits(from - to);
    let Some(used) = u32::try_from(used).ok().filter(|used| *used > 0) else { return };
    let semaphore = semaphore.clone();
    tokio::spawn(async move {
        if let Ok(permits) = semaphore.acquire_many(used).await {
            permits.forget();
        }
    });
}

impl Quota {
    /// At most `actions` at once and `queue` waiting.
    pub fn new(tenant: &str, actions: usize, queue: usize) -> Self {
        let limits = bounded(actions, queue);
        Self {
            tenant: tenant.to_owned(),
            actions: Arc::new(Semaphore::new(limits.0)),
            queue: Arc::new(Semaphore::new(limits.1)),
            limits: Arc::new(Mutex::new(limits)),
        }
    }

    /// Changes the limits. Actions that run go on, also if they are more than the limits now allow. Needs a Tokio runtime.
    pub fn change(&self, actions: usize, queue: usize) {
        let mut limits = self.limits.lock();
        let new = bounded(actions, queue);
        resize(&self.actions, limits.0, new.0);
        resize(&self.queue, limits.1, new.1);
        *limits = new;
    }

    /// Describes the limit if it is reached.
    pub(super) fn full(&self) -> Option<String> {
        let full = self.actions.available_permits() == 0;
        full.then(|| format!("its turn: the tenant's quota of {} concurrent actions is used up", self.limits.lock().0))
    }

    /// Waits until one more action may run; dropping the permit releases it.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if too many callers are waiting already.
    pub(super) async fn room(&self) -> Result<OwnedSemaphorePermit, Status> {
        if let Ok(room) = self.actions.clone().try_acquire_owned() {
            return Ok(room);
        }
        let (actions, queue) = *self.limits.lock();
        let place = self.queue.clone().try_acquire_owned().map_err(|_| {
            let of = if self.tenant.is_empty() { "the default tenant".to_owned() } else { format!("tenant `{}`", self.tenant) };
            Status::resource_exhausted(format!(
                "{of} has {actions} running and {queue} queued actions, the most that its quotas allow; try again when some have ended"
            ))
        })?;
        let room = self.actions.clone().acquire_owned().await;
        drop(place);
        room.map_err(|_| Status::unavailable("the coordinator is shutting down; try again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_action_waits_and_one_more_than_may_wait_is_refused() {
        let quota = Quota::new("shop", 1, 1);
        let first = quota.room().await.unwrap();
        let waiting = quota.clone();
        let second = tokio::spawn(async move { waiting.room().await });
        while quota.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = quota.room().await.unwrap_err();
        assert!(refused.message().contains("tenant `shop`") && refused.message().contains("1 running"), "{refused}");
        drop(first);
        let room = second.await.unwrap().unwrap();
        assert_eq!((quota.queue.available_permits(), quota.actions.available_permits()), (1, 0));
        drop(room);
    }

    #[tokio::test]
    async fn limits_that_change_count_for_what_begins_later() {
        let quota = Quota::new("shop", usize::MAX, usize::MAX);
        let (first, second) = (quota.room().await.unwrap(), quota.room().await.unwrap());
        quota.change(1, 0);
        let one_ends = async {
            drop(first);
            // The permit goes to whoever takes it back.
            tokio::task::yield_now().await;
            quota.room().await.map(drop)
        };
        let refused = one_ends.await.unwrap_err();
        assert!(refused.message().contains("1 running and 0 queued"), "{refused}");
        drop(second);
        let third = quota.room().await.unwrap();
        assert!(quota.full().is_some());
        quota.change(2, 0);
        drop((quota.room().await.unwrap(), third));
    }
}
