//! The first call on a new connection. Source: gRPC's health checking protocol, `grpc.health.v1`.

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::member::Bare;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Whether the coordinator serves: that is so if it says so, and also if it is a server that has no health.
pub(super) async fn check(channel: Bare) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec: ProstCodec<Asked, Answer> = ProstCodec::default();
    let path = PathAndQuery::from_static(CHECK);
    match client.unary(Request::new(Asked::default()), path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(_) => Err(Status::unavailable("it does not serve at the moment")),
        // The call that follows has its own answer to whoever may not call, or calls something else.
        Err(status) => match status.code() {
            Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => Ok(()),
            _ => Err(status),
        },
    }
}
