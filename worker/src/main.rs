//! The program `kiln-worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_worker::become_init_if_asked();
    kiln_worker::main(std::env::args_os().collect())
}
