//! What running work keeps: whatever was used since the oldest of it began, or within [`GRACE`] before.
//!
//! A build or an execution, or the client that asks for it, looks for its inputs when it begins, which uses them. So the time of its
//! beginning says which blobs it may still need, without anyone listing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::{Clock, Stamp, millis};

/// How long before its beginning a piece of work's inputs were looked for; also how long what was used is kept for work that is about to
/// begin.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);

/// The work that runs, by when it began. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InUse {
    clock: Clock,
    began: Arc<Mutex<BTreeMap<Stamp, usize>>>,
}

/// One piece of running work; dropped at its end.
#[derive(Debug)]
pub struct Hold {
    all: Arc<Mutex<BTreeMap<Stamp, usize>>>,
    began: Stamp,
}

impl InUse {
    /// Nothing runs.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, began: Arc::default() }
    }

    /// What is used from now on is kept until the hold is dropped.
    pub fn begin(&self) -> Hold {
        let began = self.clock.now();
        *self.began.lock().entry(began).or_default() += 1;
        Hold { all: self.began.clone(), began }
    }

    /// What was used from then on may be needed by work that runs now; nothing is where nothing runs.
    pub(super) fn held_from(&self) -> Stamp {
        self.began.lock().keys().next().map_or(Stamp::MAX, |oldest| oldest.saturating_sub(millis(GRACE)))
    }

    /// What was used from then on is kept.
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
            *count -= 1;
            if *count == 0 {
                all.remove(&self.began);
            }
        }
    }
}
