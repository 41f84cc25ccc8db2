//! Recent results. A caller looks into the action cache first and arrives here later, possibly much later if it waited
//! for quota. An action that ended in between was not in the cache when it looked and is no longer running, so it would
//! run a second time.
//!
//! Invariant: a result is only given to callers that looked into the cache before it arrived. For later callers the
//! cache is authoritative, from which the result may have been removed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kiln_proto::reapi;
use kiln_scheduler::ActionKey;
use prost::Message;
use tokio::time::Instant;

/// How long a result is kept.
const LIFE: Duration = Duration::from_secs(60);
/// Maximum number of results.
const MAX_RESULTS: usize = 2_000;
/// Maximum bytes of all results: one may contain a command's output.
const MAX_BYTES: usize = 64 << 20;
/// A result's size in memory, relative to its encoding.
const DECODED: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Recent {
    results: HashMap<ActionKey, (Instant, reapi::ExecuteResponse)>,
    order: VecDeque<(Instant, ActionKey, usize)>,
    bytes: usize,
}

impl Recent {
    /// Adds a success.
    pub(super) fn put(&mut self, key: ActionKey, response: reapi::ExecuteResponse) {
        let bytes = response.encoded_len() * DECODED;
        self.forget(bytes);
        if bytes > MAX_BYTES {
            return;
        }
        let now = Instant::now();
        self.bytes += bytes;
        self.order.push_back((now, key.clone(), bytes));
        self.results.insert(key, (now, response));
    }

    /// The action's result, if it arrived after the caller looked into the cache.
    pub(super) fn since(&self, looked: Instant, key: &ActionKey) -> Option<&reapi::ExecuteResponse> {
        self.results.get(key).filter(|(came, _)| *came >= looked).map(|(_, response)| response)
    }

    /// Removes old results.
    fn forget(&mut self, for_bytes: usize) {
        let is_old = |front: Option<&(Instant, ActionKey, usize)>| front.is_some_and(|(at, ..)| at.elapsed() > LIFE);
        while self.order.len() >= MAX_RESULTS || self.bytes + for_bytes > MAX_BYTES || is_old(self.order.front()) {
            let Some((at, key, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            // A result that was added again has a later entry too.
            if self.results.get(&key).is_some_and(|(came, _)| *came == at) {
                self.results.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_result_that_was_added_again_is_kept_as_long_as_a_new_one() {
        let (mut recent, key, other) = (Recent::default(), ActionKey("a".into()), ActionKey("b".into()));
        recent.put(key.clone(), reapi::ExecuteResponse::default());
        tokio::time::advance(LIFE - Duration::from_secs(1)).await;
        recent.put(key.clone(), reapi::ExecuteResponse::default());
        tokio::time::advance(Duration::from_secs(2)).await;
        let now = Instant::now();
        recent.put(other.clone(), reapi::ExecuteResponse::default());
        assert!(recent.since(now - Duration::from_secs(10), &key).is_some(), "expected the second to be kept");
        tokio::time::advance(LIFE).await;
        recent.put(other, reapi::ExecuteResponse::default());
        assert!(recent.since(now - Duration::from_secs(10), &key).is_none(), "expected it to be forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn results_are_few_where_they_are_large() {
        let large = || {
            let result = reapi::ActionResult { stdout_raw: vec![0; 4 << 20], ..Default::default() };
            reapi::ExecuteResponse { result: Some(result), ..Default::default() }
        };
        let (mut recent, before) = (Recent::default(), Instant::now());
        let key = |number: u32| ActionKey(number.to_string().into());
        (0..100).for_each(|number| recent.put(key(number), large()));
        let kept = (0..100).filter(|number| recent.since(before, &key(*number)).is_some()).count();
        assert!((1..=16).contains(&kept), "{kept} are kept");
        assert!(recent.since(before, &key(99)).is_some(), "expected the last to be kept");
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_looked_before_a_result_came_is_given_it() {
        let key = ActionKey("action".into());
        let mut recent = Recent::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        recent.put(key.clone(), reapi::ExecuteResponse::default());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(recent.since(before, &key).is_some());
        assert!(recent.since(Instant::now(), &key).is_none(), "expected the cache to answer who looks later");
        assert!(recent.since(before, &ActionKey("another".into())).is_none());
        tokio::time::advance(LIFE).await;
        recent.put(ActionKey("another".into()), reapi::ExecuteResponse::default());
        assert!(recent.since(before, &key).is_none(), "expected it to be forgotten");
    }
}
