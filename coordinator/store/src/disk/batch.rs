//! Many small blobs at once: stored with one append, read with few reads.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kiln_proto::digest::Digest;

use super::{Error, Inner, blocking, write};
use crate::BlobWriter;
use crate::clock::Stamp;
use kiln_index::{Known, Located};
use kiln_packs::Place;

/// Largest blob that is read and hashed on a thread that others wait for: that takes some 10 µs.
const AT_ONCE_BYTES: u64 = 16 << 10;

impl Inner {
    /// Whether blobs of this size are packed.
    pub(super) fn packs_size(&self, bytes: u64) -> bool {
        bytes <= self.packed_bytes
    }

    /// Whether this blob is in a pack.
    pub(super) fn is_packed(&self, digest: &Digest) -> bool {
        self.index.lock().look(digest).is_some_and(|known| known.place.is_some())
    }

    /// Stores blobs that are in memory; results are in the same order.
    pub(super) fn put_many(self: &Arc<Self>, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), Error>> {
        let check = |(digest, data): &(Digest, Bytes)| {
            let found = digest.function.digest(data);
            if found == *digest { Ok(()) } else { Err(Error::Mismatch { expected: *digest, found }) }
        };
        let mut results: Vec<Result<(), Error>> = blobs.iter().map(check).collect();
        let now = self.clock.now();
        let (mut small, mut large, mut unsaved, mut wanted) = (Vec::new(), Vec::new(), Vec::new(), HashSet::new());
        let mut index = self.index.lock();
        for (result, blob) in results.iter_mut().zip(&blobs).filter(|(result, _)| result.is_ok()) {
            let (digest, _) = blob;
            match index.touch(digest, now) {
                Some(known) if known.unsaved => unsaved.push(Located { digest: *digest, place: known.place }),
                Some(_) => {}
                None if !wanted.insert(*digest) => {}
                None if self.packs_size(digest.size) => small.push((result, blob)),
                None => large.push((result, blob)),
            }
        }
        drop(index);
        self.save(unsaved, now);
        for (result, (digest, data)) in large {
            *result = write::put_file(self, digest, data.clone());
        }
        let packed: Vec<(Digest, Bytes)> = small.iter().map(|(_, blob)| (*blob).clone()).collect();
        match self.pack(&packed, now) {
            Ok(()) => {}
            Err(error) if packed.len() == 1 => {
                small.into_iter().zip([error]).for_each(|((result, _), error)| *result = Err(error));
            }
            // Some of them may fit.
            Err(_) => {
                for (result, blob) in small {
                    *result = self.pack(std::slice::from_ref(blob), now);
                }
            }
        }
        results
    }

    /// Appends checked blobs, each of them once, to a pack.
    fn pack(self: &Arc<Self>, blobs: &[(Digest, Bytes)], now: Stamp) -> Result<(), Error> {
        if blobs.is_empty() {
            return Ok(());
        }
        let bytes = blobs.iter().map(|(digest, _)| digest.size).sum();
        self.reserve(bytes)?;
        let places = match self.packs.append(blobs, now) {
            Ok(places) => places,
            Err(error) => {
                self.release(bytes);
                return Err(error.into());
            }
        };
        let mut twice: Vec<(Digest, Place)> = Vec::new();
        let mut index = self.index.lock();
        for ((digest, _), place) in blobs.iter().zip(places) {
            if index.touch(digest, now).is_none() {
                index.insert_reserved(*digest, Some(place), now);
            } else {
                // Another caller was faster.
                index.release(digest.size);
                twice.push((*digest, place));
            }
        }
        drop(index);
        self.packs.free(&twice);
        self.count_overhead();
        Ok(())
    }

    /// Reads blobs whole and checked, as [`get`](Self::get).
    pub(super) fn get_many(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        let now = self.clock.now();
        let mut index = self.index.lock();
        let known: Vec<Option<Known>> = digests.iter().map(|digest| index.touch(digest, now)).collect();
        drop(index);
        let each = || digests.iter().zip(&known).filter_map(|(digest, known)| Some((*digest, (*known)?)));
        let unsaved = each().filter(|(_, known)| known.unsaved);
        self.save(unsaved.map(|(digest, known)| Located { digest, place: known.place }).collect(), now);
        let packed: Vec<(Digest, Place, Known)> =
            each().filter_map(|(digest, known)| Some((digest, known.place?, known))).collect();
        let mut packed = self.read_packed(&packed).into_iter();
        let absent = |digest: &Digest| Err(Error::NotFound { digest: *digest });
        let read = |(digest, known): (&Digest, &Option<Known>)| match known {
            None => absent(digest),
            Some(Known { place: Some(_), .. }) => packed.next().unwrap_or_else(|| absent(digest)),
            Some(known) => self.read_file(digest, *known),
        };
        digests.iter().zip(&known).map(read).collect()
    }

    /// The blob, if it is small and can be had without waiting for the disk; to hand it to another thread would take longer.
    pub(super) fn get_now(self: &Arc<Self>, digest: &Digest) -> Option<Result<Bytes, Error>> {
        if digest.size > AT_ONCE_BYTES {
            return None;
        }
        let place = self.index.lock().look(digest)?.place?;
        let data = self.packs.read_now(digest, place)?;
        // It counts as a use only now: otherwise whoever reads it on another thread would not know that this is to be saved.
        let now = self.clock.now();
        let known = self.index.lock().touch(digest, now)?;
        if known.unsaved {
            self.save(vec![Located { digest: *digest, place: known.place }], now);
        }
        if known.place != Some(place) {
            return None;
        }
        let checked = self.settle(digest, known, None, digest.function.digest(&data));
        Some(checked.map(|()| data).map_err(|_| Error::NotFound { digest: *digest }))
    }

    /// Reads blobs from packs, and checks them. A damaged one is dropped and counts as missing.
    pub(super) fn read_packed(self: &Arc<Self>, wanted: &[(Digest, Place, Known)]) -> Vec<Result<Bytes, Error>> {
        let places: Vec<(Digest, Place)> = wanted.iter().map(|(digest, place, _)| (*digest, *place)).collect();
        let read = self.packs.read(&places).into_iter().zip(wanted);
        read.map(|(data, (digest, _, known))| match data {
            Ok(data) => {
                let found = digest.function.digest(&data);
                self.settle(digest, *known, None, found).map_err(|_| Error::NotFound { digest: *digest })?;
                Ok(data)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.drop_blob(digest, *known);
                Err(Error::NotFound { digest: *digest })
            }
            Err(source) => Err(Error::io("read a pack in", &self.dir, source)),
        })
        .collect()
    }
}

/// A small blob being streamed in: stored when it is complete.
pub(super) struct SmallWriter {
    inner: Arc<Inner>,
    digest: Digest,
    data: BytesMut,
}

impl SmallWriter {
    pub(super) fn new(inner: Arc<Inner>, digest: Digest) -> Self {
        Self { inner, digest, data: BytesMut::new() }
    }
}

#[async_trait]
impl BlobWriter for SmallWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        if (self.data.len() + data.len()) as u64 > self.digest.size {
            return Err(Error::TooLong { digest: self.digest });
        }
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        let Self { inner, digest, data } = *self;
        blocking(move || write::put(&inner, &digest, data.freeze())).await
    }
}
