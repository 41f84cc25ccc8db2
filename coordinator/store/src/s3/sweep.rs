//! Removes blobs that have not been used for long.
//!
//! Any coordinator may do this, and two at once do no harm. Memory holds the blobs with recorded uses, and those to be
//! removed.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use object_store::{Error as Failure, ObjectStore, ObjectStoreExt};

use super::S3Blobs;
use super::bucket::Kind;
use super::life::{note_life, written};
use crate::clock::Stamp;
use crate::{Error, Swept};

/// Concurrent requests for objects before they are removed.
const CONCURRENCY: usize = 16;
/// Objects removed together: S3's limit for one request.
const BATCH: usize = 1_000;

impl S3Blobs {
    /// Removes blobs that no coordinator has used within the configured lifetime.
    ///
    /// # Errors
    /// If the bucket fails; removals up to then stand.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        self.bucket.ready()?;
        let mut swept = Swept::default();
        self.sweep_into(&mut swept).await.map_err(|error| self.bucket.failed(&nothing(), error))?;
        Ok(swept)
    }

    async fn sweep_into(&self, swept: &mut Swept) -> Result<(), Failure> {
        let client = &self.bucket.client;
        let mut noted: HashMap<Digest, Stamp> = HashMap::new();
        let mut notes = client.list(Some(&self.bucket.folder(Kind::Uses)));
        while let Some(note) = notes.try_next().await? {
            if let Some(digest) = self.bucket.digest(Kind::Uses, &note.location) {
                noted.insert(digest, written(&note));
            }
        }
        let before = self.life.removal();
        let mut old: Vec<Digest> = Vec::with_capacity(BATCH);
        let mut blobs = client.list(Some(&self.bucket.folder(Kind::Blobs)));
        while let Some(object) = blobs.try_next().await? {
            let Some(digest) = self.bucket.digest(Kind::Blobs, &object.location) else { continue };
            let used = noted.remove(&digest).unwrap_or(0).max(written(&object));
            if used < before {
                old.push(digest);
            }
            if old.len() == BATCH {
                self.remove(std::mem::take(&mut old), before, swept).await?;
            }
        }
        self.remove(old, before, swept).await?;
        // The remaining markers belong to blobs that are gone.
        let before = note_life(&self.life);
        let orphans = noted.into_iter().filter(|(_, at)| *at < before);
        let orphans: Vec<_> = orphans.map(|(digest, _)| Ok(self.bucket.path(Kind::Uses, &digest))).collect();
        client.delete_stream(stream::iter(orphans).boxed()).try_for_each(|_| async { Ok(()) }).await
    }

    /// Removes those that are as old as listed. Each is checked again, so that one written meanwhile stays.
    async fn remove(&self, old: Vec<Digest>, before: Stamp, swept: &mut Swept) -> Result<(), Failure> {
        let is_old = |digest: Digest| async move {
            match self.bucket.client.head(&self.bucket.path(Kind::Blobs, &digest)).await {
                Ok(object) if written(&object) < before => {
                    let noted = self.bucket.noted(&digest).await?;
                    Ok((noted < before).then_some((digest, noted > 0)))
                }
                Ok(_) | Err(Failure::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let gone: Vec<(Digest, bool)> = stream::iter(old)
            .map(is_old)
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(|gone| std::future::ready(Ok::<_, Failure>(gone)))
            .try_collect()
            .await?;
        // The markers are removed last: without its marker a blob would look older than it is.
        let blobs = gone.iter().map(|(digest, _)| Ok(self.bucket.path(Kind::Blobs, digest)));
        let notes = gone.iter().filter(|(_, noted)| *noted).map(|(digest, _)| Ok(self.bucket.path(Kind::Uses, digest)));
        for paths in [blobs.collect::<Vec<_>>(), notes.collect()] {
            let paths = stream::iter(paths).boxed();
            self.bucket.client.delete_stream(paths).try_for_each(|_| async { Ok(()) }).await?;
        }
        swept.add(gone.iter().map(|(digest, _)| *digest));
        Ok(())
    }
}

/// A placeholder for calls that are not about a blob.
fn nothing() -> Digest {
    Digest::empty(kiln_proto::digest::DigestFunction::Sha256)
}
