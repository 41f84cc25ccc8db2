//! Raw mode: what is typed comes as it is, byte by byte, and is not shown by this machine.

use std::io;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the terminal was before it was made raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode. It is given back when this is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes the terminal of standard input raw.
    ///
    /// # Errors
    /// If it is no terminal.
    pub fn enter() -> io::Result<Self> {
        super::give_back_at_panic();
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        BEFORE.lock().get_or_insert(before);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was. For whoever ends the process without dropping everything.
pub fn give_back() {
    // What hangs in a panic is worse than a terminal in raw mode.
    let before = BEFORE.try_lock().and_then(|mut before| before.take());
    if let Some(before) = before {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
    }
}

/// Changes of the size of the window.
#[derive(Debug)]
pub struct Resizes(Signal);

impl Resizes {
    /// Completes when the size has changed.
    pub async fn recv(&mut self) {
        self.0.recv().await;
    }
}

/// Watches the size of the window.
///
/// # Errors
/// If signals cannot be received.
pub fn resizes() -> io::Result<Resizes> {
    signal(SignalKind::window_change()).map(Resizes)
}
