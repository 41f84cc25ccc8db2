//! Keeps a child process running: restarts it when it dies, and stops it in order.

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
pub(super) struct Process {
    /// Its name in messages.
    pub(super) name: String,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
}

impl Process {
    /// Runs it until `stop`, and restarts it when it dies. Fails if it cannot be started at all, or dies before `ready`
    /// is set.
    ///
    /// Must be polled on a thread that lives as long as this process: the kernel kills the child when the thread that
    /// started it ends.
    pub(super) async fn keep(
        self,
        ready: watch::Receiver<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let mut pauses = PAUSES.build();
        loop {
            let started = Instant::now();
            let mut child = self.start().map_err(|error| format!("cannot start {}: {error}", self.name))?;
            tokio::select! {
                status = child.wait() => {
                    let words = status.map_or_else(|error| error.to_string(), how_it_ended);
                    if !*ready.borrow() {
                        return Err(format!("{} {words} before the farm was ready", self.name));
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

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
