//! A coordinator with many idle workers and many clients that watch a build: its memory and CPU time.
//!
//! Each worker and each client has its own connection, as if on separate machines. The workers speak the worker
//! protocol and run nothing; one of them holds the step of the watched build, and prints a line now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::channel::{self, Access};
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::coordinator_message::Message as Told;
use kiln_proto::v1::worker_message::Message as Said;
use kiln_proto::v1::workers_client::WorkersClient;
use kiln_proto::v1::{self, event};
use kiln_trees::tree::{Entry, Tree};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actions::FUNCTION;
use crate::farm::{Farm, Setup};
use crate::process::Process;
use crate::report::Figure;

/// Concurrent connection attempts.
pub(crate) const DIALS: usize = 32;
/// How long the last lines may take to arrive.
pub(crate) const LATE: Duration = Duration::from_secs(10);
/// The step's output, each time.
const LINE: &[u8] = b"a line of output, as a compiler says it, of some eighty bytes with a path in it\n";

/// `kiln-bench crowd`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of connected, idle workers.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub workers: u32,
    /// Number of clients that watch a build.
    #[arg(long, default_value = "5000")]
    pub watchers: u32,
    /// How long to measure, in seconds.
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Use TLS, with a client certificate per worker.
    #[arg(long)]
    pub tls: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Connects everyone, then measures the coordinator's memory and CPU time: while idle, and while the build prints a
/// line per second.
///
/// # Errors
/// If the farm cannot be started, or a client is refused or disconnected.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let farm = Farm::start(0, Setup { tls: options.tls, ..Setup::default() }).await?;
    let server = farm.coordinator()?;
    let alone = resident(&server)?;
    eprintln!("{} workers connect ...", options.workers);
    let (lines, _) = tokio::sync::broadcast::channel(16);
    let (broken, mut breaks) = mpsc::unbounded_channel::<String>();
    let members: Vec<(String, Access)> = (0..options.workers)
        .map(|number| {
            let name = format!("w{number}");
            farm.member(&name, "worker").map(|access| (name, access))
        })
        .collect::<anyhow::Result<_>>()?;
    stream::iter(members)
        .map(|(name, access)| worker(&farm.url, name, access, lines.clone(), broken.clone()))
        .buffer_unordered(DIALS)
        .try_collect::<Vec<()>>()
        .await?;
    let build = submit(&farm).await?;
    eprintln!("{} clients watch build {build} ...", options.watchers);
    let (seen, mut sights) = mpsc::unbounded_channel();
    stream::iter(0..options.watchers)
        .map(|_| watcher(&farm, &build, seen.clone(), broken.clone()))
        .buffer_unordered(DIALS)
        .try_collect::<Vec<()>>()
        .await?;
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let silent = share(&server, time, || ()).await?;
    let mut said = 0;
    let speaking = share(&server, time, || {
        said += 1;
        let _ = lines.send(());
    })
    .await?;
    if let Ok(words) = breaks.try_recv() {
        bail!("expected all to stay connected; {words}");
    }
    let wanted = said * options.watchers;
    let mut got = 0;
    while got < wanted {
        match tokio::time::timeout(LATE, sights.recv()).await {
            Ok(Some(())) => got += 1,
            _ => bail!("expected {} clients to see {said} lines each, but {got} of {wanted} came", options.watchers),
        }
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let who = format!("{} workers, {} clients", options.workers, options.watchers);
    let peak = server.peak_bytes().context("cannot read the coordinator's memory")?;
    let figures = [
        Figure::new("coordinator alone, resident", mib(alone), "MiB"),
        Figure::new(format!("{who}: peak resident"), mib(peak), "MiB").wanted("under 500"),
        Figure::new(format!("{who}, in silence: of one core"), silent * 100.0, "%").wanted("at most 20"),
        Figure::new(format!("{who}, a line a second to each: of one core"), speaking * 100.0, "%"),
        Figure::new("  lines that came, which were all", f64::from(got), "lines"),
    ];
    crate::report::print(&figures, options.json)
}

pub(crate) fn resident(server: &Process) -> anyhow::Result<u64> {
    server.reset_peak();
    server.peak_bytes().context("cannot read the coordinator's memory")
}

/// The share of one core that the process uses in this time; `each` is called every second.
pub(crate) async fn share(server: &Process, time: Duration, mut each: impl FnMut()) -> anyhow::Result<f64> {
    let cpu = || server.cpu().context("cannot read the coordinator's CPU time");
    let (began, before) = (Instant::now(), cpu()?);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    while began.elapsed() < time {
        seconds.tick().await;
        each();
    }
    Ok((cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

pub(crate) fn environment() -> v1::Environment {
    v1::Environment {
        fingerprint: "0".repeat(64),
        isa: "x86-64".to_owned(),
        os: "debian:12".to_owned(),
        libc: "glibc:2.36".to_owned(),
        cpu_level: "x86-64-v1".to_owned(),
        tools: HashMap::from([("sh".to_owned(), "sh".to_owned())]),
        path: "/usr/bin:/bin".to_owned(),
        ..Default::default()
    }
}

/// Connects a worker, and returns once it is registered. It keeps the leases that it is given.
pub(crate) async fn worker(
    url: &str,
    name: String,
    access: Access,
    lines: tokio::sync::broadcast::Sender<()>,
    broken: mpsc::UnboundedSender<String>,
) -> anyhow::Result<()> {
    let (outbox, inbox) = mpsc::channel(16);
    let register = v1::Register {
        worker: name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: Some(environment()),
        capacity: Some(v1::Capacity { milli_cpus: 2_000, memory_bytes: 4 << 30 }),
        ..Default::default()
    };
    outbox.send(v1::WorkerMessage { message: Some(Said::Register(register)) }).await?;
    let mut client = WorkersClient::new(channel::connect(url, &access).await?);
    let mut answers = client.link(ReceiverStream::new(inbox)).await?.into_inner();
    let first = answers.message().await?.and_then(|message| message.message);
    let Some(Told::Registered(welcome)) = first else { bail!("expected a worker to be registered, found {first:?}") };
    let every = welcome.heartbeat_interval.map_or(5, |every| every.seconds.unsigned_abs()).max(1);
    tokio::spawn(async move {
        let _client = client;
        let mut beats = tokio::time::interval(Duration::from_secs(every));
        let (mut held, mut lines, mut offset) = (None, lines.subscribe(), 0);
        loop {
            let message = tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(message)) => match message.message {
                        Some(Told::Lease(lease)) => {
                            held = Some(lease.lease);
                            Said::Started(v1::LeaseStarted { lease: lease.lease, at: Some(kiln_proto::clock::now()) })
                        }
                        _ => continue,
                    },
                    Ok(None) => return drop(broken.send(format!("the stream of worker `{name}` ended"))),
                    Err(status) => return drop(broken.send(format!("worker `{name}` lost its stream: {status}"))),
                },
                _ = beats.tick() => Said::Heartbeat(v1::Heartbeat::default()),
                Ok(()) = lines.recv() => {
                    let Some(lease) = held else { continue };
                    let (stream, data) = (v1::Stream::Stdout as i32, LINE.to_vec());
                    offset += data.len() as u64;
                    Said::Output(v1::OutputChunk { lease, stream, offset: offset - data.len() as u64, data: data.into() })
                }
            };
            if outbox.send(v1::WorkerMessage { message: Some(message) }).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Submits a build with one step, which one of the workers will hold.
pub(crate) async fn submit(farm: &Farm) -> anyhow::Result<String> {
    let project = "name = \"watched\"\n[steps.wait]\nrun = \"wait\"\noutputs = [\"out\"]\n\
                   [artifacts.out]\nfrom = \"wait\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let (digest, data) = (FUNCTION.digest(project.as_bytes()), project.as_bytes());
    let mut tree = Tree::default();
    tree.insert("kiln.toml", Entry::file(digest, false))?;
    let mut blobs = vec![(digest, Blob::Bytes(data.into()))];
    let root = tree.encode(FUNCTION, &mut |encoded| blobs.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
    let channel = farm.connect().await?;
    Client::new(channel.clone(), "", FUNCTION).upload(blobs).await?;
    let request = v1::SubmitRequest {
        digest_function: FUNCTION.to_wire(),
        source: Some(v1::Source { root: Some(root.to_wire()), ..Default::default() }),
        platforms: vec!["linux/amd64".to_owned()],
        ..Default::default()
    };
    Ok(BuildsClient::new(channel).submit(request).await?.into_inner().id)
}

/// Watches the build on a separate connection, and returns after the first event.
async fn watcher(
    farm: &Farm,
    build: &str,
    seen: mpsc::UnboundedSender<()>,
    broken: mpsc::UnboundedSender<String>,
) -> anyhow::Result<()> {
    let mut client = BuildsClient::new(farm.connect().await?);
    let request = v1::WatchRequest { build: build.to_owned(), offset: 0, ..v1::WatchRequest::default() };
    let mut events = client.watch(request).await?.into_inner();
    events.message().await?.context("expected a build to have a first event")?;
    tokio::spawn(async move {
        let _client = client;
        loop {
            match events.message().await {
                Ok(Some(one)) => {
                    if matches!(one.event, Some(event::Event::Log(_))) {
                        let _ = seen.send(());
                    }
                }
                Ok(None) => return drop(broken.send("a client's watch ended".to_owned())),
                Err(status) => return drop(broken.send(format!("a client lost its watch: {status}"))),
            }
        }
    });
    Ok(())
}
