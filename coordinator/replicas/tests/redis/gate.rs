//! A proxy in front of Redis that holds back what is sent to it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What it holds back is forwarded later, even if whoever sent it is gone.
pub struct Gate {
    pub url: String,
    held: Arc<watch::Sender<bool>>,
    /// Bytes that were held back and have been answered since.
    answered: watch::Receiver<usize>,
}

impl Gate {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let held = Arc::new(watch::channel(false).0);
        let (answers, answered) = watch::channel(0);
        let answers = Arc::new(answers);
        let states = held.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(forward(client, server, states.subscribe(), answers.clone()));
            }
        });
        Self { url, held, answered }
    }

    /// Connections that exist now send nothing more to Redis until [`release`](Self::release); new ones do.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Forwards what was held back, and waits until Redis has answered it.
    pub async fn release(&mut self) {
        self.answered.mark_unchanged();
        self.held.send_replace(false);
        self.answered.changed().await.unwrap();
    }
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    mut held: watch::Receiver<bool>,
    answers: Arc<watch::Sender<usize>>,
) {
    // One that is made while others are held is not.
    let exempt = *held.borrow();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let was_held = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = was_held.clone();
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            let _ = to_client.write_all(&bytes[..count]).await;
            if seen.load(std::sync::atomic::Ordering::SeqCst) {
                answers.send_modify(|answered| *answered += count);
            }
        }
    });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        if !exempt && *held.borrow() {
            was_held.store(true, std::sync::atomic::Ordering::SeqCst);
            let _ = held.wait_for(|held| !held).await;
        }
        if to_server.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // The answer to what was held back is still to come.
    if was_held.load(std::sync::atomic::Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
}
