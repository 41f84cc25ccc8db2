//! What the worker of a lease may name: what the lease gave it, what it has sent for the lease, and what it has shown to have.
//!
//! Invariant: whoever shows a blob had its content while the lease lasted, since the challenge is as old as the lease. One wrong proof ends what a
//! worker may show for the lease, so that it has one blob read in vain; what it has shown is not read again.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::StreamExt;
use kiln_proto::digest::Digest;
use kiln_proto::possession::{Challenge, Named, Proof};
use kiln_state::farm_key::{FarmKey, Purpose};
use kiln_store::BlobStore;
use tokio::sync::Semaphore;
use tonic::Status;

use super::LeaseAccess;
use crate::prepare::invalid;

/// Requests of all leases whose blobs are read at once.
static READING: Semaphore = Semaphore::const_new(8);
/// Blobs of at most this size are read together.
const SMALL_BYTES: u64 = 64 << 10;
/// Bytes of small blobs in memory at once.
const BATCH_BYTES: u64 = 4 << 20;
/// Maximum bytes of a request with several blobs: whoever shows more asks several times.
const MAX_BYTES: u64 = 1 << 30;

/// What is left to do before blobs may be named, by their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// They must be sent whole.
    pub send: Vec<usize>,
    /// They must be shown.
    pub show: Vec<usize>,
}

/// Seals what a result of this lease names.
fn seal(key: &FarmKey, lease: u64, named: &Named) -> Vec<u8> {
    let parts = named.sealed_parts();
    let [files, trees, directories] = &parts;
    key.seal(Purpose::Result, &[&lease.to_le_bytes(), files, trees, directories])
}

/// Whether this farm has sealed what a result of this lease names.
pub fn is_sealed(key: &FarmKey, lease: u64, named: &Named, seal: &[u8]) -> bool {
    let [files, trees, directories] = &named.sealed_parts();
    key.verify(Purpose::Result, &[&lease.to_le_bytes(), files, trees, directories], seal)
}

impl LeaseAccess {
    /// Whether the worker has sent this blob for the lease, or has shown it.
    pub fn has_shown(&self, blob: &Digest) -> bool {
        self.shown.lacks(std::slice::from_ref(blob)).is_empty()
    }

    /// The worker has sent this blob, all of it, and it was compared with its digest.
    pub fn sent(&self, blob: &Digest) {
        self.shown.add(blob);
    }

    /// Those of these blobs that an older worker must send, which shows nothing.
    ///
    /// # Errors
    /// If what its lease refers to cannot be read.
    pub async fn only_by_sending(&self, blobs: &[Digest]) -> Result<Vec<Digest>, Status> {
        if self.grant.challenge.is_some() { Ok(Vec::new()) } else { self.strange(blobs).await }
    }

    /// Those of these blobs that the worker may not name: it was neither given them for the lease, nor has it sent or shown them.
    async fn strange(&self, blobs: &[Digest]) -> Result<Vec<Digest>, Status> {
        let mut strange = self.shown.lacks(blobs);
        if strange.is_empty() {
            return Ok(strange);
        }
        let reach = self.reach().await?;
        strange = reach.lacks(&strange);
        if !strange.is_empty() {
            self.add_trees(reach).await?;
            strange = reach.lacks(&strange);
        }
        Ok(strange)
    }

    /// Checks that the worker may name these blobs.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it has not shown to have one of them.
    pub async fn has_all(&self, blobs: &[Digest]) -> Result<(), Status> {
        let strange = self.strange(blobs).await?;
        let Some(blob) = strange.first() else { return Ok(()) };
        tracing::debug!(
            worker = self.grant.worker, lease = self.grant.lease, tenant = self.tenant(), %blob, count = strange.len(),
            "refused a worker's use of a blob that it was neither given nor has shown"
        );
        Err(Status::failed_precondition(format!(
            "blob `{blob}` was neither given to worker `{}` for lease {} nor sent or shown by it; show it, or send it even if the farm has it",
            self.grant.worker, self.grant.lease
        )))
    }

    /// Checks that the worker may name everything that a tree consists of.
    ///
    /// # Errors
    /// As [`has_all`](Self::has_all), or if the tree cannot be read.
    pub async fn has_tree(&self, tree: &Digest) -> Result<(), Status> {
        self.has_all(&self.scope()?.preparer.tree(tree).await?).await
    }

    /// Checks that the worker may name what a result does, and everything below its trees and directories.
    ///
    /// # Errors
    /// As [`has_all`](Self::has_all). `OUT_OF_RANGE`: a tree or directory is no such message, or larger than what the farm takes.
    pub async fn has_named(&self, named: &Named) -> Result<(), Status> {
        if self.is_refuted() {
            return Err(self.refutation());
        }
        let itself = [&named.files[..], &named.trees, &named.directories].concat();
        self.has_all(&itself).await?;
        if named.trees.is_empty() && named.directories.is_empty() {
            return Ok(());
        }
        let stores = self.scope()?.stores;
        if let Some(missing) = stores.blobs.find_missing(&itself).await?.first() {
            return Err(Status::failed_precondition(format!("blob `{missing}` is not stored; send it first")));
        }
        let below = stores.named_by(named).await?;
        let below = below.ok_or_else(|| {
            Status::out_of_range("an output directory is no tree of directories, or has more entries or bytes than the farm takes; split it")
        })?;
        self.has_all(&below).await
    }

    /// What the worker has to do before it may name these blobs.
    ///
    /// # Errors
    /// If what its lease refers to cannot be read, or the store fails.
    pub async fn left(&self, blobs: &[Digest]) -> Result<Left, Status> {
        let stores = self.scope()?.stores;
        let missing: HashSet<Digest> = stores.blobs.find_missing(blobs).await?.into_iter().collect();
        let there: Vec<Digest> = blobs.iter().filter(|blob| !missing.contains(blob)).copied().collect();
        let strange = self.strange(&there).await?;
        let far: HashSet<Digest> = stores.near.find_missing(&strange).await?.into_iter().collect();
        let strange: HashSet<Digest> = strange.into_iter().collect();
        let mut left = Left::default();
        for (place, blob) in blobs.iter().enumerate() {
            if missing.contains(blob) || far.contains(blob) {
                left.send.push(place);
            } else if strange.contains(blob) {
                left.show.push(place);
            }
        }
        Ok(left)
    }

    /// Compares proofs with the blobs, which the worker may name from then on. Returns the places of those that cannot be read here.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if a proof is wrong, or was before.
    pub async fn show(&self, shown: &[(Digest, Proof)]) -> Result<Vec<usize>, Status> {
        let challenge = self.grant.challenge.ok_or_else(|| {
            Status::failed_precondition(format!(
                "lease {} has no challenge; send what is to be named",
                self.grant.lease
            ))
        })?;
        if self.is_refuted() {
            return Err(self.refutation());
        }
        let bytes = shown.iter().map(|(blob, _)| blob.size).fold(0, u64::saturating_add);
        if shown.len() > 1 && bytes > MAX_BYTES {
            return Err(invalid(format!(
                "{bytes} bytes of several blobs in a request; show at most {} MiB at once, or one blob",
                MAX_BYTES >> 20
            )));
        }
        let blobs: Vec<Digest> = shown.iter().map(|(blob, _)| *blob).collect();
        let wanted: HashSet<Digest> = self.strange(&blobs).await?.into_iter().collect();
        let _turn = READING.acquire().await.map_err(|_| Status::unavailable("try again"))?;
        let near = self.scope()?.stores.near;
        let mut there = Vec::new();
        let (small, large): (Vec<Digest>, Vec<Digest>) = wanted.iter().partition(|blob| blob.size <= SMALL_BYTES);
        for batch in batches(&small) {
            let got = batch.iter().zip(near.get_many(batch).await).filter_map(|(blob, data)| read(blob, data));
            there.extend(got.map(|(blob, data)| (blob, challenge.prove(&data))));
        }
        for blob in large {
            there.extend(read(&blob, prove(&*near, &blob, &challenge).await));
        }
        let found: HashMap<Digest, Proof> = there.into_iter().collect();
        let mut send = Vec::new();
        for (place, (blob, proof)) in shown.iter().enumerate().filter(|(_, (blob, _))| wanted.contains(blob)) {
            match found.get(blob) {
                Some(found) if found == proof => self.shown.add(blob),
                Some(_) => {
                    self.shown.refute();
                    tracing::warn!(
                        worker = self.grant.worker, lease = self.grant.lease, tenant = self.tenant(), %blob,
                        "refused a worker's wrong proof that it has a blob: it lies, or its disk does"
                    );
                    return Err(self.refutation());
                }
                None => send.push(place),
            }
        }
        Ok(send)
    }

    /// Seals what a result names, so that it counts for every coordinator of the farm.
    ///
    /// # Errors
    /// As [`has_named`](Self::has_named).
    pub async fn seal(&self, named: &Named) -> Result<Vec<u8>, Status> {
        self.has_named(named).await?;
        Ok(seal(&self.key, self.grant.lease, named))
    }

    /// Whether the worker wanted to show what it does not have: nothing that it makes for the lease counts.
    pub fn is_refuted(&self) -> bool {
        self.shown.is_refuted()
    }

    fn refutation(&self) -> Status {
        Status::permission_denied(format!(
            "worker `{}` wanted to show a blob that it does not have for lease {}; check its disk, and who runs it",
            self.grant.worker, self.grant.lease
        ))
    }
}

/// Small blobs in groups that fit into memory.
fn batches(blobs: &[Digest]) -> Vec<&[Digest]> {
    let (mut groups, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, blob) in blobs.iter().enumerate() {
        if bytes + blob.size > BATCH_BYTES {
            groups.push(&blobs[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += blob.size;
    }
    groups.push(&blobs[begin..]);
    groups
}

/// What was read of a blob; none if it cannot be read here, so that it is sent.
fn read<T>(blob: &Digest, data: Result<T, kiln_store::Error>) -> Option<(Digest, T)> {
    match data {
        Ok(data) => Some((*blob, data)),
        Err(error) => {
            tracing::debug!(%blob, %error, "cannot read a blob that a worker shows; it is sent");
            None
        }
    }
}

async fn prove(near: &dyn BlobStore, blob: &Digest, challenge: &Challenge) -> Result<Proof, kiln_store::Error> {
    let mut prover = challenge.prover();
    let mut pieces = near.read(blob, 0, None).await?;
    while let Some(piece) = pieces.next().await {
        let piece: Bytes = piece?;
        prover.update(&piece);
    }
    Ok(prover.finish())
}

#[cfg(test)]
mod tests;
