//! Ctrl-C: the first asks the command to end well, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Code;

/// Hears of the first interrupt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupts {
    seen: watch::Receiver<bool>,
}

impl Interrupts {
    /// Starts to listen for SIGINT and SIGTERM.
    pub fn listen() -> std::io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, seen) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if sender.send_replace(true) {
                    std::process::exit(i32::from(Code::Cancelled as u8));
                }
            }
        });
        Ok(Self { seen })
    }

    /// Returns once the first interrupt came.
    pub async fn first(&self) {
        if self.seen.clone().wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
