//! The commands of a Dockerfile, as actions in root file systems of their own.
//!
//! Invariant: the worker's own tools are no part of the key, because the root brings its tools; neither are times.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_artifacts::{Checkout, Command, Commands, DEFAULT_AGENT, Download, Error, Login, Ran};
use kiln_dockerfile::{Fetch, GitSource};
use kiln_execution::{Known, ToolSpace};
use kiln_planner::plan::{Platform, Split, Step, Target};
use kiln_proto::digest::Digest;
use kiln_proto::root::{self as contract, ROOT_DIRECTORY};
use kiln_proto::v1::event;
use kiln_proto::{property, reapi, v1};
use kiln_store::trees;
use kiln_trees::tree::{Entry, Tree};

use super::agents;
use super::caches::{self, Owner};
use super::fetching::{self, COMMITTED, DOWNLOADED, MODIFIED, REPOSITORY};
use super::in_root::Root;
use super::libraries::OnWorker;
use super::lower::{self, Lowered, Lowering, Outputs};
use super::steps::{self, Ended, Job};

/// The argument with which a Dockerfile lets the build tools of its commands use the farm's cache; its value is the name of their space.
const TOOL_CACHE: &str = "KILN_TOOL_CACHE";
/// Memory limit of a command that has none of its own: 2 GiB.
const MEMORY_BYTES: u64 = 2 << 30;

#[async_trait]
impl Commands for OnWorker<'_> {
    fn begin(&self, steps: Vec<String>, copies: usize) {
        let reference = |step: String| v1::StepRef {
            step,
            platform: self.target.platform.to_string(),
            target: self.target.name.clone(),
            shard: 0,
            shards: 1,
        };
        let (steps, copies) = (steps.into_iter().map(reference).collect(), copies as u32);
        self.work.tell(event::Event::DockerfileRead(v1::DockerfileRead { steps, copies }));
    }

    async fn run(&self, command: &Command) -> Result<Ran, Error> {
        let outputs = self.ran(step(command), Some(command)).await?;
        left(&outputs)
            .ok_or_else(|| self.command_failed(format!("`{}`: the worker reported no layer", command.name), false))
    }

    async fn are_cached(&self, commands: &[&Command]) -> Result<bool, Error> {
        let work = self.work;
        let (instance, project) = (work.request.instance.trim_matches('/'), work.build.lock().project.clone());
        let owner = Owner { project: &project, scope: &work.request.scope };
        let lowering = Lowering { source: &work.source, store: &*work.stores.blobs, function: work.function };
        for command in commands {
            let job = self.job(step(command), Some(command)).await?;
            let keys = work.secrets.keys(&job.step, &command.keyed, |secret| work.execution.secret_key(secret)).await;
            let (Some(keys), false) = (keys, job.again || work.request.no_cache) else { return Ok(false) };
            let lowered = lowering.rooted(command, &job.step, (owner, &job.target), &job.environment, &keys).await;
            let Ok((lowered, _)) = lowered else { return Ok(false) };
            if work.stores.actions.get(instance, &lowered.digest).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn fetch(&self, name: &str, fetch: &Fetch, login: Option<&Login>) -> Result<Download, Error> {
        let mut step = Step::new(name, fetching::download(fetch, login));
        step.secrets = login.iter().map(|login| login.secret.clone()).collect();
        step.why = "an instruction of the Dockerfile".to_owned();
        step.inputs = vec!["!**".to_owned()];
        step.outputs = vec![DOWNLOADED.to_owned(), MODIFIED.to_owned()];
        step.tools = vec!["curl".to_owned()];
        step.network = true;
        // What a URL has can change: without a checksum it is asked again, and what follows is a hit if it has the same.
        step.cache = fetch.checksum.is_some();
        let outputs = self.ran(step, None).await?;
        match outputs.tree.get(DOWNLOADED) {
            Some(Entry::File { digest, .. }) => {
                let modified = self.seconds(&outputs, MODIFIED).await.filter(|seconds| *seconds >= 0);
                Ok(Download { file: *digest, modified })
            }
            _ => Err(self.command_failed(format!("`{name}`: the worker reported no file"), false)),
        }
    }

    async fn checkout(&self, name: &str, source: &GitSource) -> Result<Checkout, Error> {
        let mut step = Step::new(name, fetching::checkout(source));
        step.why = "an instruction of the Dockerfile".to_owned();
        step.inputs = vec!["!**".to_owned()];
        step.outputs = vec![REPOSITORY.to_owned(), COMMITTED.to_owned()];
        step.tools = vec!["git".to_owned()];
        if source.is_ssh() {
            step.tools.push("ssh".to_owned());
            step.agents = vec![DEFAULT_AGENT.to_owned()];
        }
        step.network = true;
        // Branches and tags move: without a commit it is asked again, and what follows is a hit if it is the same.
        step.cache = fetching::is_pinned(source);
        let outputs = self.ran(step, None).await?;
        let absent = || self.command_failed(format!("`{name}`: the worker reported no repository"), false);
        let Some(Entry::Sealed { digest }) = outputs.tree.get(REPOSITORY) else { return Err(absent()) };
        let committed = self.seconds(&outputs, COMMITTED).await.ok_or_else(absent)?;
        Ok(Checkout { files: *digest, committed })
    }
}

impl OnWorker<'_> {
    /// The number in an output.
    async fn seconds(&self, outputs: &Outputs, path: &str) -> Option<i64> {
        let Some(Entry::File { digest, .. }) = outputs.tree.get(path) else { return None };
        let data = self.work.stores.blobs.get(digest).await.ok()?;
        String::from_utf8_lossy(&data).trim().parse().ok()
    }

    fn command_failed(&self, reason: String, is_project_fault: bool) -> Error {
        Error::Command { artifact: self.artifact.name.clone(), reason, is_project_fault }
    }

    /// A step of the artifact itself, where it would run.
    async fn job(&self, step: Step, command: Option<&Command>) -> Result<Job, Error> {
        let platform = command.map_or(self.builder, |command| command.platform);
        let job = self.job_on(step, command, platform).await;
        job.map_err(|reason| self.command_failed(reason, false))
    }

    /// The same on a platform. An error says that no worker has it.
    pub(super) async fn job_on(
        &self,
        step: Step,
        command: Option<&Command>,
        platform: Platform,
    ) -> Result<Job, String> {
        let (target, environment) = if platform == self.target.platform {
            (self.target.clone(), self.chosen.get().await?)
        } else {
            self.work.places.find(self.work, self.target, platform).await?
        };
        Ok(Job {
            step,
            target,
            shown: platform,
            environment,
            shard: 0,
            needed: Vec::new(),
            needs: Vec::new(),
            path_weight: 1,
            history: v1::StepHistory::default(),
            shares: None,
            memory_bytes: None,
            again: command.is_some_and(|command| command.no_cache),
            rooted: command.map(|command| Arc::new(command.clone())),
            root: None,
        })
    }

    /// Runs a step of the artifact itself.
    async fn ran(&self, step: Step, command: Option<&Command>) -> Result<Outputs, Error> {
        let job = self.job(step, command).await?;
        let span = job.span();
        match tracing::Instrument::instrument(steps::run(self.work, job), span).await {
            Ended::Succeeded(finished) => {
                self.facts.lock().push(finished.fact);
                Ok(finished.outputs)
            }
            Ended::Failed(words) => Err(self.command_failed(words, true)),
            Ended::FarmFailed(words) => Err(self.command_failed(words, false)),
            Ended::InputsGone(reason) => Err(Error::InputsGone { artifact: self.artifact.name.clone(), reason }),
        }
    }
}

/// A command as a step.
fn step(command: &Command) -> Step {
    let mut step = Step::new(command.name.clone(), command.run.argv.join(" "));
    step.why = "an instruction of the Dockerfile".to_owned();
    // Its inputs are the root, and none of the project's files themselves.
    step.inputs = vec!["!**".to_owned()];
    step.network = !matches!(kiln_artifacts::network(&command.run), contract::NETWORK_NONE);
    step.memory_bytes = command.memory_bytes.unwrap_or(MEMORY_BYTES);
    step.secrets = command.secrets.clone();
    step
}

/// The layer and its times, as the worker reported them.
pub(super) fn left(outputs: &Outputs) -> Option<Ran> {
    let layer = match outputs.tree.get(contract::LAYER_OUTPUT)? {
        Entry::Sealed { digest } => *digest,
        _ => return None,
    };
    match outputs.tree.get(contract::TIMES_OUTPUT)? {
        Entry::File { digest, .. } => Some(Ran { layer, times: *digest }),
        _ => None,
    }
}

impl Lowering<'_> {
    /// The action of a command, with all its messages stored.
    pub(super) async fn rooted(
        &self,
        command: &Command,
        step: &Step,
        (owner, target): (Owner<'_>, &Target),
        environment: &v1::Environment,
        keys: &[(String, String)],
    ) -> Result<(Lowered, Arc<Known>), lower::Error> {
        let mut tree = Tree::default();
        let sealed = |digest: Digest| Entry::Sealed { digest };
        tree.entries.insert(ROOT_DIRECTORY.to_owned(), sealed(command.root));
        if let Some(mounted) = command.mounted {
            tree.entries.insert(contract::MOUNT_DIRECTORY.to_owned(), sealed(mounted));
        }
        let (input_root, directories) = trees::store_directories(self.store, self.function, &tree).await?;
        let run = &command.run;
        let tools = tools(command, step, (owner, target)).unwrap_or_default();
        let split = is_split(command, step);
        let clock = split && !run.env.iter().any(|(name, _)| name == lower::CLOCK);
        let clock = clock.then(|| (lower::CLOCK.to_owned(), lower::SOURCE_DATE_EPOCH.to_owned()));
        let directory = format!("{ROOT_DIRECTORY}/{}", run.cwd.trim_matches('/'));
        let variables = run.env.iter().chain(&clock);
        let message = reapi::Command {
            arguments: run.argv.clone(),
            environment_variables: variables
                .map(|(name, value)| reapi::command::EnvironmentVariable { name: name.clone(), value: value.clone() })
                .collect(),
            working_directory: directory.trim_end_matches('/').to_owned(),
            ..Default::default()
        };
        let platform = platform(command, step, target, environment, keys);
        let (lowered, known) = self.stored(message, input_root, directories, platform, step).await?;
        let mut variables: BTreeMap<String, String> = command.run.proxies.iter().cloned().collect();
        variables.extend(agents::variable(&command.mounts));
        let caches = command.caches.iter().map(|cache| owner.of_dockerfile(cache, target)).collect();
        let hosts = command.hosts.clone();
        Ok((lowered, Arc::new(Known { times: Some(command.times), variables, caches, tools, split, hosts, ..known })))
    }
}

/// The name of the space in which the build tools of a command have entries, if its Dockerfile says that they may: without that, a command
/// sees no trace of what builds it. What has secrets keeps nothing.
fn space<'a>(command: &'a Command, step: &Step) -> Option<&'a str> {
    let name = command.run.env.iter().find(|(name, _)| *name == TOOL_CACHE).map(|(_, value)| value.trim())?;
    let is_hosts = kiln_artifacts::network(&command.run) == contract::NETWORK_HOST;
    (!name.is_empty() && step.secrets.is_empty() && !is_hosts && command.service.is_none()).then_some(name)
}

/// Where the build tools of a command have entries. One with caches of its own keeps those. Like a cache mount, a space belongs to a project
/// and a platform, and has a name.
fn tools(command: &Command, step: &Step, (owner, target): (Owner<'_>, &Target)) -> Option<ToolSpace> {
    let name = space(command, step).filter(|_| command.caches.is_empty())?;
    Some(owner.tools(&["dockerfile", &target.platform.to_string(), name].join("\0")))
}

/// Whether a command is split into its compiler calls. Whoever is not root there can write only to directories of its own, which calls do not have.
fn is_split(command: &Command, step: &Step) -> bool {
    let user = command.run.user.split(':').next().unwrap_or_default();
    space(command, step).is_some() && ["", "0", "root"].contains(&user)
}

impl Lowering<'_> {
    /// The action of one shard of a step that runs in the file system of an image.
    pub(super) async fn in_root(
        &self,
        job: &Job,
        root: &Root,
        owner: Owner<'_>,
    ) -> Result<(Lowered, Arc<Known>), lower::Error> {
        let step = &job.step;
        let inputs = self.inputs(step, &job.needs).await?;
        caches::check(step, &inputs).map_err(|reason| lower::Error::Tree { step: step.name.clone(), reason })?;
        let mut tree = Tree::default();
        tree.entries.insert(ROOT_DIRECTORY.to_owned(), Entry::Sealed { digest: root.tree });
        tree.entries.insert(contract::BUILD_DIRECTORY.to_owned(), Entry::Directory(inputs));
        let (input_root, directories) = trees::store_directories(self.store, self.function, &tree).await?;
        let mut on_image = step.clone();
        for (name, value) in &root.env {
            on_image.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let command = reapi::Command {
            working_directory: contract::BUILD_DIRECTORY.to_owned(),
            ..lower::command(&on_image, job.shard, &job.environment)
        };
        let mut properties = lower::common(step, &job.target, &job.environment);
        properties.push((contract::ROOT.to_owned(), ROOT_DIRECTORY.to_owned()));
        properties.push((contract::USER.to_owned(), contract::BUILD_USER.to_owned()));
        if step.native && !job.environment.cpu.is_empty() {
            properties.push((property::CPU.to_owned(), job.environment.cpu.clone()));
        }
        let network = if step.network { contract::NETWORK_DEFAULT } else { contract::NETWORK_NONE };
        properties.push((property::NETWORK.to_owned(), network.to_owned()));
        let platform = lower::sorted(properties);
        let (lowered, known) = self.stored(command, input_root, directories, platform, step).await?;
        let caches = owner.of_step(step, &job.target, &root.image);
        // What tools find depends on the content of the root, and on no worker's.
        let is_closed = !step.network && step.secrets.is_empty();
        let tools = if is_closed { owner.tools(&root.tree.to_string()) } else { ToolSpace::default() };
        let (split, spread) = (is_closed && step.split != Split::Off, step.split == Split::Auto);
        Ok((lowered, Arc::new(Known { times: Some(root.times), split, spread, caches, tools, ..known })))
    }
}

/// What a command requires of a worker. `keys`: what stands for the values of secrets.
fn platform(
    command: &Command,
    step: &Step,
    target: &Target,
    environment: &v1::Environment,
    keys: &[(String, String)],
) -> reapi::Platform {
    let mut properties = lower::common(step, target, environment);
    for (name, key) in keys {
        let property = format!("{}{name}", property::SECRET_PREFIX);
        properties.iter_mut().filter(|(name, _)| *name == property).for_each(|(_, value)| value.clone_from(key));
    }
    properties.push((contract::ROOT.to_owned(), ROOT_DIRECTORY.to_owned()));
    properties.push((property::NETWORK.to_owned(), kiln_artifacts::network(&command.run).to_owned()));
    if !command.run.user.is_empty() {
        properties.push((contract::USER.to_owned(), command.run.user.clone()));
    }
    if let Some(name) = &command.run.hostname {
        properties.push((contract::HOSTNAME.to_owned(), name.clone()));
    }
    if !command.mounts.is_empty() {
        properties.push((contract::MOUNTS.to_owned(), contract::encode(&command.mounts)));
    }
    if let Some(service) = &command.service {
        properties.push((contract::SERVICE.to_owned(), contract::encode_service(service)));
    }
    if !command.hosts.is_empty() {
        let mut names: Vec<&str> = command.hosts.iter().map(|host| host.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        properties.push((contract::HOSTS.to_owned(), names.join(",")));
    }
    lower::sorted(properties)
}
