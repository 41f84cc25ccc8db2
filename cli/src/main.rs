//! The program `kiln`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The embedded worker starts this same program again as the first process in a sandbox.
    #[cfg(feature = "embedded")]
    kiln_cli::farm::parts::become_init_if_asked();
    kiln_cli::run(std::env::args_os())
}
