//! Restricts workers to the blobs of their lease; everyone else may read all of their tenant's blobs.

use kiln_proto::digest::Digest;
use tonic::{Request, Status};

use kiln_execution::LeaseAccess;

/// The lease for which a worker makes a call; `None` for other callers.
#[derive(Debug, Clone)]
pub(super) struct Leased(Option<LeaseAccess>);

impl Leased {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self(request.extensions().get::<LeaseAccess>().cloned())
    }

    /// Whether the caller is a worker.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the worker's lease is one of another coordinator, which answers what this one cannot.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.0.as_ref().is_some_and(LeaseAccess::is_elsewhere)
    }

    /// `PERMISSION_DENIED` for a blob that the worker's lease does not refer to.
    pub(super) async fn may_read(&self, digest: &Digest) -> Result<(), Status> {
        match &self.0 {
            Some(access) => access.may_read(digest).await,
            None => Ok(()),
        }
    }

    /// Whether this blob must be received although the farm has it: the worker is to show that it has it, too.
    pub(super) fn must_send(&self, digest: &Digest) -> bool {
        self.0.as_ref().is_some_and(|access| !access.has_shown(digest))
    }

    /// Those of these blobs that an older worker must send although the farm has them: it cannot show them otherwise.
    pub(super) async fn only_by_sending(&self, digests: &[Digest]) -> Result<Vec<Digest>, Status> {
        match &self.0 {
            Some(access) => access.only_by_sending(digests).await,
            None => Ok(Vec::new()),
        }
    }

    /// The worker has sent this blob, all of it, and it was compared with its digest.
    pub(super) fn sent(&self, digest: &Digest) {
        self.0.iter().for_each(|access| access.sent(digest));
    }

    /// The chunks of a readable blob are readable, too.
    pub(super) async fn may_read_chunks(&self, chunks: &[Digest]) -> Result<(), Status> {
        match &self.0 {
            Some(access) => access.add_chunks(chunks).await,
            None => Ok(()),
        }
    }
}
