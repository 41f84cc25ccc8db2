//! Coordinators and clients over a simulated network.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::{Stream, stream};
use kiln_auth::Accepted;
use kiln_proto::channel::Dial;
use rand::seq::SliceRandom;
use turmoil::net::{TcpListener, TcpStream};

pub const COORDINATOR: &str = "coordinator";
pub const PORT: u16 = 8980;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

thread_local! {
    /// The coordinators of the simulation that runs on this thread.
    static COORDINATORS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Who the coordinators of the simulation on this thread are.
pub fn is_led_by(coordinators: &[&'static str]) {
    COORDINATORS.with_borrow_mut(|all| *all = coordinators.to_vec());
}

/// Connects to any coordinator that accepts, from any host, as through a load balancer.
pub fn dial() -> Dial {
    let connect = |_| async {
        let mut hosts = COORDINATORS.with_borrow(Vec::clone);
        hosts.shuffle(&mut rand::rng());
        let mut failed = io::Error::from(io::ErrorKind::NotConnected);
        for host in hosts {
            match tokio::time::timeout(CONNECT, TcpStream::connect((host, PORT))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    };
    Dial::over(format!("http://farm:{PORT}"), connect)
}

/// Accepts connections to this host, a coordinator's.
pub async fn incoming() -> io::Result<impl Stream<Item = io::Result<Accepted>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    Ok(stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, address)| Accepted::plain(stream, Some(address)));
        Some((accepted, listener))
    }))
}
