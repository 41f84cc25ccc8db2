//! A disk's part in a collection: what results name is marked, and what was not used for long is removed.
//!
//! The lock is held for a few blobs at a time.

use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::digest::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::{Disk, Error, Inner, blocking, path_in, remove};
use crate::Swept;
use crate::clock::Stamp;
use kiln_trees::Blobs;

/// Blobs that are looked at while the lock is held.
const LOOK: usize = 4_096;
/// Blobs whose files are moved away while the lock is held.
const MOVE: usize = 64;

impl Disk {
    /// These blobs, as far as they are here, are named by a result that was used then.
    pub(crate) fn name(&self, digests: &[Digest], used: Stamp) {
        digests.chunks(LOOK).for_each(|some| self.inner.index.lock().name(some, used));
    }

    /// What is not [named](Self::name) between this and [`end_marking`](Self::end_marking) is named by no result.
    pub(crate) fn begin_marking(&self) {
        self.inner.index.lock().begin_marking();
    }

    /// Sees to it that what no result names goes first, but for what may be in use.
    pub(crate) fn end_marking(&self) {
        let kept_from = self.inner.in_use.kept_from();
        let (mut cursor, mut unmarked) = (0, Vec::new());
        while let Some(some) = {
            let index = self.inner.index.lock();
            index.unmarked(&mut cursor, LOOK, kept_from)
        } {
            unmarked.extend(some);
        }
        // The latest used first: each goes before those that were put there earlier.
        unmarked.sort_unstable_by_key(|one| std::cmp::Reverse(one.used()));
        unmarked.chunks(LOOK).for_each(|some| self.inner.index.lock().unname(some));
    }

    /// Removes blobs that were used last before this, but for what may be in use. Whoever calls has removed the results that were
    /// used last before it.
    pub(crate) async fn sweep(&self, before: Stamp) -> Result<Swept, Error> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.sweep(before))).await
    }

    /// Removes those of these blobs that the last marking did not find named, but for what running work may use.
    pub(crate) async fn free(&self, candidates: Vec<Digest>) -> Result<Swept, Error> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.free(&candidates))).await
    }

    /// What evictions took from results since they were last asked.
    pub(crate) fn took_named(&self) -> bool {
        self.inner.took_named.swap(false, std::sync::atomic::Ordering::AcqRel)
    }
}

impl Inner {
    fn sweep(self: &Arc<Self>, before: Stamp) -> Swept {
        let before = before.min(self.in_use.kept_from());
        let (mut cursor, mut swept) = (0, Swept::default());
        loop {
            let mut index = self.index.lock();
            let Some(gone) = index.sweep(&mut cursor, MOVE, before) else { return swept };
            let doomed = self.move_away(&mut index, &gone);
            drop(index);
            remove(&doomed);
            swept.blobs += gone.len() as u64;
            swept.bytes += gone.iter().map(|digest| digest.size).sum::<u64>();
        }
    }

    fn free(self: &Arc<Self>, candidates: &[Digest]) -> Swept {
        let before = self.in_use.held_from();
        let mut swept = Swept::default();
        for some in candidates.chunks(MOVE) {
            let mut index = self.index.lock();
            let gone = index.free(some, before);
            let doomed = self.move_away(&mut index, &gone);
            drop(index);
            remove(&doomed);
            swept.blobs += gone.len() as u64;
            swept.bytes += gone.iter().map(|digest| digest.size).sum::<u64>();
        }
        swept
    }

    /// Has the files of blobs say that they were used now, so that a restart knows. In the background: nobody waits for it, and
    /// what is lost with the process makes a blob seem a little older.
    pub(super) fn save(&self, digests: Vec<Digest>, now: Stamp) {
        if digests.is_empty() {
            return;
        }
        let dir = self.dir.clone();
        let work = move || digests.iter().for_each(|digest| set_used(&path_in(&dir, digest), now));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

fn times(used: Stamp) -> Timestamps {
    let seconds = i64::try_from(used / 1_000).unwrap_or(i64::MAX);
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: (used % 1_000) as i64 * 1_000_000 };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// Has a blob's file say when it was used last. One that is gone meanwhile is no matter.
fn set_used(path: &std::path::Path, used: Stamp) {
    if let Err(error) = rustix::fs::utimensat(CWD, path, &times(used), AtFlags::empty())
        && error != rustix::io::Errno::NOENT
    {
        tracing::debug!(path = %path.display(), %error, "cannot note that a blob was used");
    }
}

/// Has a file that is being written say when it was used last.
pub(super) fn set_written(file: &std::fs::File, used: Stamp) {
    if let Err(error) = rustix::fs::futimens(file, &times(used)) {
        tracing::debug!(%error, "cannot note when a blob was written");
    }
}

/// A disk whose blobs are read without using them.
#[derive(Clone, Copy)]
pub(crate) struct Unused<'a>(pub(crate) &'a Disk);

#[async_trait::async_trait]
impl Blobs for Unused<'_> {
    type Error = Error;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let (inner, digest) = (self.0.inner.clone(), *digest);
        crate::trees::present(blocking(move || inner.look(&digest)).await)
    }
}
