//! Prepares what a job's init needs: the job's root, its limits, and the mounts that only the worker can create.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::cgroup::Group;
use super::host::Host;
use super::ids::Lease;
use super::init::USER;
use super::network::Plan;
use super::rooted::{Beside, Roots};
use super::spec::{Bind, Network, Source, Spec, Tree};
use kiln_executor::scratch::Scratch;
use kiln_executor::{HOME, Job};

/// A job's specification, with the mounts that are sent along.
#[derive(Debug)]
pub(super) struct Prepared {
    spec: Spec,
    mounts: Vec<OwnedFd>,
    /// Its network, if it is one of those that jobs use one after another.
    loopback: Option<Arc<OwnedFd>>,
    /// Where its init sends the listener of the worker's port.
    port: Option<OwnedFd>,
    limits: (u64, u32),
}

/// Collects mounts.
struct Mounts<'a> {
    ids: Option<&'a Lease>,
    made: Vec<OwnedFd>,
}

impl Mounts<'_> {
    /// One of the worker's directories, as a source that belongs to the job.
    fn owned(&mut self, path: &Path) -> Result<Source, String> {
        let Some(ids) = self.ids else { return Ok(Source::Path(path.to_owned())) };
        self.made.push(ids.mount(path)?);
        Ok(Source::Sent(self.made.len() - 1))
    }

    /// Sends a mount along if the job's user cannot reach the path.
    fn reachable(&mut self, bind: &Bind) -> Result<Bind, String> {
        let mut bind = bind.clone();
        if let (Source::Path(path), false, Some(ids)) = (&bind.from, bind.is_public, self.ids) {
            self.made.push(ids.mount(path).or_else(|_| ids.clone_mount(path))?);
            bind.from = Source::Sent(self.made.len() - 1);
        }
        Ok(bind)
    }
}

impl Prepared {
    /// Prepares a job whose limits the init enforces.
    pub(super) fn new(
        host: &Host,
        ids: Option<&Lease>,
        scratch: &Scratch,
        job: &Job,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        for directory in ["", "tmp", "tmp/home", "written", "work"] {
            let made = scratch.directory(directory).map_err(|error| format!("cannot prepare a job: {error}"))?;
            ids.map_or(Ok(()), |ids| ids.give(&made))?;
        }
        let mut mounts = Mounts { ids, made: Vec::new() };
        let mut stage = vec![mounts.owned(scratch.path())?];
        let mut parents: Vec<&Path> = Vec::new();
        let mut lower = Vec::new();
        for layer in &job.layers {
            let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
                return Err(format!("`{}` is not an input layer", layer.display()));
            };
            let known = parents.iter().position(|known| *known == parent);
            let number = match known {
                Some(number) => number + 1,
                None => {
                    stage.push(mounts.owned(parent)?);
                    parents.push(parent);
                    parents.len()
                }
            };
            lower.push(Path::new(&number.to_string()).join(name));
        }
        let tree = Tree { lower, upper: "0/written".into(), work: "0/work".into() };
        let tmp = Source::Staged("0/tmp".into());
        let mut own = vec![Bind { from: tmp, is_directory: true, is_public: true, to: "/tmp".into(), writable: true }];
        if let Some(offer) = &job.calls.offer {
            let from = Source::Path(offer.directory.clone());
            let bind = Bind { from, is_directory: true, is_public: false, to: offer.to.clone(), writable: false };
            own.push(mounts.reachable(&bind)?);
        }
        let mut binds = Vec::new();
        let wanted = host.binds.iter().chain(host.network_binds.iter().filter(|_| job.network));
        for bind in wanted {
            binds.push(mounts.reachable(bind)?);
        }
        let mut provided: Vec<(PathBuf, String)> = host.files.clone();
        provided.extend(host.network_files.iter().filter(|_| job.network).cloned());
        let mut files = files(&binds, job.host_name());
        // The farm's files take precedence over the machine's.
        let given: Vec<PathBuf> = job.secrets.files().map(|(path, _)| Path::new(HOME).join(path)).collect();
        binds.retain(|bind| !given.contains(&bind.to));
        files.extend(provided.into_iter().filter(|(path, _)| !given.contains(path)));
        let spec = Spec {
            user: ids.map(Lease::user),
            stage,
            own,
            kept: false,
            binds,
            links: host.links.clone(),
            files,
            tree,
            network: if job.network { Network::Machine } else { Network::None },
            loopback: false,
            listens: None,
            routes: (false, false),
            ports: Vec::new(),
            unreachable: Vec::new(),
            arguments: job.arguments.clone(),
            environment,
            secrets: job.secrets.clone(),
            working_directory: job.working_directory.clone(),
            make_directories: job.make_directories.clone(),
            shared_memory_bytes: job.memory_bytes / 2,
            file_bytes: job.disk_bytes,
            memory_bytes: Some(job.memory_bytes),
            max_processes: Some(job.max_processes),
            hostname: job.host_name().to_owned(),
            cpus: job.conditions.cpus,
            recorded: job.calls.recorded,
            preloaded: job.calls.recorded && host.loads_recorder,
            beside: None,
            session: job.session.as_ref().map(|session| session.wanted.clone()),
            rooted: None,
        };
        Ok(Self::with(spec, mounts.made, (job.memory_bytes, job.max_processes)))
    }

    /// A specification with the mounts that are sent along, and the limits on memory and processes.
    pub(super) fn with(spec: Spec, mounts: Vec<OwnedFd>, limits: (u64, u32)) -> Self {
        Self { spec, mounts, loopback: None, port: None, limits }
    }

    /// Gives the job its caches and sockets, if the machine can have any.
    pub(super) fn with_beside(
        mut self,
        roots: Option<(Roots, &Path)>,
        ids: Option<&Lease>,
        scratch: &Scratch,
        job: &Job,
    ) -> Result<Self, String> {
        if let (Some(roots), Some(ids), false) = (roots, ids, job.beside.is_empty()) {
            self.spec.beside = Some(Beside::prepare(roots, ids, scratch, job, &mut self.mounts)?);
        }
        Ok(self)
    }

    /// Prepares a job for a sandbox that has its root already.
    pub(super) fn further(
        host: &Host,
        ids: &Lease,
        scratch: &Scratch,
        job: &Job,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut prepared = Self::new(&host.already_shown(), Some(ids), scratch, job, environment)?;
        prepared.spec.files.clear();
        prepared.spec.kept = true;
        Ok(prepared)
    }

    /// Keeps the sandbox for further jobs.
    pub(super) fn keep(&mut self) {
        self.spec.kept = true;
    }

    /// Gives the job a network that has nothing but a loopback.
    pub(super) fn with_loopback(&mut self, network: Arc<OwnedFd>) {
        self.spec.loopback = true;
        self.loopback = Some(network);
    }

    /// Has the init listen for the worker at this port, and send the listener to this socket.
    pub(super) fn with_port(&mut self, number: u16, socket: OwnedFd) {
        self.spec.listens = Some(number);
        self.port = Some(socket);
    }

    /// Gives the job its own network, with these ports of the machine's loopback.
    pub(super) fn with_own_network(&mut self, plan: Plan, ports: &[u16]) {
        let resolver = Path::new("/etc/resolv.conf");
        self.spec.network = Network::Own;
        self.spec.routes = (plan.v4, plan.v6);
        self.spec.ports = ports.to_vec();
        self.spec.unreachable = plan.closed;
        self.spec.binds.retain(|bind| bind.to != resolver);
        self.spec.files.retain(|(path, _)| path != resolver);
        self.spec.files.push((resolver.into(), plan.resolver));
    }

    /// Relieves the init of the limits that the control group enforces.
    pub(super) fn limited_by(&mut self, group: Option<&Group>) {
        let (memory_bytes, max_processes) = self.limits;
        self.spec.memory_bytes = group.is_none().then_some(memory_bytes);
        self.spec.max_processes = group.is_none_or(|group| !group.limits_processes()).then_some(max_processes);
    }

    /// The descriptors to send to an init that has a user namespace and a network.
    pub(super) fn mounts(&self) -> Vec<BorrowedFd<'_>> {
        self.mounts.iter().map(AsFd::as_fd).collect()
    }

    /// The descriptors to send to the init: its user namespace, its network, the mounts, and the socket for the worker's port.
    pub(super) fn descriptors<'a>(&'a self, ids: Option<&'a Lease>) -> Vec<BorrowedFd<'a>> {
        let namespace = ids.and_then(Lease::namespace).map(AsFd::as_fd);
        let network = self.loopback.as_deref().map(AsFd::as_fd);
        let mounts = self.mounts.iter().map(AsFd::as_fd);
        namespace.into_iter().chain(network).chain(mounts).chain(self.port.as_ref().map(AsFd::as_fd)).collect()
    }

    /// The line that the init reads. It contains secrets.
    pub(super) fn line(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(serde_json::to_vec(&self.spec)?);
        line.push(b'\n');
        Ok(line)
    }
}

/// Small files that the sandbox provides itself.
fn files(binds: &[Bind], name: &str) -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("/etc/passwd".into(), format!("root:x:0:0::/:/bin/sh\nkiln:x:{USER}:{USER}::{HOME}:/bin/sh\n")),
        ("/etc/group".into(), format!("root:x:0:\nkiln:x:{USER}:\n")),
        ("/etc/nsswitch.conf".into(), "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ];
    if !binds.iter().any(|bind| bind.to == Path::new("/etc/hosts")) {
        files.push(("/etc/hosts".into(), format!("127.0.0.1 localhost {name}\n::1 localhost\n")));
    }
    files
}
