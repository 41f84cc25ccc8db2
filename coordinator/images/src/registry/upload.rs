//! Uploads blobs to a registry: skips existing ones, mounts those in another repository, and sends the rest in parts.
//!
//! Invariant: a part is kept in memory until the registry has it, so that an interrupted upload continues at the
//! registry's offset without reading the source again. If the registry has lost the upload, the blob is sent from the
//! start: `docker-registry` does this if an upload was interrupted within a part, whose bytes it counts and then
//! refuses.
//! Source: OCI distribution specification 1.1, "Push".

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Body, Response, StatusCode};

use super::retry::{Attempts, Movement};
use super::{Access, Ask, Error, Registries};
use crate::blobs::{Blobs, ByteStream};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// Bytes between two records of a part's progress.
const PIECE_BYTES: usize = 64 << 10;
/// How often a blob is sent again after the registry lost its upload.
const RESTARTS: u32 = 3;
const DOING: &str = "in mid-upload";

/// How a blob got to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was already there.
    Present,
    /// The registry mounted it from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// A part of a blob, in pieces.
struct Part {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Part {
    /// Reads the next part, which is shorter than requested only at the end.
    async fn read(from: &mut ByteStream, left_over: &mut Option<Bytes>, bytes: usize) -> Result<Self, Error> {
        let mut part = Self { pieces: Vec::new(), bytes: 0 };
        while part.bytes < bytes {
            let next = match left_over.take() {
                Some(piece) => Some(piece),
                None => from.try_next().await.map_err(Box::new)?,
            };
            let Some(mut piece) = next else { break };
            let room = bytes.saturating_sub(part.bytes);
            if piece.len() > room {
                *left_over = Some(piece.split_off(room));
            }
            part.bytes = part.bytes.saturating_add(piece.len());
            part.pieces.push(piece);
        }
        Ok(part)
    }

    /// The bytes from `offset` on, as a request body that records progress.
    fn body(&self, offset: usize, movement: &Movement) -> Body {
        let mut skip = offset;
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let gone = skip.min(piece.len());
            skip = skip.saturating_sub(gone);
            let mut rest = piece.slice(gone..);
            while !rest.is_empty() {
                let next = rest.split_to(rest.len().min(PIECE_BYTES));
                pieces.push(next);
            }
        }
        let movement = movement.clone();
        Body::wrap_stream(futures::stream::iter(pieces).map(move |piece| {
            movement.moved();
            Ok::<_, std::convert::Infallible>(piece)
        }))
    }
}

/// An upload in progress.
struct Session {
    url: String,
}

impl Registries {
    /// Ensures that a blob is in a repository.
    ///
    /// `beside` is a repository of the same registry that may have it. `source` is opened only if the blob must be
    /// sent.
    ///
    /// # Errors
    /// If the registry does not accept it within the configured number of attempts.
    pub async fn upload(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        source: &dyn Blobs,
        beside: Option<&Reference>,
    ) -> Result<Uploaded, Error> {
        if self.has_blob(repository, descriptor).await? {
            return Ok(Uploaded::Present);
        }
        let beside = beside
            .filter(|other| other.registry() == repository.registry() && other.repository() != repository.repository());
        let mut session = match beside {
            Some(other) => match self.mount(repository, descriptor, other).await? {
                None => return Ok(Uploaded::Mounted),
                // The registry started an upload instead.
                session => session,
            },
            None => None,
        };
        let mut attempts = Attempts::new(RESTARTS);
        loop {
            let begun = match session.take() {
                Some(session) => session,
                None => self.begin(repository).await?,
            };
            match self.send_blob(repository, descriptor, source, begun).await {
                Err(Error::SessionLost { .. }) if attempts.again(None).await => {
                    tracing::debug!(digest = %descriptor.digest, "the registry lost an upload; starting it again");
                }
                result => return result.map(|()| Uploaded::Sent),
            }
        }
    }

    /// Whether a repository has a blob.
    pub async fn has_blob(&self, repository: &Reference, descriptor: &Descriptor) -> Result<bool, Error> {
        let doing = "when it was asked for a blob";
        let ask = Ask { repository, access: Access::Push, doing, beside: None };
        let path = format!("/v2/{}/blobs/{}", repository.repository(), descriptor.digest);
        let response = self.send(&ask, |client, base| client.head(format!("{base}{path}"))).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.refused(&ask, response).await),
        }
    }

    /// Mounts a blob from another repository; returns the upload that was started instead if that one lacks it or may
    /// not be read.
    async fn mount(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        other: &Reference,
    ) -> Result<Option<Session>, Error> {
        let doing = "when it should take a blob over";
        let ask = Ask { repository, access: Access::Push, doing, beside: Some(other) };
        let path = format!("/v2/{}/blobs/uploads/", repository.repository());
        let (digest, from) = (descriptor.digest, other.repository());
        let build = |client: &reqwest::Client, base: &str| {
            client.post(format!("{base}{path}?mount={digest}&from={from}")).header(CONTENT_LENGTH, 0)
        };
        let response = self.send(&ask, build).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => self.session(repository, &response).map(Some),
            _ => self.begin(repository).await.map(Some),
        }
    }

    async fn begin(&self, repository: &Reference) -> Result<Session, Error> {
        let ask = Ask { repository, access: Access::Push, doing: "when an upload should begin", beside: None };
        let path = format!("/v2/{}/blobs/uploads/", repository.repository());
        let build =
            |client: &reqwest::Client, base: &str| client.post(format!("{base}{path}")).header(CONTENT_LENGTH, 0);
        let response = self.send(&ask, build).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refused(&ask, response).await);
        }
        self.session(repository, &response)
    }

    /// Where the upload continues, which every response states again.
    fn session(&self, repository: &Reference, response: &Response) -> Result<Session, Error> {
        let header = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let joined = header.and_then(|location| response.url().join(location).ok());
        let malformed = || Error::Malformed {
            registry: repository.registry().to_owned(),
            doing: DOING,
            reason: "it does not say where the upload continues".to_owned(),
        };
        Ok(Session { url: joined.ok_or_else(malformed)?.to_string() })
    }

    async fn send_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        source: &dyn Blobs,
        mut session: Session,
    ) -> Result<(), Error> {
        let mut pieces = source.open(descriptor).await.map_err(Box::new)?;
        let (mut left_over, mut offset) = (None, 0_u64);
        loop {
            let part = Part::read(&mut pieces, &mut left_over, self.options().chunk_bytes).await?;
            let end = offset.saturating_add(part.bytes as u64);
            let is_last = end >= descriptor.size || part.bytes == 0;
            if is_last && offset == 0 {
                return self.finish(repository, descriptor, session, &part).await;
            }
            if part.bytes > 0 {
                session = self.send_part(repository, session, &part, offset).await?;
                offset = end;
            }
            if is_last {
                let nothing = Part { pieces: Vec::new(), bytes: 0 };
                return self.finish(repository, descriptor, session, &nothing).await;
            }
        }
    }

    /// Sends one part, resuming within it after a failure.
    async fn send_part(
        &self,
        repository: &Reference,
        mut session: Session,
        part: &Part,
        start: u64,
    ) -> Result<Session, Error> {
        let ask = Ask { repository, access: Access::Push, doing: DOING, beside: None };
        let mut attempts = Attempts::new(self.options().attempts);
        let mut sent = 0;
        while sent < part.bytes {
            let movement = Movement::new();
            let from = start.saturating_add(sent as u64);
            let end = start.saturating_add(part.bytes as u64);
            let to = end.saturating_sub(1);
            let build = |client: &reqwest::Client, _: &str| {
                let request = client.patch(&session.url).header(CONTENT_TYPE, "application/octet-stream");
                let request = request.header(CONTENT_RANGE, format!("{from}-{to}"));
                request.header(CONTENT_LENGTH, part.bytes.saturating_sub(sent)).body(part.body(sent, &movement))
            };
            let error = match self.send_once(&ask, &movement, build).await {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    session = self.session(repository, &response)?;
                    let has = committed(response.headers()).unwrap_or(end);
                    match usize::try_from(has.saturating_sub(start)) {
                        Ok(has) if has > sent && has <= part.bytes => sent = has,
                        _ => return Err(lost(repository, format!("it has {has} bytes after {from}-{to} were sent"))),
                    }
                    continue;
                }
                Ok(response) if is_lost(response.status()) => {
                    return Err(lost(repository, self.refused(&ask, response).await));
                }
                Ok(response) => self.refused(&ask, response).await,
                Err(error) => error,
            };
            if !error.is_passing() || !attempts.again(None).await {
                return Err(error);
            }
            tracing::debug!(%error, from, "an upload was interrupted; asking for its offset");
            let (resumed, has) = self.state(repository, session).await?;
            session = resumed;
            match usize::try_from(has.saturating_sub(start)) {
                Ok(has) if has <= part.bytes && (has > 0 || start == 0 || sent == 0) => {
                    if has > sent {
                        attempts.reset();
                    }
                    sent = has;
                }
                _ => return Err(lost(repository, format!("it has {has} bytes after {from} were sent"))),
            }
        }
        Ok(session)
    }

    /// How much of an upload the registry has.
    async fn state(&self, repository: &Reference, session: Session) -> Result<(Session, u64), Error> {
        let ask = Ask { repository, access: Access::Push, doing: DOING, beside: None };
        let response = self.send(&ask, |client, _| client.get(&session.url)).await?;
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                let has = committed(response.headers()).unwrap_or(0);
                Ok((self.session(repository, &response).unwrap_or(session), has))
            }
            status if is_lost(status) => Err(lost(repository, self.refused(&ask, response).await)),
            _ => Err(self.refused(&ask, response).await),
        }
    }

    /// Completes an upload with its last bytes; the registry then checks the digest.
    async fn finish(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        session: Session,
        last: &Part,
    ) -> Result<(), Error> {
        let ask = Ask { repository, access: Access::Push, doing: "at the end of an upload", beside: None };
        let joint = if session.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}digest={}", session.url, descriptor.digest);
        let movement = Movement::new();
        let build = |client: &reqwest::Client, _: &str| {
            let request = client.put(&url).header(CONTENT_TYPE, "application/octet-stream");
            request.header(CONTENT_LENGTH, last.bytes).body(last.body(0, &movement))
        };
        let error = match self.send_once(&ask, &movement, build).await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) if is_lost(response.status()) => lost(repository, self.refused(&ask, response).await),
            Ok(response) => self.refused(&ask, response).await,
            Err(error) => error,
        };
        if !error.is_passing() {
            return Err(error);
        }
        // The registry may have accepted it although its response was lost.
        match self.has_blob(repository, descriptor).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(repository, error)),
            Err(_) => Err(error),
        }
    }
}

fn lost(repository: &Reference, why: impl std::fmt::Display) -> Error {
    Error::SessionLost { registry: repository.registry().to_owned(), why: why.to_string() }
}

/// The number of bytes of an upload that the registry has: `0-99` is a hundred; `0-0` is also reported for none, and
/// counts as none.
fn committed(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

/// Whether the registry has lost the upload, or has another part of it than it reports.
fn is_lost(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST | StatusCode::GONE
    )
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn what_a_registry_has_is_read_from_any_range() {
        let has = |range: &'static str| committed(&HeaderMap::from_iter([(RANGE, HeaderValue::from_static(range))]));
        assert_eq!((has("0-99"), has("bytes=0-99"), has("0-0")), (Some(100), Some(100), Some(0)));
        assert_eq!(has("0-18446744073709551615"), Some(u64::MAX));
        assert_eq!((has("0-18446744073709551616"), has("99"), has("0--1")), (None, None, None));
    }
}
