//! An accepted connection of any kind, as one type: the server that serves it is compiled once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// What carries bytes both ways.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Carrier for C {}

/// An accepted connection, and who is at its other end.
pub struct Accepted {
    carrier: Box<dyn Carrier>,
    caller: Caller,
}

/// The other end of a connection, as an extension of every call.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Its address; none where the network has no addresses.
    pub address: Option<SocketAddr>,
    /// The certificates that it presented, its own first; empty without TLS.
    pub certificates: Arc<Vec<CertificateDer<'static>>>,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Accepted").field(&self.caller).finish()
    }
}

impl Accepted {
    /// A connection without TLS.
    pub fn plain(carrier: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, address: Option<SocketAddr>) -> Self {
        Self { carrier: Box::new(carrier), caller: Caller { address, ..Caller::default() } }
    }

    /// A connection whose handshake is complete.
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, session) = stream.get_ref();
        let certificates = session.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let caller = Caller { address: tcp.peer_addr().ok(), certificates: Arc::new(certificates) };
        Self { carrier: Box::new(stream), caller }
    }
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_read(context, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.carrier).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.carrier).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.carrier.is_write_vectored()
    }
}
