//! The program `kiln-bench`: measures a farm. Without `--target` it starts one of real processes.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};
use kiln_benches::farm::{Farm, Setup};
use kiln_benches::load::document::Document;
use kiln_benches::load::{compare, table};
use kiln_benches::report::{self, Figure};
use kiln_benches::{
    blob, calls, cost, crowd, dockerfile, execute, image, layer, load, pages, project, proof, scheduler, spread,
    workers,
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "kiln-bench", about = "Measures a farm", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Any Remote Execution endpoint, such as grpc://HOST:PORT; default: start a farm with one worker here.
    #[arg(long)]
    target: Option<String>,
    /// Also run `/bin/true` in a container of this image, such as `docker-daemon:busybox:1`; the workers need a Docker Engine.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// What to measure; default: everything.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Put any Remote Execution endpoint under load, case by case.
    Load(Box<load::Options>),
    /// Measure how long it takes to put a cached dependency layer in place on a worker, cold and warm.
    Layer(Box<layer::Options>),
    /// Measure builds of Dockerfiles, beside BuildKit if asked.
    Dockerfile(Box<dockerfile::Options>),
    /// Measure compiler calls of a generated C project: plain, cold, warm and with one file edited.
    Calls(calls::Options),
    /// Measure what TLS with certificates and what telemetry costs an action.
    Cost(cost::Options),
    /// Measure a coordinator with many idle workers and many clients that watch a build.
    Crowd(crowd::Options),
    /// Open 1,000 live pages of a build that prints, and measure the coordinator.
    Pages(pages::Options),
    /// Measure MACs, signatures, and `kiln verify` of an image.
    Proof(proof::Options),
    /// Measure the scheduler alone: 1,000,000 actions on 10,000 workers, in memory.
    Scheduler(scheduler::Options),
    /// Measure a coordinator with 10,000 connected workers whose actions do nothing.
    Workers(workers::Options),
    /// Measure a step's compiler calls on one worker and on several.
    Spread(spread::Options),
    /// Compare two reports of `load` or `layer`.
    Compare {
        /// The report to compare with.
        first: PathBuf,
        /// The report that is compared.
        second: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Latency and throughput of `/bin/true`.
    Execute,
    /// 1 GiB up and back.
    Blob,
    /// `kiln build` of 10,000 files.
    Build,
    /// An image of 300 MB of which 1 MB changed, made and pushed to a `docker-registry` of its own.
    Image,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let work = async {
        match arguments.command.take() {
            Some(Command::Load(options)) => load::run(*options).await,
            Some(Command::Layer(options)) => layer::run(*options).await,
            Some(Command::Dockerfile(options)) => dockerfile::run(*options).await,
            Some(Command::Spread(options)) => spread::run(options).await,
            Some(Command::Calls(options)) => calls::run(options).await,
            Some(Command::Cost(options)) => cost::run(options).await,
            Some(Command::Proof(options)) => proof::run(options).await,
            Some(Command::Crowd(options)) => crowd::run(options).await,
            Some(Command::Scheduler(options)) => scheduler::run(&options),
            Some(Command::Workers(options)) => workers::run(options).await,
            Some(Command::Pages(options)) => pages::run(options).await,
            Some(Command::Compare { first, second }) => {
                let (first, second) = (Document::read(&first)?, Document::read(&second)?);
                print!("{}", table::comparison(&compare::rows(&first, &second)));
                compare::differences(&first, &second).iter().for_each(|words| println!("{words}"));
                Ok(())
            }
            None => figures(&arguments).await,
        }
    };
    // A farm that was started here stops when the work is dropped.
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn figures(arguments: &Arguments) -> anyhow::Result<()> {
    let wants = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    let farm = if arguments.target.is_none() { Some(Farm::start(1, Setup::default()).await?) } else { None };
    let url = arguments.target.clone().or(farm.as_ref().map(|farm| farm.url.clone())).unwrap_or_default();
    let channel = kiln_proto::channel::connect(&url, &Default::default()).await?;
    let mut figures = Vec::new();
    if wants(What::Execute) {
        for image in [None, arguments.image.as_deref()].into_iter().take(1 + usize::from(arguments.image.is_some())) {
            execute::noop(&channel, image, 50, 1).await?;
            figures.extend(execute::noop(&channel, image, 300, 1).await?);
            figures.extend(execute::noop(&channel, image, 2_000, 16).await?);
        }
    }
    if wants(What::Blob) {
        let server = farm.as_ref().and_then(|farm| farm.coordinator().ok());
        figures.extend(blob::round_trip(&channel, 1024, server).await?);
        if let Some(bytes) = farm.as_ref().and_then(|farm| farm.coordinator().ok()?.peak_bytes()) {
            let mib = bytes as f64 / f64::from(1 << 20);
            figures.push(Figure::new("coordinator, peak resident", mib, "MiB").wanted("under 200"));
        }
    }
    if wants(What::Build) {
        figures.extend(project::builds(&url, 10_000, 20)?);
    }
    if wants(What::Image) {
        figures.extend(image::pushes(&url, 10)?);
    }
    report::print(&figures, arguments.json)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        super::Arguments::command().debug_assert();
    }
}
