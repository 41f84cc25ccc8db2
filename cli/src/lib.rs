//! The command line, `kiln`: from a source tree on this machine to artifacts on this machine, by way of a farm.
//!
//! Invariant: nothing here decides how a project is built; that is the coordinator's, so that every client has it.
//! Standard output is data; everything else goes to standard error.

pub mod args;
mod commands;
mod deliver;
pub mod download;
mod error;
pub mod farm;
mod follow;
mod interrupts;
mod local;
pub mod progress;
pub mod scan;
pub mod secrets;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use error::{Code, Error};

/// Parses the command line and does what it says.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage as u8));
        }
    };
    kiln_proto::secret::no_core_dumps();
    log();
    let code = match perform(cli) {
        Ok(code) => code,
        Err(error) => {
            terminal::say(&format!("error: {}", terminal::chain(&error)));
            error.code()
        }
    };
    ExitCode::from(code as u8)
}

fn perform(cli: args::Cli) -> Result<Code, Error> {
    if let Some(parent) = cli.command.parent() {
        farm::parts::die_with(parent)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Runtime { source })?;
    let result = runtime.block_on(commands::perform(cli));
    // What still reads or hashes for an abandoned call is not waited for.
    runtime.shutdown_background();
    result
}

/// Kiln's own log goes to standard error, and only when `KILN_LOG` asks for it.
fn log() {
    if let Ok(filter) = std::env::var("KILN_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init();
    }
}
