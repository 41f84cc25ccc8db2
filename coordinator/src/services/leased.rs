//! What a worker may read for its lease; everybody else reads what their tenant has.

use kiln_proto::digest::Digest;
use tonic::{Request, Status};

use kiln_execution::LeaseAccess;

/// The lease for which a call is made, where a worker makes it.
#[derive(Debug, Clone)]
pub(super) struct Leased(Option<LeaseAccess>);

impl Leased {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self(request.extensions().get::<LeaseAccess>().cloned())
    }

    /// Whether a worker makes the call.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// PERMISSION_DENIED for a blob that the worker's lease does not name.
    pub(super) async fn may_read(&self, digest: &Digest) -> Result<(), Status> {
        match &self.0 {
            Some(access) => access.may_read(digest).await,
            None => Ok(()),
        }
    }

    /// What a blob that may be read is made of may be read as well.
    pub(super) async fn may_read_chunks(&self, chunks: &[Digest]) -> Result<(), Status> {
        match &self.0 {
            Some(access) => access.add_chunks(chunks).await,
            None => Ok(()),
        }
    }
}
