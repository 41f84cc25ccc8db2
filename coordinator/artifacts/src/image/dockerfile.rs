//! An image that a Dockerfile builds: bases come from registries or the project, copies are made here, and commands run on workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_dockerfile::instruction::{Network, Sharing};
use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{
    BaseImage, Bases as Known, Build, Context, Contexts, Fetch, GitSource, NamedContext, NoCache, Operation, Operator,
    Options, Reference, Resolved, Run, RunMount,
};
use kiln_images::image::Image;
use kiln_images::layer::Compression;
use kiln_images::manifest::{Document, Manifest};
use kiln_images::platform::Platform;
use kiln_planner::plan;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::root::{self as contract, Mount};
use kiln_proto::v1::{self, CacheMount, CacheName, CacheSharing};
use kiln_roots::{Files, Host, Mounted, Packing, Roots};
use kiln_trees::root::{Time, Times};
use kiln_trees::tree::{Entry, Tree};
use serde_json::Value;
use tokio::sync::Mutex;

use super::base::{BaseError, Stored};
use super::packages::files;
use super::store_layout;
use crate::assemble::{Error, Ingredients, Made};
use crate::sbom::system::{self, Databases, Installed};
use crate::{Material, Subject};

/// Largest Dockerfile and `.dockerignore` that are read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Largest database of installed packages that is read, in bytes.
const MAX_DATABASE_BYTES: u64 = 256 << 20;
/// Permission bits of a file that `ADD` downloads.
const DOWNLOADED_MODE: u32 = 0o600;
/// Repeated bytes of a layer from which on a note names the instruction.
const WORTH_A_NOTE: u64 = 1 << 20;

/// Runs commands in roots.
#[async_trait]
pub trait Commands: Sync + std::fmt::Debug {
    /// Told what will be asked for: the names of the instructions that run on workers, and how many others change files.
    fn begin(&self, steps: Vec<String>, copies: usize);

    /// Runs a command.
    async fn run(&self, command: &Command) -> Result<Ran, Error>;

    /// Downloads the file at a URL, whose checksum is verified if it has one. `name` is the instruction's, for people.
    async fn fetch(&self, name: &str, fetch: &Fetch, login: Option<&Login>) -> Result<Download, Error>;

    /// Fetches the files of a repository. `name` is the instruction's, for people.
    async fn checkout(&self, name: &str, source: &GitSource) -> Result<Checkout, Error>;
}

/// What a server is told of whoever downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the secret that has it.
    pub secret: String,
    /// Whether it is a bearer token rather than the value of the header `Authorization`.
    pub is_token: bool,
}

impl Login {
    /// What these secrets, by their ids, have for the server of a URL: `HTTP_AUTH_HEADER_HOST` or `HTTP_AUTH_TOKEN_HOST`, with the port where
    /// the URL has one, or without. Ids that are names have `_` for what names cannot have. Source: BuildKit's documentation of secrets.
    fn of(url: &str, secrets: &[String]) -> Option<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let alone = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
            _ => host.clone(),
        };
        let plain = |host: &str| host.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let hosts = [host.clone(), alone.clone(), plain(&host), plain(&alone)];
        let kinds = [("HTTP_AUTH_HEADER_", false), ("HTTP_AUTH_TOKEN_", true)];
        kinds.into_iter().find_map(|(prefix, is_token)| {
            let ids = hosts.iter().map(|host| format!("{prefix}{host}"));
            let id = ids.into_iter().find(|id| secrets.contains(id))?;
            Some(Self { secret: contract::secret_name(&id), is_token })
        })
    }
}

/// A file that was downloaded.
#[derive(Debug, Clone, Copy)]
pub struct Download {
    /// The file.
    pub file: Digest,
    /// When it was modified, as its server says, in seconds since the epoch.
    pub modified: Option<i64>,
}

/// The files of a repository at a commit.
#[derive(Debug, Clone, Copy)]
pub struct Checkout {
    /// The tree of its files.
    pub files: Digest,
    /// When it was committed, in seconds since the epoch.
    pub committed: i64,
}

/// A command of a Dockerfile, as a worker runs it.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name for people.
    pub name: String,
    /// The platform of its stage.
    pub platform: plan::Platform,
    /// The command and its environment.
    pub run: Run,
    /// The root that it runs in, and the blob with its times.
    pub root: Digest,
    /// The blob with the times of the root's nodes.
    pub times: Digest,
    /// How much memory it may use, in bytes, unless that is the default.
    pub memory_bytes: Option<u64>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// The caches of its cache mounts. Their ids are `NAMESPACE/ID`, with an empty namespace for the project's own.
    pub caches: Vec<CacheMount>,
    /// The directory with the content of mounts, if any has some.
    pub mounted: Option<Digest>,
    /// Names of the secrets that it mounts.
    pub secrets: Vec<String>,
    /// Those of them whose values are a part of its key.
    pub keyed: Vec<String>,
    /// Hosts that it can resolve.
    pub hosts: Vec<v1::Host>,
    /// Whether results of earlier builds are not used.
    pub no_cache: bool,
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What it changed in its root.
    pub layer: Digest,
    /// The blob with the times of that.
    pub times: Digest,
}

/// Builds the image of a Dockerfile.
pub(crate) async fn assemble(given: &Ingredients<'_>, description: &plan::Dockerfile) -> Result<Made, Error> {
    let platform = Platform::linux(given.target.platform.architecture());
    let maker = Maker {
        given,
        description,
        roots: Roots::new(given.stores.clone(), given.instance, given.function),
        bases: Mutex::default(),
        platform,
    };
    let text = maker
        .text(&description.file)
        .await?
        .ok_or_else(|| maker.wrong(format!("there is no `{}`", description.file)))?;
    let ignore = maker.ignore(&description.context, Some(&description.file)).await?;
    let (build, mut notes) = maker.lower(&text, ignore.clone()).await?;
    let runs = |kind: &Operator| matches!(kind, Operator::Run(_) | Operator::Fetch(_) | Operator::Git(_));
    let copies = |kind: &Operator| matches!(kind, Operator::Copy(_) | Operator::Workdir { .. });
    let steps = build.operations.iter().filter(|operation| runs(&operation.kind));
    let steps = steps.map(|operation| operation.name.clone()).collect();
    given.commands.begin(steps, build.operations.iter().filter(|operation| copies(&operation.kind)).count());
    let host = Building { maker: &maker, ignore };
    let done = maker.roots.carry_out(&build, &host).await.map_err(|(at, error)| maker.failed(&build, at, error))?;
    let below = maker.base_of(&build).await;
    let installed = match done.of(build.result) {
        Some(files) => maker.installed(files).await?,
        None => Vec::new(),
    };
    let packing = Packing {
        compression: match description.compression {
            plan::Compression::Gzip => Compression::Gzip,
            plan::Compression::Zstd => Compression::Zstd,
        },
        epoch: build.epoch.unwrap_or(given.origin.created),
        undated: build.epoch.unwrap_or(Time::UNDATED.seconds),
        clamp: description.rewrite_timestamp && build.epoch.is_some(),
    };
    let layers = below.as_ref().map(|base| base.base.layers.clone()).unwrap_or_default();
    let assembled = maker.roots.image(&build, &done, &layers, packing).await?;
    for (at, layer) in assembled.added.iter().filter(|(_, layer)| layer.repeated_bytes >= WORTH_A_NOTE) {
        let operation = &build.operations[*at];
        notes.push(format!(
            "`{}` line {}: the layer of `{}` has {} of files again that the layers below have unchanged",
            description.file,
            operation.lines.0,
            operation.name,
            kiln_units::show_size(layer.repeated_bytes)
        ));
    }
    let mut blobs = assembled.blobs;
    blobs.extend(below.iter().flat_map(|base| base.blobs.clone()));
    let tag = kiln_images::reference::tag_from(&given.origin.version);
    let image = annotated(assembled.image, description)
        .map_err(|error| maker.wrong(format!("its manifest cannot be annotated: {error}")))?;
    let manifest = image.manifest.clone();
    let made = store_layout(given, &[image], &tag, &blobs).await?;
    let hash = manifest.descriptor.digest.bytes();
    let subject = Digest { function: DigestFunction::Sha256, hash, size: manifest.descriptor.size };
    let materials = maker
        .bases
        .lock()
        .await
        .values()
        .map(|base| Material { uri: base.uri.clone(), sha256: base.base.digest.hex() })
        .collect();
    Ok(Made {
        content: given.function.digest(&manifest.data),
        subjects: vec![Subject { name: given.artifact.name.clone(), digest: subject }],
        materials,
        installed,
        notes,
        ..made
    })
}

/// The image with the annotations of its manifest.
fn annotated(image: Image, description: &plan::Dockerfile) -> Result<Image, serde_json::Error> {
    let platform = image.manifest.descriptor.platform.clone();
    let own = platform.as_ref().map(ToString::to_string).unwrap_or_default();
    let wanted = description.annotations.iter().filter(|(of, ..)| of.as_ref().is_none_or(|of| *of == own));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(image);
    }
    let mut manifest: Manifest = serde_json::from_slice(&image.manifest.data)?;
    manifest.annotations.extend(wanted.into_iter().map(|(_, key, value)| (key.clone(), value.clone())));
    let mut manifest = Document::from(&manifest);
    manifest.descriptor.platform = platform;
    Ok(Image { manifest, ..image })
}

/// What the image is made with.
struct Maker<'a> {
    given: &'a Ingredients<'a>,
    description: &'a plan::Dockerfile,
    roots: Roots,
    bases: Mutex<BTreeMap<BaseImage, Arc<Stored>>>,
    platform: Platform,
}

/// What carries out its operations.
struct Building<'a> {
    maker: &'a Maker<'a>,
    ignore: Option<Ignore>,
}

impl Maker<'_> {
    fn wrong(&self, reason: String) -> Error {
        Error::Layout { artifact: self.given.artifact.name.clone(), reason }
    }

    /// An instruction's error with its place.
    fn failed(&self, build: &Build, at: usize, error: Error) -> Error {
        let Some(operation) = build.operations.get(at) else { return error };
        let line = format!("`{}` line {}", self.description.file, operation.lines.0);
        let artifact = self.given.artifact.name.clone();
        match error {
            Error::Root(source) => {
                let place = format!("{line}: {}", operation.name);
                Error::Instruction { artifact, place, source: Box::new(source) }
            }
            Error::Layout { artifact, reason } => Error::Layout { artifact, reason: format!("{line}: {reason}") },
            Error::Command { artifact, reason, is_project_fault } => {
                Error::Command { artifact, reason: format!("{line}: {reason}"), is_project_fault }
            }
            other => other,
        }
    }

    /// The text of a file of the project; none if there is none.
    async fn text(&self, path: &str) -> Result<Option<String>, Error> {
        let Some(Entry::File { digest, .. }) = self.given.sources.get(path) else { return Ok(None) };
        if digest.size > MAX_BYTES {
            return Err(self.wrong(format!("`{path}` is larger than {}", kiln_units::show_size(MAX_BYTES))));
        }
        let data = self.given.stores.blobs.get(digest).await?;
        kiln_dockerfile::decode(path, data.to_vec()).map(Some).map_err(|error| self.wrong(error.to_string()))
    }

    /// What is left out of a directory of the project.
    async fn ignore(&self, directory: &str, dockerfile: Option<&str>) -> Result<Option<Ignore>, Error> {
        let own = dockerfile.map(|file| format!("{file}.dockerignore"));
        let general =
            if directory.is_empty() { ".dockerignore".to_owned() } else { format!("{directory}/.dockerignore") };
        for path in own.into_iter().chain([general]) {
            if let Some(text) = self.text(&path).await? {
                return Ignore::read(&path, &text).map(Some).map_err(|error| self.wrong(error.to_string()));
            }
        }
        Ok(None)
    }

    /// The times of the files of a directory of the project, as far as they are known.
    async fn times(&self, directory: &str) -> Result<Times, Error> {
        let Some(digest) = self.given.times else { return Ok(Times::default()) };
        let data = match self.given.stores.blobs.get(&digest).await {
            Ok(data) => data,
            Err(error) if error.is_absent() => return Ok(Times::default()),
            Err(error) => return Err(error.into()),
        };
        let times = Times::decode(&data).map_err(|error| self.wrong(error.to_string()))?;
        Ok(kiln_roots::moved(&times, directory.as_bytes(), b""))
    }

    /// The Dockerfile's operations, and what its rules found.
    async fn lower(&self, text: &str, ignore: Option<Ignore>) -> Result<(Build, Vec<String>), Error> {
        let description = self.description;
        let invalid = |error: kiln_dockerfile::Error| self.wrong(format!("{error}\n{}", error.snippet()));
        let file = kiln_dockerfile::parse(&description.file, text).map_err(invalid)?;
        let mut contexts = Contexts::default();
        for (name, value) in &description.contexts {
            contexts.add(name, NamedContext::read(value).map_err(|reason| self.wrong(reason))?);
        }
        let (own, builder) = (&self.platform.architecture, self.given.builder.architecture());
        let options = Options {
            target: description.stage.clone(),
            build_args: description.args.clone(),
            platform: (own != builder).then(|| kiln_dockerfile::Platform::linux(own)),
            build_platform: kiln_dockerfile::Platform::linux(builder),
            contexts,
            labels: description.labels.clone(),
            no_cache: match description.no_cache_stages.as_slice() {
                [] => NoCache::No,
                stages => NoCache::Stages(stages.to_vec()),
            },
            network: match description.network {
                plan::CommandNetwork::Default => Network::Default,
                plan::CommandNetwork::None => Network::None,
                plan::CommandNetwork::Host => Network::Host,
            },
            ignore,
            ..Options::default()
        };
        let mut known = Known::new();
        loop {
            let wanted = kiln_dockerfile::bases(&file, &options, &known).map_err(invalid)?;
            if wanted.is_empty() {
                break;
            }
            for image in wanted {
                let stored = self.stored(&image).await.map_err(|error| {
                    let at = |reason: String| kiln_dockerfile::unusable(&file, &options, &known, &image, reason);
                    self.unusable(error, &image, at)
                })?;
                let config = serde_json::from_value(Value::Object(stored.base.config.clone()));
                let config = config.map_err(|error| {
                    self.wrong(format!("the configuration of `{}` cannot be read: {error}", image.reference.show(None)))
                })?;
                known.add(image, Resolved { image: config, digest: Some(stored.base.digest.to_string()) });
            }
        }
        let build = kiln_dockerfile::lower(&file, &options, &known).map_err(invalid)?;
        let notes = build.lints.iter();
        let note = |lint: &kiln_dockerfile::lint::Lint| {
            format!("`{}` line {}: {} (`{}`)", description.file, lint.line, lint.message, lint.rule.name())
        };
        let notes = notes.map(note).collect();
        Ok((build, notes))
    }

    /// The error of a base image, at the place that names it.
    fn unusable(&self, error: Error, image: &BaseImage, at: impl Fn(String) -> kiln_dockerfile::Error) -> Error {
        let Error::Base { artifact, source, .. } = error else { return error };
        let error = at(format!("base `{}`: {source}", image.reference.show(None)));
        let reason = format!("{error}\n{}", error.snippet());
        Error::Command { artifact, reason, is_project_fault: source.is_project_fault() }
    }

    /// An image in the store.
    async fn stored(&self, image: &BaseImage) -> Result<Arc<Stored>, Error> {
        if let Some(known) = self.bases.lock().await.get(image) {
            return Ok(known.clone());
        }
        let platform = Platform {
            architecture: image.platform.architecture.clone(),
            os: image.platform.os.clone(),
            variant: (!image.platform.variant.is_empty()).then(|| image.platform.variant.clone()),
        };
        let found = match &image.reference {
            Reference::Registry(name) => self.given.bases.of_registry(name, &platform).await,
            Reference::Layout(path) => {
                let directory = path.split(['@', ':']).next().unwrap_or_default();
                let mut sent = Tree::default();
                if let Some(context) = self.given.contexts.get(&(String::new(), directory.to_owned())) {
                    sent.insert(directory, Entry::Directory(context.tree.clone()))
                        .map_err(|error| self.wrong(error.to_string()))?;
                }
                let found = self.given.bases.of_project(path, &sent, self.given.sources, &platform).await;
                // As with BuildKit, the only image of a layout is taken for any platform, and a rule reports that.
                match found.as_ref().err().and_then(BaseError::only_platform) {
                    Some(own) => self.given.bases.of_project(path, &sent, self.given.sources, &own).await,
                    None => found,
                }
            }
        };
        let stored = found.map_err(|source| Error::Base {
            artifact: self.given.artifact.name.clone(),
            base: image.reference.show(None),
            source: Box::new(source),
        })?;
        self.bases.lock().await.insert(image.clone(), stored.clone());
        Ok(stored)
    }

    /// The packages of the system that an image has.
    async fn installed(&self, files: &Files) -> Result<Vec<Installed>, Error> {
        let mut found = Databases { dpkg: self.first(files, &[system::DPKG]).await?, ..Databases::default() };
        for name in self.roots.names(files, system::DPKG_PARTS).await? {
            // Beside each is a list of checksums.
            if let Some(name) = std::str::from_utf8(&name).ok().filter(|name| !name.ends_with(".md5sums")) {
                found.dpkg.extend(self.first(files, &[&format!("{}/{name}", system::DPKG_PARTS)]).await?);
            }
        }
        found.apk = self.first(files, &system::APK).await?;
        found.rpm = self.first(files, &system::RPM).await?;
        found.os_release = self.first(files, &system::OS_RELEASE).await?.pop();
        Ok(tokio::task::spawn_blocking(move || found.installed()).await.unwrap_or_default())
    }

    /// The first of these files that is there.
    async fn first(&self, files: &Files, paths: &[&str]) -> Result<Vec<Vec<u8>>, Error> {
        for path in paths {
            if let Some(data) = self.roots.content(files, path, MAX_DATABASE_BYTES).await? {
                return Ok(vec![data.to_vec()]);
            }
        }
        Ok(Vec::new())
    }

    /// The image that the result is built on.
    async fn base_of(&self, build: &Build) -> Option<Arc<Stored>> {
        match &build.operations.get(build.first())?.kind {
            Operator::Base { image, .. } => self.bases.lock().await.get(image).cloned(),
            _ => None,
        }
    }
}

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
        let (mounts, contents) = self.mounts(run, inputs)?;
        let mounted = match contents.is_empty() {
            true => None,
            false => Some(maker.roots.mounts(&contents).await?),
        };
        let data = root.times.encode();
        let times = maker.given.function.digest(&data);
        stores.blobs.put(&times, data.into()).await?;
        let platform = runs_on(&operation.platform).ok_or_else(|| {
            maker.wrong(format!(
                "{}: its stage is for `{}`, and commands run on linux/amd64 and linux/arm64",
                operation.name, operation.platform
            ))
        })?;
        let command = Command {
            name: operation.name.clone(),
            platform,
            run: run.clone(),
            root: root.root,
            times,
            memory_bytes: maker.description.memory_bytes,
            keyed: keyed(run, &secrets(&mounts)),
            secrets: secrets(&mounts),
            hosts: maker.description.hosts.iter().map(host).collect(),
            mounts,
            caches: caches(run),
            mounted,
            no_cache: operation.no_cache,
        };
        let ran = maker.given.commands.run(&command).await?;
        let times = Times::decode(&stores.blobs.get(&ran.times).await?);
        let times = times.map_err(|error| maker.wrong(error.to_string()))?;
        Ok(maker.roots.apply(root, &ran.layer, &times).await?)
    }
}

impl Building<'_> {
    /// The mounts of a command, and the content of those that have some.
    fn mounts(&self, run: &Run, inputs: &BTreeMap<usize, Files>) -> Result<(Vec<Mount>, Vec<Mounted>), Error> {
        let (mut mounts, mut contents) = (Vec::new(), Vec::new());
        let mut content = |of: Mounted| {
            contents.push(of);
            contents.len() as u32 - 1
        };
        let files = |from: &usize| {
            inputs.get(from).cloned().ok_or_else(|| self.maker.wrong("a mount's stage was not built".to_owned()))
        };
        if let Some((target, text)) = &run.script {
            let source = content(Mounted::Program(text.clone()));
            mounts.push(Mount::Bind { target: target.clone(), source, rw: false });
        }
        for mount in &run.mounts {
            mounts.push(match mount {
                RunMount::Bind { from, source, target, read_only } => {
                    let source = content(Mounted::Files(files(from)?, source.clone()));
                    Mount::Bind { target: target.clone(), source, rw: !read_only }
                }
                RunMount::Cache { seed, target, read_only, owner, .. } => Mount::Cache {
                    target: target.clone(),
                    source: match seed {
                        Some((from, path)) => Some(content(Mounted::Files(files(from)?, path.clone()))),
                        None => None,
                    },
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

/// The network of a command, as the worker's property has it.
pub fn network(run: &Run) -> &'static str {
    match run.network {
        Network::Default => contract::NETWORK_DEFAULT,
        Network::None => contract::NETWORK_NONE,
        Network::Host => contract::NETWORK_HOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_the_secret_that_is_named_after_it_and_no_other_one() {
        let of = |url: &str, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            Login::of(url, &ids).map(|login| (login.secret, login.is_token))
        };
        let token = |id: &str| Some((contract::secret_name(id), true));
        let url = "https://files.example.com:8443/a/b?x=https://other.example/";
        for id in [
            "HTTP_AUTH_TOKEN_files.example.com:8443",
            "HTTP_AUTH_TOKEN_files.example.com",
            "HTTP_AUTH_TOKEN_files_example_com",
        ] {
            assert_eq!(of(url, &["HTTP_AUTH_TOKEN_other.example", id]), token(id));
        }
        let both = ["HTTP_AUTH_TOKEN_a.example", "HTTP_AUTH_HEADER_a.example"];
        assert_eq!(of("https://u:p@A.example/x", &both), Some((contract::secret_name(both[1]), false)));
        assert_eq!(of("https://a.example.evil/HTTP_AUTH_TOKEN_a.example", &both), None);
        assert_eq!(of("https://evil#a.example", &both), None);
    }
}
