//! Shells: what is run in the place of an action for somebody who watches, and the two ends of the stream in between.
//!
//! Invariant: a worker takes its ends once, for the lease that was given the shell; nothing else leads to them.

mod relay;

use std::sync::Arc;
use std::time::Duration;

use kiln_proto::v1::{Shell, ShellInput, ShellOutput};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Status;

pub use relay::{Notice, relay};

/// How long a shell lasts, however busy it is.
pub const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// Maximum bytes of data in a message.
pub const MAX_DATA: usize = 32 << 10;
/// Bytes that a worker may send, or be sent, beyond those that the other side has taken. So many wait at each place on the way at most, whatever a
/// command prints or does not read, and a worker's other calls are never held up.
pub const OUTPUT_WINDOW: usize = 256 << 10;
/// As above, for input.
pub const INPUT_WINDOW: usize = 64 << 10;
/// Messages that wait in either direction. Each has at most 32 KiB of data.
const QUEUE: usize = 8;

/// A shell that is asked for in the place of an action.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What to run.
    pub shell: Shell,
    pub(super) ends: Arc<Ends>,
}

/// Where a worker sends output to, and takes input from.
pub type WorkersEnds = (mpsc::Sender<ShellOutput>, mpsc::Receiver<ShellInput>);

/// The worker's ends, until it takes them.
#[derive(Debug)]
pub struct Ends(Mutex<Option<WorkersEnds>>);

impl Ends {
    /// Takes them.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if they have been taken.
    pub fn take(&self) -> Result<WorkersEnds, Status> {
        let taken = self.0.lock().take();
        taken.ok_or_else(|| Status::failed_precondition("the shell is served already; open another one"))
    }
}

impl Wanted {
    /// A shell, with the ends of whoever asked for it.
    pub fn new(shell: Shell) -> (Self, mpsc::Sender<ShellInput>, mpsc::Receiver<ShellOutput>) {
        let (input, taken) = mpsc::channel(QUEUE);
        let (given, output) = mpsc::channel(QUEUE);
        (Self { shell, ends: Arc::new(Ends(Mutex::new(Some((given, taken))))) }, input, output)
    }
}
