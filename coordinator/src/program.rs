//! The program and its options.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use kiln_telemetry::Process;
use tokio::net::TcpListener;

use crate::live::{RELOADED, Reload, Reloads};
use crate::{Config, check, serve};

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

impl kiln_program::Arguments for Arguments {
    type Config = Config;
    const PROCESS: Process =
        Process { name: "kiln-coordinator", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };
    const RELOADED: &'static [&'static str] = &RELOADED;

    fn file(&self) -> &kiln_options::Options {
        &self.file
    }

    fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    fn parts(self) -> (Config, kiln_telemetry::Options) {
        (self.config, self.telemetry)
    }

    fn problems(config: &Config) -> Vec<String> {
        check::problems(config)
    }
}

impl kiln_program::Reload<Config> for Reload {
    async fn apply(&mut self, config: Config) -> Result<Vec<String>, Vec<String>> {
        Reload::apply(self, config).await
    }
}

/// Runs the program with this command line, from its start to its end.
pub fn main(line: Vec<OsString>) -> ExitCode {
    kiln_program::main::<Arguments, _, _>(
        line,
        |_| {},
        |config| {
            let (reload, reloads) = Reloads::new();
            (reload, coordinate(config, reloads))
        },
    )
}

async fn coordinate(config: Config, reloads: Reloads) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on `{}`: {error}", config.listen))?;
    serve::run_reloading(config, listener, kiln_program::stop_signal(), reloads).await
}
