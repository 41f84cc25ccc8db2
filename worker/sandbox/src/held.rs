//! The sandbox of a job while its tree is needed, and where it waits for the next job afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cgroup::Group;
use super::kept::{Key, PATIENCE, Sandboxed, Waiting};

/// The sandboxes of actions, each with the control group that it is in.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) waiting: Waiting<(Arc<Group>, Sandboxed)>,
    ages: AtomicBool,
}

impl Kept {
    fn put(self: &Arc<Self>, key: Key, group: Arc<Group>, sandboxed: Sandboxed) {
        self.waiting.put(key, (group, sandboxed));
        if self.ages.swap(true, Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.waiting.clear();
            return self.ages.store(false, Ordering::SeqCst);
        };
        let kept = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(PATIENCE).await;
                let Some(kept) = kept.upgrade() else { return };
                if !kept.waiting.age() {
                    return kept.ages.store(false, Ordering::SeqCst);
                }
            }
        });
    }
}

/// A job's sandbox, while its tree is needed.
#[derive(Debug)]
pub(super) struct Held {
    sandboxed: Option<Sandboxed>,
    group: Option<Arc<Group>>,
    /// Where it waits afterwards: with the sandboxes of actions, or of the step that it is part of.
    next: Option<(Key, Option<Arc<Kept>>)>,
}

impl Held {
    pub(super) fn new(
        sandboxed: Option<Sandboxed>,
        group: Option<Arc<Group>>,
        next: Option<(Key, Option<Arc<Kept>>)>,
    ) -> Self {
        Self { sandboxed, group, next }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(mut sandboxed), group) = (self.sandboxed.take(), self.group.take()) else { return };
        let (Some((key, kept)), Some(group)) = (self.next.take(), group) else { return };
        if !sandboxed.release() {
            return;
        }
        match kept {
            Some(kept) => kept.put(key, group, sandboxed),
            None => group.waiting.put(key, sandboxed),
        }
    }
}
