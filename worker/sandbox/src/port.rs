//! The worker's side of a port on a job's loopback: what the init has opened is handed over.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tokio::io::Interest;

use super::prepare::Prepared;
use super::spec;
use kiln_executor::calls::Port;

/// Has the init of a job open its port, and hands over the listener when it comes.
pub(super) fn open(port: &Port, prepared: &mut Prepared) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = tokio::net::UnixStream::from_std(ours)?;
    prepared.with_port(port.number, theirs.into());
    let port = port.clone();
    tokio::spawn(async move {
        match receive(&ours).await {
            Ok(listener) => port.hand_over(listener).await,
            Err(error) => tracing::warn!(%error, port = port.number, "a job's init did not open the worker's port"),
        }
    });
    Ok(())
}

/// The listener that the init sends.
async fn receive(socket: &tokio::net::UnixStream) -> io::Result<TcpListener> {
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    let received =
        socket.async_io(Interest::READABLE, || spec::receive_with(socket, &mut [0], &mut descriptors)).await?;
    let listener = descriptors.pop().filter(|_| received > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
