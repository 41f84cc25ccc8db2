//! Raw mode: what is typed comes as it is, byte by byte, and is not shown by this machine.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};

/// Whether the terminal is raw.
static IS_RAW: AtomicBool = AtomicBool::new(false);
/// How often to look at the size of the window: nothing tells when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        enable_raw_mode()?;
        IS_RAW.store(true, Ordering::SeqCst);
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
    if IS_RAW.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
    }
}

/// Changes of the size of the window.
#[derive(Debug)]
pub struct Resizes(Option<(u16, u16)>);

impl Resizes {
    /// Completes when the size has changed.
    pub async fn recv(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = size().ok();
            if now != self.0 {
                self.0 = now;
                return;
            }
        }
    }
}

/// Watches the size of the window.
///
/// # Errors
/// None.
pub fn resizes() -> io::Result<Resizes> {
    Ok(Resizes(size().ok()))
}
