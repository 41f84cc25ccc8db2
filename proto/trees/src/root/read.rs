//! Operations on roots that lie in a store.

use std::sync::Arc;

use kiln_proto::digest::Digest;

use super::{Directory, Error, Forest};
use crate::shape::{self, MAX_ENTRIES};
use crate::walk::{Blobs, Decoded, Directory as _, Found, Malformed, Source};

/// An operation that could not be done on what is stored.
#[derive(Debug)]
pub enum ReadError<E> {
    /// The operation itself refused.
    Operation(Error),
    /// A directory is not stored.
    Absent(Digest),
    /// A directory is not acceptable, or there are too many.
    Malformed(Malformed),
    /// The store failed.
    Source(E),
}

/// Does an operation, reading the directories that it needs: as often as it finds that it needs more, which is at most once for each
/// level of the trees.
///
/// # Errors
/// Where the operation refuses, or a directory cannot be read.
pub async fn read<B: Blobs, T>(
    blobs: B,
    forest: &mut Forest,
    operation: impl Fn(&mut Forest) -> Result<T, Error> + Send,
) -> Result<T, ReadError<B::Error>> {
    let source = Decoded::<B, Arc<Directory>>::new(blobs);
    let mut entries = 0_u64;
    loop {
        let unread = match operation(forest) {
            Ok(done) => return Ok(done),
            Err(Error::Unread(unread)) => unread,
            Err(error) => return Err(ReadError::Operation(error)),
        };
        for digest in &unread {
            shape::check_size(digest).map_err(|error| ReadError::Malformed(error.into()))?;
        }
        let found = source.read(&unread).await.map_err(ReadError::Source)?;
        for (digest, found) in unread.into_iter().zip(found) {
            match found {
                Found::Directory(directory) => {
                    entries = entries.saturating_add(directory.entries());
                    forest.add(digest, directory);
                }
                Found::Absent => return Err(ReadError::Absent(digest)),
                Found::Malformed(malformed) => return Err(ReadError::Malformed(malformed)),
            }
        }
        if entries > MAX_ENTRIES {
            return Err(ReadError::Malformed(shape::Error::Entries.into()));
        }
    }
}
