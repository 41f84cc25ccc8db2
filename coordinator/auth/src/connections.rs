//! Decorator that limits simultaneous connections. A connection beyond the limit is closed before anything is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::peers::{Connection, Peer};

/// A connection that releases its slot on drop.
#[derive(Debug)]
pub struct Counted<C> {
    connection: C,
    _place: OwnedSemaphorePermit,
}

/// Passes on connections while fewer than `most` are open; `limit_source` names the source of that limit in the log.
pub fn bounded<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    most: usize,
    limit_source: &'static str,
) -> impl Stream<Item = io::Result<Counted<C>>> {
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    incoming.filter_map(move |accepted| {
        let place = places.clone().try_acquire_owned();
        std::future::ready(match (accepted, place) {
            (Ok(connection), Ok(_place)) => Some(Ok(Counted { connection, _place })),
            (Err(error), _) => Some(Err(error)),
            (Ok(_), Err(_)) => {
                tracing::warn!(most, limit_source, "closed a connection: the maximum number of connections is open");
                None
            }
        })
    })
}

impl<C: Connection> Connection for Counted<C> {
    fn peer(&self) -> Option<Peer> {
        self.connection.peer()
    }
}

impl<C: Connected> Connected for Counted<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, into)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}
