//! Ctrl-C: the first one asks the command to stop, the second ends the process immediately.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Code;

/// Receives the first interrupt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupts {
    seen: watch::Receiver<bool>,
}

impl Interrupts {
    /// Starts listening for SIGINT, SIGTERM and SIGHUP.
    pub fn listen() -> std::io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, seen) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if sender.send_replace(true) {
                    kiln_keyboard::give_back();
                    std::process::exit(i32::from(Code::Cancelled.number()));
                }
            }
        });
        Ok(Self { seen })
    }

    /// Completes after the first interrupt.
    pub async fn first(&self) {
        if self.seen.clone().wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
