//! `build.bazel.remote.asset.v1.Fetch` and `Push`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_journal::Journal;
use kiln_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, fetch_server, push_server,
};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::rpc;
use kiln_proto::v1::AssetRecord;
use kiln_proto::{clock, reapi};
use kiln_store::Stores;
use kiln_store::disk::CHUNK_BYTES;
use kiln_trees::tree::Entry;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex as Turn;
use tonic::{Code, Request, Response, Status};

use crate::asked::{Asked, of_checksum};
use crate::download::{Downloaded, Downloads, Error};
use crate::records::Records;

/// How long what is at an address counts as what is there now, if nobody says what it must be.
const FRESH: Duration = Duration::from_secs(600);
/// How long a request may take, unless its client says otherwise; and at most.
const TIMEOUT: Duration = Duration::from_secs(600);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// One tenant's assets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Assets {
    stores: Stores,
    records: Records,
    downloads: Downloads,
    /// Those who want the same asset now.
    turns: Arc<Mutex<HashMap<String, Arc<Turn<()>>>>>,
}

/// What an asset is, and when that was seen.
struct Known {
    digest: Digest,
    expires: Option<Timestamp>,
}

impl Assets {
    /// Assets in these stores.
    pub fn new(stores: Stores, journal: Journal, downloads: Downloads) -> Self {
        Self { stores, records: Records::over(journal), downloads, turns: Arc::default() }
    }

    async fn known(
        &self,
        asked: &Asked,
        function: DigestFunction,
        (oldest, wants_directory): (Option<SystemTime>, bool),
    ) -> Result<Option<Known>, Status> {
        let now = SystemTime::now();
        for name in asked.names() {
            let found = self.records.get(&name, function).await.map_err(internal)?;
            let Some((digest, record)) = found.filter(|(_, record)| record.is_directory == wants_directory) else {
                continue;
            };
            let recorded = record.recorded.as_ref().and_then(clock::read_timestamp);
            let is_new = oldest.is_none_or(|oldest| recorded.is_some_and(|recorded| recorded >= oldest));
            let is_fresh = || recorded.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age <= FRESH));
            let is_valid = match record.expires.as_ref().and_then(clock::read_timestamp) {
                Some(until) => until > now,
                None => asked.sha256.is_some() || record.is_pushed || is_fresh() && asked.may_be_shared(),
            };
            // What a checksum names never changes.
            if is_valid && (is_new || asked.sha256.is_some()) && self.is_here(&digest, wants_directory).await? {
                return Ok(Some(Known { digest, expires: record.expires }));
            }
        }
        Ok(None)
    }

    async fn is_here(&self, digest: &Digest, is_directory: bool) -> Result<bool, Status> {
        let blobs = &*self.stores.blobs;
        if is_directory {
            let Ok(tree) = kiln_store::trees::expand(blobs, *digest).await else { return Ok(false) };
            let file = |entry: &Entry| if let Entry::File { digest, .. } = entry { Some(*digest) } else { None };
            let files: Vec<Digest> =
                kiln_store::trees::flatten(&tree).iter().filter_map(|(_, entry)| file(entry)).collect();
            return Ok(blobs.find_missing(&files).await?.is_empty());
        }
        Ok(blobs.find_missing(&[*digest]).await?.is_empty())
    }

    fn turn(&self, name: &str) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock();
        if turns.len() > 1024 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(name.to_owned()).or_default().clone()
    }

    async fn fetched(
        &self,
        asked: &Asked,
        function: DigestFunction,
        oldest: Option<SystemTime>,
    ) -> Result<(usize, Known), Status> {
        let names = asked.names();
        let turn = self.turn(names.first().map_or("", String::as_str));
        let _turn = turn.lock().await;
        let _hold = self.stores.in_use.begin();
        if let Some(known) = self.known(asked, function, (oldest, false)).await? {
            return Ok((0, known));
        }
        let mut failed = Vec::new();
        for (number, url) in asked.uris.iter().enumerate() {
            let downloaded = match self.downloads.fetch(url, asked.headers_of(number), function).await {
                Ok(downloaded) => downloaded,
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            };
            if let Some(expected) = asked.sha256.filter(|expected| *expected != downloaded.sha256) {
                let hex = |hash| Digest { function: DigestFunction::Sha256, hash, size: 0 }.hex();
                let words = format!(
                    "`{}` has another content: expected SHA-256 {}, found {}",
                    at(url),
                    hex(expected),
                    hex(downloaded.sha256)
                );
                failed.push(Error::Failed(words));
                continue;
            }
            let (digest, sha256) = (downloaded.digest, downloaded.sha256);
            self.store(downloaded).await?;
            let mut names = vec![of_checksum(sha256)];
            if asked.sha256.is_none() && asked.may_be_shared() {
                names.extend(asked.names().into_iter().skip(number).take(1));
            }
            self.records.put(&names, digest, AssetRecord::default()).await.map_err(internal)?;
            return Ok((number, Known { digest, expires: None }));
        }
        Err(refusal(&failed))
    }

    async fn store(&self, Downloaded { mut file, digest, .. }: Downloaded) -> Result<(), Status> {
        if self.stores.blobs.find_missing(&[digest]).await?.is_empty() {
            return Ok(());
        }
        let unreadable = |error: std::io::Error| Status::internal(format!("cannot read a download: {error}"));
        let mut writer = self.stores.blobs.write(&digest).await?;
        loop {
            let mut piece = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut piece).await.map_err(unreadable)?;
            if piece.is_empty() {
                return Ok(writer.commit().await?);
            }
            writer.write(piece.into()).await?;
        }
    }

    async fn push(
        &self,
        (uris, qualifiers): (&[String], &[kiln_proto::asset::Qualifier]),
        digest: Digest,
        (is_directory, expires): (bool, Option<Timestamp>),
    ) -> Result<(), Status> {
        let asked = Asked::read(uris, qualifiers).map_err(Status::invalid_argument)?;
        if let Some(expected) = asked.sha256
            && (is_directory || digest.function != DigestFunction::Sha256 || digest.hash != expected)
        {
            return Err(Status::invalid_argument(
                "the checksum is not that of the content; only SHA-256 of a file can be checked",
            ));
        }
        if !self.is_here(&digest, is_directory).await? {
            return Err(Status::failed_precondition(format!(
                "`{digest}` is not in the store as a whole; upload it first"
            )));
        }
        let record = AssetRecord { is_directory, expires, is_pushed: true, ..AssetRecord::default() };
        self.records.put(&asked.names(), digest, record).await.map_err(internal)
    }
}

/// An address without what may be secret in it.
fn at(url: &url::Url) -> String {
    format!("{}{}", url.host_str().unwrap_or_default(), url.path())
}

fn internal(error: kiln_journal::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Why nothing was fetched, from all addresses.
fn refusal(failed: &[Error]) -> Status {
    let words: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let code = match () {
        () if failed.iter().all(|error| matches!(error, Error::Absent(_))) => Code::NotFound,
        () if failed.iter().all(|error| matches!(error, Error::NotAllowed(_))) => Code::PermissionDenied,
        () => Code::Aborted,
    };
    Status::new(code, words.join("; "))
}

fn function(wire: i32) -> Result<DigestFunction, Status> {
    DigestFunction::from_wire(wire).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn wire_of(status: &Status) -> rpc::Status {
    rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() }
}

/// The digest of a push.
fn pushed(wire: Option<&reapi::Digest>, function: DigestFunction) -> Result<Digest, Status> {
    Digest::required(function, wire).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl fetch_server::Fetch for Assets {
    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        let asked = Asked::read(&request.uris, &request.qualifiers).map_err(Status::invalid_argument)?;
        let oldest = request.oldest_content_accepted.as_ref().and_then(clock::read_timestamp);
        let timeout = request.timeout.as_ref().and_then(clock::read_duration).unwrap_or(TIMEOUT).min(MAX_TIMEOUT);
        let (all, digest_function) = (self.clone(), function.to_wire());
        let found = match self.known(&asked, function, (oldest, false)).await? {
            Some(known) => Ok((0, known)),
            None => {
                // Whoever stops waiting does not stop the download: somebody else may wait for it too.
                let fetching = tokio::spawn(async move {
                    // A server that sends a byte a minute does not keep a place for ever.
                    let late = |_| Status::deadline_exceeded("it takes longer than the farm allows");
                    tokio::time::timeout(MAX_TIMEOUT, all.fetched(&asked, function, oldest)).await.map_err(late)?
                });
                match tokio::time::timeout(timeout, fetching).await {
                    Ok(fetched) => fetched.map_err(|error| Status::internal(error.to_string()))?,
                    Err(_) => Err(Status::deadline_exceeded(format!("it takes longer than {} s", timeout.as_secs()))),
                }
            }
        };
        let qualifiers = request.qualifiers.into_iter().filter(|one| one.name == "checksum.sri").collect();
        Ok(Response::new(match found {
            Ok((number, Known { digest, expires })) => FetchBlobResponse {
                status: Some(rpc::Status::default()),
                uri: request.uris.into_iter().nth(number).unwrap_or_default(),
                qualifiers,
                expires_at: expires,
                blob_digest: Some(digest.to_wire()),
                digest_function,
            },
            Err(status) => FetchBlobResponse { status: Some(wire_of(&status)), digest_function, ..Default::default() },
        }))
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let request = request.into_inner();
        let function = function(request.digest_function)?;
        let asked = Asked::read(&request.uris, &request.qualifiers).map_err(Status::invalid_argument)?;
        let oldest = request.oldest_content_accepted.as_ref().and_then(clock::read_timestamp);
        let digest_function = function.to_wire();
        Ok(Response::new(match self.known(&asked, function, (oldest, true)).await? {
            Some(Known { digest, expires }) => FetchDirectoryResponse {
                status: Some(rpc::Status::default()),
                uri: request.uris.into_iter().next().unwrap_or_default(),
                expires_at: expires,
                root_directory_digest: Some(digest.to_wire()),
                digest_function,
                ..Default::default()
            },
            None => {
                let words = "nobody has pushed this directory; the farm fetches files, and no directories";
                let status = Some(wire_of(&Status::not_found(words)));
                FetchDirectoryResponse { status, digest_function, ..Default::default() }
            }
        }))
    }
}

#[tonic::async_trait]
impl push_server::Push for Assets {
    async fn push_blob(&self, request: Request<PushBlobRequest>) -> Result<Response<PushBlobResponse>, Status> {
        let PushBlobRequest { uris, qualifiers, expire_at, blob_digest, digest_function, .. } = request.into_inner();
        let digest = pushed(blob_digest.as_ref(), function(digest_function)?)?;
        self.push((&uris, &qualifiers), digest, (false, expire_at)).await?;
        Ok(Response::new(PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let PushDirectoryRequest { uris, qualifiers, expire_at, root_directory_digest, digest_function, .. } =
            request.into_inner();
        let digest = pushed(root_directory_digest.as_ref(), function(digest_function)?)?;
        self.push((&uris, &qualifiers), digest, (true, expire_at)).await?;
        Ok(Response::new(PushDirectoryResponse {}))
    }
}
