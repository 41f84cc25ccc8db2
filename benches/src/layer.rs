//! A cached dependency layer put in place on a worker without any of it, and on one that has it.
//!
//! The figures come from the results: the time from queueing to start, which is the fetch of inputs, of an action with
//! the layer as its input tree.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use kiln_proto::digest::Digest;
use kiln_proto::property::LABEL_PREFIX;
use kiln_proto::reapi::ExecutedActionMetadata;
use tonic::Status;

use crate::actions::{self, Recipe};
use crate::load::document::{Case, Document, Machine};
use crate::load::endpoint::{Endpoint, status};
use crate::load::random::Random;
use crate::load::tally::Tally;
use crate::load::target::{self, Target};
use crate::load::{execute, tell};

/// The label with which an action requests the worker that was started for it.
const LABEL: &str = "bench";

/// `kiln-bench layer`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to measure. A target's workers have nothing of a layer, because it is new in each round.
    #[command(flatten)]
    pub target: target::Options,
    /// Number of files in the layer.
    #[arg(long, default_value = "30000", value_parser = clap::value_parser!(u32).range(1..))]
    pub files: u32,
    /// Size of each file, such as `2KiB`.
    #[arg(long, default_value = "2KiB", value_parser = size)]
    pub size: u64,
    /// Number of rounds; each uses a worker with an empty cache.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Actions per worker after the first.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pub warm: u32,
    /// Write the report as JSON to this file; `-` is standard output, and the table then goes to standard error.
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Seed of the random data; default: random. An endpoint that has seen a seed has its blobs.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The four figures of a layer.
#[derive(Default)]
struct Figures {
    cold: Tally,
    cold_whole: Tally,
    warm: Tally,
    warm_whole: Tally,
}

/// Runs the rounds, prints the table and writes the JSON report.
///
/// # Errors
/// If there is no endpoint, or an action cannot be executed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let machine = Machine::here();
    let mut target = Target::open(&options.target, 0).await?;
    let mut endpoint = target.connect(&options.target, 1).await?;
    let platform = endpoint.platform.clone();
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut random = Random::new(seed, "layer");
    let mut figures = Figures::default();
    let mut layer = None;
    if let Some(server) = target.server {
        server.reset_peak();
    }
    for round in 1..=options.rounds {
        eprintln!("layer, round {round} of {} ...", options.rounds);
        // The workers of a farm that was started here are new, so the layer can be reused; those of a target are not.
        let root = match (layer, &mut target.farm) {
            (Some(root), Some(_)) => root,
            _ => upload(&endpoint, &mut random, &options).await.context("cannot store the layer")?,
        };
        layer = Some(root);
        if let Some(farm) = &mut target.farm {
            farm.stop_workers();
            farm.add_worker(&format!("fresh-{round}"), &["--label".to_owned(), format!("{LABEL}={round}")]).await?;
            endpoint.platform = platform.clone();
            endpoint.platform.push((format!("{LABEL_PREFIX}{LABEL}"), round.to_string()));
        }
        for tally in [&mut figures.cold, &mut figures.warm, &mut figures.cold_whole, &mut figures.warm_whole] {
            tally.watch(target.server);
        }
        let first = random.word();
        one(&endpoint, root, &first, &options, &mut figures.cold, &mut figures.cold_whole).await?;
        for _ in 0..options.warm {
            let next = random.word();
            one(&endpoint, root, &next, &options, &mut figures.warm, &mut figures.warm_whole).await?;
        }
    }
    let fetched = "from the queue to the command's start, as the action's metadata has it";
    let whole = "from Execute to result of the same actions; exit code 0, and not from the cache";
    let mut cases = Vec::new();
    for (name, checked, tally) in [
        ("layer-cold", fetched, figures.cold),
        ("layer-cold-execute", whole, figures.cold_whole),
        ("layer-warm", fetched, figures.warm),
        ("layer-warm-execute", whole, figures.warm_whole),
    ] {
        let mut case = Case::new(name, 1, checked);
        tally.tell(&mut case);
        case.server_peak_bytes = target.server.and_then(|server| server.peak_bytes());
        cases.push(case);
    }
    let words = format!("{}, a layer of {} files of {} bytes", target.words(), options.files, options.size);
    tell(&Document { machine, target: words, seed, cases }, options.json.as_deref())
}

async fn upload(endpoint: &Endpoint, random: &mut Random, options: &Options) -> Result<Digest, Status> {
    endpoint.must_execute()?;
    let (root, blobs) = execute::tree(random, "layer", options.files as usize, options.size)?;
    endpoint.client().upload(blobs).await.map_err(status)?;
    Ok(root)
}

/// Executes an action on the layer; records the time of its input fetch in one tally, and its total time in the other.
async fn one(
    endpoint: &Endpoint,
    root: Digest,
    distinct: &str,
    options: &Options,
    fetch: &mut Tally,
    whole: &mut Tally,
) -> anyhow::Result<()> {
    let (action, uploads) = Recipe::noop(root, endpoint.platform.clone()).action(distinct);
    endpoint.client().upload(uploads.into()).await?;
    let began = whole.begin();
    let called = Instant::now();
    let response = actions::execute(endpoint.channel.clone(), &endpoint.instance, &action).await?;
    let took = called.elapsed();
    whole.end(began);
    let result = actions::fresh(response)?;
    let fetched = result.execution_metadata.as_ref().and_then(fetching);
    let fetched = fetched.context("the result does not contain the time of its input fetch")?;
    let bytes = u64::from(options.files) * options.size;
    whole.done(took, bytes);
    fetch.wall += fetched;
    fetch.done(fetched, bytes);
    Ok(())
}

fn fetching(metadata: &ExecutedActionMetadata) -> Option<Duration> {
    // Results do not contain the time of the input fetch; nothing else waits on the measured farm.
    let from = metadata.queued_timestamp.as_ref()?;
    let to = metadata.execution_start_timestamp.as_ref()?;
    let nanos = i128::from(to.seconds - from.seconds) * 1_000_000_000 + i128::from(to.nanos - from.nanos);
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Parses a size: digits, optionally with the unit `KiB` or `MiB`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("invalid size `{text}`; expected for example `2KiB`");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let shift = match &text[split..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).filter(|bytes| (1..1 << 30).contains(bytes)).ok_or_else(wrong)
}
