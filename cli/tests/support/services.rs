//! The gRPC services of the farm in memory.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kiln_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use kiln_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use kiln_proto::digest::Digest;
use kiln_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use kiln_proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response};
use kiln_proto::v1;
use kiln_proto::v1::artifacts_server::{Artifacts, ArtifactsServer};
use kiln_proto::v1::builds_server::{Builds, BuildsServer};
use kiln_proto::v1::farm_server::{Farm, FarmServer};
use tonic::{Request, Response, Status, Streaming};

use super::{F, State, finished};

type Answer<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service(Arc<State>);

pub async fn serve(state: Arc<State>, listener: tokio::net::TcpListener) {
    let service = || Service(state.clone());
    tonic::transport::Server::builder()
        .add_service(BuildsServer::new(service()))
        .add_service(ArtifactsServer::new(service()))
        .add_service(FarmServer::new(service()))
        .add_service(ContentAddressableStorageServer::new(service()).max_decoding_message_size(64 << 20))
        .add_service(ByteStreamServer::new(service()).max_decoding_message_size(64 << 20))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
        .await
        .unwrap();
}

#[tonic::async_trait]
impl Builds for Service {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::Build> {
        self.0.submitted.lock().push(request.into_inner());
        self.0.asked.send_modify(|count| *count += 1);
        let _ = self.0.answers.subscribe().wait_for(|answers| *answers).await;
        if let Some(status) = self.0.refuse.lock().clone() {
            return Err(status);
        }
        let script = std::mem::take(&mut *self.0.script.lock());
        self.0.events.send_modify(Vec::clear);
        for event in script {
            self.0.emit(event);
        }
        Ok(Response::new(self.0.build.lock().clone()))
    }

    type WatchStream = Out<v1::Event>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let offset = request.into_inner().offset;
        self.0.watched.send_modify(|(count, last)| (*count, *last) = (*count + 1, offset));
        let mut cut = self.0.cut.subscribe();
        cut.mark_unchanged();
        let state = (self.0.events.subscribe(), cut, offset, false);
        let events = futures::stream::unfold(state, |(mut events, mut cut, offset, done)| async move {
            if done {
                return None;
            }
            let wanted = usize::try_from(offset).unwrap();
            tokio::select! {
                _ = cut.changed() => Some((Err(Status::unavailable("cut")), (events, cut, offset, true))),
                event = async { events.wait_for(|events| events.len() > wanted).await.map(|events| events[wanted].clone()) } => {
                    let event = event.ok()?;
                    let done = matches!(event.event, Some(v1::event::Event::BuildFinished(_)));
                    Some((Ok(event), (events, cut, offset + 1, done)))
                }
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Answer<v1::Build> {
        self.0.cancelled.send_modify(|count| *count += 1);
        if *self.0.end_on_cancel.lock() {
            self.0.emit(finished(v1::Status::Cancelled, "cancelled by tester"));
        }
        Ok(Response::new(self.0.build.lock().clone()))
    }

    async fn expect(&self, _: Request<v1::ExpectRequest>) -> Answer<v1::ExpectResponse> {
        Ok(Response::new(v1::ExpectResponse::default()))
    }

    async fn cancel_all(&self, request: Request<v1::CancelAllRequest>) -> Answer<v1::CancelAllResponse> {
        let (user, build) = (request.into_inner().user, self.0.build.lock().clone());
        let builds = Some(build).filter(|build| build.user == user).into_iter().collect();
        Ok(Response::new(v1::CancelAllResponse { builds }))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        Ok(Response::new(v1::ListResponse { builds: vec![self.0.build.lock().clone()], more: String::new() }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Answer<v1::Build> {
        let (id, build) = (request.into_inner().build, self.0.build.lock().clone());
        if id == build.id {
            Ok(Response::new(build))
        } else {
            Err(Status::not_found(format!("there is no build `{id}`")))
        }
    }
}

#[tonic::async_trait]
impl Artifacts for Service {
    async fn list(&self, request: Request<v1::ListArtifactsRequest>) -> Answer<v1::ListArtifactsResponse> {
        let name = request.into_inner().name;
        let all = self.0.artifacts.lock().clone();
        let artifacts = all.into_iter().filter(|artifact| name.is_empty() || artifact.name == name).collect();
        Ok(Response::new(v1::ListArtifactsResponse { artifacts }))
    }

    async fn get(&self, request: Request<v1::GetArtifactRequest>) -> Answer<v1::Artifact> {
        let id = request.into_inner().id;
        let found = self.0.artifacts.lock().iter().find(|artifact| artifact.id == id).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("there is no artifact `{id}`")))
    }

    async fn sign_index(&self, _: Request<v1::SignIndexRequest>) -> Answer<v1::SignIndexResponse> {
        Err(Status::failed_precondition("the farm signs nothing"))
    }
}

#[tonic::async_trait]
impl Farm for Service {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::FarmStatus> {
        Ok(Response::new(v1::FarmStatus { workers: self.0.workers.lock().clone(), ..Default::default() }))
    }

    async fn open_pages(&self, _: Request<v1::OpenPagesRequest>) -> Answer<v1::OpenPagesResponse> {
        Err(Status::failed_precondition("no pages"))
    }

    async fn keys(&self, _: Request<v1::KeysRequest>) -> Answer<v1::KeysResponse> {
        Err(Status::failed_precondition("the farm signs nothing"))
    }

    async fn drain_worker(&self, _: Request<v1::DrainWorkerRequest>) -> Answer<v1::DrainWorkerResponse> {
        Err(Status::unimplemented("not here"))
    }
}

fn digest(wire: &reapi::Digest) -> Digest {
    Digest::from_wire(F, wire).unwrap()
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Answer<reapi::FindMissingBlobsResponse> {
        let blobs = self.0.blobs.lock();
        let asked = request.into_inner().blob_digests;
        let missing_blob_digests = asked.into_iter().filter(|wire| !blobs.contains_key(&digest(wire))).collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Answer<reapi::BatchUpdateBlobsResponse> {
        let mut responses = Vec::new();
        for blob in request.into_inner().requests {
            let wire = blob.digest.unwrap();
            assert_eq!(F.digest(&blob.data), digest(&wire));
            self.0.blobs.lock().insert(digest(&wire), blob.data);
            responses.push(batch_update_blobs_response::Response { digest: Some(wire), status: None });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Answer<reapi::BatchReadBlobsResponse> {
        let blobs = self.0.blobs.lock();
        let read = |wire: reapi::Digest| {
            let data = blobs.get(&digest(&wire)).cloned();
            let status = data.is_none().then(|| kiln_proto::rpc::Status { code: 5, ..Default::default() });
            batch_read_blobs_response::Response {
                digest: Some(wire),
                data: data.unwrap_or_default(),
                compressor: 0,
                status,
            }
        };
        let responses = request.into_inner().digests.into_iter().map(read).collect();
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Out<reapi::GetTreeResponse>;

    async fn get_tree(&self, _: Request<reapi::GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn split_blob(&self, _: Request<reapi::SplitBlobRequest>) -> Answer<reapi::SplitBlobResponse> {
        Err(Status::unimplemented("not here"))
    }

    type GetChunkMappingStream = Out<reapi::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Answer<reapi::RegisterChunkMappingResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn splice_blob(&self, _: Request<reapi::SpliceBlobRequest>) -> Answer<reapi::SpliceBlobResponse> {
        Err(Status::unimplemented("not here"))
    }
}

/// The digest in a resource name, which ends with `HASH/SIZE`.
fn named(name: &str) -> Digest {
    let mut parts = name.rsplitn(3, '/');
    let (size, hash) = (parts.next().unwrap(), parts.next().unwrap());
    Digest::new(F, hash, size.parse().unwrap()).unwrap()
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = Out<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Answer<Self::ReadStream> {
        let digest = named(&request.into_inner().resource_name);
        let data = self.0.blobs.lock().get(&digest).cloned().ok_or_else(|| Status::not_found("no such blob"))?;
        let chunks: Vec<_> = data.chunks(1 << 20).map(|data| Ok(ReadResponse { data: data.to_vec() })).collect();
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Answer<WriteResponse> {
        let mut stream = request.into_inner();
        let (mut name, mut data) = (String::new(), Vec::new());
        while let Some(message) = stream.message().await? {
            if name.is_empty() {
                name = message.resource_name;
            }
            data.extend(message.data);
        }
        let digest = named(&name);
        if F.digest(&data) != digest {
            return Err(Status::invalid_argument("the bytes are not those of the digest"));
        }
        let committed_size = data.len() as i64;
        self.0.blobs.lock().insert(digest, data);
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(&self, _: Request<QueryWriteStatusRequest>) -> Answer<QueryWriteStatusResponse> {
        Err(Status::unimplemented("not here"))
    }
}
