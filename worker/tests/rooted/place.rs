//! A worker with a store, for all tests of this program, and what a command in a root left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kiln_proto::channel::Channel;
use kiln_proto::digest::Digest;
use kiln_proto::protobuf;
use kiln_proto::root::{self as contract, Mount};
use kiln_proto::transfer::Client;
use kiln_proto::v1::lease_finished::Outcome;
use kiln_proto::{reapi, v1};
use kiln_trees::root::{Directory, Forest, Name, Node, Times};
use kiln_trees::tree::{Entry, Tree};
use kiln_trees::walk::Directory as _;
use kiln_worker::executor::{Chunk, Exit, Job, Place as In, Secrets, Stream};
use kiln_worker::inputs::{self, Inputs};
use kiln_worker::leases::Leases;
use kiln_worker::roots::{self, Roots, Step};
use kiln_worker::runner::Runner;
use kiln_worker::sandbox::{Config, Isolation, Layout, Mode, Sandbox, Tools, Way};
use tokio_util::sync::CancellationToken;

use crate::support::{Cas, F};

pub const MIB: u64 = 1 << 20;

/// A worker and its store.
pub struct Place {
    pub cas: Cas,
    pub client: Client,
    pub sandbox: Sandbox,
    pub roots: Roots,
    pub inputs: Inputs,
    pub directory: PathBuf,
    runner: Runner,
    _dir: Option<tempfile::TempDir>,
}

/// Where the store of all tests is served, as long as the process lives.
fn served() -> &'static (Cas, Channel) {
    static SERVED: OnceLock<(Cas, Channel)> = OnceLock::new();
    SERVED.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                sender.send(Cas::serve().await).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    })
}

/// The worker that most tests share, so that a root is unpacked once.
pub fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| Place::open(Path::new(env!("CARGO_TARGET_TMPDIR")), Some(Way::Inside)))
}

/// The layout that all tests of this program use, if one is forced.
fn forced() -> Option<Layout> {
    match std::env::var("KILN_ROOT_LAYOUT").ok()?.as_str() {
        "erofs" => Some(Layout::Erofs),
        "unpacked" => Some(Layout::Unpacked),
        other => panic!("KILN_ROOT_LAYOUT={other}: expected `erofs` or `unpacked`"),
    }
}

impl Place {
    /// A worker of its own, whose directory is below this one.
    pub fn open(below: &Path, way: Option<Way>) -> Self {
        let dir = tempfile::tempdir_in(below).unwrap();
        let path = dir.path().to_owned();
        let mut place = Self::at(&path, way);
        if below == Path::new(env!("CARGO_TARGET_TMPDIR")) {
            remove_at_exit(dir);
        } else {
            place._dir = Some(dir);
        }
        place
    }

    /// A worker with this directory.
    pub fn at(path: &Path, way: Option<Way>) -> Self {
        // Only root mounts images.
        let layout = if way == Some(Way::Shared) { None } else { forced() };
        Self::with(path, (layout, way), false)
    }

    /// One that may allow steps the machine's network, and lets them trust its authorities.
    pub fn with(path: &Path, layout: (Option<Layout>, Option<Way>), host_network: bool) -> Self {
        let (cas, channel) = served().clone();
        let config = Config {
            mode: Mode::Required,
            scratch: path.join("sandbox"),
            tools: Tools::default(),
            root: None,
            sub_ids: None,
            no_ids: None,
            network: Isolation::Auto,
            init: Some(env!("CARGO_BIN_EXE_kiln-worker").into()),
            own_credentials: false,
            way: layout.1,
            layout: layout.0,
            objects: inputs::objects(&path.join("inputs")),
            host_network,
            host_authorities: host_network,
        };
        let sandbox =
            Sandbox::open(config).unwrap_or_else(|error| panic!("expected a sandbox on this machine: {error}"));
        let found = sandbox.roots().unwrap_or_else(|why| panic!("expected roots on this machine: {why}"));
        let config =
            inputs::Config { directory: path.join("inputs"), max_bytes: 1 << 30, owner: sandbox.owner_of_inputs() };
        let inputs = Inputs::open(config).unwrap();
        let config = roots::Config {
            directory: path.join("roots"),
            max_bytes: 4 << 30,
            layout: found.layout,
            on_disk: found.on_disk,
        };
        let roots = Roots::open(config, inputs.clone()).unwrap();
        let logs = path.join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let runner =
            Runner::new("vm".into(), inputs.clone(), Arc::new(sandbox.clone()), logs).with_roots(Some(roots.clone()));
        runner.set_channel(channel.clone());
        let client = Client::new(channel, "", F);
        Self { cas, client, sandbox, roots, inputs, directory: path.to_owned(), runner, _dir: None }
    }
}

/// A static is never dropped.
fn remove_at_exit(dir: tempfile::TempDir) {
    static LEFT: OnceLock<PathBuf> = OnceLock::new();
    let _ = LEFT.set(dir.keep());
    // Removed by the next run, which may be the first after a kill.
    let Some(own) = LEFT.get() else { return };
    std::fs::write(own.join("process"), std::process::id().to_string()).unwrap();
    for entry in std::fs::read_dir(own.parent().unwrap()).unwrap().flatten() {
        let path = entry.path();
        let process = std::fs::read_to_string(path.join("process")).ok().and_then(|text| text.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// A command in a root.
#[derive(Clone)]
pub struct Ask {
    pub root: Digest,
    pub times: Option<Digest>,
    pub arguments: Vec<String>,
    pub user: String,
    pub directory: String,
    pub network: &'static str,
    pub mounts: Vec<Mount>,
    /// What is mounted: trees, or files.
    pub sources: Vec<Entry>,
    pub environment: Vec<(String, String)>,
    pub secrets: Vec<(String, String)>,
    /// The caches of its cache mounts.
    pub caches: Vec<v1::CacheMount>,
    pub timeout: Duration,
}

pub fn ask(root: Digest, script: &str) -> Ask {
    Ask {
        root,
        times: None,
        arguments: ["/bin/sh", "-ec", script].map(str::to_owned).into(),
        user: String::new(),
        directory: "root".into(),
        network: contract::NETWORK_NONE,
        mounts: Vec::new(),
        sources: Vec::new(),
        environment: vec![("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())],
        secrets: Vec::new(),
        caches: Vec::new(),
        timeout: Duration::from_secs(300),
    }
}

/// What became of it.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub status: String,
    pub out: Vec<u8>,
    pub err: String,
    /// The layer, and the root that it makes of the command's, if the command succeeded.
    pub layer: Option<Digest>,
    pub before: Digest,
    pub after: Digest,
    pub times: Times,
    pub forest: Forest,
}

impl Place {
    fn lease(&self, ask: &Ask) -> v1::Lease {
        let mut tree = Tree::default();
        tree.insert("root", Entry::Sealed { digest: ask.root }).unwrap();
        for (number, entry) in ask.sources.iter().enumerate() {
            tree.insert(&format!("mounts/{number}"), entry.clone()).unwrap();
        }
        let property = |name: &str, value: &str| reapi::platform::Property { name: name.into(), value: value.into() };
        let properties = vec![
            property(contract::ROOT, "root"),
            property(contract::USER, &ask.user),
            property(kiln_proto::property::NETWORK, ask.network),
            property(contract::MOUNTS, &contract::encode(&ask.mounts)),
        ];
        let variable = |(name, value): &(String, String)| reapi::command::EnvironmentVariable {
            name: name.clone(),
            value: value.clone(),
        };
        let secret = |(name, value): &(String, String)| v1::Secret { name: name.clone(), value: value.clone() };
        v1::Lease {
            lease: rand_number(),
            digest_function: F.to_wire(),
            action: Some(reapi::Action {
                input_root_digest: Some(self.cas.tree(&tree).to_wire()),
                platform: Some(reapi::Platform { properties }),
                ..Default::default()
            }),
            command: Some(reapi::Command {
                arguments: ask.arguments.clone(),
                environment_variables: ask.environment.iter().map(variable).collect(),
                working_directory: ask.directory.clone(),
                ..Default::default()
            }),
            timeout: Some(protobuf::Duration { seconds: ask.timeout.as_secs() as i64, nanos: 0 }),
            reserved: Some(v1::Capacity { milli_cpus: 1000, memory_bytes: 1 << 30 }),
            network: ask.network != contract::NETWORK_NONE,
            secrets: ask.secrets.iter().map(secret).collect(),
            times: ask.times.map(|times| times.to_wire()),
            caches: ask.caches.clone(),
            ..Default::default()
        }
    }

    pub async fn run(&self, ask: Ask) -> Ran {
        self.run_until(ask, CancellationToken::new()).await
    }

    /// Runs a command that builds `out/file` in a root from the input file `in`: what it said, and what it made.
    pub async fn build(&self, root: Digest, script: &str, input: &str) -> (String, String) {
        let mut asked = ask(root, script);
        (asked.directory, asked.user) = (contract::BUILD_DIRECTORY.to_owned(), contract::BUILD_USER.to_owned());
        let mut lease = self.lease(&asked);
        let mut tree = Tree::default();
        tree.insert("root", Entry::Sealed { digest: root }).unwrap();
        tree.insert("build/in", Entry::file(self.cas.put(input), false)).unwrap();
        lease.action.as_mut().unwrap().input_root_digest = Some(self.cas.tree(&tree).to_wire());
        lease.command.as_mut().unwrap().output_paths = vec!["out/file".to_owned(), "in".to_owned()];
        lease.secrets = vec![v1::Secret { name: "TOKEN".into(), value: "of-the-step".into() }];
        let finished = self.runner.run(lease, Arc::new(Leases::default()), CancellationToken::new()).await;
        let Some(Outcome::Response(response)) = finished.outcome else {
            panic!("expected a result, found {finished:?}")
        };
        let result = response.result.unwrap_or_default();
        let text = |digest: Option<&reapi::Digest>| {
            let data = self.blob(&Digest::from_wire(F, digest.unwrap()).unwrap());
            String::from_utf8_lossy(&data).into_owned()
        };
        let said = format!("{}{}", text(result.stdout_digest.as_ref()), text(result.stderr_digest.as_ref()));
        assert_eq!(result.exit_code, 0, "{said}");
        assert!(result.output_directories.is_empty(), "what it does to the root is no result: {result:?}");
        let made = result.output_files.iter().map(|file| format!("{}: {}", file.path, text(file.digest.as_ref())));
        (said, made.collect::<Vec<_>>().join("; "))
    }

    /// Runs a step on the worker's own system with these caches: its exit code, and what it said.
    pub async fn step(&self, script: &str, caches: Vec<v1::CacheMount>) -> (i32, String) {
        let mut asked = ask(self.cas.tree(&Tree::default()), script);
        (asked.directory, asked.caches) = (String::new(), caches);
        let mut lease = self.lease(&asked);
        let mut tree = Tree::default();
        tree.insert("in", Entry::file(self.cas.put("given\n"), false)).unwrap();
        let action = lease.action.as_mut().unwrap();
        (action.input_root_digest, action.platform) = (Some(self.cas.tree(&tree).to_wire()), None);
        let finished = self.runner.run(lease, Arc::new(Leases::default()), CancellationToken::new()).await;
        let Some(Outcome::Response(response)) = finished.outcome else {
            panic!("expected a result, found {finished:?}")
        };
        let result = response.result.unwrap_or_default();
        let said = [&result.stdout_digest, &result.stderr_digest].into_iter().flatten();
        let said: Vec<u8> =
            said.flat_map(|digest| self.blob(&Digest::from_wire(F, digest).unwrap()).to_vec()).collect();
        let status = response.status.unwrap_or_default();
        let code = if status.code == 0 { result.exit_code } else { -1 };
        (code, format!("{}{}", String::from_utf8_lossy(&said), status.message))
    }

    /// Runs a lease that is the worker's fault, and returns which.
    pub async fn fault(&self, ask: Ask) -> String {
        let run = self.runner.run(self.lease(&ask), Arc::new(Leases::default()), CancellationToken::new());
        match run.await.outcome {
            Some(Outcome::WorkerFault(fault)) => fault,
            other => panic!("expected a fault, found {other:?}"),
        }
    }

    /// Runs a lease as the worker does.
    pub async fn run_until(&self, ask: Ask, cancel: CancellationToken) -> Ran {
        let finished = self.runner.run(self.lease(&ask), Arc::new(Leases::default()), cancel).await;
        let Some(Outcome::Response(response)) = finished.outcome else {
            panic!("expected a result, found {finished:?}")
        };
        let status = response.status.unwrap_or_default().message;
        let result = response.result.unwrap_or_default();
        let text = |digest: Option<&reapi::Digest>| {
            digest.map(|digest| self.blob(&Digest::from_wire(F, digest).unwrap())).unwrap_or_default()
        };
        let mut ran = Ran {
            code: result.exit_code,
            status,
            out: text(result.stdout_digest.as_ref()).to_vec(),
            err: String::from_utf8_lossy(&text(result.stderr_digest.as_ref())).into_owned(),
            layer: None,
            before: ask.root,
            after: ask.root,
            times: Times::default(),
            forest: Forest::new(F),
        };
        if let Some(directory) = result.output_directories.first() {
            assert_eq!((result.output_directories.len(), directory.path.as_str()), (1, contract::LAYER_OUTPUT));
            let layer = Digest::required(F, directory.root_directory_digest.as_ref()).unwrap();
            assert!(directory.tree_digest.is_some());
            let [times] = &result.output_files[..] else { panic!("the times, and nothing else") };
            assert_eq!(times.path, contract::TIMES_OUTPUT);
            ran.times = Times::decode(&text(times.digest.as_ref())).unwrap();
            self.load(&mut ran.forest, &layer);
            self.load(&mut ran.forest, &ask.root);
            ran.after = ran.forest.apply(&ask.root, &layer).unwrap();
            crate::base::store(&self.cas, &mut ran.forest);
            ran.layer = Some(layer);
        }
        ran
    }

    /// Waits until a running command has written this, relative to its job's directory.
    pub async fn until_written(&self, path: &str) {
        let is_there = || {
            let jobs = std::fs::read_dir(self.directory.join("sandbox")).into_iter().flatten().flatten();
            jobs.into_iter().any(|job| job.path().join(path).exists())
        };
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A blob that must be stored.
    pub fn blob(&self, digest: &Digest) -> Bytes {
        self.cas.get(digest).unwrap_or_else(|| panic!("expected `{digest}` to be uploaded")).into()
    }

    /// Reads a tree that must be stored whole, with all its files.
    pub fn load(&self, forest: &mut Forest, digest: &Digest) {
        if forest.get(digest).is_some() {
            return;
        }
        let directory = Directory::decode(digest, &self.blob(digest)).unwrap();
        let below = directory.below();
        forest.add(*digest, Arc::new(directory));
        below.iter().for_each(|digest| self.load(forest, digest));
    }

    /// The job of a command, to run it in the sandbox alone, and what keeps its root.
    pub async fn job(&self, ask: &Ask) -> (Step, Job) {
        let lease = self.lease(ask);
        let (action, command) = (lease.action.clone().unwrap(), lease.command.clone().unwrap());
        let root = Digest::required(F, action.input_root_digest.as_ref()).unwrap();
        let step = self.roots.prepare(&self.client, &lease, &action, &command, &root).await.unwrap();
        let job = Job {
            place: In::Root(step.rooted()),
            tenant: String::new(),
            layers: step.layers().to_vec(),
            arguments: ask.arguments.clone(),
            environment: ask.environment.iter().cloned().collect(),
            secrets: Secrets::default(),
            working_directory: Step::working_directory(&command).unwrap(),
            make_directories: Vec::new(),
            beside: Vec::new(),
            network: lease.network,
            timeout: Some(ask.timeout),
            milli_cpus: 1000,
            memory_bytes: 512 * MIB,
            disk_bytes: 1 << 30,
            max_processes: 400,
            calls: Default::default(),
            session: None,
            conditions: Default::default(),
            usage: None,
        };
        (step, job)
    }

    /// Runs a job in the sandbox alone: how it ended, and what it said.
    pub async fn sandboxed(&self, job: Job, cancel: CancellationToken) -> (Exit, String) {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let collect = async {
            let mut said = Vec::new();
            while let Some(Chunk { stream, data }) = receiver.recv().await {
                if stream == Stream::Stdout {
                    said.extend_from_slice(&data);
                }
            }
            said
        };
        let (finished, said) = tokio::join!(self.sandbox.run(job, sender, cancel), collect);
        (finished.unwrap().exit, String::from_utf8_lossy(&said).into_owned())
    }
}

fn rand_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Checks that it succeeded, and returns what it said.
    pub fn ok(&self) -> String {
        assert_eq!((self.code, self.status.as_str()), (0, ""), "{}\n{}", self.text(), self.err);
        self.text()
    }

    /// The node at a path of the layer.
    pub fn node(&self, path: &str) -> Option<Node> {
        self.at(self.layer?, path.as_bytes())
    }

    /// The node at a path of the root that the command left.
    pub fn left(&self, path: &str) -> Option<Node> {
        self.at(self.after, path.as_bytes())
    }

    pub fn at(&self, from: Digest, path: &[u8]) -> Option<Node> {
        let mut node = Node::Directory(from);
        for name in kiln_trees::root::split(path).unwrap() {
            let Node::Directory(digest) = node else { return None };
            node = self.forest.get(&digest)?.entries.get(&name)?.clone();
        }
        Some(node)
    }

    /// All paths of the layer that are not directories, whiteouts with `-` before them, and directories that are empty with `/` behind.
    pub fn paths(&self) -> Vec<String> {
        fn walk(forest: &Forest, digest: &Digest, within: &str, paths: &mut Vec<String>) {
            let directory = forest.get(digest).unwrap();
            if directory.entries.is_empty() && !within.is_empty() {
                paths.push(within.to_owned());
            }
            for (name, node) in &directory.entries {
                let path = format!("{within}{}", shown(name));
                match node {
                    Node::Directory(below) => walk(forest, below, &format!("{path}/"), paths),
                    Node::Leaf(_) => paths.push(path),
                    Node::Whiteout => paths.push(format!("-{path}")),
                }
            }
        }
        let mut paths = Vec::new();
        walk(&self.forest, &self.layer.expect("a layer"), "", &mut paths);
        paths
    }
}

fn shown(name: &Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}
