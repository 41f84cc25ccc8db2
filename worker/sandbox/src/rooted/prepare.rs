//! The worker's side of a job in a root: its directories on disk, and the mounts that only the worker can make.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use kiln_executor::rooted::{self, Rooted};
use kiln_executor::scratch::Scratch;
use kiln_executor::{BUILD, Job, Secrets};
use kiln_kernel::syscalls;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::ids::Lease;
use super::super::init::USER;
use super::super::prepare::Prepared;
use super::super::spec::{Network, Source, Spec, Tree};
use super::spec::{Layers, Mounted, RootSpec, What};
use super::{Roots, Way};

/// The file in which a job reads where names are resolved.
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const OWN_HOSTS: &str = "127.0.0.1 localhost kiln\n::1 localhost ip6-localhost ip6-loopback\n";

/// Attributes of a tree that has no layers.
type Top = (u32, u32, u32);

struct Preparing<'a> {
    roots: Roots,
    ids: &'a Lease,
    scratch: &'a Scratch,
    /// The directories above layers, each a stage.
    parents: Vec<PathBuf>,
    made: Vec<OwnedFd>,
}

impl Preparing<'_> {
    /// The id on disk of the user 0 of what this job writes.
    fn base(&self) -> u32 {
        self.roots.on_disk.written.unwrap_or(self.ids.user() - USER)
    }

    /// A detached mount of a directory, with its owners mapped to the job's if the layers' are.
    fn view(&mut self, path: &Path, is_mapped: bool) -> Result<(), String> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, path, flags)
            .map_err(|error| format!("cannot clone the mount of `{}`: {error}", path.display()))?;
        if let (true, Some(namespace)) = (is_mapped, self.ids.namespace()) {
            syscalls::map_owners(tree.as_fd(), namespace.as_fd())
                .map_err(|error| format!("cannot map the owners of `{}`: {error}", path.display()))?;
        }
        self.made.push(tree);
        Ok(())
    }

    fn give(&self, path: &Path, (mode, uid, gid): Top) -> Result<(), String> {
        let base = self.base();
        lchown(path, Some(base + uid), Some(base + gid))
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(|error| format!("cannot prepare `{}`: {error}", path.display()))
    }

    fn directory(&self, name: &str, attributes: Top) -> Result<PathBuf, String> {
        let made = self.scratch.directory(name).map_err(|error| format!("cannot prepare a job: {error}"))?;
        self.give(&made, attributes)?;
        Ok(made)
    }

    /// The stage of a layer and its name there. `is_input`: it is one of the job's inputs rather than of a root.
    fn lower(&mut self, layer: &Path, is_input: bool) -> Result<PathBuf, String> {
        let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
            return Err(format!("`{}` is not a layer", layer.display()));
        };
        let number = match self.parents.iter().position(|known| known == parent) {
            Some(number) => number,
            None => {
                if is_input {
                    self.made.push(self.ids.mount(parent)?);
                } else {
                    self.view(parent, self.roots.way != Way::Shared)?;
                }
                self.parents.push(parent.to_owned());
                self.parents.len() - 1
            }
        };
        Ok(Path::new(&(number + 1).to_string()).join(name))
    }

    /// An overlay over these layers. What is written to it has the attributes of the topmost layer.
    fn overlay(&mut self, layers: &[PathBuf], upper: &str, work: &str, top: Top) -> Result<Layers, String> {
        let mut attributes = top;
        if let Some(layer) = layers.first() {
            let data = layer.metadata().map_err(|error| format!("cannot read `{}`: {error}", layer.display()))?;
            let own = self.roots.on_disk.layers;
            let id = |id: u32| id.saturating_sub(own);
            attributes = (data.mode() & 0o7777, id(data.uid()), id(data.gid()));
        }
        let lower = layers.iter().map(|layer| self.lower(layer, false)).collect::<Result<_, _>>()?;
        self.over(lower, upper, work, attributes)
    }

    /// The overlay of the job's inputs. They belong to the user of ordinary jobs.
    fn inputs(&mut self, layers: &[PathBuf]) -> Result<Layers, String> {
        let lower = layers.iter().map(|layer| self.lower(layer, true)).collect::<Result<_, _>>()?;
        self.over(lower, "inputs", "work-inputs", (0o755, USER, USER))
    }

    fn over(&mut self, mut lower: Vec<PathBuf>, upper: &str, work: &str, attributes: Top) -> Result<Layers, String> {
        self.directory(upper, attributes)?;
        self.directory(work, (0o700, 0, 0))?;
        if lower.is_empty() {
            self.directory("empty", (0o755, 0, 0))?;
            lower.push("0/empty".into());
        }
        let staged = |name: &str| Path::new("0").join(name);
        Ok(Layers { lower, upper: staged(upper), work: staged(work), is_file: false, writable: true })
    }
}

impl Prepared {
    /// Prepares a job in a root, whose limits the init enforces.
    pub(in super::super) fn in_root(
        roots: Roots,
        ids: &Lease,
        scratch: &Scratch,
        job: &Job,
        rooted: &Rooted,
        environment: BTreeMap<String, String>,
        is_trial: bool,
    ) -> Result<Self, String> {
        let mut preparing = Preparing { roots, ids, scratch, parents: Vec::new(), made: Vec::new() };
        preparing.give(scratch.path(), (0o755, 0, 0))?;
        preparing.view(scratch.path(), roots.way == Way::Inside)?;
        let top = (0o755, 0, 0);
        let mut overlays = vec![preparing.overlay(&job.layers, "written", "work", top)?];
        let mut mounts = Vec::new();
        for (number, mount) in rooted.mounts.iter().enumerate() {
            let what = match &mount.what {
                rooted::What::Tree { layers, is_file, writable, top } => {
                    let upper = rooted::written_to_mount(&scratch.path().join("written"), number);
                    let upper = upper.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let overlay = preparing.overlay(layers, &upper, &format!("work-{number}"), *top)?;
                    overlays.push(Layers { is_file: *is_file, writable: *writable, ..overlay });
                    What::Overlay(overlays.len() - 1)
                }
                rooted::What::Memory { bytes } => What::Memory(*bytes),
                rooted::What::Secret { name, attributes } => What::Secret(name.clone(), *attributes),
            };
            mounts.push(Mounted { target: mount.target.clone().into(), what });
        }
        if let Some(layers) = &rooted.inputs {
            overlays.push(preparing.inputs(layers)?);
            mounts.push(Mounted { target: BUILD.into(), what: What::Overlay(overlays.len() - 1) });
        }
        // A mount must not hide another one below it.
        mounts.sort_by_key(|mount| mount.target.components().count());
        let made = preparing.made;
        let root = RootSpec {
            way: roots.way,
            overlays,
            mounts,
            user: rooted.user.clone(),
            secret_variables: rooted.secret_variables.clone(),
            stays: rooted.inputs.is_some(),
            is_trial,
        };
        let wants_secrets =
            !root.secret_variables.is_empty() || root.mounts.iter().any(|mount| matches!(mount.what, What::Secret(..)));
        let spec = Spec {
            user: Some(ids.user()),
            stage: (0..made.len()).map(Source::Sent).collect(),
            binds: Vec::new(),
            links: Vec::new(),
            files: files(job, rooted),
            tree: Tree { lower: Vec::new(), upper: PathBuf::new(), work: PathBuf::new() },
            network: if job.network { Network::Machine } else { Network::None },
            routes: (false, false),
            unreachable: Vec::new(),
            arguments: job.arguments.clone(),
            environment,
            secrets: if wants_secrets { job.secrets.clone() } else { Secrets::default() },
            working_directory: job.working_directory.clone(),
            make_directories: job.make_directories.clone(),
            shared_memory_bytes: job.memory_bytes / 2,
            file_bytes: job.disk_bytes,
            memory_bytes: Some(job.memory_bytes),
            max_processes: Some(job.max_processes),
            rooted: Some(root),
        };
        Ok(Self::with(spec, made, (job.memory_bytes, job.max_processes)))
    }
}

/// Files that are mounted over the root's own.
fn files(job: &Job, rooted: &Rooted) -> Vec<(PathBuf, String)> {
    let machine = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = if job.network && rooted.host_network { machine(HOSTS) } else { OWN_HOSTS.to_owned() };
    let resolver = if job.network { machine(RESOLVER) } else { String::new() };
    vec![(HOSTS.into(), hosts), (RESOLVER.into(), resolver)]
}
