//! Files, as a build has them: many small ones that the farm does not know, and a large one that comes down to disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_proto::digest::Digest;
use kiln_proto::transfer::Blob;
use tempfile::TempDir;
use tonic::Status;

use super::case::Load;
use super::download::store;
use super::endpoint::{Endpoint, status};
use super::random::Random;
use super::sizes;
use crate::actions::FUNCTION;

/// Files of one upload.
const FILES: usize = 10_000;
/// Bytes of each.
const FILE_BYTES: u64 = 2 << 10;
/// Uploads in a case, so that a fast endpoint's disk does not fill up.
const MOST: u64 = 40;
/// Bytes of a large file.
const LARGE_BYTES: u64 = 64 << 20;
/// Callers for large files.
const LARGE_LANES: usize = 4;

fn failed(error: std::io::Error) -> Status {
    Status::internal(format!("cannot use a temporary file: {error}"))
}

/// First uploads of 10,000 small files from disk, as `kiln build` makes them: missing ones are found, and sent.
#[derive(Debug, Default)]
pub struct UploadFiles;

/// A directory of files that are new to the endpoint.
#[derive(Debug)]
pub struct Tree {
    blobs: Vec<(Digest, Blob)>,
    _directory: Arc<TempDir>,
}

impl Load for UploadFiles {
    type Ask = Tree;
    type Answer = Vec<Digest>;

    fn name(&self) -> String {
        format!("upload-{FILES}-files")
    }

    fn checked(&self) -> &'static str {
        "after each round no file is missing"
    }

    fn lanes(&self, _concurrency: usize) -> usize {
        1
    }

    fn round(&self, _lanes: usize) -> usize {
        2
    }

    fn most(&self) -> u64 {
        MOST
    }

    async fn set_up(&mut self, _endpoint: &Endpoint, _random: &mut Random) -> Result<(), Status> {
        Ok(())
    }

    async fn prepare(&self, _endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Tree>, Status> {
        let mut trees = Vec::new();
        for _ in 0..count {
            let directory = Arc::new(tempfile::tempdir().map_err(failed)?);
            let mut blobs = Vec::with_capacity(FILES);
            for number in 0..FILES {
                let (digest, data) = random.blob(FILE_BYTES);
                let path = directory.path().join(number.to_string());
                std::fs::write(&path, data).map_err(failed)?;
                blobs.push((digest, Blob::File(path)));
            }
            trees.push(Tree { blobs, _directory: directory });
        }
        Ok(trees)
    }

    async fn call(&self, endpoint: &Endpoint, tree: Tree) -> Result<Vec<Digest>, Status> {
        let digests = tree.blobs.iter().map(|(digest, _)| *digest).collect();
        endpoint.client().upload(tree.blobs).await.map_err(status)?;
        Ok(digests)
    }

    async fn check(&self, endpoint: &Endpoint, answers: Vec<Vec<Digest>>) -> Vec<Result<u64, Status>> {
        let mut checked = Vec::new();
        for sent in answers {
            let missing = endpoint.client().find_missing(&sent).await.map_err(status);
            checked.push(missing.and_then(|missing| sizes::none_missing(&sent, &missing)));
        }
        checked
    }
}

/// Downloads of large blobs into files, which the client checks.
#[derive(Debug, Default)]
pub struct DownloadFile {
    stored: Vec<Digest>,
    directory: Option<TempDir>,
    count: AtomicU64,
}

impl Load for DownloadFile {
    type Ask = Digest;
    type Answer = (Digest, PathBuf);

    fn name(&self) -> String {
        format!("download-{}MiB-file", LARGE_BYTES >> 20)
    }

    fn checked(&self) -> &'static str {
        "each file has its digest"
    }

    fn lanes(&self, concurrency: usize) -> usize {
        concurrency.min(LARGE_LANES)
    }

    fn round(&self, lanes: usize) -> usize {
        lanes
    }

    async fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> Result<(), Status> {
        self.stored = store(endpoint, random, 2, LARGE_BYTES).await?;
        self.directory = Some(tempfile::tempdir().map_err(failed)?);
        Ok(())
    }

    async fn prepare(&self, _endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Digest>, Status> {
        Ok((0..count).map(|_| self.stored[random.below(self.stored.len())]).collect())
    }

    async fn call(&self, endpoint: &Endpoint, digest: Digest) -> Result<(Digest, PathBuf), Status> {
        let directory =
            self.directory.as_ref().ok_or_else(|| Status::internal("no directory to write to was given"))?;
        let path = directory.path().join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        endpoint.client().download(&digest, &path).await.map_err(status)?;
        Ok((digest, path))
    }

    async fn check(&self, _endpoint: &Endpoint, answers: Vec<(Digest, PathBuf)>) -> Vec<Result<u64, Status>> {
        let check = |(digest, path): (Digest, PathBuf)| {
            let data = std::fs::read(&path).map_err(failed)?;
            std::fs::remove_file(&path).map_err(failed)?;
            let found = FUNCTION.digest(&data);
            let is_whole = found == digest;
            is_whole.then_some(digest.size).ok_or_else(|| Status::data_loss(format!("`{digest}` came as `{found}`")))
        };
        answers.into_iter().map(check).collect()
    }
}
