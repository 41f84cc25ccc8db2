//! The places in which a step's calls run: as many as the step has CPUs.
//!
//! A call that finds none waits for one, and may meanwhile be offered to the farm. Invariant: a place that comes free goes to a call that
//! runs nowhere yet: first to the oldest that is not offered, then to the newest that is, because the farm begins with the oldest.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// All places of a step. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    state: Arc<Mutex<State>>,
    crowded: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    stage: Stage,
    place: oneshot::Sender<Place>,
}

/// Where a call that waits for a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nowhere else.
    Here,
    /// Offered to the farm.
    Offered,
    /// Running on another worker.
    Elsewhere,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Option<Places>,
}

/// A call that waits for a place, until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    places: Places,
}

/// Where a call that waits gets its place.
#[derive(Debug)]
pub(super) struct Granted(oneshot::Receiver<Place>);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let state = State { free: count, next: 0, waiting: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), crowded: Arc::default() }
    }

    /// Waits in line.
    pub(super) fn join(&self) -> (Ticket, Granted) {
        let (sender, place) = oneshot::channel();
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, Waiting { stage: Stage::Here, place: sender });
        drop(state);
        self.serve();
        if self.state.lock().waiting.contains_key(&number) {
            self.crowded.notify_waiters();
        }
        (Ticket { number, places: self.clone() }, Granted(place))
    }

    /// A place that nobody waits for, for something that may as well be done later.
    pub(super) fn try_acquire(&self) -> Option<Place> {
        let mut state = self.state.lock();
        if state.free == 0 {
            return None;
        }
        state.free -= 1;
        Some(Place { places: Some(self.clone()) })
    }

    /// Completes when a call finds no place free.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Waits for a place, whatever happens elsewhere.
    pub(super) async fn acquire(&self) -> Place {
        let (_ticket, mut granted) = self.join();
        granted.place().await
    }

    /// Gives free places to whoever waits.
    fn serve(&self) {
        let mut state = self.state.lock();
        while state.free > 0 {
            let Some(number) = state.next_in_line() else { return };
            let Some(waiting) = state.waiting.remove(&number) else { return };
            state.free -= 1;
            if let Err(mut refused) = waiting.place.send(Place { places: Some(self.clone()) }) {
                // It has just left. To drop its place here would lock twice.
                refused.places = None;
                state.free += 1;
            }
        }
    }
}

impl State {
    fn next_in_line(&self) -> Option<u64> {
        let at =
            |stage| self.waiting.iter().filter(move |(_, waiting)| waiting.stage == stage).map(|(number, _)| *number);
        at(Stage::Here).next().or_else(|| at(Stage::Offered).next_back())
    }
}

impl Granted {
    /// Waits for the place.
    pub(super) async fn place(&mut self) -> Place {
        match (&mut self.0).await {
            Ok(place) => place,
            // The call has taken one by itself.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Ticket {
    /// Says where the call is now.
    pub(super) fn is(&self, stage: Stage) {
        if let Some(waiting) = self.places.state.lock().waiting.get_mut(&self.number) {
            waiting.stage = stage;
        }
        self.places.serve();
    }

    /// A place at once, if one is free: for a call that takes long elsewhere.
    pub(super) fn try_place(&self) -> Option<Place> {
        let mut state = self.places.state.lock();
        if state.free == 0 || state.waiting.remove(&self.number).is_none() {
            return None;
        }
        state.free -= 1;
        Some(Place { places: Some(self.places.clone()) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.places.state.lock().waiting.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.state.lock().free += 1;
            places.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Waiting = (Ticket, Granted);

    fn has((_, granted): &mut Waiting) -> Option<Place> {
        granted.0.try_recv().ok()
    }

    #[tokio::test]
    async fn a_free_place_goes_to_the_oldest_that_is_not_offered_and_then_to_the_newest_that_is() {
        let places = Places::new(1);
        let mut held = places.acquire().await;
        let mut waiting: Vec<Waiting> = (0..5).map(|_| places.join()).collect();
        waiting[0].0.is(Stage::Elsewhere);
        waiting[1].0.is(Stage::Offered);
        waiting[3].0.is(Stage::Offered);
        for expected in [2, 4, 3, 1] {
            drop(held);
            let mut given: Vec<(usize, Place)> =
                (0..5).filter_map(|number| Some((number, has(&mut waiting[number])?))).collect();
            assert_eq!(given.len(), 1);
            let (number, place) = given.remove(0);
            assert_eq!(number, expected);
            held = place;
        }
        drop(held);
        assert!(has(&mut waiting[0]).is_none(), "it runs elsewhere");
    }

    #[tokio::test]
    async fn what_runs_elsewhere_takes_a_place_only_if_it_asks_or_comes_back() {
        let places = Places::new(1);
        let first = places.acquire().await;
        let mut one = places.join();
        one.0.is(Stage::Elsewhere);
        assert!(one.0.try_place().is_none(), "none is free");
        drop(first);
        assert!(has(&mut one).is_none());
        let mut other = places.join();
        let taken = has(&mut other).unwrap();
        one.0.is(Stage::Here);
        assert!(has(&mut one).is_none());
        drop(taken);
        let taken = has(&mut one).unwrap();
        drop(taken);
        assert!(one.0.try_place().is_none(), "it has been given one already");
    }

    proptest! {
        /// No place is lost, and none is given twice.
        #[test]
        fn places_are_neither_lost_nor_multiplied(
            count in 1_usize..4,
            steps in prop::collection::vec((0_u8..6, any::<prop::sample::Index>()), 0..120),
        ) {
            let places = Places::new(count);
            let (mut tickets, mut held): (Vec<Waiting>, Vec<Place>) = Default::default();
            for (step, which) in steps {
                match step {
                    0 => tickets.push(places.join()),
                    1 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                    2 if !tickets.is_empty() => drop(tickets.swap_remove(which.index(tickets.len()))),
                    3 if !tickets.is_empty() => {
                        let stages = [Stage::Here, Stage::Offered, Stage::Elsewhere];
                        tickets[which.index(tickets.len())].0.is(stages[which.index(3)]);
                    }
                    4 if !tickets.is_empty() => held.extend(tickets[which.index(tickets.len())].0.try_place()),
                    _ => {
                        for ticket in &mut tickets {
                            held.extend(has(ticket));
                        }
                    }
                }
                prop_assert!(held.len() <= count);
            }
            tickets.clear();
            held.clear();
            prop_assert_eq!(places.state.lock().free, count);
            prop_assert!(places.state.lock().waiting.is_empty());
        }
    }
}
