//! The mounts of a command, from what its action says to what is on disk.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_executor::rooted::{Mount, What};
use kiln_executor::{HOME, Secrets};
use kiln_proto::digest::Digest;
use kiln_proto::root::{self as contract, BUILD_DIRECTORY, MOUNT_DIRECTORY, ROOT_DIRECTORY};
use kiln_proto::transfer::Client;
use kiln_proto::v1;
use kiln_trees::root::{Attributes, Content, Directory, Leaf, Node};
use kiln_trees::walk::Directory as _;
use kiln_trees::{Entry, Tree};

use super::agents::Agents;
use super::caches::Taken;
use super::{Root, Roots};
use crate::inputs::{Error, transfer_failed};

/// Permission bits of a secret's file, and of a new cache.
const SECRET_MODE: u32 = 0o400;
/// Permission bits of an agent's socket.
const SOCKET_MODE: u32 = 0o600;
const CACHE_MODE: u32 = 0o755;
/// The user and group that an action's inputs belong to.
const OWNER: u32 = 1000;

/// What is mounted for a command, in the order of its mounts.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    pub(super) mounts: Vec<Mount>,
    pub(super) secret_variables: Vec<(String, String)>,
    /// Caches that are written to, with the numbers of their mounts, and the mode, user and group of a new one.
    pub(super) caches: Vec<(usize, Taken, (u32, u32, u32))>,
    /// Caches that are only read.
    pub(super) read: Vec<Taken>,
    pub(super) trees: Vec<Root>,
    /// What serves the sockets of agents.
    pub(super) agents: Option<Agents>,
}

/// The content of an input tree's root: the action's root, and the directory of what is mounted.
pub(super) struct Top {
    pub(super) root: Digest,
    /// The directory of its own inputs.
    pub(super) build: Option<Digest>,
    mounts: Option<Arc<Sources>>,
}

/// The trees and files that are mounted, by name.
enum Sources {
    /// With owners.
    Attributed(Directory),
    Plain(Tree),
}

/// One of them.
enum Found {
    Tree(Digest),
    File(Leaf),
}

impl Sources {
    fn get(&self, number: u32) -> Result<Found, Error> {
        let absent =
            || Error::Invalid(format!("the input tree has nothing at `{MOUNT_DIRECTORY}/{number}`, which is mounted"));
        match self {
            Self::Attributed(directory) => {
                let name = number.to_string().parse().map_err(|_| absent())?;
                match directory.entries.get(&name) {
                    Some(Node::Directory(digest)) => Ok(Found::Tree(*digest)),
                    Some(Node::Leaf(leaf)) => Ok(Found::File(Leaf { links: None, ..leaf.clone() })),
                    Some(Node::Whiteout) | None => Err(absent()),
                }
            }
            Self::Plain(tree) => match tree.entries.get(&number.to_string()) {
                Some(Entry::Sealed { digest }) => Ok(Found::Tree(*digest)),
                Some(Entry::File { digest, executable, mode }) => {
                    let mode = mode.unwrap_or(if *executable { 0o755 } else { 0o644 });
                    Ok(Found::File(Leaf::new(Content::File(*digest), Attributes::of_root(mode))))
                }
                _ => Err(absent()),
            },
        }
    }
}

impl Mounted {
    /// Adds what an action that builds something has beside its inputs: a home directory, and its secrets and the farm's credentials.
    pub(super) fn add_home(&mut self, lease: &v1::Lease) {
        let top = (CACHE_MODE, OWNER, OWNER);
        let home = What::Tree { layers: Vec::new(), is_file: false, writable: true, top };
        self.mounts.push(Mount { target: HOME.to_owned(), what: home });
        let secrets = Secrets::of(&lease.secrets, &lease.credentials);
        self.secret_variables.extend(secrets.variables().map(|(name, _)| (name.to_owned(), name.to_owned())));
        self.mounts.extend(secrets.files().map(|(path, _)| Mount {
            target: format!("{HOME}/{path}"),
            what: What::Secret { name: path.to_owned(), attributes: (SECRET_MODE, OWNER, OWNER) },
        }));
    }
}

impl Roots {
    /// Takes the caches of a step, which its action does not name.
    pub(super) async fn of_step(&self, client: &Client, lease: &v1::Lease, mounted: &mut Mounted) -> Result<(), Error> {
        for cache in &lease.caches {
            let (taken, top) = (self.cache(client, &lease.caches, &cache.target).await?, (CACHE_MODE, OWNER, OWNER));
            let what = What::Tree { layers: taken.layers().to_vec(), is_file: false, writable: true, top };
            mounted.caches.push((mounted.mounts.len(), taken, top));
            mounted.mounts.push(Mount { target: cache.target.clone(), what });
        }
        Ok(())
    }

    /// Reads the root of an action's input tree.
    pub(super) async fn top(&self, client: &Client, input_root: &Digest) -> Result<Top, Error> {
        let tree = plain(client, input_root).await?;
        let directory = |name: &str| match tree.entries.get(name) {
            Some(Entry::Sealed { digest }) => Some(*digest),
            _ => None,
        };
        let root = directory(ROOT_DIRECTORY).ok_or_else(|| {
            Error::Invalid(format!("the input tree has no directory `{ROOT_DIRECTORY}`, which is to be the root"))
        })?;
        let mounts = match directory(MOUNT_DIRECTORY) {
            Some(digest) => {
                let data = client.get(&digest).await.map_err(transfer_failed)?;
                let sources = match Directory::decode(&digest, &data) {
                    Ok(directory) => Sources::Attributed(directory),
                    Err(_) => Sources::Plain(decoded(&digest, &data)?),
                };
                Some(Arc::new(sources))
            }
            None => None,
        };
        Ok(Top { root, build: directory(BUILD_DIRECTORY), mounts })
    }

    async fn source(&self, client: &Client, top: &Top, number: u32) -> Result<(Root, bool), Error> {
        let sources = top.mounts.as_ref();
        let sources = sources.ok_or_else(|| Error::Invalid(format!("the input tree has no `{MOUNT_DIRECTORY}`")))?;
        match sources.get(number)? {
            Found::Tree(digest) => Ok((self.root(client, &digest, None).await?, false)),
            Found::File(leaf) => Ok((self.file(client, leaf).await?, true)),
        }
    }

    /// The socket of an agent.
    fn agent(&self, agents: &mut Option<Agents>, client: &Client, id: &str) -> Result<PathBuf, Error> {
        let failed = |why| Error::Disk { path: self.shared.agents.clone(), why };
        let own = match agents {
            Some(own) => own,
            None => agents.insert(Agents::new(&self.shared.agents).map_err(failed)?),
        };
        own.serve(client, id).map_err(failed)
    }

    /// Mounts the socket of an agent for a step on the worker's own system.
    pub(super) fn socket(&self, client: &Client, mount: &contract::Mount, mounted: &mut Mounted) -> Result<(), Error> {
        let contract::Mount::Ssh { target, id, mode, uid, gid, .. } = mount else {
            return Err(Error::Invalid("a step outside of a root can mount nothing but SSH agents".to_owned()));
        };
        let path = self.agent(&mut mounted.agents, client, id)?;
        let what = What::Socket { path, attributes: (mode.unwrap_or(SOCKET_MODE), *uid, *gid) };
        mounted.mounts.push(Mount { target: target.clone(), what });
        Ok(())
    }

    /// Makes everything available that a command mounts.
    pub(super) async fn mounted(
        &self,
        client: &Client,
        top: &Top,
        mounts: Vec<contract::Mount>,
        lease: &v1::Lease,
    ) -> Result<Mounted, Error> {
        let mut mounted = Mounted::default();
        for mount in mounts {
            let (target, what) = match mount {
                contract::Mount::Bind { target, source, rw } => {
                    let (tree, is_file) = self.source(client, top, source).await?;
                    let layers = tree.stack.layers().to_vec();
                    mounted.trees.push(tree);
                    (target, What::Tree { layers, is_file, writable: rw, top: (CACHE_MODE, 0, 0) })
                }
                contract::Mount::Cache { target, source, rw, mode, uid, gid } => {
                    let mut taken = self.cache(client, &lease.caches, &target).await?;
                    if let (true, Some(source)) = (taken.layers().is_empty(), source) {
                        let (tree, is_file) = self.source(client, top, source).await?;
                        if is_file {
                            let words = format!("the cache at `{target}` cannot begin as a file; expected a directory");
                            return Err(Error::Invalid(words));
                        }
                        taken.begin_with(tree);
                    }
                    let (layers, new) = (taken.layers().to_vec(), (mode.unwrap_or(CACHE_MODE), uid, gid));
                    match rw {
                        true => mounted.caches.push((mounted.mounts.len(), taken, new)),
                        false => mounted.read.push(taken),
                    }
                    (target, What::Tree { layers, is_file: false, writable: rw, top: new })
                }
                contract::Mount::Tmpfs { target, size } => (target, What::Memory { bytes: size }),
                contract::Mount::Secret { target, id, env, required, mode, uid, gid } => {
                    let name = contract::secret_name(&id);
                    if !lease.secrets.iter().any(|secret| secret.name == name) {
                        if required {
                            let words = format!(
                                "the step requires the secret `{id}`, which was not given; pass `--secret id={id},…`"
                            );
                            return Err(Error::Invalid(words));
                        }
                        continue;
                    }
                    if let Some(variable) = env {
                        mounted.secret_variables.push((variable, name.clone()));
                    }
                    let Some(target) = target else { continue };
                    (target, What::Secret { name, attributes: (mode.unwrap_or(SECRET_MODE), uid, gid) })
                }
                contract::Mount::Ssh { target, id, mode, uid, gid, .. } => {
                    let path = self.agent(&mut mounted.agents, client, &id)?;
                    (target, What::Socket { path, attributes: (mode.unwrap_or(SOCKET_MODE), uid, gid) })
                }
            };
            mounted.mounts.push(Mount { target, what });
        }
        Ok(mounted)
    }
}

async fn plain(client: &Client, digest: &Digest) -> Result<Tree, Error> {
    let data = client.get(digest).await.map_err(transfer_failed)?;
    decoded(digest, &data)
}

fn decoded(digest: &Digest, data: &bytes::Bytes) -> Result<Tree, Error> {
    Tree::decode(digest, data).map_err(|error| Error::Invalid(format!("inputs: {error}")))
}
