//! Slots for handshakes in progress. If none is left, the oldest slot of the address with the most is freed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::peers::Peer;

/// How long a slot is kept although others need it: an honest client's answer may take this long to arrive.
const MIN_AGE: Duration = Duration::from_millis(250);
/// How many times the limit is allowed while all slots are young.
const BURST: usize = 4;

/// A number of slots. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    all: Arc<Mutex<All>>,
    most: usize,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    count: usize,
    /// In order of arrival.
    by_peer: HashMap<Peer, BTreeMap<u64, One>>,
}

#[derive(Debug)]
struct One {
    since: Instant,
    gives_way: CancellationToken,
}

/// A slot; released on drop.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Waiting,
    peer: Peer,
    number: u64,
    gives_way: CancellationToken,
}

impl Waiting {
    pub(super) fn new(most: usize) -> Self {
        Self { all: Arc::default(), most }
    }

    /// Whether more than half of the slots are taken.
    pub(super) fn is_pressed(&self) -> bool {
        self.all.lock().count > self.most / 2
    }

    /// Takes a slot, freeing another one if necessary.
    pub(super) fn enter(&self, peer: Peer) -> Place {
        let mut all = self.all.lock();
        if all.count >= self.most {
            let also_young = all.count >= self.most * BURST;
            all.make_room(also_young);
        }
        let (number, gives_way) = (all.next, CancellationToken::new());
        all.next += 1;
        all.count += 1;
        let one = One { since: Instant::now(), gives_way: gives_way.clone() };
        all.by_peer.entry(peer).or_default().insert(number, one);
        Place { waiting: self.clone(), peer, number, gives_way }
    }
}

impl All {
    fn make_room(&mut self, also_young: bool) {
        let largest = self.by_peer.iter().max_by_key(|(_, those)| those.len()).map(|(peer, _)| *peer);
        let Some(peer) = largest else { return };
        let Some(oldest) = self.by_peer.get(&peer).and_then(|those| those.first_key_value()) else { return };
        if also_young || oldest.1.since.elapsed() >= MIN_AGE {
            oldest.1.gives_way.cancel();
            let number = *oldest.0;
            self.leave(peer, number);
        }
    }

    fn leave(&mut self, peer: Peer, number: u64) {
        let Some(those) = self.by_peer.get_mut(&peer) else { return };
        if those.remove(&number).is_some() {
            self.count -= 1;
        }
        if those.is_empty() {
            self.by_peer.remove(&peer);
        }
    }
}

impl Place {
    /// Completes when another client needs the slot.
    pub(super) async fn lost(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.all.lock().leave(self.peer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::of(([192, 0, 2, last], 1).into())
    }

    #[test]
    fn whoever_has_most_gives_way_and_the_others_keep_their_places() {
        let waiting = Waiting::new(4);
        let lone = waiting.enter(peer(1));
        let many: Vec<Place> = (0..15).map(|_| waiting.enter(peer(2))).collect();
        assert!(!many[0].gives_way.is_cancelled(), "a burst of young ones is let in");
        let late = waiting.enter(peer(3));
        let given: Vec<bool> = many.iter().map(|place| place.gives_way.is_cancelled()).collect();
        assert_eq!(given.iter().filter(|gone| **gone).count(), 1);
        assert!(given[0] && !lone.gives_way.is_cancelled() && !late.gives_way.is_cancelled(), "the oldest of most");
        drop(many);
        assert_eq!(waiting.all.lock().count, 2, "expected each place to be given back once");
    }
}
