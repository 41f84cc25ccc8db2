//! Mutual exclusion by name: one turn at a time for each name, independent of other names.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Names with a turn in progress.
type Names = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// Turns by name.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    names: Arc<Mutex<Names>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    names: Arc<Mutex<Names>>,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn under a name. The empty name needs no turn and never waits.
    pub(crate) async fn turn(&self, name: &str) -> Turn {
        let mut turn = Turn { names: self.names.clone(), name: name.to_owned(), guard: None };
        if !name.is_empty() {
            let alone = self.names.lock().entry(name.to_owned()).or_default().clone();
            turn.guard = Some(alone.lock_owned().await);
        }
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut names = self.names.lock();
        // Nobody else waits: a waiter holds a clone.
        if names.get(&self.name).is_some_and(|alone| Arc::strong_count(alone) == 1) {
            names.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_the_same_name_waits_and_none_is_left_behind() {
        let turns = Turns::default();
        let first = turns.turn("a").await;
        assert!(turns.turn("a").now_or_never().is_none());
        let (_other, _nobody) = (turns.turn("b").await, turns.turn("").await);
        let waiting = turns.turn("a");
        drop(first);
        drop(waiting.await);
        assert_eq!(turns.names.lock().len(), 1, "only `b` has its turn");
    }
}
