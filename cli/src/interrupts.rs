//! Ctrl-C: the first one asks the command to stop, the second ends the process immediately.

use tokio::sync::watch;

use crate::Code;

/// Receives the first interrupt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupts {
    seen: watch::Receiver<bool>,
}

impl Interrupts {
    /// Starts listening for SIGINT, SIGTERM and SIGHUP; on Windows for Ctrl-C, Ctrl-Break and the end of the console.
    pub fn listen() -> std::io::Result<Self> {
        let mut signals = Signals::listen()?;
        let (sender, seen) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                signals.next().await;
                if sender.send_replace(true) {
                    kiln_keyboard::give_back();
                    std::process::exit(i32::from(Code::Cancelled.number()));
                }
            }
        });
        Ok(Self { seen })
    }

    /// Whether there was an interrupt.
    pub fn is_seen(&self) -> bool {
        *self.seen.borrow()
    }

    /// Completes after the first interrupt.
    pub async fn first(&self) {
        if self.seen.clone().wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak, tokio::signal::windows::CtrlClose);

#[cfg(windows)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
        Ok(Self(ctrl_c()?, ctrl_break()?, ctrl_close()?))
    }

    async fn next(&mut self) {
        let Self(interrupt, stop, close) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = stop.recv() => {}
            _ = close.recv() => {}
        }
    }
}
