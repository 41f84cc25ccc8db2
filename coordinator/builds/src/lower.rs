//! Lowers a step to a Remote Execution action: its input tree, its command, its platform.
//!
//! Invariant: equal steps on equal inputs for equal environments give equal actions. Nothing about the build, its user,
//! its commit or the time goes in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_planner::plan::{self, Split, Step, Target};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{clock, property, reapi, root, v1};
use kiln_trees::tree::{Entry, Tree, mode_of};
use prost::Message;

use super::agents;
use super::caches::{self, Owner};
use super::source::SourceTree;
use kiln_execution::{Known, ToolSpace};
use kiln_store::BlobStore;
use kiln_store::trees::{self, overlay};

/// The variable with the time that stands for now.
pub(super) const CLOCK: &str = "SOURCE_DATE_EPOCH";
/// The value of `SOURCE_DATE_EPOCH` in every step: 2000-01-01, which is also the timestamp of input files. With the
/// commit's own time, every commit would have different actions.
pub(super) const SOURCE_DATE_EPOCH: &str = "946684800";

/// What the paths of the sockets of a step's SSH agents begin with; a number follows.
const AGENTS: &str = "/run/kiln-ssh-agent.";
/// The user and group that run a step.
const USER: u32 = 1000;

/// Where a result that was made of several runs has the tests of all. It is no output of the step.
pub(super) const MERGED: &str = ".kiln/tests/merged-report";

/// A step that cannot become an action.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] trees::Error),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("step `{step}`: {reason}")]
    Tree { step: String, reason: String },
}

/// Where actions are stored, and what they are made from.
#[derive(Debug, Clone, Copy)]
pub struct Lowering<'a> {
    /// The project's tree.
    pub source: &'a SourceTree,
    /// Where messages are put.
    pub store: &'a dyn BlobStore,
    /// Their digest function.
    pub function: DigestFunction,
}

/// The outputs of a finished step, relative to the root of the tree.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// Its files and directories; directories are sealed.
    pub tree: Tree,
}

impl Outputs {
    /// Reads an action's result.
    pub fn of(function: DigestFunction, result: &reapi::ActionResult) -> Result<Self, String> {
        let mut tree = Tree::default();
        let digest = |wire: Option<&reapi::Digest>| Digest::required(function, wire).map_err(|error| error.to_string());
        for file in result.output_files.iter().filter(|file| file.path != MERGED) {
            let executable = file.is_executable;
            let mode = mode_of(file.node_properties.as_ref(), executable);
            let entry = Entry::File { digest: digest(file.digest.as_ref())?, executable, mode };
            tree.replace(&file.path, entry).map_err(|error| error.to_string())?;
        }
        for directory in &result.output_directories {
            let entry = Entry::Sealed { digest: digest(directory.root_directory_digest.as_ref())? };
            tree.replace(&directory.path, entry).map_err(|error| error.to_string())?;
        }
        for link in &result.output_symlinks {
            tree.replace(&link.path, Entry::Symlink { target: link.target.clone() })
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { tree })
    }

    /// The paths in `wanted` that are missing.
    pub fn absent<'a>(&self, wanted: &'a [String]) -> Vec<&'a str> {
        wanted
            .iter()
            .map(|path| path.trim_start_matches("./").trim_end_matches('/'))
            .filter(|path| self.tree.get(path).is_none())
            .collect()
    }
}

/// A step as an action, with its messages stored.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The action's digest.
    pub digest: Digest,
    /// Its input tree.
    pub input_root: Digest,
    /// The action.
    pub action: reapi::Action,
    /// Its command.
    pub command: reapi::Command,
}

impl Lowering<'_> {
    /// The action of one shard of a step in an environment, with all its messages stored. The messages are returned
    /// too, for whoever runs it.
    pub(super) async fn action(
        &self,
        step: &Step,
        target: &Target,
        environment: &v1::Environment,
        shard: u32,
        needs: &[Outputs],
        owner: Owner<'_>,
    ) -> Result<(Lowered, Arc<Known>), Error> {
        let tree = self.inputs(step, needs).await?;
        caches::check(step, &tree).map_err(|reason| Error::Tree { step: step.name.clone(), reason })?;
        let (input_root, directories) = trees::store_directories(self.store, self.function, &tree).await?;
        let command = command(step, shard, environment);
        let platform = platform(step, target, environment);
        let (lowered, known) = self.stored(command, input_root, directories, platform, step).await?;
        // In a container of an engine, there are no caches.
        let system = step.image.is_none().then_some(&environment.fingerprint);
        let caches = system.map(|system| owner.of_step(step, target, system)).unwrap_or_default();
        // Sockets are not for steps that share the machine's network, and other systems' compilers are not the worker's.
        // What a call is given and prints is kept, and values of secrets must not be.
        let is_closed = !step.network && step.image.is_none() && step.secrets.is_empty();
        let tools = if is_closed { owner.tools(&environment.fingerprint) } else { ToolSpace::default() };
        let (split, spread) = (is_closed && step.split != Split::Off, step.split == Split::Auto);
        let variables = agents::variable(&sockets(step));
        Ok((lowered, Arc::new(Known { split, spread, tools, caches, variables, ..known })))
    }

    /// The inputs of a step: its own, and the outputs of the steps that it needs.
    pub(super) async fn inputs(&self, step: &Step, needs: &[Outputs]) -> Result<Tree, Error> {
        let mut tree = self.own_inputs(step).await?;
        for outputs in needs {
            overlay(self.store, &mut tree, outputs.tree.clone()).await?;
        }
        Ok(tree)
    }

    /// The action of a command, stored with it.
    pub(super) async fn stored(
        &self,
        command: reapi::Command,
        input_root: Digest,
        directories: HashMap<Digest, Bytes>,
        platform: reapi::Platform,
        step: &Step,
    ) -> Result<(Lowered, Known), Error> {
        let action = reapi::Action {
            command_digest: Some(self.put(&command).await?.to_wire()),
            input_root_digest: Some(input_root.to_wire()),
            timeout: step.timeout.map(|timeout| clock::duration(timeout.max(Duration::from_secs(1)))),
            do_not_cache: !step.cache,
            platform: Some(platform),
            ..Default::default()
        };
        let digest = self.put(&action).await?;
        let known = Known { action: action.clone(), command: command.clone(), directories, ..Known::default() };
        Ok((Lowered { digest, input_root, action, command }, known))
    }

    /// The same action with a key of its own.
    pub(super) async fn salted(
        &self,
        lowered: Lowered,
        known: &Known,
        salt: &[u8],
    ) -> Result<(Lowered, Arc<Known>), Error> {
        let action = reapi::Action { salt: salt.to_vec(), ..lowered.action };
        let digest = self.put(&action).await?;
        let known = Arc::new(Known { action: action.clone(), ..known.clone() });
        Ok((Lowered { digest, action, ..lowered }, known))
    }

    async fn put(&self, message: &impl Message) -> Result<Digest, kiln_store::Error> {
        let data = message.encode_to_vec();
        let digest = self.function.digest(&data);
        if !self.store.find_missing(&[digest]).await?.is_empty() {
            self.store.put(&digest, data.into()).await?;
        }
        Ok(digest)
    }

    /// The inputs of a step without the outputs of the steps that it needs.
    pub async fn own_inputs(&self, step: &Step) -> Result<Tree, Error> {
        let failed =
            |error: kiln_trees::tree::Error| Error::Tree { step: step.name.clone(), reason: error.to_string() };
        let mut tree = if step.inputs.is_empty() {
            let mut whole = Tree::clone(&self.source.tree);
            whole.entries.remove("kiln.toml");
            whole
        } else {
            let mut chosen = Tree::default();
            for index in plan::input_files(step, self.source.paths()) {
                let path = &self.source.paths()[index];
                if let Some(entry) = self.source.entry(path) {
                    chosen.insert(path, entry.clone()).map_err(failed)?;
                }
            }
            chosen
        };
        if !step.unversioned.is_empty() {
            use plan::Source as _;
            for path in self.source.paths().iter().filter(|path| plan::matches(&step.unversioned, path)) {
                let Some(Entry::File { executable, mode, .. }) = tree.get(path).cloned() else { continue };
                let Some(content) = self.source.planned.read(path) else { continue };
                let Some(changed) = plan::unversioned(path, &content, &self.source.planned) else { continue };
                let digest = self.put_bytes(changed).await?;
                tree.replace(path, Entry::File { digest, executable, mode }).map_err(failed)?;
            }
        }
        for (path, content) in &step.files {
            let digest = self.put_bytes(content.clone().into_bytes()).await?;
            tree.replace(path, Entry::file(digest, false)).map_err(failed)?;
        }
        Ok(tree)
    }

    async fn put_bytes(&self, data: Vec<u8>) -> Result<Digest, kiln_store::Error> {
        let digest = self.function.digest(&data);
        self.store.put(&digest, data.into()).await?;
        Ok(digest)
    }
}

/// The command of one shard of a step, as workers of an environment run it.
pub(super) fn command(step: &Step, shard: u32, on: &v1::Environment) -> reapi::Command {
    let mut environment: BTreeMap<String, String> = step.env.clone();
    environment.entry(CLOCK.into()).or_insert_with(|| SOURCE_DATE_EPOCH.into());
    if step.shards > 1 {
        environment.insert("KILN_SHARD".into(), (shard + 1).to_string());
        environment.insert("KILN_SHARDS".into(), step.shards.to_string());
        // As Bazel tells it, which many runners understand, and as GoogleTest does.
        for (prefix, total) in [("TEST", "TEST_TOTAL_SHARDS"), ("GTEST", "GTEST_TOTAL_SHARDS")] {
            environment.entry(format!("{prefix}_SHARD_INDEX")).or_insert_with(|| shard.to_string());
            environment.entry(total.into()).or_insert_with(|| step.shards.to_string());
        }
    }
    // Outputs are relative to the root of the tree, so the action starts there and the command changes to its
    // directory.
    let run = match &step.working_directory {
        Some(directory) if directory != "." => format!("cd '{}'\n{}", directory.replace('\'', "'\\''"), step.run),
        _ => step.run.clone(),
    };
    let run = format!("{}{run}", refuse_without_tools(step));
    let mut output_paths: Vec<String> =
        step.outputs.iter().map(|path| path.trim_start_matches("./").trim_end_matches('/').to_owned()).collect();
    output_paths.sort();
    output_paths.dedup();
    reapi::Command {
        arguments: vec!["/bin/sh".into(), "-e".into(), "-c".into(), run],
        environment_variables: environment
            .into_iter()
            .map(|(name, value)| reapi::command::EnvironmentVariable { name, value })
            .collect(),
        output_paths,
        output_directory_format: reapi::command::OutputDirectoryFormat::TreeAndDirectory as i32,
        output_node_properties: on
            .node_properties
            .iter()
            .filter(|name| *name == property::UNIX_MODE)
            .cloned()
            .collect(),
        ..Default::default()
    }
}

/// Commands that end a step if a tool it names is missing. The choice of the environment has already checked the tools
/// that workers probe; for images, and for all other tools, only the step itself can find out.
fn refuse_without_tools(step: &Step) -> String {
    let unsure =
        |tool: &&String| step.image.is_some() || !property::PROBED_TOOLS.contains(&plan::Tool::read(tool).name);
    let refuse = |tool: &String| {
        let tool = plan::Tool::read(tool).name;
        let quoted = tool.replace('\'', "'\\''");
        format!(
            "command -v '{quoted}' >/dev/null || {{ echo 'kiln: there is no tool `{quoted}` here' >&2; exit 127; }}\n"
        )
    };
    step.tools.iter().filter(unsure).map(refuse).collect()
}

/// What a step requires of a worker.
pub(super) fn platform(step: &Step, target: &Target, environment: &v1::Environment) -> reapi::Platform {
    let mut properties = common(step, target, environment);
    match &step.image {
        Some(image) => properties.push((property::CONTAINER_IMAGE.to_owned(), image.clone())),
        None => properties.push((property::ENVIRONMENT.to_owned(), environment.fingerprint.clone())),
    }
    // Set whether or not the target names it: a `kiln.toml` that names the system that is used anyway changes no key.
    if step.image.is_none() && !environment.os.is_empty() {
        properties.push((property::OS.to_owned(), environment.os.clone()));
    }
    if let (Some(level), None) = (&target.cpu_level, &step.image) {
        properties.push((property::CPU_LEVEL.to_owned(), level.clone()));
    }
    if step.native && !environment.cpu.is_empty() {
        properties.push((property::CPU.to_owned(), environment.cpu.clone()));
    }
    if step.network {
        properties.push((property::NETWORK.to_owned(), "on".to_owned()));
    }
    if !step.agents.is_empty() {
        properties.push((root::MOUNTS.to_owned(), root::encode(&sockets(step))));
    }
    sorted(properties)
}

/// The sockets of a step's SSH agents.
fn sockets(step: &Step) -> Vec<root::Mount> {
    let socket = |(number, id): (usize, &String)| root::Mount::Ssh {
        target: format!("{AGENTS}{number}"),
        id: id.clone(),
        required: true,
        mode: None,
        uid: USER,
        gid: USER,
    };
    step.agents.iter().enumerate().map(socket).collect()
}

/// What every action of a step requires, wherever it runs.
pub(super) fn common(step: &Step, target: &Target, environment: &v1::Environment) -> Vec<(String, String)> {
    let mut properties = vec![
        (property::OS_FAMILY.to_owned(), "linux".to_owned()),
        (property::ISA.to_owned(), target.platform.isa().to_owned()),
        (property::CPUS.to_owned(), cpus(step.milli_cpus)),
        (property::MEMORY.to_owned(), step.memory_bytes.to_string()),
    ];
    if environment.emulated {
        properties.push((property::EMULATED.to_owned(), "on".to_owned()));
    }
    let secrets = step.secrets.iter().map(|name| (format!("{}{name}", property::SECRET_PREFIX), "on".to_owned()));
    properties.extend(secrets);
    let labels = target.labels.iter().map(|(name, value)| (format!("{}{name}", property::LABEL_PREFIX), value.clone()));
    properties.extend(labels);
    properties
}

/// Properties in the order that REAPI wants.
pub(super) fn sorted(mut properties: Vec<(String, String)>) -> reapi::Platform {
    properties.sort();
    let properties = properties.into_iter().map(|(name, value)| reapi::platform::Property { name, value }).collect();
    reapi::Platform { properties }
}

fn cpus(milli: u32) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{:.3}", f64::from(milli) / 1000.0) }
}
