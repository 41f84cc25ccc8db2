//! Idle containers that wait for the next task of their kind.
//!
//! Invariant: a container is only added after its init has reported it clean.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::container::Container;
use super::request::Kind;

/// Maximum number of idle containers of all kinds.
const MAX_IDLE: usize = 16;
/// How long a container stays idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The containers, longest idle first.
#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Mutex<Vec<(Container, Instant)>>,
}

impl Pool {
    /// Takes the most recently added container of this kind that is still alive.
    pub(super) fn take(&self, kind: &Kind) -> Option<Container> {
        let mut dead = Vec::new();
        let mut waiting = self.waiting.lock();
        let found = loop {
            let Some(at) = waiting.iter().rposition(|(container, _)| container.kind == *kind) else { break None };
            let (container, _) = waiting.remove(at);
            if container.is_running() {
                break Some(container);
            }
            dead.push(container);
        };
        // Dropped containers are removed by the engine; other callers need not wait for that.
        drop(waiting);
        drop(dead);
        found
    }

    /// Adds a container. If there are too many, removes the one that has been idle longest.
    pub(super) fn give(&self, container: Container) {
        let mut waiting = self.waiting.lock();
        waiting.push((container, Instant::now()));
        let gone = (waiting.len() > MAX_IDLE).then(|| waiting.remove(0));
        drop(waiting);
        drop(gone);
    }

    /// Removes containers that have been idle for too long.
    pub(super) fn sweep(&self) {
        let mut waiting = self.waiting.lock();
        let split = waiting.iter().position(|(_, since)| since.elapsed() < IDLE_TIMEOUT).unwrap_or(waiting.len());
        let gone: Vec<_> = waiting.drain(..split).collect();
        drop(waiting);
        drop(gone);
    }

    /// Takes all of them.
    pub(super) fn drain(&self) -> Vec<Container> {
        self.waiting.lock().drain(..).map(|(container, _)| container).collect()
    }
}
