//! Reads blobs and detects damaged ones.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use kiln_proto::digest::{Digest, Hasher};
use tokio::task::JoinHandle;

use super::{BlobStream, CHUNK_BYTES, Error, Inner};
use kiln_index::{Known, Located, Version};

impl Inner {
    /// Opens a blob's file. If it is missing although the index lists it, something else removed it.
    fn open(self: &Arc<Self>, digest: &Digest) -> Result<(File, PathBuf, Known), Error> {
        let now = self.clock.now();
        let known = self.index.lock().touch(digest, now).ok_or(Error::NotFound { digest: *digest })?;
        if known.unsaved {
            self.save(vec![Located { digest: *digest, place: known.place }], now);
        }
        self.open_known(digest, known)
    }

    fn open_known(&self, digest: &Digest, known: Known) -> Result<(File, PathBuf, Known), Error> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok((file, path, known)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.drop_blob(digest, known);
                Err(Error::NotFound { digest: *digest })
            }
            Err(source) => Err(Error::io("open", &path, source)),
        }
    }

    /// Returns the whole blob, checked. A damaged one is dropped and counts as missing.
    pub(super) fn get(self: &Arc<Self>, digest: &Digest) -> Result<Bytes, Error> {
        self.get_many(std::slice::from_ref(digest)).pop().unwrap_or(Err(Error::NotFound { digest: *digest }))
    }

    /// The same, without counting as a use.
    pub(super) fn look(self: &Arc<Self>, digest: &Digest) -> Result<Bytes, Error> {
        let known = self.index.lock().look(digest).ok_or(Error::NotFound { digest: *digest })?;
        match known.place {
            Some(place) => self.read_packed(&[(*digest, place, known)]).pop().unwrap_or(Err(Error::Closed)),
            None => self.read_file(digest, known),
        }
    }

    /// Reads the file of a blob.
    pub(super) fn read_file(&self, digest: &Digest, known: Known) -> Result<Bytes, Error> {
        let (file, path, known) = self.open_known(digest, known)?;
        let mut data = Vec::with_capacity(usize::try_from(digest.size).unwrap_or(usize::MAX).min(1 << 30));
        (&file)
            .take(digest.size.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|source| Error::io("read", &path, source))?;
        let version = file.metadata().ok().as_ref().map(Version::of);
        if known.is_hashed(version) && data.len() as u64 == digest.size {
            return Ok(data.into());
        }
        let found = digest.function.digest(&data);
        self.settle(digest, known, version, found).map_err(|_| Error::NotFound { digest: *digest })?;
        Ok(data.into())
    }

    /// Opens a blob to stream `wanted` bytes from `offset` on. For a part of a blob that this process has not hashed
    /// yet, the whole blob is read first.
    pub(super) fn reader(self: &Arc<Self>, digest: &Digest, offset: u64, wanted: u64) -> Result<Reader, Error> {
        let (file, path, known) = self.open(digest)?;
        let whole = || digest.function.hasher();
        let version = file.metadata().ok().as_ref().map(Version::of);
        // What this process hashed when it was written, or read before, need not be hashed again.
        let is_known = known.is_hashed(version);
        let mut reader = Reader {
            inner: self.clone(),
            digest: *digest,
            known,
            version,
            file,
            path,
            left: wanted,
            hasher: (wanted == digest.size && !is_known).then(whole),
        };
        if wanted < digest.size {
            if !is_known {
                reader.hasher = Some(whole());
                reader.left = digest.size;
                while reader.step().map_err(absent_if_corrupt)?.is_some() {}
                reader.left = wanted;
                reader.hasher = None;
            }
            reader.file.seek(SeekFrom::Start(offset)).map_err(|source| Error::io("seek in", &reader.path, source))?;
        }
        Ok(reader)
    }

    /// Marks a blob as verified in this version of its file, or drops it if its hash is wrong.
    pub(super) fn settle(
        &self,
        digest: &Digest,
        known: Known,
        version: Option<Version>,
        found: Digest,
    ) -> Result<(), Error> {
        if found == *digest {
            if !known.verified || known.version != version {
                self.index.lock().set_verified(digest, known.born, version);
            }
            return Ok(());
        }
        // One that was evicted while it was read is not damaged.
        if self.drop_blob(digest, known) {
            let (dir, packed) = (self.dir.display(), known.place.is_some());
            tracing::error!(%digest, %found, %dir, packed, "dropped a blob that was damaged on the disk");
        }
        Err(Error::Corrupt { digest: *digest, found })
    }
}

/// Before any byte was sent, a damaged blob counts as missing.
fn absent_if_corrupt(error: Error) -> Error {
    match error {
        Error::Corrupt { digest, .. } => Error::NotFound { digest },
        other => other,
    }
}

/// A blob's file being read.
pub(super) struct Reader {
    inner: Arc<Inner>,
    digest: Digest,
    known: Known,
    version: Option<Version>,
    file: File,
    path: PathBuf,
    left: u64,
    /// Set if the whole blob is read and must be checked.
    hasher: Option<Hasher>,
}

impl Reader {
    /// The next piece; `None` at the end. The last piece of a whole blob is returned only if the hash was right.
    fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 && self.hasher.is_none() {
            return Ok(None);
        }
        let size = self.left.min(CHUNK_BYTES as u64);
        let mut data = Vec::with_capacity(size as usize);
        let read = (&self.file).take(size).read_to_end(&mut data);
        read.map_err(|source| Error::io("read", &self.path, source))?;
        self.left = self.left.saturating_sub(data.len() as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        let short = (data.len() as u64) < size;
        match self.hasher.take() {
            Some(hasher) if self.left == 0 || short => {
                self.inner.settle(&self.digest, self.known, self.version, hasher.finish())?;
            }
            hasher => self.hasher = hasher,
        }
        if short {
            let found = Digest { size: self.digest.size.saturating_sub(self.left), ..self.digest };
            self.inner.drop_blob(&self.digest, self.known);
            return Err(Error::Corrupt { digest: self.digest, found });
        }
        Ok((!data.is_empty()).then(|| data.into()))
    }
}

type Step = JoinHandle<(Reader, Result<Option<Bytes>, Error>)>;

fn spawn(mut reader: Reader) -> Step {
    tokio::task::spawn_blocking(move || {
        let piece = reader.step();
        (reader, piece)
    })
}

/// The pieces; one is read ahead while the previous one is sent. No thread waits for a slow receiver.
pub(super) fn stream(reader: Reader) -> BlobStream {
    stream::unfold(Some(spawn(reader)), |step| async {
        let (reader, piece) = match blocking_step(step?).await {
            Ok(done) => done,
            Err(error) => return Some((Err(error), None)),
        };
        match piece {
            Ok(Some(data)) => Some((Ok(data), Some(spawn(reader)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

async fn blocking_step(step: Step) -> Result<(Reader, Result<Option<Bytes>, Error>), Error> {
    match step.await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed),
    }
}
