//! Results of the last moments. Who asks for an action looks into the action cache first and gets here later, where it waited for room
//! much later; what ended in between is neither in what they saw nor under way any more, and would run a second time.
//!
//! Invariant: a result is given only to who looked before it came. Who looks later sees what the cache says, of which it may have been
//! removed meanwhile.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kiln_proto::reapi;
use kiln_scheduler::ActionKey;
use prost::Message;
use tokio::time::Instant;

/// How long a result is remembered here.
const LIFE: Duration = Duration::from_secs(60);
/// Most results.
const MOST: usize = 2_000;
/// Most bytes of them: a result may hold what a command printed.
const MOST_BYTES: usize = 64 << 20;
/// What a result takes in memory, compared with the wire.
const DECODED: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Recent {
    results: HashMap<ActionKey, (Instant, reapi::ExecuteResponse)>,
    order: VecDeque<(Instant, ActionKey, usize)>,
    bytes: usize,
}

impl Recent {
    /// Remembers a success.
    pub(super) fn put(&mut self, key: ActionKey, response: reapi::ExecuteResponse) {
        let bytes = response.encoded_len() * DECODED;
        self.forget(bytes);
        if bytes > MOST_BYTES {
            return;
        }
        let now = Instant::now();
        self.bytes += bytes;
        self.order.push_back((now, key.clone(), bytes));
        self.results.insert(key, (now, response));
    }

    /// What the action gave since the cache was looked into.
    pub(super) fn since(&self, looked: Instant, key: &ActionKey) -> Option<&reapi::ExecuteResponse> {
        self.results.get(key).filter(|(came, _)| *came >= looked).map(|(_, response)| response)
    }

    /// One that came twice goes with its first place in the order.
    fn forget(&mut self, for_bytes: usize) {
        let is_old = |front: Option<&(Instant, ActionKey, usize)>| front.is_some_and(|(at, ..)| at.elapsed() > LIFE);
        while self.order.len() >= MOST || self.bytes + for_bytes > MOST_BYTES || is_old(self.order.front()) {
            let Some((_, key, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            self.results.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn results_are_few_where_they_are_large() {
        let large = || {
            let result = reapi::ActionResult { stdout_raw: vec![0; 4 << 20], ..Default::default() };
            reapi::ExecuteResponse { result: Some(result), ..Default::default() }
        };
        let (mut recent, before) = (Recent::default(), Instant::now());
        let key = |number: u32| ActionKey(number.to_string());
        (0..100).for_each(|number| recent.put(key(number), large()));
        let kept = (0..100).filter(|number| recent.since(before, &key(*number)).is_some()).count();
        assert!((1..=16).contains(&kept), "{kept} are kept");
        assert!(recent.since(before, &key(99)).is_some(), "expected the last to be kept");
    }

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
