//! Containers that wait for the next task of their kind.
//!
//! Invariant: only what a container's init called clean comes in here.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::container::Container;
use super::request::Kind;

/// Containers that wait at once, of all kinds.
const MOST: usize = 16;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(300);

/// The containers, the longest waiting first.
#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Mutex<Vec<(Container, Instant)>>,
}

impl Pool {
    /// One of this kind that lives, the last that came.
    pub(super) fn take(&self, kind: &Kind) -> Option<Container> {
        let mut dead = Vec::new();
        let mut waiting = self.waiting.lock();
        let found = loop {
            let Some(at) = waiting.iter().rposition(|(container, _)| container.kind == *kind) else { break None };
            let (container, _) = waiting.remove(at);
            if container.lives() {
                break Some(container);
            }
            dead.push(container);
        };
        // What is dropped is removed by the engine, which need not hold the others up.
        drop(waiting);
        drop(dead);
        found
    }

    /// Takes a container in, and lets the one go that waits longest where there are too many.
    pub(super) fn give(&self, container: Container) {
        let mut waiting = self.waiting.lock();
        waiting.push((container, Instant::now()));
        let gone = (waiting.len() > MOST).then(|| waiting.remove(0));
        drop(waiting);
        drop(gone);
    }

    /// Lets those go that nobody has wanted for long.
    pub(super) fn sweep(&self) {
        let mut waiting = self.waiting.lock();
        let split = waiting.iter().position(|(_, since)| since.elapsed() < PATIENCE).unwrap_or(waiting.len());
        let gone: Vec<_> = waiting.drain(..split).collect();
        drop(waiting);
        drop(gone);
    }

    /// All of them.
    pub(super) fn drain(&self) -> Vec<Container> {
        self.waiting.lock().drain(..).map(|(container, _)| container).collect()
    }
}
