//! Limits how much of a shared resource each address may hold.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A peer, as far as addresses distinguish peers. Of IPv6 only the first half counts, because a host chooses the rest freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// The peer with this address.
    pub fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// A connection that knows its peer.
pub trait Connection {
    /// The peer, if the system reports its address.
    fn peer(&self) -> Option<Peer>;
}

impl Connection for TcpStream {
    fn peer(&self) -> Option<Peer> {
        self.peer_addr().ok().map(Peer::of)
    }
}

impl Connection for TlsStream<TcpStream> {
    fn peer(&self) -> Option<Peer> {
        self.get_ref().0.peer()
    }
}

/// Counts what each peer holds and what all hold together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shares {
    used: Arc<Mutex<Used>>,
    most: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_peer: HashMap<Peer, usize>,
}

impl Shares {
    /// At most `most` in total, and `each` for each peer.
    pub fn new(most: usize, each: usize) -> Self {
        Self { used: Arc::default(), most, each }
    }

    /// An empty share, of which more can be [taken](Share::take).
    pub fn of(&self, peer: Peer) -> Share {
        Share { shares: self.clone(), peer, amount: 0 }
    }
}

/// What one holder has; released on drop.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    peer: Peer,
    amount: usize,
}

impl Share {
    /// Takes more; `false` if that exceeds a limit, and then nothing changes.
    pub fn take(&mut self, amount: usize) -> bool {
        let mut used = self.shares.used.lock();
        let own = used.by_peer.get(&self.peer).copied().unwrap_or(0);
        if used.all + amount > self.shares.most || own + amount > self.shares.each {
            return false;
        }
        used.all += amount;
        used.by_peer.insert(self.peer, own + amount);
        self.amount += amount;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.shares.used.lock();
        used.all -= self.amount;
        if let Some(own) = used.by_peer.get_mut(&self.peer) {
            *own -= self.amount;
            if *own == 0 {
                used.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::of(SocketAddr::new(text.parse().unwrap(), 1))
    }

    #[test]
    fn one_address_cannot_have_all_however_it_is_written() {
        let shares = Shares::new(10, 6);
        let (mut one, mut again) = (shares.of(peer("192.0.2.1")), shares.of(peer("::ffff:192.0.2.1")));
        assert!(one.take(4) && again.take(2) && !again.take(1));
        let (mut six, mut too) = (shares.of(peer("2001:db8::1")), shares.of(peer("2001:db8::ffff:2")));
        assert!(six.take(4) && !too.take(1), "expected all to have no more than ten");
        drop(one);
        assert!(too.take(2) && !too.take(1), "expected one half of an address to be one peer");
    }
}
