//! `kiln.v1.Invocations`: what was told.

use std::pin::Pin;

use futures::{Stream, TryStreamExt, stream};
use kiln_proto::v1;
use kiln_proto::v1::invocations_server;
use tonic::{Request, Response, Status};

use crate::invocations::Invocations;
use crate::records::READ_BYTES;

/// Invocations of a list, unless the caller says otherwise; and at most.
const LISTED: usize = 100;
const MAX_LISTED: usize = 1_000;

/// Shows a tenant's invocations.
#[derive(Debug)]
pub struct Show {
    invocations: Invocations,
}

impl Show {
    /// Shows these invocations.
    pub fn new(invocations: Invocations) -> Self {
        Self { invocations }
    }

    async fn found(&self, id: &str) -> Result<v1::Invocation, Status> {
        let found = self.invocations.get(id).await?;
        found.ok_or_else(|| Status::not_found(format!("there is no invocation `{}`", id.escape_default())))
    }
}

/// What was printed between two positions, in parts that a message holds. Whoever stops in between comes back to the first position.
fn parts(data: &[u8], from: u64, next: u64) -> Vec<Result<v1::InvocationLogPart, Status>> {
    let count = data.len().div_ceil(READ_BYTES);
    let part = |(number, data): (usize, &[u8])| {
        let next = if number.saturating_add(1) == count { next } else { from };
        Ok(v1::InvocationLogPart { data: data.to_vec(), next })
    };
    data.chunks(READ_BYTES).enumerate().map(part).collect()
}

#[tonic::async_trait]
impl invocations_server::Invocations for Show {
    async fn list(
        &self,
        request: Request<v1::ListInvocationsRequest>,
    ) -> Result<Response<v1::ListInvocationsResponse>, Status> {
        let v1::ListInvocationsRequest { limit, before } = request.into_inner();
        let limit = if limit == 0 { LISTED } else { (limit as usize).min(MAX_LISTED) };
        let invocations = self.invocations.list(limit, &before).await?;
        Ok(Response::new(v1::ListInvocationsResponse { invocations }))
    }

    async fn get(&self, request: Request<v1::GetInvocationRequest>) -> Result<Response<v1::Invocation>, Status> {
        Ok(Response::new(self.found(&request.into_inner().id).await?))
    }

    async fn actions(
        &self,
        request: Request<v1::InvocationActionsRequest>,
    ) -> Result<Response<v1::InvocationActionsResponse>, Status> {
        let v1::InvocationActionsRequest { id, from } = request.into_inner();
        self.found(&id).await?;
        Ok(Response::new(self.invocations.actions(&id, from).await?))
    }

    async fn note(&self, request: Request<v1::NoteRequest>) -> Result<Response<v1::NoteResponse>, Status> {
        for v1::NotedAction { invocation, caller, action } in request.into_inner().actions {
            if let Some(action) = action {
                self.invocations.ran(&invocation, &caller, action);
            }
        }
        Ok(Response::new(v1::NoteResponse {}))
    }

    type LogStream = Pin<Box<dyn Stream<Item = Result<v1::InvocationLogPart, Status>> + Send>>;

    async fn log(&self, request: Request<v1::InvocationLogRequest>) -> Result<Response<Self::LogStream>, Status> {
        let v1::InvocationLogRequest { id, from } = request.into_inner();
        self.found(&id).await?;
        let invocations = self.invocations.clone();
        let read = stream::try_unfold(from, move |from| {
            let (invocations, id) = (invocations.clone(), id.clone());
            async move {
                let (data, next) = invocations.log(&id, from).await?;
                Ok::<_, Status>((!data.is_empty()).then(|| (stream::iter(parts(&data, from, next)), next)))
            }
        });
        Ok(Response::new(Box::pin(read.try_flatten())))
    }
}
