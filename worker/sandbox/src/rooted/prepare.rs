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
use super::image::{self, Top};
use super::spec::{Layers, Mounted, RootSpec, What};
use super::{Roots, Way};

/// The file in which a job reads where names are resolved.
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

pub(super) struct Preparing<'a> {
    roots: Roots,
    ids: &'a Lease,
    /// What is made for the job is in this directory.
    own: &'a Path,
    /// The directory with the content of files that images name.
    objects: &'a Path,
    /// Directories and images, each a stage after the job's own; of images also what their root directories are like.
    staged: Vec<(PathBuf, Option<Top>)>,
    pub(super) made: Vec<OwnedFd>,
}

/// What a stage is.
#[derive(Debug, Clone, Copy)]
enum Staged {
    /// An image of a root.
    Image,
    /// A directory with layers of roots, or with content that images name.
    OfRoots,
    /// A directory with layers of the job's inputs.
    OfInputs,
}

impl<'a> Preparing<'a> {
    /// The first stage is the job's own directory.
    pub(super) fn begin((roots, objects): (Roots, &'a Path), ids: &'a Lease, own: &'a Path) -> Result<Self, String> {
        let mut preparing = Self { roots, ids, own, objects, staged: Vec::new(), made: Vec::new() };
        preparing.give(own, (0o755, 0, 0))?;
        preparing.view(own, roots.way == Way::Inside)?;
        Ok(preparing)
    }

    /// The overlay of the mount with this number.
    pub(super) fn mounted(&mut self, layers: &[PathBuf], number: usize, top: Top) -> Result<Layers, String> {
        let upper = rooted::written_to_mount(&self.own.join("written"), number);
        let upper = upper.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.overlay(layers, &upper, &format!("work-{number}"), top)
    }

    /// The id on disk of the user 0 of what this job writes.
    fn base(&self) -> u32 {
        self.roots.on_disk.written.unwrap_or(self.ids.user() - USER)
    }

    /// A detached mount of a directory, with its owners mapped to the job's if the layers' are.
    fn view(&mut self, path: &Path, is_mapped: bool) -> Result<(), String> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, path, flags)
            .map_err(|error| format!("cannot clone the mount of `{}`: {error}", path.display()))?;
        self.map(tree, path, is_mapped)
    }

    fn map(&mut self, tree: OwnedFd, path: &Path, is_mapped: bool) -> Result<(), String> {
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

    pub(super) fn directory(&self, name: &str, attributes: Top) -> Result<PathBuf, String> {
        let made = self.own.join(name);
        std::fs::create_dir_all(&made).map_err(|error| format!("cannot prepare a job: {error}"))?;
        self.give(&made, attributes)?;
        Ok(made)
    }

    /// The stage of a directory, or of an image.
    fn stage(&mut self, path: &Path, kind: Staged) -> Result<PathBuf, String> {
        let is_mapped = self.roots.way != Way::Shared;
        let number = match self.staged.iter().position(|(known, _)| known == path) {
            Some(number) => number,
            None => {
                let mut top = None;
                match kind {
                    Staged::Image => {
                        let (tree, attributes) = image::mounted(path)?;
                        self.map(tree, path, is_mapped)?;
                        top = Some(attributes);
                    }
                    Staged::OfRoots => self.view(path, is_mapped)?,
                    Staged::OfInputs => self.made.push(self.ids.mount(path)?),
                }
                self.staged.push((path.to_owned(), top));
                self.staged.len() - 1
            }
        };
        Ok((number + 1).to_string().into())
    }

    /// A layer below stages, and what its root directory is like.
    fn lower(&mut self, layer: &Path) -> Result<(PathBuf, Top), String> {
        let data = layer.metadata().map_err(|error| format!("cannot read `{}`: {error}", layer.display()))?;
        if data.is_file() {
            let stage = self.stage(layer, Staged::Image)?;
            let known = self.staged.iter().find(|(known, _)| known == layer);
            return Ok((stage, known.and_then(|(_, top)| *top).unwrap_or((0o755, 0, 0))));
        }
        let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
            return Err(format!("`{}` is not a layer", layer.display()));
        };
        let id = |id: u32| id.saturating_sub(self.roots.on_disk.layers);
        let top = (data.mode() & 0o7777, id(data.uid()), id(data.gid()));
        Ok((self.stage(parent, Staged::OfRoots)?.join(name), top))
    }

    /// A socket below stages. Its owner is one of the job's.
    pub(super) fn socket(&mut self, path: &Path, (mode, uid, gid): Top) -> Result<PathBuf, String> {
        let base = self.roots.on_disk.layers;
        lchown(path, Some(base + uid), Some(base + gid))
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode & 0o777)))
            .map_err(|error| format!("cannot prepare `{}`: {error}", path.display()))?;
        self.offered(path)
    }

    /// A socket, or the directory that the worker offers, below stages.
    fn offered(&mut self, path: &Path) -> Result<PathBuf, String> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(format!("`{}` cannot be offered", path.display()));
        };
        Ok(self.stage(parent, Staged::OfRoots)?.join(name))
    }

    /// An overlay over these layers. What is written to it has the attributes of the topmost layer.
    fn overlay(&mut self, layers: &[PathBuf], upper: &str, work: &str, top: Top) -> Result<Layers, String> {
        let found: Vec<(PathBuf, Top)> = layers.iter().map(|layer| self.lower(layer)).collect::<Result<_, _>>()?;
        let attributes = found.first().map_or(top, |(_, top)| *top);
        let has_image =
            layers.iter().any(|layer| self.staged.iter().any(|(known, top)| known == layer && top.is_some()));
        let objects = if has_image { Some(self.stage(self.objects, Staged::OfRoots)?) } else { None };
        let lower = found.into_iter().map(|(layer, _)| layer).collect();
        self.over((lower, objects), upper, work, attributes)
    }

    /// The overlay of the job's inputs. They belong to the user of ordinary jobs.
    fn inputs(&mut self, layers: &[PathBuf]) -> Result<Layers, String> {
        let mut lower = Vec::new();
        for layer in layers {
            let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
                return Err(format!("`{}` is not an input layer", layer.display()));
            };
            lower.push(self.stage(parent, Staged::OfInputs)?.join(name));
        }
        self.over((lower, None), "inputs", "work-inputs", (0o755, USER, USER))
    }

    fn over(
        &mut self,
        (mut lower, objects): (Vec<PathBuf>, Option<PathBuf>),
        upper: &str,
        work: &str,
        attributes: Top,
    ) -> Result<Layers, String> {
        self.directory(upper, attributes)?;
        self.directory(work, (0o700, 0, 0))?;
        if lower.is_empty() {
            self.directory("empty", (0o755, 0, 0))?;
            lower.push("0/empty".into());
        }
        let staged = |name: &str| Path::new("0").join(name);
        Ok(Layers { lower, upper: staged(upper), work: staged(work), objects, is_file: false, writable: true })
    }
}

impl Prepared {
    /// Prepares a job in a root, whose limits the init enforces.
    #[allow(clippy::too_many_arguments)]
    pub(in super::super) fn in_root(
        (roots, objects): (Roots, &Path),
        ids: &Lease,
        scratch: &Scratch,
        job: &Job,
        rooted: &Rooted,
        environment: BTreeMap<String, String>,
        authorities: Option<String>,
        is_trial: bool,
    ) -> Result<Self, String> {
        let mut preparing = Preparing::begin((roots, objects), ids, scratch.path())?;
        let top = (0o755, 0, 0);
        let mut overlays = vec![preparing.overlay(&job.layers, "written", "work", top)?];
        let (mut mounts, mut sockets) = (Vec::new(), Vec::new());
        for (number, mount) in rooted.mounts.iter().enumerate() {
            let what = match &mount.what {
                rooted::What::Tree { layers, is_file, writable, top } => {
                    let overlay = preparing.mounted(layers, number, *top)?;
                    overlays.push(Layers { is_file: *is_file, writable: *writable, ..overlay });
                    What::Overlay(overlays.len() - 1)
                }
                rooted::What::Memory { bytes } => What::Memory(*bytes),
                rooted::What::Socket { path, attributes } => {
                    sockets.push(preparing.socket(path, *attributes)?);
                    What::Socket(sockets.len() - 1)
                }
                rooted::What::Secret { name, attributes } => What::Secret(name.clone(), *attributes),
            };
            mounts.push(Mounted { target: mount.target.clone().into(), what });
        }
        if let Some(layers) = &rooted.inputs {
            overlays.push(preparing.inputs(layers)?);
            mounts.push(Mounted { target: BUILD.into(), what: What::Overlay(overlays.len() - 1) });
        }
        if let Some(offer) = &job.calls.offer {
            sockets.push(preparing.offered(&offer.directory)?);
            mounts.push(Mounted { target: offer.to.clone(), what: What::Offered(sockets.len() - 1) });
        }
        // A mount must not hide another one below it.
        mounts.sort_by_key(|mount| mount.target.components().count());
        let made = preparing.made;
        let root = RootSpec {
            way: roots.way,
            overlays,
            sockets,
            mounts,
            user: rooted.user.clone(),
            service: rooted.service.clone(),
            secret_variables: rooted.secret_variables.clone(),
            // Of a recorded one, what it had is compared with what another has.
            stays: rooted.inputs.is_some() || job.calls.recorded,
            authorities,
            is_trial,
        };
        let wants_secrets =
            !root.secret_variables.is_empty() || root.mounts.iter().any(|mount| matches!(mount.what, What::Secret(..)));
        let spec = Spec {
            user: Some(ids.user()),
            stage: (0..made.len()).map(Source::Sent).collect(),
            own: Vec::new(),
            kept: false,
            binds: Vec::new(),
            links: Vec::new(),
            files: files(job, rooted),
            tree: Tree { lower: Vec::new(), upper: PathBuf::new(), work: PathBuf::new() },
            network: if job.network { Network::Machine } else { Network::None },
            loopback: false,
            listens: None,
            routes: (false, false),
            ports: Vec::new(),
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
            hostname: job.host_name().to_owned(),
            cpus: job.conditions.cpus,
            recorded: job.calls.recorded,
            preloaded: false,
            beside: None,
            session: job.session.as_ref().map(|session| session.wanted.clone()),
            rooted: Some(root),
        };
        Ok(Self::with(spec, made, (job.memory_bytes, job.max_processes)))
    }
}

/// Files that are mounted over the root's own.
fn files(job: &Job, rooted: &Rooted) -> Vec<(PathBuf, String)> {
    let machine = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let name = job.host_name();
    let own = || format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n");
    let mut hosts = if job.network && rooted.host_network { machine(HOSTS) } else { own() };
    for (name, address) in &rooted.hosts {
        // A line each, whatever the coordinator sent.
        let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '#');
        if is_word(name) && is_word(address) {
            hosts.push_str(&format!("{address} {name}\n"));
        }
    }
    let resolver = if job.network { machine(RESOLVER) } else { String::new() };
    vec![(HOSTS.into(), hosts), (RESOLVER.into(), resolver)]
}
