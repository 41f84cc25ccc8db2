//! How much of something each address has, so that one of them cannot have all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Whoever has an address here, as far as it can be told from others: of IPv6 the first half, for the rest is anybody's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// Whose address this is.
    pub fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// A connection that knows who is at its other end.
pub trait Connection {
    /// Who that is, where the system says.
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

/// Counts what each peer has and all of them together. Cheap to clone.
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
    /// So much for all, and so much for each.
    pub fn new(most: usize, each: usize) -> Self {
        Self { used: Arc::default(), most, each }
    }

    /// Nothing yet, of which more can be [taken](Share::take).
    pub fn of(&self, peer: Peer) -> Share {
        Share { shares: self.clone(), peer, amount: 0 }
    }
}

/// What one holder has; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    peer: Peer,
    amount: usize,
}

impl Share {
    /// Takes more; false where that is too much, and then it has what it had.
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
