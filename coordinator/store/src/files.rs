//! Stores local files.

use std::path::Path;

use kiln_proto::digest::{Digest, DigestFunction};
use tokio::io::AsyncReadExt;

use crate::{BlobStore, Error};

/// Maximum bytes per read.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a local file cannot be stored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PutError {
    #[error("cannot read a temporary file: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] Error),
}

/// Streams a file into the store; returns its digest, and its SHA-256 whatever the store's digest function.
///
/// # Errors
/// If the file cannot be read, or the store fails.
pub async fn put(store: &dyn BlobStore, function: DigestFunction, path: &Path) -> Result<(Digest, Digest), PutError> {
    let mut hashers = (function.hasher(), DigestFunction::Sha256.hasher());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        hashers.0.update(buffer.get(..read).unwrap_or_default());
        hashers.1.update(buffer.get(..read).unwrap_or_default());
    }
    let digest = hashers.0.finish();
    put_as(store, &digest, path).await?;
    Ok((digest, hashers.1.finish()))
}

/// Streams a file with this digest into the store, which checks it.
///
/// # Errors
/// If the file cannot be read, or the store fails.
pub async fn put_as(store: &dyn BlobStore, digest: &Digest, path: &Path) -> Result<(), PutError> {
    if store.find_missing(&[*digest]).await?.is_empty() {
        return Ok(());
    }
    let mut writer = store.write(digest).await?;
    let mut file = tokio::fs::File::open(path).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        writer.write(buffer.get(..read).unwrap_or_default().to_vec().into()).await?;
    }
    Ok(writer.commit().await?)
}
