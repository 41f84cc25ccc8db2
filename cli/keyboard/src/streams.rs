//! Standard input, and the outputs, in threads of their own: neither a user who types nothing nor a terminal that prints nothing holds up the rest.

use std::io::{self, Read, Write};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that wait in either direction.
const QUEUE: usize = 8;
/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// What comes on standard input, until its end. The thread that reads it ends with the process.
pub fn typed() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        loop {
            match io::stdin().read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Bytes::copy_from_slice(piece.get(..length).unwrap_or_default())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Prints on standard output and standard error, in the order in which it is told.
#[derive(Debug)]
pub struct Printer {
    sender: mpsc::Sender<(Bytes, bool)>,
    thread: JoinHandle<io::Result<()>>,
}

impl Printer {
    /// Starts the thread that prints.
    pub fn start() -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Bytes, bool)>(QUEUE);
        let thread = std::thread::spawn(move || {
            while let Some((data, is_error)) = receiver.blocking_recv() {
                if is_error {
                    io::stderr().write_all(&data)?;
                } else {
                    let mut output = io::stdout().lock();
                    output.write_all(&data)?;
                    output.flush()?;
                }
            }
            Ok(())
        });
        Self { sender, thread }
    }

    /// Prints this after what was told before; waits while that is too much. `false` if nobody reads it any more.
    pub async fn print(&self, data: Bytes, is_error: bool) -> bool {
        self.sender.send((data, is_error)).await.is_ok()
    }

    /// Waits until everything is printed.
    ///
    /// # Errors
    /// If it could not be printed, as when nobody reads it any more.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.sender);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        joined.ok().and_then(Result::ok).unwrap_or(Ok(()))
    }
}
