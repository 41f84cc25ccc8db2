//! A program that serves until it is told to end: from its command line to its exit code.
//!
//! Invariant: an invalid configuration changes nothing in a program that runs.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser};
use kiln_options::{Read, Settings};
use kiln_telemetry::{LogFilter, Process, Telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a program does, as its options say.
pub trait Config: Args + Send + 'static {
    /// How it is called in logs and traces.
    const PROCESS: Process;
    /// What it does, for `--help`.
    const ABOUT: &'static str;
    /// What `--help` says after the options.
    const AFTER_HELP: Option<&'static str> = None;
    /// The options that a reload applies.
    const RELOADED: &'static [&'static str];

    /// All that is wrong with what it names.
    fn problems(&self) -> Vec<String>;
}

/// The command line of a program.
#[derive(Debug, Parser)]
#[command(name = C::PROCESS.name, version = kiln_version::TEXT.as_str(), about = C::ABOUT, after_long_help = C::AFTER_HELP)]
pub struct Arguments<C: Config> {
    /// The file with options.
    #[command(flatten)]
    pub file: kiln_options::Options,
    /// What the program does.
    #[command(flatten)]
    pub config: C,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: kiln_telemetry::Options,
}

/// A program that runs, as far as its configuration can be replaced.
pub trait Reload<C>: Send + 'static {
    /// Applies a configuration, and answers what of it takes effect after a restart only, besides options.
    ///
    /// # Errors
    /// What is wrong with its files. Nothing has changed then.
    fn apply(&mut self, config: C) -> impl Future<Output = Result<Vec<String>, Vec<String>>> + Send;
}

/// Runs a program with this command line, from its start to its end. `prepare` is called while the process has a single thread; `serve` starts
/// what the program does.
pub fn main<C: Config, R: Reload<C>, S: Future<Output = anyhow::Result<()>>>(
    line: Vec<OsString>,
    prepare: impl FnOnce(&mut C),
    serve: impl FnOnce(C) -> (R, S),
) -> ExitCode {
    let mut read = match kiln_options::read::<Arguments<C>>(&line) {
        Ok(read) => read,
        Err(error) => return error.print(),
    };
    if read.arguments.file.check_config {
        return kiln_options::report(&read.settings, &read.arguments.config.problems());
    }
    prepare(&mut read.arguments.config);
    match run(line, read, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Prints the chain of causes without a stack trace: the problem is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run<C: Config, R: Reload<C>, S: Future<Output = anyhow::Result<()>>>(
    line: Vec<OsString>,
    read: Read<Arguments<C>>,
    serve: impl FnOnce(C) -> (R, S),
) -> anyhow::Result<()> {
    // Before anything else: until then, SIGHUP ends the process.
    let hangups = signal(SignalKind::hangup())?;
    kiln_system::no_core_dumps();
    let Read { arguments, settings } = read;
    let Arguments { config, telemetry: options, .. } = arguments;
    let telemetry = Telemetry::start(&C::PROCESS, &options)?;
    let filter = telemetry.filter();
    let (reload, serving) = serve(config);
    tokio::spawn(Reloading { line, settings, filter, reload }.on::<C>(hangups));
    let result = serving.await;
    telemetry.stop().await;
    result
}

/// Reads the options again.
struct Reloading<R> {
    line: Vec<OsString>,
    settings: Settings,
    filter: LogFilter,
    reload: R,
}

impl<R> Reloading<R> {
    async fn on<C: Config>(mut self, mut hangups: Signal)
    where
        R: Reload<C>,
    {
        while hangups.recv().await.is_some() {
            self.once::<C>().await;
        }
    }

    async fn once<C: Config>(&mut self)
    where
        R: Reload<C>,
    {
        const KEPT: &str = "the configuration is invalid; the previous one stays in effect";
        let Read { arguments, settings } = match kiln_options::read::<Arguments<C>>(&self.line) {
            Ok(read) => read,
            Err(error) => return tracing::error!(error = error.in_one_line(), "{KEPT}"),
        };
        let Arguments { config, telemetry: options, .. } = arguments;
        let late = match self.reload.apply(config).await {
            Ok(late) => late,
            Err(problems) => return tracing::error!(error = problems.join("; "), "{KEPT}"),
        };
        self.filter.reload(&options);
        let change = self.settings.take_over(settings, C::RELOADED);
        tracing::info!(changed = change.applied.join(", "), "reloaded the configuration");
        let late: Vec<String> = change.late.into_iter().map(|name| format!("`{name}`")).chain(late).collect();
        if !late.is_empty() {
            tracing::warn!(changed = late.join(", "), "takes effect after a restart");
        }
    }
}

/// Ends when the process is asked to: SIGTERM, or an interrupt from the keyboard.
pub async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
