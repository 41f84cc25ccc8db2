//! Results of the last moments. Who asks for an action looks into the action cache first and gets here later, where it waited for room
//! much later; what ended in between is neither in what they saw nor under way any more, and would run a second time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kiln_core::scheduler::ActionKey;
use kiln_proto::reapi;
use tokio::time::Instant;

/// How long a result is remembered here.
const LIFE: Duration = Duration::from_secs(10);
/// Most results.
const MOST: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct Recent {
    results: HashMap<ActionKey, reapi::ExecuteResponse>,
    order: VecDeque<(Instant, ActionKey)>,
}

impl Recent {
    /// Remembers a success.
    pub(super) fn put(&mut self, key: ActionKey, response: reapi::ExecuteResponse) {
        self.forget();
        self.order.push_back((Instant::now(), key.clone()));
        self.results.insert(key, response);
    }

    /// What the action gave a moment ago.
    pub(super) fn get(&mut self, key: &ActionKey) -> Option<&reapi::ExecuteResponse> {
        self.forget();
        self.results.get(key)
    }

    /// One that came twice goes with its first place in the order: it is in the action cache.
    fn forget(&mut self) {
        while self.order.len() >= MOST || self.order.front().is_some_and(|(at, _)| at.elapsed() > LIFE) {
            let Some((_, key)) = self.order.pop_front() else { return };
            self.results.remove(&key);
        }
    }
}
