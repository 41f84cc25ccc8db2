//! The program `kiln-coordinator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_coordinator::main(std::env::args_os().collect())
}
