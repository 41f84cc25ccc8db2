//! The operations of a Dockerfile that are not only copies.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kiln_dockerfile::instruction::Sharing;
use kiln_dockerfile::{BaseImage, Context, Fetch, GitSource, Operation, Run, RunMount};
use kiln_planner::plan;
use kiln_proto::digest::Digest;
use kiln_proto::root::{self as contract, Mount};
use kiln_proto::v1::{self, CacheMount, CacheName, CacheSharing};
use kiln_roots::{Files, Host, Mounted};
use kiln_trees::root::Times;
use kiln_trees::tree::Entry;

use super::super::packages::files;
use super::command::{DEFAULT_AGENT, Login};
use super::remembered::Carried;
use super::{Building, Command};
use crate::assemble::Error;

/// Permission bits of a file that `ADD` downloads.
const DOWNLOADED_MODE: u32 = 0o600;

#[async_trait]
impl Host for Building<'_> {
    type Error = Error;

    async fn base(&self, image: &BaseImage) -> Result<Files, Error> {
        let stored = self.maker.stored(image).await?;
        Ok(files(&self.maker.roots, &stored, &image.reference.show(None)).await?)
    }

    async fn context(&self, context: &Context) -> Result<Files, Error> {
        let own = match context {
            Context::Main => &self.maker.description.context,
            Context::Named(name) => {
                let contexts = &self.maker.description.contexts;
                let same =
                    |known: &&String| kiln_dockerfile::context_name(known) == kiln_dockerfile::context_name(name);
                let found = contexts.keys().find(same).and_then(|known| contexts.get(known));
                found.ok_or_else(|| self.maker.wrong(format!("there is no context `{name}`")))?
            }
        };
        let file = match context {
            Context::Main => self.maker.description.file.clone(),
            Context::Named(_) => String::new(),
        };
        if let Some(sent) = self.maker.given.contexts.get(&(file, own.clone())) {
            let digest = sent.tree.encode(self.maker.given.function, &mut |_| {});
            let times = self.maker.times(&sent.place).await?;
            return Ok(self.maker.roots.context(digest, None, &times).await?);
        }
        let ignore = match context {
            Context::Main => self.ignore.clone(),
            Context::Named(_) if self.maker.description.contexts_are_filtered => None,
            Context::Named(_) => self.maker.ignore(own, None).await?,
        };
        let sources = self.maker.given.sources;
        let digest = if own.is_empty() {
            sources.encode(self.maker.given.function, &mut |_| {})
        } else {
            match sources.get(own) {
                Some(Entry::Directory(tree)) => tree.encode(self.maker.given.function, &mut |_| {}),
                Some(Entry::Sealed { digest }) => *digest,
                _ => return Err(self.maker.wrong(format!("the context `{own}` is not a directory of the project"))),
            }
        };
        let times = self.maker.times(own).await?;
        Ok(self.maker.roots.context(digest, ignore.as_ref(), &times).await?)
    }

    async fn fetch(&self, operation: &Operation, fetch: &Fetch) -> Result<Files, Error> {
        let login = Login::of(&fetch.url, &self.maker.description.secrets);
        let download = self.maker.given.commands.fetch(&operation.name, fetch, login.as_ref()).await?;
        let files = self.maker.roots.file(&fetch.file, download.file, DOWNLOADED_MODE).await?;
        match download.modified {
            Some(seconds) => Ok(self.maker.roots.dated(&files, seconds).await?),
            None => Ok(files),
        }
    }

    async fn git(&self, operation: &Operation, source: &GitSource) -> Result<Files, Error> {
        if source.is_ssh() && !self.maker.description.ssh.iter().any(|id| id == DEFAULT_AGENT) {
            let remote = &source.remote;
            let words =
                format!("`{remote}` is fetched over SSH, which needs an SSH agent: give it by `--ssh {DEFAULT_AGENT}`");
            return Err(self.maker.wrong(words));
        }
        let checkout = self.maker.given.commands.checkout(&operation.name, source).await?;
        let files = self.maker.roots.context(checkout.files, None, &Times::default()).await?;
        match source.has_commit_times {
            true => Ok(self.maker.roots.dated(&files, checkout.committed).await?),
            false => Ok(files),
        }
    }

    async fn run(
        &self,
        operation: &Operation,
        run: &Run,
        root: &Files,
        inputs: &BTreeMap<usize, Files>,
    ) -> Result<Files, Error> {
        let (maker, stores) = (self.maker, self.maker.given.stores);
        let (mounts, contents) = self.mounts(run)?;
        let contents = contents.into_iter().map(|content| content.of(inputs)).collect::<Option<Vec<Mounted>>>();
        let contents = contents.ok_or_else(|| maker.wrong("a mount's stage was not built".to_owned()))?;
        let mounted = match contents.is_empty() {
            true => None,
            false => Some(maker.roots.mounts(&contents).await?),
        };
        let data = root.times.encode();
        let times = maker.given.function.digest(&data);
        stores.blobs.put(&times, data.into()).await?;
        let command = self.command(operation, run, (root.root, times), mounts, mounted)?;
        let ran = maker.given.commands.run(&command).await?;
        if let Some(at) = self.build.operations.iter().position(|other| std::ptr::eq(other, operation)) {
            let carried = Carried { root: root.root, times, mounted, ran: ran.clone() };
            self.carried.lock().insert(at, carried);
        }
        let times = Times::decode(&stores.blobs.get(&ran.times).await?);
        let times = times.map_err(|error| maker.wrong(error.to_string()))?;
        Ok(maker.roots.apply(root, &ran.layer, &times).await?)
    }
}

/// What a mount shows.
pub(super) enum Shown {
    /// A program.
    Program(String),
    /// Files of an operation, and the path in them.
    Files(usize, String),
}

impl Shown {
    fn of(self, inputs: &BTreeMap<usize, Files>) -> Option<Mounted> {
        Some(match self {
            Self::Program(text) => Mounted::Program(text),
            Self::Files(from, path) => Mounted::Files(inputs.get(&from)?.clone(), path),
        })
    }
}

impl Building<'_> {
    /// A command in a root, given with its times.
    pub(super) fn command(
        &self,
        operation: &Operation,
        run: &Run,
        (root, times): (Digest, Digest),
        mounts: Vec<Mount>,
        mounted: Option<Digest>,
    ) -> Result<Command, Error> {
        let maker = self.maker;
        let platform = runs_on(&operation.platform).ok_or_else(|| {
            maker.wrong(format!(
                "{}: its stage is for `{}`, and commands run on linux/amd64 and linux/arm64",
                operation.name, operation.platform
            ))
        })?;
        Ok(Command {
            name: operation.name.clone(),
            platform,
            run: run.clone(),
            root,
            times,
            memory_bytes: maker.description.memory_bytes,
            keyed: keyed(run, &secrets(&mounts)),
            secrets: secrets(&mounts),
            hosts: maker.description.hosts.iter().map(host).collect(),
            mounts,
            caches: caches(run),
            mounted,
            no_cache: operation.no_cache,
            service: None,
        })
    }

    /// The mounts of a command, and what those show that have content.
    pub(super) fn mounts(&self, run: &Run) -> Result<(Vec<Mount>, Vec<Shown>), Error> {
        let (mut mounts, mut contents) = (Vec::new(), Vec::new());
        let mut content = |of: Shown| {
            let place = contents.len() as u32;
            contents.push(of);
            place
        };
        if let Some((target, text)) = &run.script {
            let source = content(Shown::Program(text.clone()));
            mounts.push(Mount::Bind { target: target.clone(), source, rw: false });
        }
        for mount in &run.mounts {
            mounts.push(match mount {
                RunMount::Bind { from, source, target, read_only } => {
                    let source = content(Shown::Files(*from, source.clone()));
                    Mount::Bind { target: target.clone(), source, rw: !read_only }
                }
                RunMount::Cache { seed, target, read_only, owner, .. } => Mount::Cache {
                    target: target.clone(),
                    source: seed.as_ref().map(|(from, path)| content(Shown::Files(*from, path.clone()))),
                    rw: !read_only,
                    mode: owner.map(|(mode, ..)| mode),
                    uid: owner.map_or(0, |(_, uid, _)| uid),
                    gid: owner.map_or(0, |(.., gid)| gid),
                },
                RunMount::Tmpfs { target, size } => Mount::Tmpfs { target: target.clone(), size: *size },
                RunMount::Secret { id, target, env, required, owner: (mode, uid, gid), .. }
                    if self.maker.description.secrets.contains(id) =>
                {
                    Mount::Secret {
                        target: target.clone(),
                        id: id.clone(),
                        env: env.clone(),
                        required: *required,
                        mode: Some(*mode),
                        uid: *uid,
                        gid: *gid,
                    }
                }
                RunMount::Secret { id, required: true, .. } => {
                    let artifact = &self.maker.given.artifact.name;
                    return Err(self.maker.wrong(format!(
                        "secret `{id}` is required: name it in `secrets` of `[artifacts.{artifact}]` in `kiln.toml`, or give it to \
                         `kiln docker build --secret id={id}`"
                    )));
                }
                RunMount::Ssh { id, target, required, owner: (mode, uid, gid) }
                    if self.maker.description.ssh.contains(id) =>
                {
                    Mount::Ssh {
                        target: target.clone(),
                        id: id.clone(),
                        required: *required,
                        mode: Some(*mode),
                        uid: *uid,
                        gid: *gid,
                    }
                }
                RunMount::Ssh { id, required: true, .. } => {
                    return Err(self.maker.wrong(format!("the SSH agent `{id}` is required: give it by `--ssh {id}`")));
                }
                RunMount::Secret { .. } | RunMount::Ssh { .. } => continue,
            });
        }
        Ok((mounts, contents))
    }
}

/// The platform of workers that run a stage's commands. A processor of 64 bits runs programs for its predecessor of 32 bits.
fn runs_on(platform: &kiln_dockerfile::Platform) -> Option<plan::Platform> {
    match (platform.os.as_str(), platform.architecture.as_str()) {
        ("linux", "amd64" | "386") => Some(plan::Platform::Amd64),
        ("linux", "arm64" | "arm") => Some(plan::Platform::Arm64),
        _ => None,
    }
}

/// The caches of a command's mounts.
fn caches(run: &Run) -> Vec<CacheMount> {
    let cache = |mount: &RunMount| match mount {
        RunMount::Cache { id, sharing, target, owner, .. } => {
            let name = CacheName {
                id: id.clone(),
                owner: owner.map(|(mode, uid, gid)| format!("{mode:o}:{uid}:{gid}")).unwrap_or_default(),
                ..CacheName::default()
            };
            let sharing = match sharing {
                Sharing::Shared => CacheSharing::CacheShared,
                Sharing::Private => CacheSharing::CachePrivate,
                Sharing::Locked => CacheSharing::CacheLocked,
            };
            Some(CacheMount { target: target.clone(), name: Some(name), sharing: sharing.into() })
        }
        _ => None,
    };
    run.mounts.iter().filter_map(cache).collect()
}

/// The names of these secrets whose values are a part of the command's key (`,key`).
fn keyed(run: &Run, secrets: &[String]) -> Vec<String> {
    let key = |mount: &RunMount| match mount {
        RunMount::Secret { id, key: true, .. } => Some(contract::secret_name(id)),
        _ => None,
    };
    let mut names: Vec<String> = run.mounts.iter().filter_map(key).filter(|name| secrets.contains(name)).collect();
    names.sort();
    names.dedup();
    names
}

fn host((name, address): &(String, String)) -> v1::Host {
    v1::Host { name: name.clone(), address: address.clone() }
}

/// The names of the secrets among mounts.
fn secrets(mounts: &[Mount]) -> Vec<String> {
    let mut names: Vec<String> = mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Secret { id, .. } => Some(contract::secret_name(id)),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
