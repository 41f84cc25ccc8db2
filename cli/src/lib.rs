//! The command line `kiln`: turns a local source tree into local artifacts with the help of a farm.
//!
//! Invariant: nothing here decides how a project is built; the coordinator does, so that every client benefits.
//! Standard output is data; everything else goes to standard error.

mod commands;
mod deliver;
pub mod download;
mod error;
pub mod farm;
mod follow;
mod interrupts;
mod local;

use std::ffi::OsString;
use std::process::ExitCode;

use kiln_telemetry::{Process, Telemetry};

pub use error::{Code, Error};
pub use kiln_args as args;
pub use kiln_output as output;

/// Parses the command line and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // ccache starts its helper without arguments.
    #[cfg(unix)]
    let is_helper = arguments.len() < 2 && std::env::var_os(kiln_toolcache::ccache::ENDPOINT).is_some();
    #[cfg(not(unix))]
    let is_helper = false;
    let command = is_helper.then(|| vec![OsString::from("kiln"), OsString::from("ccache-storage")]);
    kiln_terminal::choose_colours();
    let read = match kiln_settings::read(&command.unwrap_or(arguments)) {
        Err(kiln_settings::Error::Line(error)) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage.number()));
        }
        read => read.map_err(Error::from),
    };
    kiln_system::no_core_dumps();
    let code = match read.and_then(perform) {
        Ok(code) => code,
        Err(error) => {
            kiln_terminal::say_error(&kiln_terminal::chain(&error));
            error.code()
        }
    };
    ExitCode::from(code.number())
}

fn perform(kiln_settings::Command { mut cli, added, file }: kiln_settings::Command) -> Result<Code, Error> {
    for flags in added {
        kiln_terminal::say(&format!("{} ([{}] of {})", flags.arguments.join(" "), flags.table, file.display()));
    }
    #[cfg(feature = "embedded")]
    {
        cli = farm::parts::prepared(cli)?;
    }
    if let Some(project) = cli.command.project() {
        kiln_settings::apply(&mut cli.farm, project)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Runtime { source })?;
    let result = runtime.block_on(async {
        let telemetry = telemetry(&cli)?;
        let result = commands::perform(cli).await;
        telemetry.stop().await;
        result
    });
    // Does not wait for reads or hashing on behalf of an abandoned call.
    runtime.shutdown_background();
    result
}

/// Starts logging and tracing. Invalid tracing variables, which may be meant for other programs, do not stop a command.
fn telemetry(cli: &args::Cli) -> Result<Telemetry, Error> {
    let process = process(&cli.command);
    let started = match Telemetry::start(&process, &cli.telemetry) {
        Err(error) if error.is_about_traces() && process.name == "kiln" => {
            kiln_terminal::say_warning(&format!("{error}; this command is not traced"));
            Telemetry::without_traces(&process, &cli.telemetry)
        }
        started => started,
    };
    started.map_err(|error| Error::Usage(error.to_string()))
}

/// This process in traces. Its log goes to standard error, and only if `KILN_LOG` is set.
fn process(command: &args::Command) -> Process {
    Process { name: command.process(), version: env!("CARGO_PKG_VERSION"), filter: None }
}
