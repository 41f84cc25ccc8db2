//! Checks an action before it runs: its messages, its platform and its inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::elements::{self, Kind};
use kiln_proto::{clock, precondition, property, reapi, scope, v1};
use kiln_scheduler::Requirements;
use kiln_trees::{Entry, tree};
use prost::Message;
use tonic::Status;

use super::inputs::{InputTrees, Walked};
use super::properties::Rules;
use super::requirements;
use super::{ToolSpace, Unlike};
use kiln_state::Current;
use kiln_store::Stores;

/// Timeout of an action that sets none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest timeout that is accepted.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest Action or Command message that is read.
const MAX_MESSAGE_BYTES: u64 = 16 << 20;

/// An action that has been checked and may run.
#[derive(Debug)]
pub struct Prepared {
    /// REAPI instance name.
    pub instance: String,
    /// The action's digest.
    pub digest: Digest,
    /// The action's message.
    pub action: reapi::Action,
    /// Its command.
    pub command: reapi::Command,
    /// What its worker must offer.
    pub requirements: Requirements,
    /// Whether it may reach the network.
    pub network: bool,
    /// Whether its reservation may be reduced if no worker has as much.
    pub is_estimate: bool,
    /// Notes on properties that were translated or ignored.
    pub notes: Vec<String>,
    /// Names of the secrets that must be provided.
    pub secrets: BTreeSet<String>,
    /// The SSH agents that must be provided.
    pub agents: BTreeSet<String>,
    /// The farm's credentials that it needs for fetching.
    pub credentials: Vec<v1::Credential>,
    /// For an action in a root of its own: the times of the root's nodes, which are no part of the action.
    pub times: Option<Digest>,
    /// Variables beside those of its command, which are no part of the action.
    pub variables: BTreeMap<String, String>,
    /// The caches of its cache mounts, which are no part of the action either.
    pub caches: Vec<v1::CacheMount>,
    /// For an action in a root of its own: the hosts that it can resolve.
    pub hosts: Vec<v1::Host>,
    /// The run that it is to differ from in its conditions.
    pub unlike: Option<Unlike>,
    /// Whether its calls of compilers are actions of their own.
    pub split: bool,
    /// Whether these may run on other workers.
    pub spread: bool,
    /// Where its build tools keep their entries.
    pub tools: ToolSpace,
    /// Its time limit.
    pub timeout: Duration,
    /// Hashes of its topmost input directories, for affinity.
    pub inputs: Vec<u64>,
    /// Keeps its inputs in the store.
    pub hold: kiln_store::Hold,
}

/// Checks actions against a store.
#[derive(Debug)]
pub struct Preparer {
    stores: Stores,
    rules: Current<Rules>,
    trees: InputTrees,
}

pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

pub(super) fn missing(digests: &[Digest]) -> Status {
    precondition::to_tonic(&precondition::missing(digests))
}

impl Preparer {
    /// Creates a preparer on these stores.
    pub fn new(stores: Stores, rules: Current<Rules>) -> Self {
        Self { trees: InputTrees::new(stores.clone()), stores, rules }
    }

    /// The farm's rules for properties of other farms.
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.get()
    }

    async fn message<M: Message + Default>(&self, kind: &Kind, digest: &Digest) -> Result<M, Status> {
        if digest.size > MAX_MESSAGE_BYTES {
            let most = MAX_MESSAGE_BYTES >> 20;
            return Err(invalid(format!(
                "blob `{digest}` is too large for a message; the farm reads at most {most} MiB"
            )));
        }
        let data = match self.stores.blobs.get(digest).await {
            Ok(data) => data,
            Err(kiln_store::Error::NotFound { .. }) => return Err(missing(&[*digest])),
            Err(other) => return Err(other.into()),
        };
        elements::decode(kind, &data, elements::MAX_OF_COMMAND).map_err(|error| match error {
            elements::Error::TooMany { most } => invalid(format!(
                "blob `{digest}` has more than {most} arguments, variables, outputs and properties; put them into a file of the inputs"
            )),
            elements::Error::Malformed(error) => {
                invalid(format!("blob `{digest}` is not a message of the expected type: {error}"))
            }
        })
    }

    /// Loads the action and its command.
    pub async fn load(&self, digest: &Digest) -> Result<(reapi::Action, reapi::Command), Status> {
        let action: reapi::Action = self.message(&elements::ACTION, digest).await?;
        let command = required(digest.function, action.command_digest.as_ref(), "command_digest")?;
        let command = self.message(&elements::COMMAND, &command).await?;
        Ok((action, command))
    }

    /// Checks that an action can run: its messages and inputs exist and are valid. Directories of its input tree that are `known` are not read.
    pub async fn prepare(
        &self,
        instance: &str,
        digest: Digest,
        (mut action, command): (reapi::Action, reapi::Command),
        known: Option<&HashMap<Digest, Bytes>>,
    ) -> Result<Prepared, Status> {
        check_command(&command)?;
        let asked =
            requirements::asked(&action, &command, &self.rules.get()).map_err(|error| invalid(error.to_string()))?;
        // The worker reads the translated properties.
        action.platform = Some(asked.platform);
        let timeout = match &action.timeout {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => match clock::read_duration(timeout) {
                None => return Err(invalid("the action's timeout is negative or not a duration")),
                Some(timeout) if timeout.is_zero() => DEFAULT_TIMEOUT,
                Some(timeout) if timeout > MAX_TIMEOUT => {
                    let (found, most) = (timeout.as_secs(), MAX_TIMEOUT.as_secs());
                    return Err(invalid(format!(
                        "the action's timeout is {found} s; the farm allows at most {most} s"
                    )));
                }
                Some(timeout) => timeout,
            },
        };
        let root = required(digest.function, action.input_root_digest.as_ref(), "input_root_digest")?;
        let hold = self.stores.in_use.begin();
        let walked = self.trees.check(&root, known).await?;
        let requirements = Requirements { tenant: scope::split(instance).0.to_owned(), ..asked.requirements };
        // In a root of its own, a command's directory is made where it is missing.
        let in_root = (property::EXECUTOR.to_owned(), property::IN_ROOT.to_owned());
        if !command.working_directory.is_empty() && !requirements.properties.contains(&in_root) {
            self.check_directory(&root, &command.working_directory).await?;
        }
        Ok(Prepared {
            instance: instance.to_owned(),
            digest,
            action,
            command,
            requirements,
            network: asked.network,
            is_estimate: asked.is_estimate,
            notes: asked.notes,
            secrets: asked.secrets,
            agents: asked.agents,
            credentials: Vec::new(),
            times: None,
            variables: BTreeMap::new(),
            caches: Vec::new(),
            hosts: Vec::new(),
            unlike: None,
            split: false,
            spread: false,
            tools: ToolSpace::default(),
            timeout,
            inputs: walked.directories.clone(),
            hold,
        })
    }

    /// All blobs that an action refers to: itself, its command and its input tree.
    pub(super) async fn reachable(&self, action: &Digest) -> Result<Vec<Digest>, Status> {
        let message: reapi::Action = self.message(&elements::ACTION, action).await?;
        let command = required(action.function, message.command_digest.as_ref(), "command_digest")?;
        let root = required(action.function, message.input_root_digest.as_ref(), "input_root_digest")?;
        let mut digests = vec![*action, command];
        digests.extend_from_slice(self.trees.walked(&root).await?.digests());
        Ok(digests)
    }

    /// Every blob of a tree, the tree's root included.
    pub(super) async fn tree(&self, root: &Digest) -> Result<Vec<Digest>, Status> {
        Ok(self.trees.walked(root).await?.digests().to_vec())
    }

    /// The same for a tree that an action is about to have.
    pub(super) async fn tree_ahead(&self, root: &Digest) -> Result<Arc<Walked>, Status> {
        self.trees.walked_ahead(root).await
    }

    async fn check_directory(&self, root: &Digest, path: &str) -> Result<(), Status> {
        let mut at = *root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let directory = self.trees.directory(&at).await?;
            let Some(Entry::Sealed { digest }) = directory.entries.get(part) else {
                return Err(invalid(format!(
                    "working directory `{path}` is not in the input tree; add it, even if it is empty"
                )));
            };
            at = *digest;
        }
        Ok(())
    }
}

pub(super) fn required(function: DigestFunction, digest: Option<&reapi::Digest>, what: &str) -> Result<Digest, Status> {
    Digest::required(function, digest).map_err(|error| invalid(format!("{what}: {error}")))
}

fn check_command(command: &reapi::Command) -> Result<(), Status> {
    if command.arguments.first().is_none_or(String::is_empty) {
        return Err(invalid("the command has no arguments; expected the program first"));
    }
    if let Some(bad) = command.arguments.iter().find(|argument| argument.contains('\0')) {
        return Err(invalid(format!("argument `{}` contains a NUL", bad.escape_debug())));
    }
    for variable in &command.environment_variables {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(invalid(format!("invalid name `{}` of an environment variable", variable.name.escape_debug())));
        }
    }
    if let Some(name) = command.output_node_properties.iter().find(|name| *name != property::UNIX_MODE) {
        return Err(invalid(format!(
            "output node property `{name}` is not supported; remove it (supported: `{}`)",
            property::UNIX_MODE
        )));
    }
    let directory = &command.working_directory;
    if tree::resolve("", directory).is_none() || directory.split('/').any(|part| part == "..") {
        return Err(invalid(format!(
            "working directory `{directory}` leaves the input tree; expected a relative path without `..`"
        )));
    }
    #[allow(deprecated)]
    let legacy = command.output_files.iter().chain(&command.output_directories);
    match command.output_paths.iter().chain(legacy).find(|path| tree::resolve(directory, path).is_none()) {
        Some(path) => Err(invalid(format!(
            "output `{path}` leaves the input tree; expected a path relative to the working directory that stays inside"
        ))),
        None => Ok(()),
    }
}
