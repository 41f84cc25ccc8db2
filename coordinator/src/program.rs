//! The program and its options.

use std::ffi::OsString;
use std::process::ExitCode;

use kiln_telemetry::Process;
use tokio::net::TcpListener;

use crate::live::{RELOADED, Reload, Reloads};
use crate::{Config, check, serve};

/// The command line of `kiln-coordinator`.
pub type Arguments = kiln_program::Arguments<Config>;

impl kiln_program::Config for Config {
    const PROCESS: Process =
        Process { name: "kiln-coordinator", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };
    const ABOUT: &'static str = "Kiln's coordinator: plans builds, schedules their steps, caches and stores";
    const RELOADED: &'static [&'static str] = &RELOADED;

    fn problems(&self) -> Vec<String> {
        check::problems(self)
    }
}

impl kiln_program::Reload<Config> for Reload {
    async fn apply(&mut self, config: Config) -> Result<Vec<String>, Vec<String>> {
        Reload::apply(self, config).await
    }
}

/// Runs the program with this command line, from its start to its end.
pub fn main(line: Vec<OsString>) -> ExitCode {
    kiln_program::main(
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
