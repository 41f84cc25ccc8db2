//! The program: its options, `--check-config`, and what SIGHUP does.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use kiln_options::{Read, Settings};
use kiln_telemetry::{LogFilter, Process, Telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::{Config, check, serve};

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

/// The options of `kiln-worker`.
#[derive(Debug, Parser)]
#[command(name = "kiln-worker", version = kiln_version::TEXT.as_str(), about = "Kiln's worker: runs actions for a coordinator", after_long_help = REACH)]
pub struct Arguments {
    /// The file with options.
    #[command(flatten)]
    pub file: kiln_options::Options,
    /// What the worker does.
    #[command(flatten)]
    pub config: Config,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: kiln_telemetry::Options,
}

/// Runs the program with this command line, from its start to its end. Must be called while the process has a single thread.
pub fn main(line: Vec<OsString>) -> ExitCode {
    let mut read = match kiln_options::read::<Arguments>(&line) {
        Ok(read) => read,
        Err(error) => return error.print(),
    };
    if read.arguments.file.check_config {
        return kiln_options::report(&read.settings, &check::problems(&read.arguments.config));
    }
    read.arguments.config.take_ids();
    match run(line, read) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Prints the chain of causes without a stack trace: the problem is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(line: Vec<OsString>, read: Read<Arguments>) -> anyhow::Result<()> {
    // Before anything else: until then, SIGHUP ends the process.
    let hangups = signal(SignalKind::hangup())?;
    kiln_system::no_core_dumps();
    let Read { arguments: Arguments { config, telemetry: options, .. }, settings } = read;
    let telemetry = Telemetry::start(&PROCESS, &options)?;
    let (sender, reloads) = watch::channel(Arc::new(config.clone()));
    let filter = telemetry.filter();
    tokio::spawn(Reloading { line, settings, filter, sender }.on(hangups));
    let result = serve::run_reloading(config, stop_signal(), reloads).await;
    telemetry.stop().await;
    result
}

/// Reads the options again.
struct Reloading {
    line: Vec<OsString>,
    settings: Settings,
    filter: LogFilter,
    sender: watch::Sender<Arc<Config>>,
}

impl Reloading {
    async fn on(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.once();
        }
    }

    fn once(&mut self) {
        const KEPT: &str = "the configuration is invalid; the previous one stays in effect";
        let Read { arguments, settings } = match kiln_options::read::<Arguments>(&self.line) {
            Ok(read) => read,
            Err(error) => return tracing::error!(error = error.in_one_line(), "{KEPT}"),
        };
        let problems = check::problems(&arguments.config);
        if !problems.is_empty() {
            return tracing::error!(error = problems.join("; "), "{KEPT}");
        }
        self.filter.reload(&arguments.telemetry);
        self.sender.send_replace(Arc::new(arguments.config));
        let change = self.settings.take_over(settings, &serve::RELOADED);
        tracing::info!(changed = change.applied.join(", "), "reloaded the configuration");
        if !change.late.is_empty() {
            let late: Vec<String> = change.late.iter().map(|name| format!("`{name}`")).collect();
            tracing::warn!(changed = late.join(", "), "takes effect after a restart");
        }
    }
}

async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
