//! One action in a root of its own: from its lease to its job, and from what it wrote to its result.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use kiln_executor::rooted::What;
use kiln_executor::{BUILD, Rooted};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::root::{self as contract, LAYER_OUTPUT, NETWORK_HOST, TIMES_OUTPUT};
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::{property, reapi, v1};
use kiln_trees::Encoded;
use kiln_trees::root::{Directory, Forest};
use prost::Message;
use reapi::command::OutputDirectoryFormat as Format;
use tokio_util::sync::CancellationToken;

use super::caches::Left;
use super::files::Files;
use super::layer::{self, Changes};
use super::mounts::Mounted;
use super::scan::Upper;
use super::{Root, Roots, owners};
use crate::inputs::fetching::in_place;
use crate::inputs::{Error, InputTree};
use crate::outputs::{self, Collected, MAX_BYTES};

type Blobs = Vec<(Digest, Blob)>;

/// An action whose root and mounts are on disk, and stay there until this is dropped.
#[derive(Debug)]
pub struct Step {
    roots: Roots,
    /// Its own inputs, if it has any.
    inputs: Option<InputTree>,
    root: Root,
    mounted: Mounted,
    rooted: Arc<Rooted>,
}

/// What a command changed in its root.
#[derive(Debug)]
pub struct Changed {
    /// The entries of its result.
    pub collected: Collected,
    /// The blobs that these name.
    pub blobs: Blobs,
    changes: Changes,
}

/// The value of a property of an action's platform.
fn value<'a>(action: &'a reapi::Action, command: &'a reapi::Command, name: &str) -> Option<&'a str> {
    #[allow(deprecated)]
    let platform = action.platform.as_ref().or(command.platform.as_ref());
    let mut properties = platform.iter().flat_map(|platform| &platform.properties);
    properties.find(|property| property.name == name).map(|property| property.value.as_str())
}

/// The working directory of an action that builds something in a root, relative to its inputs; `None` for one that changes its root.
fn within_build(command: &reapi::Command) -> Option<&str> {
    let below = command.working_directory.strip_prefix(contract::BUILD_DIRECTORY)?;
    if below.is_empty() { Some(below) } else { below.strip_prefix('/') }
}

/// The service of an action, whose root is one of these mounts.
fn service(
    action: &reapi::Action,
    command: &reapi::Command,
    mounts: &[contract::Mount],
) -> Result<Option<contract::Service>, Error> {
    let Some(text) = value(action, command, contract::SERVICE) else { return Ok(None) };
    let service = contract::decode_service(text).map_err(|error| Error::Invalid(error.to_string()))?;
    let is_root = |mount: &contract::Mount| matches!(mount, contract::Mount::Bind { target, rw: true, .. } if *target == service.root);
    if !mounts.iter().any(is_root) {
        let words = format!("nothing is mounted at `{}` that could be the root of a service", service.root);
        return Err(Error::Invalid(words));
    }
    Ok(Some(service))
}

/// What an action mounts.
pub(crate) fn mounts(action: &reapi::Action, command: &reapi::Command) -> Result<Vec<contract::Mount>, Error> {
    let text = value(action, command, contract::MOUNTS).unwrap_or("[]");
    contract::decode(text).map_err(|error| Error::Invalid(error.to_string()))
}

/// Whether an action runs in a root of its own.
pub(crate) fn is_rooted(action: &reapi::Action, command: &reapi::Command) -> bool {
    value(action, command, contract::ROOT).is_some()
}

impl Roots {
    /// Makes everything available that an action in a root needs.
    ///
    /// # Errors
    /// Where it cannot be fetched or laid out, or where the action asks for what no worker can do.
    pub async fn prepare(
        &self,
        client: &Client,
        lease: &v1::Lease,
        action: &reapi::Action,
        command: &reapi::Command,
        input_root: &Digest,
    ) -> Result<Step, Error> {
        let mounts = mounts(action, command)?;
        let service = service(action, command, &mounts)?;
        let times = lease.times.as_ref().map(|times| Digest::from_wire(input_root.function, times)).transpose();
        let times = times.map_err(|error| Error::Invalid(error.to_string()))?;
        let top = self.top(client, input_root).await?;
        let root = self.root(client, &top.root, times.as_ref()).await?;
        let mut mounted = self.mounted(client, &top, mounts, lease).await?;
        let inputs = match within_build(command) {
            None => None,
            Some(_) => {
                let build = top.build.ok_or_else(|| {
                    Error::Invalid(format!("the input tree has no directory `{}`", contract::BUILD_DIRECTORY))
                })?;
                self.of_step(client, lease, &mut mounted).await?;
                mounted.add_home(lease);
                Some(self.shared.inputs.fetch(client, &build).await?)
            }
        };
        let hostname = value(action, command, contract::HOSTNAME).map(str::to_owned);
        if let Some(name) = hostname.as_ref().filter(|name| !contract::is_hostname(name)) {
            return Err(Error::Invalid(format!("`{name}` cannot be the name of a machine")));
        }
        let rooted = Rooted {
            hostname,
            service,
            user: value(action, command, contract::USER).unwrap_or_default().to_owned(),
            host_network: value(action, command, property::NETWORK) == Some(NETWORK_HOST),
            hosts: lease.hosts.iter().map(|host| (host.name.clone(), host.address.clone())).collect(),
            mounts: std::mem::take(&mut mounted.mounts),
            inputs: inputs.as_ref().map(|inputs| inputs.layers().to_vec()),
            secret_variables: std::mem::take(&mut mounted.secret_variables),
        };
        Ok(Step { roots: self.clone(), inputs, root, mounted, rooted: rooted.into() })
    }
}

impl Step {
    /// Where its command runs.
    pub fn rooted(&self) -> Arc<Rooted> {
        self.rooted.clone()
    }

    /// The directories of its root, topmost first.
    pub fn layers(&self) -> &[std::path::PathBuf] {
        self.root.stack.layers()
    }

    /// The files of its root, as they were before its command.
    pub(crate) fn files(&self) -> Files<'_> {
        let mounts = self.rooted.mounts.iter().any(|mount| matches!(mount.what, What::Tree { .. }));
        Files { forest: &self.root.forest, root: self.root.digest, is_all: !mounts }
    }

    /// Whether its result is what it builds from inputs of its own, rather than what it changes in its root.
    pub fn builds(&self) -> bool {
        self.inputs.is_some()
    }

    /// The command of one that [builds](Self::builds), with a working directory relative to its inputs.
    pub fn command_on_inputs(command: &reapi::Command) -> reapi::Command {
        let working_directory = within_build(command).unwrap_or_default().to_owned();
        reapi::Command { working_directory, ..command.clone() }
    }

    /// The working directory in its root.
    ///
    /// # Errors
    /// Where the command's is neither in the root nor in the inputs.
    pub fn working_directory(command: &reapi::Command) -> Result<String, Error> {
        if let Some(within) = within_build(command) {
            return Ok(format!("{BUILD}/{within}"));
        }
        let below = command.working_directory.strip_prefix(contract::ROOT_DIRECTORY);
        let within = below.filter(|below| below.is_empty() || below.starts_with('/'));
        within.map(|within| format!("/{}", within.trim_start_matches('/'))).ok_or_else(|| {
            Error::Invalid(format!(
                "working directory `{}` is not in the root; expected a path below `{}`",
                command.working_directory,
                contract::ROOT_DIRECTORY
            ))
        })
    }

    /// Reads what a command that succeeded changed in its root, given where it wrote: the entries of its result, and the blobs that these name.
    ///
    /// # Errors
    /// As for outputs of other actions.
    pub async fn changes(
        &mut self,
        written: &Path,
        command: &reapi::Command,
        function: DigestFunction,
    ) -> Result<Changed, outputs::Error> {
        let cancel = CancellationToken::new();
        let _unwanted = cancel.clone().drop_guard();
        let on_disk = self.roots.shared.on_disk;
        let base = owners::base(written, on_disk).map_err(|error| outputs::Error::Farm(error.to_string()))?;
        let (before, path) = (self.root.digest, written.to_owned());
        let mut forest = std::mem::replace(&mut self.root.forest, Forest::new(function));
        let read = tokio::task::spawn_blocking(move || {
            let upper = Upper { path: &path, base, marks: on_disk.marks, function, most_bytes: MAX_BYTES };
            let changes = layer::changes(upper, &mut forest, &before, &cancel);
            (forest, changes)
        });
        let (forest, changes) = read.await.map_err(|error| outputs::Error::Farm(error.to_string()))?;
        self.root.forest = forest;
        let changes = changes?;
        let (collected, blobs) = report(&changes, command, function)?;
        Ok(Changed { collected, blobs, changes })
    }

    /// What a command that succeeded left in its caches, and is to be published.
    pub(crate) async fn left(&mut self, written: &Path, function: DigestFunction) -> Vec<Left> {
        self.roots.clone().left(&mut self.mounted.caches, written, function).await
    }

    /// Keeps what was published for the steps that follow.
    pub(crate) fn keep_caches(&self, written: &Path, published: &[Left]) {
        self.roots.keep_caches(written, published);
    }

    /// Keeps what was written, once it is uploaded, for the steps that follow. That it cannot be kept is no fault of this one.
    pub(crate) fn keep(&self, written: &Path, changed: &Changed, published: &[Left]) {
        let root = &changed.changes.root;
        self.roots.shared.known.remember(reached(&self.root.forest, root));
        let kept = in_place(|| {
            for left in published {
                self.roots.keep_cache(left, written)?;
            }
            self.roots.shared.keep(&self.root, written, root)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep what a step wrote; the next one unpacks it again");
        }
    }
}

/// Those of these directories that a root has.
pub(super) fn among(forest: &Forest, root: &Digest, made: Vec<Encoded>) -> Vec<Encoded> {
    let own: HashSet<Digest> = digests(forest, root);
    made.into_iter().filter(|made| own.contains(&made.digest)).collect()
}

/// The directories of a root.
pub(super) fn reached<'a>(
    forest: &'a Forest,
    root: &Digest,
) -> impl Iterator<Item = (Digest, Arc<Directory>)> + use<'a> {
    digests(forest, root).into_iter().filter_map(|digest| Some((digest, forest.get(&digest)?.clone())))
}

fn digests(forest: &Forest, root: &Digest) -> HashSet<Digest> {
    use kiln_trees::walk::Directory as _;
    let mut seen = HashSet::from([*root]);
    let mut waiting = vec![*root];
    while let Some(digest) = waiting.pop() {
        let below = forest.get(&digest).map(|directory| directory.below()).unwrap_or_default();
        waiting.extend(below.into_iter().filter(|digest| seen.insert(*digest)));
    }
    seen
}

/// The entries of the result, and the blobs that they name.
fn report(
    changes: &Changes,
    command: &reapi::Command,
    function: DigestFunction,
) -> Result<(Collected, Blobs), outputs::Error> {
    let mut blobs: Blobs = changes.files.iter().map(|(digest, path)| (*digest, Blob::File(path.clone()))).collect();
    let mut collected = Collected::default();
    let mut directory = reapi::OutputDirectory {
        path: LAYER_OUTPUT.to_owned(),
        root_directory_digest: Some(changes.layer.to_wire()),
        ..reapi::OutputDirectory::default()
    };
    if command.output_directory_format() != Format::DirectoryOnly {
        let mut seen = HashSet::new();
        let distinct = changes.directories.iter().filter(|encoded| seen.insert(encoded.digest));
        let messages: Result<Vec<reapi::Directory>, _> =
            distinct.map(|encoded| reapi::Directory::decode(encoded.data.as_slice())).collect();
        let mut messages = messages.map_err(|error| outputs::Error::Farm(error.to_string()))?.into_iter();
        let data = reapi::Tree { root: messages.next(), children: messages.collect() }.encode_to_vec();
        let digest = function.digest(&data);
        directory.tree_digest = Some(digest.to_wire());
        blobs.push((digest, Blob::Bytes(data.into())));
    }
    for encoded in &changes.directories {
        blobs.push((encoded.digest, Blob::Bytes(encoded.data.clone().into())));
    }
    let times = changes.times.encode();
    let digest = function.digest(&times);
    blobs.push((digest, Blob::Bytes(times.into())));
    collected.output_files.push(reapi::OutputFile {
        path: TIMES_OUTPUT.to_owned(),
        digest: Some(digest.to_wire()),
        ..reapi::OutputFile::default()
    });
    collected.output_directories.push(directory);
    Ok((collected, blobs))
}
