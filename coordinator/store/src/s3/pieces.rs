//! What this process knows of the blobs that it has hashed: a digest of each piece, so that a part of a blob is verified by itself.
//!
//! Invariant: bytes of a part are those of the blob that its digest names, whatever the bucket says of the object that they come from.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use kiln_proto::digest::{Digest, DigestFunction, Hasher};

use crate::{BlobStream, Error};

/// Bytes of a piece; the last one may be shorter.
const PIECE_BYTES: u64 = 256 << 10;
/// Maximum number of pieces that are remembered: 48 MB, for 256 GiB of blobs.
const REMEMBERED: usize = 1_000_000;
/// What hashes pieces.
const FUNCTION: DigestFunction = DigestFunction::Blake3;

/// The digests of a blob's pieces, in order.
pub(super) type Pieces = Arc<[Digest]>;

/// Blobs with the digests of their pieces.
#[derive(Debug, Default)]
pub(super) struct Known {
    blobs: HashMap<Digest, Pieces>,
    pieces: usize,
}

impl Known {
    pub(super) fn get(&self, digest: &Digest) -> Option<Pieces> {
        self.blobs.get(digest).cloned()
    }

    pub(super) fn insert(&mut self, digest: Digest, pieces: Pieces) {
        if self.pieces.saturating_add(pieces.len()) > REMEMBERED {
            *self = Self::default();
        }
        self.pieces = self.pieces.saturating_add(pieces.len());
        if let Some(before) = self.blobs.insert(digest, pieces) {
            self.pieces = self.pieces.saturating_sub(before.len());
        }
    }
}

/// Hashes a blob's pieces while it is read from its beginning.
pub(super) struct Hashing {
    done: Vec<Digest>,
    current: Hasher,
}

impl Hashing {
    pub(super) fn new() -> Self {
        Self { done: Vec::new(), current: FUNCTION.hasher() }
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = PIECE_BYTES.saturating_sub(self.current.size()) as usize;
            let (piece, rest) = data.split_at(room.min(data.len()));
            self.current.update(piece);
            data = rest;
            if self.current.size() == PIECE_BYTES {
                self.done.push(std::mem::replace(&mut self.current, FUNCTION.hasher()).finish());
            }
        }
    }

    /// The pieces of everything.
    pub(super) fn finish(mut self) -> Pieces {
        if self.current.size() > 0 {
            self.done.push(self.current.finish());
        }
        self.done.into()
    }
}

/// The whole pieces around a part of a blob of so many bytes.
pub(super) fn around(part: &Range<u64>, size: u64) -> Range<u64> {
    let start = part.start.saturating_sub(part.start % PIECE_BYTES);
    start..part.end.checked_next_multiple_of(PIECE_BYTES).map_or(size, |end| end.min(size))
}

/// A part of a blob out of the bytes [`around`] it, each piece verified before anything of it is handed out. Ends with [`Error::Corrupt`] if a
/// piece is not the blob's, and with [`Error::NotFound`] if there are too few bytes.
pub(super) fn part(bytes: BlobStream, digest: Digest, pieces: Pieces, part: Range<u64>) -> BlobStream {
    let at = around(&part, digest.size).start;
    let state = (bytes, BytesMut::new(), at);
    stream::try_unfold(state, move |(mut bytes, mut held, at)| {
        let (pieces, part) = (pieces.clone(), part.clone());
        async move {
            if at >= part.end {
                return Ok(None);
            }
            let end = at.saturating_add(PIECE_BYTES).min(digest.size);
            let length = end.saturating_sub(at) as usize;
            while held.len() < length {
                let Some(more) = bytes.next().await.transpose()? else { return Err(Error::NotFound { digest }) };
                held.extend_from_slice(&more);
            }
            let piece = held.split_to(length).freeze();
            let found = FUNCTION.digest(&piece);
            if pieces.get((at / PIECE_BYTES) as usize) != Some(&found) {
                return Err(Error::Corrupt { digest, found });
            }
            Ok(Some((within(&piece, at, &part), (bytes, held, end))))
        }
    })
    .boxed()
}

/// What a piece that begins at `at` has of a part.
fn within(piece: &Bytes, at: u64, part: &Range<u64>) -> Bytes {
    let place = |offset: u64| (offset.saturating_sub(at) as usize).min(piece.len());
    piece.slice(place(part.start)..place(part.end))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    fn of(data: &[u8]) -> (Digest, Pieces) {
        let mut hashing = Hashing::new();
        data.chunks(100_000).for_each(|some| hashing.update(some));
        (DigestFunction::Sha256.digest(data), hashing.finish())
    }

    fn read(data: &[u8], digest: Digest, pieces: Pieces, wanted: Range<u64>) -> Result<Vec<u8>, Error> {
        let around = around(&wanted, digest.size);
        let bytes = Bytes::copy_from_slice(&data[around.start as usize..around.end as usize]);
        let some: Vec<_> = bytes.chunks(70_000).map(|some| Ok(Bytes::copy_from_slice(some))).collect();
        let read: Vec<Bytes> =
            futures::executor::block_on(part(stream::iter(some).boxed(), digest, pieces, wanted).try_collect())?;
        Ok(read.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_part_is_read_and_what_was_changed_is_never_handed_out(
            size in 1_usize..1_000_000, from in 0_usize..1_000_000, length in 1_usize..1_000_000, changed in 0_usize..1_000_000
        ) {
            let mut data: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (digest, pieces) = of(&data);
            let from = from % size;
            let to = (from + length).min(size);
            let wanted = from as u64..to as u64;
            prop_assert_eq!(&read(&data, digest, pieces.clone(), wanted.clone()).unwrap(), &data[from..to]);
            let right = data.clone();
            data[changed % size] ^= 1;
            let is_near = around(&wanted, digest.size).contains(&((changed % size) as u64));
            match read(&data, digest, pieces, wanted) {
                Ok(found) => prop_assert!(!is_near && found == right[from..to]),
                Err(Error::Corrupt { .. }) => prop_assert!(is_near),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        let (digest, _) = of(b"x");
        let many: Pieces = vec![digest; REMEMBERED / 2].into();
        for number in 0..5_u8 {
            known.insert(of(&[number]).0, many.clone());
            known.insert(of(&[number]).0, many.clone());
            assert!(known.pieces <= REMEMBERED && known.get(&of(&[number]).0).is_some());
        }
    }
}
