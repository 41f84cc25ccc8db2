//! The worker's side of a session: where its input comes from, and who is told when it begins.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kiln_executor::ending::{Ended, exit};
use kiln_executor::session::{Begin, Session, Told};
use tokio::sync::mpsc;

use super::cgroup::Group;
use super::{confined, spec};

/// The worker's end of the socket over which the init sends where a session's input is written to, and waits for its beginning.
#[derive(Debug)]
pub(super) struct Input(UnixStream);

impl Input {
    /// The worker's end, and the init's.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        Ok((Self(own), theirs.into()))
    }
}

/// A session that has not begun.
#[derive(Debug)]
pub(super) struct Opening {
    input: Input,
    told: mpsc::UnboundedSender<Told>,
    group: Option<Arc<Group>>,
}

impl Opening {
    pub(super) fn new(session: &Session, input: Input, group: Option<Arc<Group>>) -> Self {
        Self { input, told: session.told.clone(), group }
    }

    /// The job's own command has ended.
    pub(super) fn first(&self, ended: &Ended) {
        let ended = confined::with_group(ended.clone(), self.group.as_deref());
        let _ = self.told.send(Told::CommandEnded(exit(&ended, None)));
    }

    /// The session is ready.
    pub(super) fn opened(self) -> io::Result<()> {
        let Input(socket) = self.input;
        let (mut byte, mut sent) = ([0], Vec::new());
        spec::receive_with(&socket, &mut byte, &mut sent)?;
        let input = sent.pop().ok_or_else(|| io::Error::other("the input of a session did not come"))?;
        let _ = self.told.send(Told::Opened(input, Begin::new(socket)));
        Ok(())
    }
}
