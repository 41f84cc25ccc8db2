//! A disk's part in a collection: marks blobs that results name, and removes blobs that were not used for long.
//!
//! The lock is held for only a few blobs at a time.

use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::digest::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::{Disk, Error, Inner, blocking};
use crate::Swept;
use crate::clock::Stamp;
use kiln_index::{Located, Version};
use kiln_trees::Blobs;

/// Blobs checked while the lock is held.
const LOOK: usize = 4_096;
/// Blobs whose files are moved while the lock is held.
const MOVE: usize = 64;

impl Disk {
    /// Records that a result used at this time names these blobs, as far as they are here.
    pub(crate) fn name(&self, digests: &[Digest], used: Stamp) {
        digests.chunks(LOOK).for_each(|some| self.inner.index.lock().name(some, used));
    }

    /// Starts a marking: blobs not [named](Self::name) before [`end_marking`](Self::end_marking) are named by no result.
    pub(crate) fn begin_marking(&self) {
        self.inner.index.lock().begin_marking();
    }

    /// Ends a marking: blobs that no result names are evicted first from now on, except those that may be in use.
    pub(crate) fn end_marking(&self) {
        let kept_from = self.inner.in_use.kept_from();
        let (mut cursor, mut unmarked) = (0, Vec::new());
        while let Some(some) = {
            let index = self.inner.index.lock();
            index.unmarked(&mut cursor, LOOK, kept_from)
        } {
            unmarked.extend(some);
        }
        // Most recently used first: each is put in front of the previous ones.
        unmarked.sort_unstable_by_key(|one| std::cmp::Reverse(one.used()));
        unmarked.chunks(LOOK).for_each(|some| self.inner.index.lock().unname(some));
    }

    /// Removes blobs last used before this time, except those that may be in use. The caller must already have removed
    /// the results last used before it.
    pub(crate) async fn sweep(&self, before: Stamp) -> Result<Swept, Error> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.sweep(before))).await
    }

    /// Removes those of these blobs that the last marking did not find named, except those that running work may use.
    pub(crate) async fn free(&self, candidates: Vec<Digest>) -> Result<Swept, Error> {
        let inner = self.inner.clone();
        blocking(move || Ok(inner.free(&candidates))).await
    }

    /// Whether evictions have removed named blobs since the last call.
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
            self.discard(index, &gone);
            swept.add(gone.iter().map(|gone| gone.digest));
        }
    }

    fn free(self: &Arc<Self>, candidates: &[Digest]) -> Swept {
        let before = self.in_use.held_from();
        let mut swept = Swept::default();
        for some in candidates.chunks(MOVE) {
            let mut index = self.index.lock();
            let gone = index.free(some, before);
            self.discard(index, &gone);
            swept.add(gone.iter().map(|gone| gone.digest));
        }
        swept
    }

    /// Saves the blobs' last use in their files' dates and the packs' records, so that a restart knows it. Runs in the
    /// background without being waited for; if it is lost with the process, a blob only seems a little older.
    pub(super) fn save(self: &Arc<Self>, used: Vec<Located>, now: Stamp) {
        if used.is_empty() {
            return;
        }
        let inner = self.clone();
        let work = move || inner.save_now(&used, now);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }

    fn save_now(&self, used: &[Located], now: Stamp) {
        for Located { digest, .. } in used.iter().filter(|one| one.place.is_none()) {
            let path = self.path(digest);
            let version = || std::fs::metadata(&path).ok().as_ref().map(Version::of);
            let before = version();
            set_used(&path, now);
            // Its date is no part of its content.
            self.index.lock().set_version(digest, before, version());
        }
        self.packs.note(now, || {
            let index = self.index.lock();
            let is_there = |one: &&Located| index.look(&one.digest).is_some_and(|known| known.place == one.place);
            used.iter().filter(is_there).filter_map(|one| one.place).collect()
        });
    }
}

fn times(used: Stamp) -> Timestamps {
    let seconds = i64::try_from(used / 1_000).unwrap_or(i64::MAX);
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: ((used % 1_000) as i64).saturating_mul(1_000_000) };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// Saves a blob's last use in its file's date. The blob may be gone meanwhile.
fn set_used(path: &std::path::Path, used: Stamp) {
    if let Err(error) = rustix::fs::utimensat(CWD, path, &times(used), AtFlags::empty())
        && error != rustix::io::Errno::NOENT
    {
        tracing::debug!(path = %path.display(), %error, "cannot record a blob's last use");
    }
}

/// Saves the last use in the date of a file being written.
pub(super) fn set_written(file: &std::fs::File, used: Stamp) {
    if let Err(error) = rustix::fs::futimens(file, &times(used)) {
        tracing::debug!(%error, "cannot record when a blob was written");
    }
}

/// A disk whose blobs are read without counting as used.
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
