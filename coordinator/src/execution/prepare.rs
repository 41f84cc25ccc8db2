//! What is checked of an action before anyone runs it: its messages, its platform, its inputs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kiln_core::scheduler::Requirements;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{clock, precondition, reapi};
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;

use super::requirements;
use crate::store::{self, Stores};

/// The farm's own timeout, for an action without one.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest timeout that the farm takes.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Input trees whose digests are remembered, so that an unchanged tree is not walked again.
const REMEMBERED_TREES: usize = 64;
/// Input directories named to the scheduler for affinity.
const AFFINITY_DIRECTORIES: usize = 32;

/// An action that may run.
#[derive(Debug)]
pub struct Prepared {
    /// REAPI instance name.
    pub instance: String,
    /// The action.
    pub digest: Digest,
    /// Its message.
    pub action: reapi::Action,
    /// Its command.
    pub command: reapi::Command,
    /// What its worker must offer.
    pub requirements: Requirements,
    /// Whether it may reach the network.
    pub network: bool,
    /// How long it may run.
    pub timeout: Duration,
    /// Hashes of its largest-level input directories, for affinity.
    pub inputs: Vec<u64>,
}

/// All blobs that a tree consists of.
#[derive(Debug)]
struct Walked {
    digests: Vec<Digest>,
    directories: Vec<u64>,
}

/// Checks actions against a store.
#[derive(Debug)]
pub struct Preparer {
    stores: Stores,
    trees: Mutex<HashMap<Digest, (u64, Arc<Walked>)>>,
    clock: std::sync::atomic::AtomicU64,
}

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

fn missing(digests: &[Digest]) -> Status {
    precondition::to_tonic(&precondition::missing(digests))
}

impl Preparer {
    /// A preparer over these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores, trees: Mutex::default(), clock: std::sync::atomic::AtomicU64::new(0) }
    }

    async fn message<M: Message + Default>(&self, digest: &Digest) -> Result<M, Status> {
        let data = match self.stores.blobs.get(digest).await {
            Ok(data) => data,
            Err(store::Error::NotFound { .. }) => return Err(missing(&[*digest])),
            Err(other) => return Err(other.into()),
        };
        M::decode(data).map_err(|error| invalid(format!("blob `{digest}` is no message of the expected kind: {error}")))
    }

    /// The action's and the command's messages.
    pub async fn load(&self, digest: &Digest) -> Result<(reapi::Action, reapi::Command), Status> {
        let action: reapi::Action = self.message(digest).await?;
        let command = required(digest.function, action.command_digest.as_ref(), "command_digest")?;
        let command = self.message(&command).await?;
        Ok((action, command))
    }

    /// Checks that an action can run: its messages and its inputs are there and lawful.
    pub async fn prepare(
        &self,
        instance: &str,
        digest: Digest,
        action: reapi::Action,
        command: reapi::Command,
    ) -> Result<Prepared, Status> {
        check_command(&command)?;
        let asked = requirements::asked(&action, &command).map_err(|error| invalid(error.to_string()))?;
        let timeout = match &action.timeout {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => match clock::read_duration(timeout) {
                None => return Err(invalid("the action's timeout is negative or no duration")),
                Some(timeout) if timeout.is_zero() => DEFAULT_TIMEOUT,
                Some(timeout) if timeout > MAX_TIMEOUT => {
                    let (found, most) = (timeout.as_secs(), MAX_TIMEOUT.as_secs());
                    return Err(invalid(format!("the action's timeout is {found} s; the farm takes at most {most} s")));
                }
                Some(timeout) => timeout,
            },
        };
        let root = required(digest.function, action.input_root_digest.as_ref(), "input_root_digest")?;
        let walked = self.check_inputs(&root).await?;
        if !command.working_directory.is_empty() {
            self.check_directory(&root, &command.working_directory).await?;
        }
        Ok(Prepared {
            instance: instance.to_owned(),
            digest,
            action,
            command,
            requirements: asked.requirements,
            network: asked.network,
            timeout,
            inputs: walked.directories.clone(),
        })
    }

    /// Every blob of the tree is there; else `FAILED_PRECONDITION` names all that are known to miss.
    async fn check_inputs(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        let known = self.trees.lock().get(root).map(|(_, walked)| walked.clone());
        let walked = match known {
            Some(walked) => walked,
            None => Arc::new(self.walk(root).await?),
        };
        let absent = self.stores.blobs.find_missing(&walked.digests).await?;
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let used = self.clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut trees = self.trees.lock();
        trees.insert(*root, (used, walked.clone()));
        if trees.len() > REMEMBERED_TREES
            && let Some(oldest) = trees.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest)
        {
            trees.remove(&oldest);
        }
        Ok(walked)
    }

    async fn walk(&self, root: &Digest) -> Result<Walked, Status> {
        let function = root.function;
        let (mut seen, mut absent, mut level) = (HashSet::from([*root]), Vec::new(), vec![*root]);
        let mut directories = Vec::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for digest in level {
                let directory: reapi::Directory = match self.stores.blobs.get(&digest).await {
                    Ok(data) => reapi::Directory::decode(data)
                        .map_err(|error| invalid(format!("input `{digest}` is no directory: {error}")))?,
                    Err(store::Error::NotFound { .. }) => {
                        absent.push(digest);
                        continue;
                    }
                    Err(other) => return Err(other.into()),
                };
                check_names(&directory)?;
                if directories.len() < AFFINITY_DIRECTORIES {
                    directories.push(u64::from_le_bytes(digest.hash[..8].try_into().unwrap_or_default()));
                }
                for file in &directory.files {
                    seen.insert(required(function, file.digest.as_ref(), "a file's digest")?);
                }
                for below in &directory.directories {
                    let digest = required(function, below.digest.as_ref(), "a directory's digest")?;
                    if seen.insert(digest) {
                        next.push(digest);
                    }
                }
            }
            level = next;
        }
        if absent.is_empty() {
            return Ok(Walked { digests: seen.into_iter().collect(), directories });
        }
        let files: Vec<Digest> = seen.into_iter().filter(|digest| !absent.contains(digest)).collect();
        absent.extend(self.stores.blobs.find_missing(&files).await?);
        Err(missing(&absent))
    }

    async fn check_directory(&self, root: &Digest, path: &str) -> Result<(), Status> {
        let mut at = *root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let directory: reapi::Directory = self.message(&at).await?;
            let below = directory.directories.iter().find(|below| below.name == part);
            let Some(below) = below else {
                return Err(invalid(format!(
                    "working directory `{path}` is not in the input tree; add it, empty if need be"
                )));
            };
            at = required(root.function, below.digest.as_ref(), "a directory's digest")?;
        }
        Ok(())
    }
}

fn required(function: DigestFunction, digest: Option<&reapi::Digest>, what: &str) -> Result<Digest, Status> {
    Digest::required(function, digest).map_err(|error| invalid(format!("{what}: {error}")))
}

fn check_names(directory: &reapi::Directory) -> Result<(), Status> {
    let files = directory.files.iter().map(|node| &node.name);
    let directories = directory.directories.iter().map(|node| &node.name);
    let links = directory.symlinks.iter().map(|node| &node.name);
    let mut seen = HashSet::new();
    for name in files.chain(directories).chain(links) {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(invalid(format!("`{}` is no name for an entry of a directory", name.escape_debug())));
        }
        if !seen.insert(name) {
            return Err(invalid(format!("`{name}` stands twice in one input directory")));
        }
    }
    Ok(())
}

fn check_command(command: &reapi::Command) -> Result<(), Status> {
    if command.arguments.first().is_none_or(String::is_empty) {
        return Err(invalid("the command has no arguments; expected the program first"));
    }
    if let Some(bad) = command.arguments.iter().find(|argument| argument.contains('\0')) {
        return Err(invalid(format!("argument `{}` holds a NUL", bad.escape_debug())));
    }
    for variable in &command.environment_variables {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(invalid(format!("`{}` is no name of an environment variable", variable.name.escape_debug())));
        }
    }
    if let Some(name) = command.output_node_properties.first() {
        return Err(invalid(format!("output node property `{name}` is not served; leave it out")));
    }
    check_path(&command.working_directory, "working directory")?;
    #[allow(deprecated)]
    let legacy = command.output_files.iter().chain(&command.output_directories);
    command.output_paths.iter().chain(legacy).try_for_each(|path| check_path(path, "output"))
}

fn check_path(path: &str, what: &str) -> Result<(), Status> {
    if path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(invalid(format!("{what} `{path}` leaves the input tree; expected a relative path without `..`")));
    }
    Ok(())
}
