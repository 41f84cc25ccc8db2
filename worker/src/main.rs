//! The program `kiln-worker`.

use std::process::ExitCode;

use clap::Parser;
use kiln_telemetry::{Process, Telemetry};

const PROCESS: Process = Process { name: "kiln-worker", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };

/// What `--help` says about the reach of steps; worker/README.md has the details.
const REACH: &str = "\
What a step can reach:
  files     the system's directories, read-only; its inputs at /build, /tmp and /dev/shm, private and removed with the step
  devices   null, zero, full, random, urandom, tty; it cannot change them
  kernel    the system calls that builds need; /proc read-only, without files that describe the machine
  processes its own; with its own user and group if the worker is root, with one that all actions share if the worker's user has
            subordinate ids (--subids), otherwise as the worker's user
  network   none; with `network = true`, whatever the machine can connect to, including private networks, but not the machine's own
            addresses and loopback (except ports that the worker's proxy and registry settings name), other steps, or clouds'
            metadata addresses. Without pasta or slirp4netns, or with --network-isolation off, whatever the machine can reach
  image     a step in an image root (a Dockerfile's RUN) sees nothing of the machine's files; its root is an unprivileged user of the machine.
            With --allow-host-network it may ask for this machine's network
  --sandbox off isolates nothing. `kiln workers` shows what a machine lacks.";

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
            // Prints the chain of causes without a stack trace: the problem is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn work(arguments: Arguments) -> anyhow::Result<()> {
    kiln_system::no_core_dumps();
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
