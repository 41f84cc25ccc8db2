//! Bodies on their way into the tenant's store and out of it.
//!
//! Invariant: nothing of a body that was cut off, or is larger than allowed, reaches the store.

use std::io::{Read, Seek};
use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt;
use kiln_dialects::{Data, Pieces, Received, Refusal};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::Stores;
use kiln_store::disk::CHUNK_BYTES;

use crate::refusal::failed;

/// The function of the caches' digests.
pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Puts a body into the store, if it is not there already.
pub(crate) async fn store(mut received: Received, stores: &Stores) -> Result<Digest, Refusal> {
    let digest = received.digest;
    let mut file = match received.data() {
        Data::Memory(data) => {
            stores.blobs.put(&digest, data.clone()).await.map_err(failed)?;
            return Ok(digest);
        }
        Data::File(file) => file.try_clone().map_err(unreadable)?,
    };
    if stores.blobs.find_missing(&[digest]).await.map_err(failed)?.is_empty() {
        return Ok(digest);
    }
    let mut writer = stores.blobs.write(&digest).await.map_err(failed)?;
    file.rewind().map_err(unreadable)?;
    loop {
        let read = move || {
            let mut piece = vec![0; CHUNK_BYTES];
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            Ok::<_, std::io::Error>((file, piece))
        };
        let piece;
        (file, piece) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| Refusal::Fault(error.to_string()))?
            .map_err(unreadable)?;
        if piece.is_empty() {
            writer.commit().await.map_err(failed)?;
            return Ok(digest);
        }
        writer.write(piece.into()).await.map_err(failed)?;
    }
}

fn unreadable(error: std::io::Error) -> Refusal {
    tracing::error!(%error, "cannot read a body that has arrived");
    Refusal::Fault("the coordinator cannot read its disk; see its log".to_owned())
}

/// Streams a body whose digest is known straight into the store.
pub(crate) async fn store_as(digest: &Digest, pieces: &mut Pieces, stores: &Stores) -> Result<(), Refusal> {
    let mut writer = stores.blobs.write(digest).await.map_err(failed)?;
    while let Some(piece) = pieces.next().await? {
        writer.write(piece).await.map_err(failed)?;
    }
    writer.commit().await.map_err(failed)
}

/// A boxed stream of a blob's bytes.
pub(crate) type Stream = Pin<Box<dyn futures::Stream<Item = Result<Bytes, kiln_store::Error>> + Send>>;

/// A blob's bytes, kept in the store while they are read.
pub(crate) async fn read(digest: &Digest, stores: &Stores) -> Result<Stream, Refusal> {
    let hold = stores.in_use.begin();
    let pieces = stores.blobs.read(digest, 0, None).await.map_err(failed)?;
    Ok(Box::pin(pieces.map(move |piece| {
        let _ = &hold;
        piece
    })))
}
