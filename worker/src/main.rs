//! `kiln-worker`.

use std::process::ExitCode;

use clap::Parser;
use kiln_telemetry::{Process, Telemetry};

const PROCESS: Process = Process { name: "kiln-worker", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };

/// What `--help` says of steps; worker/README.md has the details.
const REACH: &str = "\
What a step can reach:
  files     the system's directories read-only; its inputs at /build, /tmp and /dev/shm, private and gone with it
  devices   null, zero, full, random, urandom, tty; nobody can change them
  kernel    the system calls that builds need; /proc read-only, without what shows the machine
  processes its own; as a user and group of its own where the worker is root, as one that all actions share where the worker's user
            has subordinate ids (--subids), else as the worker's
  network   none; with `network = true` what the machine can connect to, private networks included, but neither the machine's own
            addresses and loopback (except ports that the worker's proxy and registry settings name), other steps, nor clouds'
            metadata addresses. Without pasta or slirp4netns, or with --network-isolation off, whatever the machine reaches
  --sandbox off keeps nothing out. What a machine lacks, `kiln workers` says.";

#[derive(Parser)]
#[command(name = "kiln-worker", version, about = "Kiln's worker: runs actions for a coordinator", after_long_help = REACH)]
struct Arguments {
    #[command(flatten)]
    config: kiln_worker::Config,
    #[command(flatten)]
    telemetry: kiln_telemetry::Options,
}

fn main() -> ExitCode {
    kiln_worker::become_init_if_asked();
    let mut arguments = Arguments::parse();
    arguments.config.take_ids();
    match work(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes, and no stack trace: what is wrong is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn work(arguments: Arguments) -> anyhow::Result<()> {
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
