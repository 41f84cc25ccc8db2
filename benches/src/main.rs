//! `kiln-bench`: measures a farm. Without `--target` it starts one of its own, of real processes.

use clap::{Parser, ValueEnum};
use kiln_benches::farm::Farm;
use kiln_benches::report::{self, Figure};
use kiln_benches::{blob, execute, project, scheduler};

#[derive(Parser)]
#[command(name = "kiln-bench", about = "Measures a farm", version)]
struct Arguments {
    /// Any Remote Execution endpoint, such as grpc://HOST:PORT; without it a farm with one worker is started here.
    #[arg(long)]
    target: Option<String>,
    /// What to measure; without it, everything.
    #[arg(value_enum)]
    what: Vec<What>,
    /// JSON in place of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Latency and throughput of `/bin/true`.
    Execute,
    /// 1 GiB up and back.
    Blob,
    /// `kiln build` of 10,000 files.
    Build,
    /// The scheduler alone: 100,000 actions on 1,000 workers.
    Scheduler,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wants = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    let farm = if arguments.target.is_none() { Some(Farm::start(1)?) } else { None };
    let url = arguments.target.clone().or(farm.as_ref().map(|farm| farm.url.clone())).unwrap_or_default();
    let channel = kiln_proto::channel::connect(&url).await?;
    let mut figures = Vec::new();
    if wants(What::Execute) {
        execute::noop(&channel, 50, 1).await?;
        figures.extend(execute::noop(&channel, 300, 1).await?);
        figures.extend(execute::noop(&channel, 2_000, 16).await?);
    }
    if wants(What::Blob) {
        figures.extend(blob::round_trip(&channel, 1024).await?);
        if let Some(farm) = &farm {
            let mib = farm.coordinator_peak_bytes()? as f64 / f64::from(1 << 20);
            figures.push(Figure::new("coordinator, peak resident", mib, "MiB").wanted("under 200"));
        }
    }
    if wants(What::Build) {
        figures.extend(project::builds(&url, 10_000, 20)?);
    }
    if wants(What::Scheduler) {
        figures.extend(scheduler::assignments(100_000, 1_000)?);
    }
    report::print(&figures, arguments.json)
}
