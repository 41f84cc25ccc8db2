//! Verifies a whole blob while it is read from a store.

use bytes::Bytes;
use futures::{StreamExt, stream};
use kiln_proto::digest::{Digest, Hasher};

use super::{BlobStream, Error};

/// Passes a blob's pieces on. With a hasher, holds back the last piece until the hash has been verified, and ends with
/// [`Error::Corrupt`] if it is wrong.
pub(super) fn whole(pieces: BlobStream, digest: Digest, hasher: Option<Hasher>) -> BlobStream {
    let Some(hasher) = hasher else { return pieces };
    let state = (pieces, hasher, None::<Bytes>, false);
    stream::try_unfold(state, move |(mut pieces, mut hasher, mut held, done)| async move {
        if done {
            return Ok(None);
        }
        loop {
            match pieces.next().await.transpose()? {
                Some(piece) => {
                    hasher.update(&piece);
                    if let Some(before) = held.replace(piece) {
                        return Ok(Some((before, (pieces, hasher, held, false))));
                    }
                }
                None => {
                    let found = hasher.clone().finish();
                    if found != digest {
                        return Err(Error::Corrupt { digest, found });
                    }
                    return Ok(held.take().map(|last| (last, (pieces, hasher, None, true))));
                }
            }
        }
    })
    .boxed()
}
