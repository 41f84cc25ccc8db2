//! What an action runs on: its input tree, or a root of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_executor::rooted::PATH;
use kiln_executor::{Conditions, Exit, Finished, Job, Place, Secrets};
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Blob};
use kiln_proto::{reapi, v1};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{At, Fault, MAX_PROCESSES, Runner, action_fault, cancelled, input_fault, output_fault};
use crate::inputs::{self, InputTree};
use crate::outputs::{self, Collected};
use crate::roots::{self, Beside, Changed, Left, Step};

/// What the paths of caches begin with that are among the inputs.
const IN_BUILD: &str = "/build/";
/// Maximum bytes that one action may write.
const DISK_BYTES: u64 = 64 << 30;

/// What an action runs on, kept in place until this is dropped.
pub(super) enum Ground {
    Tree(InputTree, Option<Box<Beside>>),
    Root(Box<Step>),
}

/// What a command left: read, and not stored yet.
#[derive(Default)]
pub(super) enum Gathered {
    /// Of no use to anybody.
    #[default]
    Nothing,
    /// The outputs that it names.
    Outputs(outputs::Gathered),
    /// What it changed in its root.
    Root(Box<Changed>),
}

impl Gathered {
    /// The entries of its result, which are taken.
    pub(super) fn collected(&mut self) -> Collected {
        match self {
            Self::Nothing => Collected::default(),
            Self::Outputs(outputs) => std::mem::take(&mut outputs.collected),
            Self::Root(changed) => std::mem::take(&mut changed.collected),
        }
    }

    /// The blobs that these name.
    pub(super) fn blobs(&self) -> &[(Digest, Blob)] {
        match self {
            Self::Nothing => &[],
            Self::Outputs(outputs) => &outputs.blobs,
            Self::Root(changed) => &changed.blobs,
        }
    }
}

impl Runner {
    /// Makes available what an action runs on.
    pub(super) async fn ground(
        &self,
        at: &At<'_>,
        cancel: &CancellationToken,
        lease: &v1::Lease,
        action: &reapi::Action,
        command: &reapi::Command,
        root: &Digest,
    ) -> Result<Ground, Fault> {
        if !roots::is_rooted(action, command) {
            let fetch = |client| async move { self.inputs.fetch(&client, root).await };
            let tree = self.transfer(at, cancel, inputs::Error::is_connection, input_fault, fetch).await?;
            let mounts = &roots::mounts(action, command).map_err(input_fault)?;
            let beside = match &self.roots {
                Some(roots) if !lease.caches.is_empty() || !mounts.is_empty() => {
                    let take = |client| async move { roots.beside(&client, lease, mounts).await };
                    Some(Box::new(self.transfer(at, cancel, inputs::Error::is_connection, input_fault, take).await?))
                }
                None if !mounts.is_empty() => {
                    return Err(Fault::Worker("this worker can mount no SSH agent for a step".to_owned()));
                }
                _ => None,
            };
            return Ok(Ground::Tree(tree, beside));
        }
        let roots = self.roots.as_ref();
        let roots = roots.ok_or_else(|| Fault::Worker("this worker runs nothing in roots of their own".to_owned()))?;
        let prepare = |client| async move { roots.prepare(&client, lease, action, command, root).await };
        let step = self.transfer(at, cancel, inputs::Error::is_connection, input_fault, prepare).await?;
        Ok(Ground::Root(Box::new(step)))
    }

    /// Reads what a command left. Nothing of it is stored yet.
    pub(super) async fn gather(
        &self,
        at: &At<'_>,
        cancel: &CancellationToken,
        ground: &mut Ground,
        finished: &Finished,
        command: &reapi::Command,
    ) -> Result<Gathered, Fault> {
        let root = finished.tree.root();
        let outputs = async |command: &reapi::Command| {
            let gathered = outputs::gather(outputs::Request { root, command, function: at.function }).await;
            gathered.map(Gathered::Outputs).map_err(output_fault)
        };
        let gathering = async {
            match ground {
                Ground::Tree(..) => outputs(command).await,
                Ground::Root(step) if step.builds() => outputs(&Step::command_on_inputs(command)).await,
                // What a command that failed did to its root is of no use to anybody.
                Ground::Root(_) if finished.exit != Exit::Code(0) => Ok(Gathered::default()),
                Ground::Root(step) => {
                    let changed = step.changes(root, command, at.function).await.map_err(output_fault)?;
                    Ok(Gathered::Root(Box::new(changed)))
                }
            }
        };
        tokio::select! {
            gathered = gathering => gathered,
            () = cancel.cancelled() => Err(cancelled()),
        }
    }

    /// Publishes the caches of a command whose outputs are stored, and keeps what it left for the steps that follow.
    pub(super) async fn keep(
        &self,
        at: &At<'_>,
        cancel: &CancellationToken,
        ground: &mut Ground,
        finished: &Finished,
        gathered: Gathered,
    ) -> Result<(), Fault> {
        let root = finished.tree.root();
        // What a command that failed left in its caches may be half done.
        let mounts = finished.tree.mounts().filter(|_| finished.exit == Exit::Code(0));
        let changed = match gathered {
            Gathered::Outputs(outputs) => {
                self.inputs.adopt_all(outputs.files, root, finished.tree.written()).await;
                None
            }
            Gathered::Root(changed) => Some(changed),
            Gathered::Nothing => return Ok(()),
        };
        match (ground, changed, mounts) {
            (Ground::Root(step), Some(changed), _) => {
                let published = self.publish(at, cancel, step.left(root, at.function).await).await?;
                step.keep(root, &changed, &published);
            }
            (Ground::Root(step), None, Some(written)) => {
                let published = self.publish(at, cancel, step.left(written, at.function).await).await?;
                step.keep_caches(written, &published);
            }
            (Ground::Tree(_, Some(beside)), _, Some(written)) => {
                let published = self.publish(at, cancel, beside.left(written, at.function).await).await?;
                beside.keep(written, &published);
            }
            _ => {}
        }
        Ok(())
    }

    /// Publishes what a command left in its caches, and returns what the farm took.
    async fn publish(&self, at: &At<'_>, cancel: &CancellationToken, all: Vec<Left>) -> Result<Vec<Left>, Fault> {
        let mut published = Vec::new();
        for left in all {
            let cache = &left;
            let publish = |client: transfer::Client| async move { cache.publish(&client, at.challenge.as_ref()).await };
            let fault = |error: transfer::Error| Fault::Worker(error.to_string());
            let result = self.transfer(at, cancel, transfer::Error::is_connection, fault, publish).await;
            match result {
                Ok(()) => published.push(left),
                Err(Fault::Worker(reason)) => {
                    tracing::warn!(reason, cache = left.id(), "cannot publish a cache mount; it stays as it was");
                }
                Err(cancelled) => return Err(cancelled),
            }
        }
        Ok(published)
    }
}

/// What a run sees other than usual, if it is to be compared with an earlier one. A machine that differs by itself stays as it is.
fn conditions(lease: &v1::Lease) -> Conditions {
    let Some(other) = &lease.other_conditions else { return Conditions::default() };
    let all = kiln_executor::cpus::available();
    let is_same = other.not_cpus == 0 || other.not_cpus == all;
    Conditions {
        cpus: (is_same && all > 1).then(|| all - 1),
        host_name: Some(other.host_name.clone()).filter(|name| kiln_proto::root::is_hostname(name)),
        directory: None,
    }
}

impl Ground {
    /// The root that the action changes, if it is one that does.
    pub(super) fn changed(&self) -> Option<roots::Files<'_>> {
        match self {
            Self::Root(step) if !step.builds() => Some(step.files()),
            Self::Root(_) | Self::Tree(..) => None,
        }
    }

    /// The names of the programs of the action's root, where its `PATH` has them.
    pub(super) fn programs(&self, environment: &BTreeMap<String, String>) -> BTreeSet<String> {
        match self {
            Self::Root(step) => step.files().programs(environment.get("PATH").map_or(PATH, String::as_str)),
            Self::Tree(..) => BTreeSet::new(),
        }
    }

    /// The job of a lease.
    pub(super) fn job(
        &self,
        lease: &v1::Lease,
        action: &reapi::Action,
        command: &reapi::Command,
    ) -> Result<Job, Fault> {
        let reserved = lease.reserved.unwrap_or_default();
        let mut environment: BTreeMap<String, String> = lease.variables.clone().into_iter().collect();
        let own = command.environment_variables.iter();
        environment.extend(own.map(|variable| (variable.name.clone(), variable.value.clone())));
        let timeout =
            lease.timeout.map(|timeout| Duration::new(timeout.seconds.max(0) as u64, timeout.nanos.max(0) as u32));
        let mut job = Job {
            place: Place::Machine,
            tenant: lease.instance.clone(),
            layers: Vec::new(),
            arguments: command.arguments.clone(),
            environment,
            secrets: Secrets::default(),
            working_directory: command.working_directory.clone(),
            make_directories: Vec::new(),
            beside: Vec::new(),
            network: lease.network,
            timeout,
            milli_cpus: reserved.milli_cpus,
            memory_bytes: reserved.memory_bytes,
            disk_bytes: DISK_BYTES,
            max_processes: MAX_PROCESSES,
            calls: Default::default(),
            session: None,
            conditions: conditions(lease),
            usage: None,
        };
        match self {
            Self::Tree(tree, beside) => {
                let place = Place::of(action, command);
                job.place = place.map_err(|words| action_fault(Code::InvalidArgument, words))?;
                job.layers = tree.layers().to_vec();
                job.secrets = Secrets::of(&lease.secrets, &lease.credentials);
                job.make_directories = outputs::directories_to_make(command).map_err(output_fault)?;
                match beside {
                    Some(beside) => job.beside = beside.mounts().to_vec(),
                    // Without caches, a step finds directories that are empty.
                    None => {
                        let below = lease.caches.iter().filter_map(|cache| cache.target.strip_prefix(IN_BUILD));
                        job.make_directories.extend(below.map(str::to_owned));
                    }
                }
            }
            Self::Root(step) => {
                job.place = Place::Root(step.rooted());
                job.layers = step.layers().to_vec();
                // The farm's credentials are for steps that fetch as a project does; a root gets what its mounts name.
                let credentials = if step.builds() { &lease.credentials[..] } else { &[] };
                job.secrets = Secrets::of(&lease.secrets, credentials);
                if step.builds() {
                    let command = Step::command_on_inputs(command);
                    job.make_directories = outputs::directories_to_make(&command).map_err(output_fault)?;
                }
                job.working_directory = Step::working_directory(command).map_err(input_fault)?;
            }
        }
        Ok(job)
    }
}
