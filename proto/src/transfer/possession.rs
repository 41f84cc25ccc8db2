//! Lets a worker name blobs for its lease: what the farm lacks is sent, and what it has is shown, which costs a hash in place of the bytes.
//!
//! Invariant: a farm that gave the lease no challenge (an older one) is sent everything.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::Code;

use super::{Blob, CONCURRENCY, Client, Error, FIND_DIGESTS, LeaseChannel, total};
use crate::channel::MAX_MESSAGE_BYTES;
use crate::digest::Digest;
use crate::possession::{Challenge, Named, Proof};
use crate::v1;
use crate::v1::possession_client::PossessionClient;

/// Blobs of at most so many bytes together are sent without asking: to ask would cost more.
const SENT_BYTES: u64 = 64 << 10;
/// Blobs that are shown at once.
const SHOW_BLOBS: usize = 20_000;
/// Their bytes, unless it is a single one.
const SHOW_BYTES: u64 = 256 << 20;
/// How often it is begun anew because another coordinator leads, which has seen nothing.
const ATTEMPTS: usize = 3;

type Blobs = HashMap<Digest, Blob>;

fn places(digests: &[Digest], places: &[u32]) -> Result<Vec<Digest>, Error> {
    let one = |place: &u32| digests.get(usize::try_from(*place).unwrap_or(usize::MAX)).copied();
    places.iter().map(one).collect::<Option<_>>().ok_or_else(|| {
        tonic::Status::internal("the farm's answer is malformed: it names a blob that it was not asked about").into()
    })
}

fn chosen(blobs: &Blobs, digests: &[Digest]) -> Vec<(Digest, Blob)> {
    digests.iter().filter_map(|digest| Some((*digest, blobs.get(digest)?.clone()))).collect()
}

impl Client {
    /// Sends or shows blobs, so that the worker may name them for its lease. Duplicates are allowed.
    ///
    /// # Errors
    /// As for other uploads. `PERMISSION_DENIED`: a blob changed since it was hashed.
    pub async fn give(&self, blobs: Vec<(Digest, Blob)>, challenge: Option<&Challenge>) -> Result<(), Error> {
        let blobs: Blobs = blobs.into_iter().filter(|(digest, _)| !digest.is_empty()).collect();
        self.give_and_seal(&blobs, challenge, None).await.map(drop)
    }

    /// Sends or shows the blobs of a result, and has the farm seal what it names. An older farm seals nothing.
    ///
    /// # Errors
    /// As [`give`](Self::give), or if the result names what is not among these blobs and was not given to the lease.
    pub async fn give_result(
        &self,
        blobs: Vec<(Digest, Blob)>,
        challenge: Option<&Challenge>,
        named: &Named,
    ) -> Result<Bytes, Error> {
        let blobs: Blobs = blobs.into_iter().filter(|(digest, _)| !digest.is_empty()).collect();
        let named = Some(named).filter(|named| !named.is_empty());
        for _ in 1..ATTEMPTS {
            match self.give_and_seal(&blobs, challenge, named).await {
                Err(Error::Status(status)) if status.code() == Code::FailedPrecondition => {}
                given => return given,
            }
        }
        self.give_and_seal(&blobs, challenge, named).await
    }

    async fn give_and_seal(
        &self,
        blobs: &Blobs,
        challenge: Option<&Challenge>,
        named: Option<&Named>,
    ) -> Result<Bytes, Error> {
        let digests: Vec<Digest> = blobs.keys().copied().collect();
        if let Some(challenge) = challenge {
            match self.show_or_send(blobs, &digests, challenge, named).await {
                // A coordinator of a version that knows no challenges has taken over.
                Err(Error::Status(status)) if status.code() == Code::Unimplemented => {}
                given => return given,
            }
        }
        self.send_whole(chosen(blobs, &digests)).await?;
        Ok(Bytes::new())
    }

    async fn show_or_send(
        &self,
        blobs: &Blobs,
        digests: &[Digest],
        challenge: &Challenge,
        named: Option<&Named>,
    ) -> Result<Bytes, Error> {
        if total(digests.iter().map(|digest| digest.size)) <= SENT_BYTES {
            self.send_whole(chosen(blobs, digests)).await?;
            return self.seal(named).await;
        }
        let (send, mut show) = self.left(digests).await?;
        // Of what is sent in chunks, the farm takes a part from other blobs.
        show.extend(self.send_noting(chosen(blobs, &send)).await?.1);
        let absent = self.show(blobs, challenge, &show).await?;
        self.send_whole(chosen(blobs, &absent)).await?;
        self.seal(named).await
    }

    fn possession(&self) -> PossessionClient<LeaseChannel> {
        let client = PossessionClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        client.max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Which blobs are to be sent, and which to be shown.
    async fn left(&self, digests: &[Digest]) -> Result<(Vec<Digest>, Vec<Digest>), Error> {
        let (mut send, mut show) = (Vec::new(), Vec::new());
        for some in digests.chunks(FIND_DIGESTS) {
            let request = v1::AskPossessionRequest { blobs: some.iter().map(Digest::to_wire).collect() };
            let left = self.possession().ask(request).await?.into_inner();
            send.extend(places(some, &left.send)?);
            show.extend(places(some, &left.show)?);
        }
        Ok((send, show))
    }

    /// Shows these of the blobs, and returns those that the farm wants to be sent after all.
    async fn show(&self, blobs: &Blobs, challenge: &Challenge, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let shows: Vec<_> = groups(digests).into_iter().map(|some| self.show_some(blobs, *challenge, some)).collect();
        let absent: Vec<Vec<Digest>> = stream::iter(shows).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(absent.concat())
    }

    async fn show_some(&self, blobs: &Blobs, challenge: Challenge, some: &[Digest]) -> Result<Vec<Digest>, Error> {
        let chosen = chosen(blobs, some);
        let work = move || chosen.iter().map(|(digest, blob)| prove(&challenge, digest, blob)).collect();
        let proofs: Result<Vec<(Digest, Proof)>, Error> =
            tokio::task::spawn_blocking(work).await.map_err(|error| tonic::Status::internal(error.to_string()))?;
        let shown =
            |(digest, proof): (Digest, Proof)| v1::ShownBlob { blob: Some(digest.to_wire()), proof: proof.to_wire() };
        let request = v1::ShowPossessionRequest { blobs: proofs?.into_iter().map(shown).collect(), named: None };
        let response = self.possession().show(request).await?.into_inner();
        places(some, &response.send)
    }

    async fn seal(&self, named: Option<&Named>) -> Result<Bytes, Error> {
        let Some(named) = named else { return Ok(Bytes::new()) };
        let request = v1::ShowPossessionRequest { blobs: Vec::new(), named: Some(named.to_wire()) };
        Ok(self.possession().show(request).await?.into_inner().seal.into())
    }
}

/// Blobs in groups that are shown at once.
fn groups(digests: &[Digest]) -> Vec<&[Digest]> {
    let (mut groups, mut rest) = (Vec::new(), digests);
    while !rest.is_empty() {
        let mut bytes = 0_u64;
        let fits = rest.iter().take(SHOW_BLOBS).take_while(|digest| {
            bytes = bytes.saturating_add(digest.size);
            bytes <= SHOW_BYTES
        });
        let (group, after) = rest.split_at(fits.count().clamp(1, rest.len()));
        groups.push(group);
        rest = after;
    }
    groups
}

fn prove(challenge: &Challenge, digest: &Digest, blob: &Blob) -> Result<(Digest, Proof), Error> {
    // One byte more than a complete file has, to detect one that has grown.
    let limit = if matches!(blob, Blob::Part(..)) { digest.size } else { digest.size.saturating_add(1) };
    let (proof, bytes) = challenge.prove_all(blob.reader(0, limit)?).map_err(|source| blob.failed(source))?;
    if bytes == digest.size {
        return Ok((*digest, proof));
    }
    let path = blob.path().to_owned();
    Err(Error::Changed { path, expected: *digest, found: Digest { size: bytes, ..*digest } })
}
