//! Keeps a child process running: restarts it when it dies, and stops it in order.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use kiln_terminal as terminal;

/// How long a child may take to stop when asked to.
const GRACE: Duration = Duration::from_secs(20);
/// A child that lived this long is restarted immediately; otherwise after a pause that increases up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(LONGEST_PAUSE)
    .without_max_times();

/// A process of this same program.
pub struct Process {
    /// Its name in messages.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Why a process did not begin its work.
#[derive(Debug)]
pub enum Failed {
    /// It ended with this exit code, and has said why itself: its standard error is that of this process.
    Said(u8),
    /// It could not say why.
    Silently {
        /// What became of it.
        reason: String,
    },
}

impl Failed {
    fn of(reason: String) -> Self {
        Self::Silently { reason }
    }
}

impl Process {
    /// Runs it until `stop`, and restarts it when it dies.
    ///
    /// # Errors
    /// If it cannot be started at all, or ends before `ready` is set.
    ///
    /// Must be polled on a thread that lives as long as this process: the kernel kills the child when the thread that
    /// started it ends.
    pub async fn keep(self, ready: watch::Receiver<bool>, mut stop: watch::Receiver<bool>) -> Result<(), Failed> {
        let mut pauses = PAUSES.build();
        loop {
            let started = Instant::now();
            let mut child = self.start().map_err(|error| Failed::of(format!("cannot start {}: {error}", self.name)))?;
            tokio::select! {
                status = child.wait() => {
                    let said = status.as_ref().ok().and_then(said);
                    let words = status.map_or_else(|error| error.to_string(), how_it_ended);
                    if !*ready.borrow() {
                        let silent = || Failed::of(format!("{} {words} before the farm was ready", self.name));
                        return Err(said.map_or_else(silent, Failed::Said));
                    }
                    terminal::say(&format!("{} {words}; starting it again", self.name));
                }
                _ = stop.wait_for(|stop| *stop) => {
                    end(&mut child).await;
                    return Ok(());
                }
            }
            if started.elapsed() >= LONGEST_PAUSE {
                pauses = PAUSES.build();
            }
            tokio::select! {
                () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // The terminal's Ctrl-C is handled by the parent, which stops the parts in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The exit code of a process that has reported an error.
fn said(status: &ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0)
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
