//! The program `kiln`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The embedded worker starts this same program again as the first process in a sandbox.
    #[cfg(feature = "embedded")]
    kiln_cli::farm::parts::become_init_if_asked();
    // The first thread of a process has a stack of 1 MiB on Windows, which the work of a command does not fit into.
    #[cfg(windows)]
    {
        const STACK_BYTES: usize = 16 << 20;
        let run = || kiln_cli::run(std::env::args_os());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or(ExitCode::FAILURE)
    }
    #[cfg(not(windows))]
    kiln_cli::run(std::env::args_os())
}
