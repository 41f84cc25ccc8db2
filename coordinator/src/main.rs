//! The program `kiln-coordinator`.

use std::process::ExitCode;

use clap::Parser;
use kiln_telemetry::{Process, Telemetry};
use tokio::net::TcpListener;

const PROCESS: Process = Process { name: "kiln-coordinator", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };

#[derive(Parser)]
#[command(
    name = "kiln-coordinator",
    version,
    about = "Kiln's coordinator: plans builds, schedules their steps, caches and stores"
)]
struct Arguments {
    #[command(flatten)]
    config: kiln_coordinator::Config,
    #[command(flatten)]
    telemetry: kiln_telemetry::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Prints the chain of causes without a stack trace: the problem is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    kiln_system::no_core_dumps();
    let telemetry = Telemetry::start(&PROCESS, &arguments.telemetry)?;
    let result = coordinate(arguments.config).await;
    telemetry.stop().await;
    result
}

async fn coordinate(config: kiln_coordinator::Config) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on `{}`: {error}", config.listen))?;
    kiln_coordinator::run(config, listener, stop_signal()).await
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
