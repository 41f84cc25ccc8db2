//! The program: its options, `--check-config`, and what SIGHUP does.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use kiln_options::{Read, Settings};
use kiln_telemetry::{LogFilter, Process, Telemetry};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::live::{RELOADED, Reload, Reloads};
use crate::{Config, check, serve};

const PROCESS: Process = Process { name: "kiln-coordinator", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };

/// The options of `kiln-coordinator`.
#[derive(Debug, Parser)]
#[command(
    name = "kiln-coordinator",
    version = kiln_version::TEXT.as_str(),
    about = "Kiln's coordinator: plans builds, schedules their steps, caches and stores"
)]
pub struct Arguments {
    /// The file with options.
    #[command(flatten)]
    pub file: kiln_options::Options,
    /// What the coordinator does.
    #[command(flatten)]
    pub config: Config,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: kiln_telemetry::Options,
}

/// Runs the program with this command line, from its start to its end.
pub fn main(line: Vec<OsString>) -> ExitCode {
    let read = match kiln_options::read::<Arguments>(&line) {
        Ok(read) => read,
        Err(error) => return error.print(),
    };
    if read.arguments.file.check_config {
        return kiln_options::report(&read.settings, &check::problems(&read.arguments.config));
    }
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
    let (reload, reloads) = Reloads::new();
    let filter = telemetry.filter();
    tokio::spawn(Reloading { line, settings, filter, reload }.on(hangups));
    let result = coordinate(config, reloads).await;
    telemetry.stop().await;
    result
}

async fn coordinate(config: Config, reloads: Reloads) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on `{}`: {error}", config.listen))?;
    serve::run_reloading(config, listener, stop_signal(), reloads).await
}

/// Reads the options again.
struct Reloading {
    line: Vec<OsString>,
    settings: Settings,
    filter: LogFilter,
    reload: Reload,
}

impl Reloading {
    async fn on(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.once().await;
        }
    }

    async fn once(&mut self) {
        const KEPT: &str = "the configuration is invalid; the previous one stays in effect";
        let Read { arguments, settings } = match kiln_options::read::<Arguments>(&self.line) {
            Ok(read) => read,
            Err(error) => return tracing::error!(error = error.in_one_line(), "{KEPT}"),
        };
        let late = match self.reload.apply(arguments.config).await {
            Ok(late) => late,
            Err(problems) => return tracing::error!(error = problems.join("; "), "{KEPT}"),
        };
        self.filter.reload(&arguments.telemetry);
        let change = self.settings.take_over(settings, &RELOADED);
        tracing::info!(changed = change.applied.join(", "), "reloaded the configuration");
        let late: Vec<String> = change.late.into_iter().map(|name| format!("`{name}`")).chain(late).collect();
        if !late.is_empty() {
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
