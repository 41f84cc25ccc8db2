//! `kiln.v1.Possession`: workers show what they have without sending it, and have what their results name sealed.

use kiln_execution::LeaseAccess;
use kiln_proto::digest::Digest;
use kiln_proto::possession::{BYTES, Named, Proof};
use kiln_proto::v1;
use kiln_proto::v1::possession_server;
use tonic::{Request, Response, Status};

use crate::status::bad_digest;

/// Compares what workers show with a tenant's blobs.
#[derive(Debug, Clone, Copy)]
pub struct Possession;

/// The lease of a call.
fn lease<T>(request: &Request<T>) -> Result<LeaseAccess, Status> {
    let lease = request.extensions().get::<LeaseAccess>().cloned();
    lease.ok_or_else(|| {
        Status::permission_denied("no lease was presented; only a worker shows what it has, for a lease that it holds")
    })
}

fn places(places: Vec<usize>) -> Vec<u32> {
    places.into_iter().map(|place| place as u32).collect()
}

/// A blob and what shows that the worker has it.
fn shown(lease: &LeaseAccess, shown: &v1::ShownBlob) -> Result<(Digest, Proof), Status> {
    let blob = Digest::required(lease.function(), shown.blob.as_ref()).map_err(bad_digest)?;
    let proof = Proof::from_wire(&shown.proof).ok_or_else(|| {
        Status::invalid_argument(format!(
            "the proof for blob `{blob}` has {} bytes; expected {BYTES}",
            shown.proof.len()
        ))
    })?;
    Ok((blob, proof))
}

#[tonic::async_trait]
impl possession_server::Possession for Possession {
    async fn ask(
        &self,
        request: Request<v1::AskPossessionRequest>,
    ) -> Result<Response<v1::AskPossessionResponse>, Status> {
        let lease = lease(&request)?;
        let blobs = request.into_inner().blobs;
        let blobs: Result<Vec<Digest>, _> = blobs.iter().map(|one| Digest::from_wire(lease.function(), one)).collect();
        let left = lease.left(&blobs.map_err(bad_digest)?).await?;
        Ok(Response::new(v1::AskPossessionResponse { send: places(left.send), show: places(left.show) }))
    }

    async fn show(
        &self,
        request: Request<v1::ShowPossessionRequest>,
    ) -> Result<Response<v1::ShowPossessionResponse>, Status> {
        let lease = lease(&request)?;
        let v1::ShowPossessionRequest { blobs, named } = request.into_inner();
        let blobs = blobs.iter().map(|one| shown(&lease, one)).collect::<Result<Vec<_>, _>>()?;
        let send = if blobs.is_empty() { Vec::new() } else { lease.show(&blobs).await? };
        let seal = match named {
            Some(named) if send.is_empty() => {
                lease.seal(&Named::from_wire(lease.function(), &named).map_err(bad_digest)?).await?
            }
            _ => Vec::new(),
        };
        Ok(Response::new(v1::ShowPossessionResponse { send: places(send), seal }))
    }
}
