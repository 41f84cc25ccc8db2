//! Who has which cache to himself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Lock>>);

impl Locks {
    fn of(&self, row: String) -> Lock {
        let mut locks = self.0.lock();
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(row).or_default().clone()
    }

    pub(super) async fn wait(&self, row: String, most: Duration) -> Option<OwnedMutexGuard<()>> {
        tokio::time::timeout(most, self.of(row).lock_owned()).await.ok()
    }

    pub(super) fn at_once(&self, row: String) -> Option<OwnedMutexGuard<()>> {
        self.of(row).try_lock_owned().ok()
    }
}
