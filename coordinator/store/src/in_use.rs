//! What running work keeps: everything used since the oldest of it began, or within [`GRACE`] before that.
//!
//! A build, an execution or its client looks up its inputs when it begins, which uses them. So its start time
//! determines which blobs it may still need, without listing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::{Clock, Stamp, millis};

/// How long before its start an execution's inputs may have been looked up; also how long recently used blobs are kept
/// for work that is about to begin.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);

/// The running work, by its start time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InUse {
    clock: Clock,
    began: Arc<Mutex<BTreeMap<Stamp, usize>>>,
}

/// A piece of running work, which ends on drop.
#[derive(Debug)]
pub struct Hold {
    all: Arc<Mutex<BTreeMap<Stamp, usize>>>,
    began: Stamp,
}

impl InUse {
    /// Starts without any work.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, began: Arc::default() }
    }

    /// Keeps everything used from now on until the hold is dropped.
    pub fn begin(&self) -> Hold {
        let began = self.clock.now();
        self.began.lock().entry(began).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
        Hold { all: self.began.clone(), began }
    }

    /// Running work may need everything used since this time; `Stamp::MAX` if nothing is running.
    pub(super) fn held_from(&self) -> Stamp {
        self.began.lock().keys().next().map_or(Stamp::MAX, |oldest| oldest.saturating_sub(millis(GRACE)))
    }

    /// Everything used since this time is kept.
    pub(super) fn kept_from(&self) -> Stamp {
        let now = self.clock.now();
        let oldest = self.began.lock().keys().next().map_or(now, |oldest| now.min(*oldest));
        oldest.saturating_sub(millis(GRACE))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.began) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.began);
            }
        }
    }
}
