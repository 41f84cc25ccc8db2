//! Execute: actions that do nothing, that read many files, or that write many files. Each action is new to the
//! endpoint.

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::transfer::Blob;
use kiln_trees::tree::{Entry, Tree};
use tonic::Status;

use super::case::Load;
use super::endpoint::{Endpoint, status};
use super::random::Random;
use crate::actions::{self, FUNCTION, Recipe};

/// Number of files that an action reads or writes.
const FILES: usize = 1_000;
/// Size of an input file.
const INPUT_BYTES: u64 = 256;
/// Number of files in one directory of inputs.
const PER_DIRECTORY: usize = 100;

/// What the actions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/bin/true` without inputs.
    Noop,
    /// `/bin/true` on 1,000 files that no other action has.
    Inputs,
    /// A shell that writes 1,000 files that no other action writes.
    Outputs,
}

/// Executions of one kind of action.
#[derive(Debug)]
pub struct Execute {
    kind: Kind,
}

impl Execute {
    /// For this kind of action.
    pub fn new(kind: Kind) -> Self {
        Self { kind }
    }

    fn recipe(&self, root: Digest, endpoint: &Endpoint) -> Recipe {
        let mut recipe = Recipe::noop(root, endpoint.platform.clone());
        if self.kind == Kind::Outputs {
            let script = format!(
                "mkdir -p out && i=0 && while [ $i -lt {FILES} ]; do \
                 echo \"$KILN_BENCH_DISTINCT $i\" > out/$i || exit 1; i=$((i + 1)); done"
            );
            recipe.arguments = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
            recipe.outputs = vec!["out".to_owned()];
        }
        recipe
    }

    /// The bytes of content that a result names, after checking it.
    async fn written(&self, endpoint: &Endpoint, result: &reapi::ActionResult) -> Result<u64, Status> {
        match self.kind {
            Kind::Noop => return Ok(0),
            Kind::Inputs => return Ok(FILES as u64 * INPUT_BYTES),
            Kind::Outputs => {}
        }
        let wrong = |words: &str| Status::data_loss(format!("expected the directory `out`: {words}"));
        let directory = result.output_directories.first().ok_or_else(|| wrong("it is not in the result"))?;
        let digest = Digest::required(FUNCTION, directory.tree_digest.as_ref()).map_err(|_| wrong("it has no tree"))?;
        let tree: reapi::Tree = endpoint.client().get_message(&digest).await.map_err(status)?;
        let files = tree.root.map(|root| root.files).unwrap_or_default();
        if files.len() != FILES {
            return Err(wrong(&format!("it has {} files of {FILES}", files.len())));
        }
        Ok(files.iter().filter_map(|file| file.digest.as_ref()).map(|digest| digest.size_bytes.unsigned_abs()).sum())
    }
}

/// A tree of new files in directories of 100, with the blobs to upload; files are below `top`.
pub fn tree(random: &mut Random, top: &str, files: usize, size: u64) -> Result<(Digest, Vec<(Digest, Blob)>), Status> {
    let mut tree = Tree::default();
    let mut blobs = Vec::with_capacity(files);
    for number in 0..files {
        let (digest, data) = random.blob(size);
        let path = format!("{top}/d{}/f{number}", number / PER_DIRECTORY);
        tree.insert(&path, Entry::file(digest, false)).map_err(|error| Status::internal(error.to_string()))?;
        blobs.push((digest, Blob::Bytes(data)));
    }
    let root = tree.encode(FUNCTION, &mut |encoded| blobs.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
    Ok((root, blobs))
}

impl Load for Execute {
    type Ask = Digest;
    type Answer = reapi::ExecuteResponse;

    fn name(&self) -> String {
        match self.kind {
            Kind::Noop => "execute-noop",
            Kind::Inputs => "execute-1000-inputs",
            Kind::Outputs => "execute-1000-outputs",
        }
        .to_owned()
    }

    fn checked(&self) -> &'static str {
        match self.kind {
            Kind::Noop | Kind::Inputs => "exit code 0, and not from the cache",
            Kind::Outputs => "exit code 0, not from the cache, and the stored tree names 1,000 files",
        }
    }

    fn round(&self, lanes: usize) -> usize {
        match self.kind {
            Kind::Noop => 1_000.max(lanes),
            Kind::Inputs | Kind::Outputs => 32.max(lanes),
        }
    }

    async fn set_up(&mut self, endpoint: &Endpoint, _random: &mut Random) -> Result<(), Status> {
        endpoint.must_execute()
    }

    async fn prepare(&self, endpoint: &Endpoint, random: &mut Random, count: usize) -> Result<Vec<Digest>, Status> {
        // The empty directory is the empty blob, which every endpoint has.
        let empty = Digest::empty(FUNCTION);
        let mut blobs = Vec::new();
        let mut digests = Vec::with_capacity(count);
        for _ in 0..count {
            let root = if self.kind == Kind::Inputs {
                let (root, files) = tree(random, "in", FILES, INPUT_BYTES)?;
                blobs.extend(files);
                root
            } else {
                empty
            };
            let (digest, uploads) = self.recipe(root, endpoint).action(&random.word());
            blobs.extend(uploads);
            digests.push(digest);
        }
        endpoint.client().upload(blobs).await.map_err(status)?;
        Ok(digests)
    }

    async fn call(&self, endpoint: &Endpoint, action: Digest) -> Result<reapi::ExecuteResponse, Status> {
        actions::execute(endpoint.channel.clone(), &endpoint.instance, &action).await
    }

    async fn check(&self, endpoint: &Endpoint, answers: Vec<reapi::ExecuteResponse>) -> Vec<Result<u64, Status>> {
        let mut checked = Vec::with_capacity(answers.len());
        for answer in answers {
            checked.push(match actions::fresh(answer) {
                Ok(result) => self.written(endpoint, &result).await,
                Err(status) => Err(status),
            });
        }
        checked
    }
}
