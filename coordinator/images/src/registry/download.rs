//! Downloads blobs from a registry, and resumes after a broken connection.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::StatusCode;
use reqwest::header::RANGE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::retry::Attempts;
use super::{Access, Ask, Error, Registries, transport};
use crate::blobs::{self, Blobs, ByteStream};
use crate::manifest::{Descriptor, media_type};
use crate::reference::Reference;

const DOING: &str = "when it was asked for a blob";

/// The blobs of one repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The client to use.
    pub registries: Registries,
    /// The repository.
    pub reference: Reference,
}

/// Converts a registry's error to that of blob sources.
fn elsewhere(error: super::Error) -> blobs::Error {
    blobs::Error::Elsewhere(Box::new(error))
}

#[async_trait]
impl Blobs for Repository {
    fn place(&self) -> String {
        self.reference.familiar()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, blobs::Error> {
        if media_type::is_manifest(&descriptor.media_type) || media_type::is_index(&descriptor.media_type) {
            let at = self.reference.at_digest(descriptor.digest);
            let found = self.registries.manifest(&at).await.map_err(elsewhere)?;
            return Ok(futures::stream::iter([Ok(found.data)]).boxed());
        }
        let (sender, receiver) = mpsc::channel(8);
        let mut reading = Reading { repository: self.clone(), descriptor: descriptor.clone(), offset: 0 };
        // Waits for the first response, so that a missing blob is reported immediately.
        let first = reading.ask().await.map_err(elsewhere)?;
        tokio::spawn(async move {
            if let Err(error) = reading.pass_on(first, &sender).await {
                let _ = sender.send(Err(elsewhere(error))).await;
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

struct Reading {
    repository: Repository,
    descriptor: Descriptor,
    offset: u64,
}

type Pieces = BoxStream<'static, Result<Bytes, reqwest::Error>>;

impl Reading {
    async fn ask(&self) -> Result<Pieces, Error> {
        let reference = &self.repository.reference;
        let ask = Ask { repository: reference, access: Access::Pull, doing: DOING, beside: None };
        let (path, offset) = (format!("/v2/{}/blobs/{}", reference.repository(), self.descriptor.digest), self.offset);
        let build = |client: &reqwest::Client, base: &str| {
            let request = client.get(format!("{base}{path}"));
            if offset == 0 { request } else { request.header(RANGE, format!("bytes={offset}-")) }
        };
        let response = self.repository.registries.send(&ask, build).await?;
        let (status, stream) = (response.status(), |response: reqwest::Response| response.bytes_stream().boxed());
        match status {
            StatusCode::PARTIAL_CONTENT => Ok(stream(response)),
            // A registry without support for ranges sends everything again.
            status if status.is_success() => Ok(skip(stream(response), offset)),
            _ => Err(self.repository.registries.refused(&ask, response).await),
        }
    }

    async fn pass_on(
        &mut self,
        mut pieces: Pieces,
        to: &mpsc::Sender<Result<Bytes, blobs::Error>>,
    ) -> Result<(), Error> {
        let registry = self.repository.reference.registry().to_owned();
        let options = self.repository.registries.options().clone();
        let mut attempts = Attempts::new(options.attempts);
        loop {
            let error = match tokio::time::timeout(options.stall, pieces.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.offset = self.offset.saturating_add(piece.len() as u64);
                    attempts.reset();
                    if to.send(Ok(piece)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                // The reader's verification shows whether it was complete.
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => transport::failed(&registry, &error),
                Err(_) => Error::Stalled { registry: registry.clone(), doing: DOING, after: options.stall },
            };
            if !error.is_passing() || !attempts.again(None).await {
                return Err(error);
            }
            tracing::debug!(%error, offset = self.offset, "resuming the download of a blob");
            pieces = self.ask().await?;
        }
    }
}

fn skip(pieces: Pieces, bytes: u64) -> Pieces {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    pieces
        .map(move |piece| {
            piece.map(|mut piece| {
                let gone = left.min(piece.len());
                left = left.saturating_sub(gone);
                piece.split_off(gone)
            })
        })
        .boxed()
}
