//! One stream of a command's output on its way to the store, hashed and written to disk while the command runs.
//!
//! Invariant: an empty stream has no file. Most streams are empty, and creating a file costs more than hashing.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction, Hasher};
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Maximum bytes kept of a stream; the rest is dropped.
const MAX_BYTES: u64 = 4 << 30;

/// A growing stream. Its file is removed on drop, unless [`OutputLog::finish`] hands it on.
pub struct OutputLog {
    path: PathBuf,
    file: Option<(File, TempPath)>,
    hasher: Hasher,
    bytes: u64,
}

/// A complete stream. Its file is removed on drop.
#[derive(Debug)]
pub struct Ended {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The file with its bytes; `None` if the stream is empty.
    pub file: Option<TempPath>,
}

impl std::fmt::Debug for OutputLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("OutputLog");
        shown.field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl OutputLog {
    /// An empty stream, to be stored at `path`.
    pub fn new(path: PathBuf, function: DigestFunction) -> Self {
        Self { path, file: None, hasher: function.hasher(), bytes: 0 }
    }

    /// Appends data; returns the offset of its first byte in the stream.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn push(&mut self, data: &Bytes) -> io::Result<u64> {
        let offset = self.bytes;
        self.bytes += data.len() as u64;
        if self.hasher.size() >= MAX_BYTES || data.is_empty() {
            return Ok(offset);
        }
        self.hasher.update(data);
        let (file, _) = match &mut self.file {
            Some(open) => open,
            None => {
                let file = File::create(&self.path).await?;
                self.file.insert((file, TempPath::try_from_path(&self.path)?))
            }
        };
        file.write_all(data).await?;
        Ok(offset)
    }

    /// Returns the complete stream.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn finish(self) -> io::Result<Ended> {
        let mut kept = None;
        if let Some((mut file, path)) = self.file {
            file.flush().await?;
            kept = Some(path);
        }
        Ok(Ended { digest: self.hasher.finish(), file: kept })
    }
}

impl Ended {
    /// All of it, in memory.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn read(&self) -> io::Result<Vec<u8>> {
        match &self.file {
            Some(path) => tokio::fs::read(path).await,
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_has_a_file_only_when_it_says_something_and_only_while_it_is_needed() {
        let directory = tempfile::tempdir().expect("a directory");
        let silent = OutputLog::new(directory.path().join("silent"), DigestFunction::Sha256);
        let silent = silent.finish().await.expect("a silent stream ends");
        assert_eq!((silent.digest, silent.file.is_none()), (DigestFunction::Sha256.digest(b""), true));

        let mut said = OutputLog::new(directory.path().join("said"), DigestFunction::Sha256);
        for (data, at) in [("one", 0), ("", 3), ("two", 3)] {
            assert_eq!(said.push(&Bytes::from(data)).await.expect("room"), at, "the offset of `{data}`");
        }
        let said = said.finish().await.expect("the stream ends");
        assert_eq!(said.digest, DigestFunction::Sha256.digest(b"onetwo"));
        let file = said.file.expect("a file for what was said");
        assert_eq!(std::fs::read(&file).expect("the file can be read"), b"onetwo");
        drop(file);
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0, "expected no file to stay");
    }
}
