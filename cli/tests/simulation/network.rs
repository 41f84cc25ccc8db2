//! Coordinator and clients over a simulated network.

use std::io;
use std::net::Ipv4Addr;

use futures::{Stream, stream};
use kiln_auth::Accepted;
use kiln_proto::channel::Dial;
use turmoil::net::{TcpListener, TcpStream};

pub const COORDINATOR: &str = "coordinator";
const PORT: u16 = 8980;

/// Connects to the coordinator from any host.
pub fn dial() -> Dial {
    let connect = |_| TcpStream::connect((COORDINATOR, PORT));
    Dial::over(format!("http://{COORDINATOR}:{PORT}"), connect)
}

/// Accepts connections to this host, the coordinator's.
pub async fn incoming() -> io::Result<impl Stream<Item = io::Result<Accepted>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    Ok(stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, address)| Accepted::plain(stream, Some(address)));
        Some((accepted, listener))
    }))
}
