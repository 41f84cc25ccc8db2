//! The program and its options.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use kiln_telemetry::Process;
use tokio::sync::watch;

use crate::{Config, check, serve};

/// What `--help` says about the reach of steps; worker/README.md has the details.
const REACH: &str = "\
What a step can reach:
  files     the system's directories, read-only; its inputs at /build, /tmp and /dev/shm, private and removed with the step
  devices   null, zero, full, random, urandom, tty; it cannot change them
  kernel    the system calls that builds need; /proc read-only, without files that describe the machine
  processes its own; with its own user and group if the worker is root, with one that all actions share if the worker's user has
            subordinate ids (--subids), otherwise as the worker's user
  network   none; with `network = true`, whatever the machine can connect to, including private networks, but not the machine's own
            addresses and loopback (except ports that the worker's proxy and registry settings name), other steps, or clouds'
            metadata addresses. Without pasta or slirp4netns, or with --network-isolation off, whatever the machine can reach
  image     a step in an image root (a Dockerfile's RUN) sees nothing of the machine's files; its root is an unprivileged user of the machine.
            With --allow-host-network it may ask for this machine's network
  --sandbox off isolates nothing. `kiln workers` shows what a machine lacks.";

/// The command line of `kiln-worker`.
pub type Arguments = kiln_program::Arguments<Config>;

impl kiln_program::Config for Config {
    const PROCESS: Process = Process { name: "kiln-worker", version: env!("CARGO_PKG_VERSION"), filter: Some("info") };
    const ABOUT: &'static str = "Kiln's worker: runs actions for a coordinator";
    const AFTER_HELP: Option<&'static str> = Some(REACH);
    const RELOADED: &'static [&'static str] = &serve::RELOADED;

    fn problems(&self) -> Vec<String> {
        check::problems(self)
    }
}

/// The configuration of a worker that runs.
struct Current(watch::Sender<Arc<Config>>);

impl kiln_program::Reload<Config> for Current {
    async fn apply(&mut self, config: Config) -> Result<Vec<String>, Vec<String>> {
        let problems = check::problems(&config);
        if !problems.is_empty() {
            return Err(problems);
        }
        self.0.send_replace(Arc::new(config));
        Ok(Vec::new())
    }
}

/// Runs the program with this command line, from its start to its end. Must be called while the process has a single thread.
pub fn main(line: Vec<OsString>) -> ExitCode {
    kiln_program::main(line, Config::take_ids, |config: Config| {
        let (sender, reloads) = watch::channel(Arc::new(config.clone()));
        (Current(sender), serve::run_reloading(config, kiln_program::stop_signal(), reloads))
    })
}
