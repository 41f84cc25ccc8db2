//! A coordinator with many workers that do nothing at once: actions per second, and per second of the coordinator's CPU time.
//!
//! Each worker has its own connection and speaks the worker protocol. It reports that a lease has begun and that it has ended, and
//! runs nothing. The actions are distinct, and their blobs are uploaded before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::channel::{self, Channel};
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1::coordinator_message::Message as Told;
use kiln_proto::v1::worker_message::Message as Said;
use kiln_proto::v1::workers_client::WorkersClient;
use kiln_proto::v1::{self, lease_finished};
use kiln_proto::{clock, reapi};
use kiln_trees::tree::{Entry, Tree};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::actions::{self, FUNCTION, Recipe};
use crate::crowd::{DIALS, environment};
use crate::farm::{Farm, Setup};
use crate::report::{Figure, Latencies};

/// Actions that are uploaded and run before anything is measured.
const WARM_UP: u32 = 500;
/// Calls on one connection; a coordinator allows some more.
const CALLS_ON_A_CONNECTION: usize = 100;

/// `kiln-bench workers`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of connected workers. Each takes a file descriptor here and one in the coordinator.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    pub workers: u32,
    /// Number of actions.
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(u32).range(1..))]
    pub actions: u32,
    /// Number of directories in the input tree, which all actions have in common.
    #[arg(long, default_value = "20")]
    pub directories: u32,
    /// Number of actions that are waited for at once.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub callers: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What the workers did.
#[derive(Debug, Default)]
struct Done {
    /// The actions of all leases.
    actions: Vec<String>,
    workers: HashSet<String>,
}

/// Connects the workers, runs the actions, and checks that each ran once.
///
/// # Errors
/// If the farm cannot be started, a worker is refused or loses its connection, an action fails, or one runs twice.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let farm = Farm::start(0, Setup::default()).await?;
    let server = farm.coordinator()?;
    let done = Arc::new(Mutex::new(Done::default()));
    let (broken, mut breaks) = mpsc::unbounded_channel();
    eprintln!("{} workers connect ...", options.workers);
    let (began, cpu) = (Instant::now(), server.cpu().unwrap_or_default());
    stream::iter(0..options.workers)
        .map(|number| worker(&farm.url, format!("w{number}"), done.clone(), broken.clone()))
        .buffer_unordered(DIALS)
        .try_collect::<Vec<()>>()
        .await?;
    let joined = (began.elapsed(), server.cpu().unwrap_or_default() - cpu);
    let connections = options.callers.div_ceil(CALLS_ON_A_CONNECTION as u32);
    let channels: Vec<Channel> = stream::iter(0..connections).then(|_| farm.connect()).try_collect().await?;
    let salt: u64 = rand::random();
    execute(&channels, options.callers, prepare(&channels, &options, &format!("{salt}-warm"), WARM_UP).await?).await?;
    done.lock().actions.clear();
    let digests = prepare(&channels, &options, &salt.to_string(), options.actions).await?;
    eprintln!("{} actions run ...", options.actions);
    let (began, before) = (Instant::now(), server.cpu().context("cannot read the coordinator's CPU time")?);
    let latencies = execute(&channels, options.callers, digests.clone()).await?;
    let took = began.elapsed();
    let cpu = server.cpu().context("cannot read the coordinator's CPU time")? - before;
    if let Ok(words) = breaks.try_recv() {
        bail!("expected all workers to stay connected; {words}");
    }
    let done = done.lock();
    let ran: HashSet<&String> = done.actions.iter().collect();
    let wanted: HashSet<String> = digests.iter().map(|digest| digest.hex()).collect();
    ensure!(done.actions.len() == wanted.len(), "{} actions had {} leases", wanted.len(), done.actions.len());
    ensure!(wanted.iter().all(|action| ran.contains(action)), "a lease was of another action");
    let (count, peak) = (f64::from(options.actions), server.peak_bytes().unwrap_or_default());
    let who = format!("{} workers, {} callers", options.workers, options.callers);
    let figures = [
        Figure::new(format!("{who}: actions"), count / took.as_secs_f64(), "per second").wanted("2000 on two cores"),
        Figure::new("  per second of the coordinator's CPU time", count / cpu.as_secs_f64(), "per second"),
        Figure::new("  the coordinator's CPU time for each", cpu.as_secs_f64() * 1e6 / count, "µs"),
        Figure::new("  from Execute to the result, median", latencies.quantile_ms(0.5), "ms"),
        Figure::new("  99%", latencies.quantile_ms(0.99), "ms"),
        Figure::new("  leases, one for each action", done.actions.len() as f64, ""),
        Figure::new("  workers that had one", done.workers.len() as f64, ""),
        Figure::new("all workers connected and registered", joined.0.as_secs_f64(), "s"),
        Figure::new(
            "  the coordinator's CPU time for each",
            joined.1.as_secs_f64() * 1e6 / f64::from(options.workers),
            "µs",
        ),
        Figure::new("coordinator, peak resident", peak as f64 / f64::from(1 << 20), "MiB"),
    ];
    crate::report::print(&figures, options.json)
}

/// Uploads that many distinct actions, and their input tree.
async fn prepare(channels: &[Channel], options: &Options, salt: &str, count: u32) -> anyhow::Result<Vec<Digest>> {
    let (mut blobs, mut digests) = (Vec::new(), Vec::new());
    let mut tree = Tree::default();
    for number in 0..options.directories {
        let (digest, data) = actions::bytes_blob(number.to_string().into());
        tree.insert(&format!("directory-{number}/file"), Entry::file(digest, false))?;
        blobs.push((digest, data));
    }
    let root = tree.encode(FUNCTION, &mut |encoded| blobs.push((encoded.digest, Blob::Bytes(encoded.data.into()))));
    let recipe = Recipe::noop(root, Vec::new());
    for index in 0..count {
        let (digest, uploads) = recipe.action(&format!("{salt}-{index}"));
        blobs.extend(uploads);
        digests.push(digest);
    }
    let channel = channels.first().context("expected a connection")?;
    Client::new(channel.clone(), "", FUNCTION).upload(blobs).await?;
    Ok(digests)
}

/// Runs all of them, so many at a time.
async fn execute(channels: &[Channel], callers: u32, digests: Vec<Digest>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut running = stream::iter(digests.into_iter().zip(channels.iter().cycle().cloned()))
        .map(|(digest, channel)| async move {
            let began = Instant::now();
            actions::fresh(actions::execute(channel, "", &digest).await?)?;
            anyhow::Ok(began.elapsed())
        })
        .buffer_unordered(callers as usize);
    while let Some(took) = running.try_next().await? {
        latencies.record(took);
    }
    Ok(latencies)
}

/// Connects a worker, and returns once it is registered.
async fn worker(
    url: &str,
    name: String,
    done: Arc<Mutex<Done>>,
    broken: mpsc::UnboundedSender<String>,
) -> anyhow::Result<()> {
    let (outbox, inbox) = mpsc::channel(64);
    let register = v1::Register {
        worker: name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: Some(environment()),
        capacity: Some(v1::Capacity { milli_cpus: 4_000, memory_bytes: 8 << 30 }),
        ..Default::default()
    };
    outbox.send(v1::WorkerMessage { message: Some(Said::Register(register)) }).await?;
    let mut client = WorkersClient::new(channel::connect(url, &Default::default()).await?);
    let mut answers = client.link(ReceiverStream::new(inbox)).await?.into_inner();
    let first = answers.message().await?.and_then(|message| message.message);
    let Some(Told::Registered(welcome)) = first else { bail!("expected a worker to be registered, found {first:?}") };
    let every = welcome.heartbeat_interval.map_or(5, |every| every.seconds.unsigned_abs()).max(1);
    tokio::spawn(async move {
        let _client = client;
        let mut beats = tokio::time::interval(Duration::from_secs(every));
        let how = loop {
            let said = tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(v1::CoordinatorMessage { message: Some(Told::Lease(lease)) })) => {
                        let mut done = done.lock();
                        done.actions.push(lease.action_digest.map(|digest| digest.hash).unwrap_or_default());
                        done.workers.insert(name.clone());
                        carry_out(lease.lease)
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => break "ended".to_owned(),
                    Err(status) => break format!("failed: {status}"),
                },
                _ = beats.tick() => vec![Said::Heartbeat(v1::Heartbeat::default())],
            };
            for message in said {
                if outbox.send(v1::WorkerMessage { message: Some(message) }).await.is_err() {
                    return;
                }
            }
        };
        let _ = broken.send(format!("the stream of worker `{name}` {how}"));
    });
    Ok(())
}

/// What a worker says of a lease whose command does nothing.
fn carry_out(lease: u64) -> Vec<Said> {
    let result = reapi::ActionResult { exit_code: 0, ..Default::default() };
    let response = reapi::ExecuteResponse { result: Some(result), ..Default::default() };
    let outcome = Some(lease_finished::Outcome::Response(response));
    vec![
        Said::Started(v1::LeaseStarted { lease, at: Some(clock::now()) }),
        Said::Finished(v1::LeaseFinished { lease, outcome, ..Default::default() }),
    ]
}
