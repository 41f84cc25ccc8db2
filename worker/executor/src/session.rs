//! A session: a command for somebody who watches, in a job's place and usually in a terminal, after the job's own command or instead of it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Exit;

/// What is run for a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Whether the job's own command runs first.
    pub runs_first: bool,
    /// The time limit of the job's own command. The session's has none.
    pub first_timeout: Option<Duration>,
    /// The session's command; empty: a shell.
    pub arguments: Vec<String>,
    /// Its terminal; without one it has three streams.
    pub terminal: Option<Terminal>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of `TERM`.
    pub term: String,
    /// Its rows.
    pub rows: u16,
    /// Its columns.
    pub columns: u16,
}

/// What happens in a session, in this order.
#[derive(Debug)]
pub enum Told {
    /// The job's own command has ended so.
    CommandEnded(Exit),
    /// The session is ready. With a terminal this is its other side, otherwise where its standard input is written to.
    Opened(OwnedFd, Begin),
}

/// What a session waits for. Whoever hears of it gets ready first, so that nothing the session prints is taken for the job's own.
#[derive(Debug)]
pub struct Begin(UnixStream);

impl Begin {
    /// The session's other end is this one's.
    pub fn new(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// Lets it begin. Without that, it ends.
    pub fn now(mut self) {
        let _ = self.0.write_all(b"!");
    }
}

/// A job's session.
#[derive(Debug, Clone)]
pub struct Session {
    /// What is run.
    pub wanted: Wanted,
    /// Who hears of it. The job's output is that of its own command and, without a terminal, that of the session.
    pub told: mpsc::UnboundedSender<Told>,
}
