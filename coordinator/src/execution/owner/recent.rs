//! Results of the last moments. Who asks for an action looks into the action cache first and gets here later, where it waited for room
//! much later; what ended in between is neither in what they saw nor under way any more, and would run a second time.
//!
//! Invariant: a result is given only to who looked before it came. Who looks later sees what the cache says, of which it may have been
//! removed meanwhile.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kiln_core::scheduler::ActionKey;
use kiln_proto::reapi;
use tokio::time::Instant;

/// How long a result is remembered here.
const LIFE: Duration = Duration::from_secs(60);
/// Most results.
const MOST: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct Recent {
    results: HashMap<ActionKey, (Instant, reapi::ExecuteResponse)>,
    order: VecDeque<(Instant, ActionKey)>,
}

impl Recent {
    /// Remembers a success.
    pub(super) fn put(&mut self, key: ActionKey, response: reapi::ExecuteResponse) {
        self.forget();
        let now = Instant::now();
        self.order.push_back((now, key.clone()));
        self.results.insert(key, (now, response));
    }

    /// What the action gave since the cache was looked into.
    pub(super) fn since(&self, looked: Instant, key: &ActionKey) -> Option<&reapi::ExecuteResponse> {
        self.results.get(key).filter(|(came, _)| *came >= looked).map(|(_, response)| response)
    }

    /// One that came twice goes with its first place in the order.
    fn forget(&mut self) {
        while self.order.len() >= MOST || self.order.front().is_some_and(|(at, _)| at.elapsed() > LIFE) {
            let Some((_, key)) = self.order.pop_front() else { return };
            self.results.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_looked_before_a_result_came_is_given_it() {
        let key = ActionKey("action".to_owned());
        let mut recent = Recent::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        recent.put(key.clone(), reapi::ExecuteResponse::default());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(recent.since(before, &key).is_some());
        assert!(recent.since(Instant::now(), &key).is_none(), "expected the cache to answer who looks later");
        assert!(recent.since(before, &ActionKey("another".to_owned())).is_none());
        tokio::time::advance(LIFE).await;
        recent.put(ActionKey("another".to_owned()), reapi::ExecuteResponse::default());
        assert!(recent.since(before, &key).is_none(), "expected it to be forgotten");
    }
}
