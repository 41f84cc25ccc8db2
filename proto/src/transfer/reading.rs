//! A large blob as a stream, which goes on at another coordinator where one fails.

use bytes::Bytes;
use futures::Stream;
use tonic::Streaming;

use super::sources::{Source, Sources, Wrong};
use super::{Client, Error, gone};
use crate::bytestream::{ReadRequest, ReadResponse};
use crate::digest::Digest;
use crate::resource_name::{Compression, ReadName};

/// A blob that is being read. Its content is unverified.
pub(super) struct Reading {
    client: Client,
    digest: Digest,
    sources: Sources,
    open: Option<(Source, Streaming<ReadResponse>)>,
    /// Bytes that were read.
    offset: u64,
    /// Those that contributed to them.
    by: Vec<Source>,
    wrong: Wrong,
}

impl Client {
    /// Reads a blob, from those that were wrong about it only if no other has it.
    pub(super) fn read(&self, digest: &Digest, wrong: Wrong) -> Reading {
        Reading {
            sources: self.sources(digest, &wrong),
            wrong,
            client: self.clone(),
            digest: *digest,
            open: None,
            offset: 0,
            by: Vec::new(),
        }
    }
}

impl Reading {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let (source, mut answer) = match self.open.take() {
                Some(open) => open,
                None => {
                    let source = self.sources.next()?;
                    match self.begin(&source).await {
                        Ok(answer) => (source, answer),
                        Err(error) => {
                            self.sources.failed(&source, error)?;
                            continue;
                        }
                    }
                }
            };
            match answer.message().await {
                Ok(Some(part)) => {
                    let data = Bytes::from(part.data);
                    let is_first = self.by.last().is_none_or(|last| !last.is(&source));
                    if is_first {
                        self.by.push(source.clone());
                    }
                    self.offset = self.offset.saturating_add(data.len() as u64);
                    if self.offset > self.digest.size {
                        self.was_wrong();
                        return Err(self.corrupt());
                    }
                    self.open = Some((source, answer));
                    return Ok(Some(data));
                }
                Ok(None) if self.offset < self.digest.size && self.sources.has_next() => {
                    let ended = tonic::Status::unavailable("a coordinator ended its answer early");
                    self.sources.failed(&source, ended.into())?;
                }
                Ok(None) => {
                    source.worked();
                    return Ok(None);
                }
                // All has come; only the end is missing.
                Err(_) if self.offset == self.digest.size => return Ok(None),
                Err(status) => self.sources.failed(&source, gone(status, &self.digest))?,
            }
        }
    }

    /// The bytes as a stream.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        futures::stream::try_unfold(
            self,
            |mut reading| async move { Ok(reading.next().await?.map(|data| (data, reading))) },
        )
    }

    /// These bytes are not the blob: has others asked first for it, and for everything if they came from one alone.
    pub(super) fn was_wrong(&self) {
        self.wrong.add(&self.by);
        if let [only] = &self.by[..] {
            only.was_wrong();
        }
    }

    fn corrupt(&self) -> Error {
        let found = Digest { size: self.offset, ..self.digest };
        Error::Corrupt { digest: self.digest, found }
    }

    async fn begin(&self, source: &Source) -> Result<Streaming<ReadResponse>, Error> {
        let name = ReadName {
            instance: self.client.instance.clone(),
            digest: self.digest,
            compression: Compression::Identity,
        };
        let request = ReadRequest { resource_name: name.to_string(), read_offset: self.offset as i64, read_limit: 0 };
        let answer = source.streams.clone().read(request).await;
        Ok(answer.map_err(|status| gone(status, &self.digest))?.into_inner())
    }
}
