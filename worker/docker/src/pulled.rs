//! Images that this worker pulled: removed when nobody wants them any more, or when the disk is nearly full.
//!
//! Invariant: only what this worker itself pulled is removed, and only by the name under which it did. What was in the engine
//! before, has another name, or is in a container, stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

/// How long an image stays that nobody uses.
const KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long one stays though the disk is nearly full.
const KEEP_AT_LEAST: Duration = Duration::from_secs(30 * 60);
/// The disk is nearly full where it has less than one part in so many left.
const NEARLY_FULL: u64 = 10;
/// Uses are written down this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// The names, with when each was used last, in seconds of Unix time; written to a file, for a worker may be started again.
#[derive(Debug)]
pub(super) struct Pulled {
    file: PathBuf,
    used: Mutex<BTreeMap<String, u64>>,
}

impl Pulled {
    /// Those of an earlier run of this worker, too.
    pub(super) fn open(directory: &Path) -> Self {
        let file = directory.join("pulled.json");
        let known = std::fs::read(&file).ok().and_then(|data| serde_json::from_slice(&data).ok());
        Self { file, used: Mutex::new(known.unwrap_or_default()) }
    }

    /// An image was pulled.
    pub(super) fn add(&self, name: &str) {
        let mut used = self.used.lock();
        used.insert(name.to_owned(), now());
        self.note(&used);
    }

    /// An image is used; it counts only where this worker pulled it.
    pub(super) fn touch(&self, name: &str) {
        let mut used = self.used.lock();
        let Some(last) = used.get_mut(name) else { return };
        if now().saturating_sub(*last) >= NOTE_EVERY.as_secs() {
            *last = now();
            self.note(&used);
        }
    }

    /// An image is no longer there.
    pub(super) fn forget(&self, name: &str) {
        let mut used = self.used.lock();
        if used.remove(name).is_some() {
            self.note(&used);
        }
    }

    /// Those to remove now, the longest unused first.
    pub(super) fn unwanted(&self) -> Vec<String> {
        let parent = self.file.parent().unwrap_or(Path::new("/"));
        let nearly_full = rustix::fs::statvfs(parent).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / NEARLY_FULL);
        unwanted(&self.used.lock(), now(), nearly_full)
    }

    fn note(&self, used: &BTreeMap<String, u64>) {
        let temporary = self.file.with_extension("tmp");
        let written = serde_json::to_vec(used).map_err(std::io::Error::other);
        let written = written.and_then(|data| std::fs::write(&temporary, data));
        if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, &self.file)) {
            tracing::warn!(%error, "cannot write down which images were pulled");
        }
    }
}

fn unwanted(used: &BTreeMap<String, u64>, now: u64, nearly_full: bool) -> Vec<String> {
    let keep = if nearly_full { KEEP_AT_LEAST } else { KEEP };
    let mut old: Vec<(u64, &String)> =
        used.iter().map(|(name, at)| (*at, name)).filter(|(at, _)| now.saturating_sub(*at) > keep.as_secs()).collect();
    old.sort_unstable();
    old.into_iter().map(|(_, name)| name.clone()).collect()
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_used_for_a_week_is_unwanted_and_sooner_where_the_disk_is_nearly_full() {
        let day = 24 * 60 * 60;
        let used = BTreeMap::from([("new".into(), 100 * day), ("older".into(), 98 * day), ("oldest".into(), 90 * day)]);
        assert_eq!(unwanted(&used, 100 * day, false), ["oldest"]);
        assert_eq!(unwanted(&used, 100 * day + 60, true), ["oldest", "older"]);
    }

    #[test]
    fn it_is_remembered_what_was_pulled_and_nothing_else_counts() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Pulled::open(dir.path());
        pulled.add("shop@sha256:1");
        pulled.touch("the-users-own");
        assert_eq!(*Pulled::open(dir.path()).used.lock(), *pulled.used.lock());
        assert_eq!(pulled.used.lock().len(), 1);
        pulled.forget("shop@sha256:1");
        assert!(Pulled::open(dir.path()).used.lock().is_empty());
    }
}
