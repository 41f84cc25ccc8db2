//! `kiln-worker`.

use std::process::ExitCode;

use clap::Parser;
use kiln_telemetry::{Process, Telemetry};

const PROCESS: Process = Process { name: "kiln-worker", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };

#[derive(Parser)]
#[command(name = "kiln-worker", version, about = "Kiln's worker: runs actions for a coordinator")]
struct Arguments {
    #[command(flatten)]
    config: kiln_worker::Config,
    #[command(flatten)]
    telemetry: kiln_telemetry::Options,
}

fn main() -> ExitCode {
    kiln_worker::become_init_if_asked();
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes, and no stack trace: what is wrong is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn work() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    kiln_proto::secret::no_core_dumps();
    let telemetry = Telemetry::start(&PROCESS, &arguments.telemetry)?;
    let result = kiln_worker::run(arguments.config, stop_signal()).await;
    telemetry.stop().await;
    result
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
