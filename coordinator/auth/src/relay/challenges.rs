//! What seals must be for: random bytes that this process has issued lately, and numbers that it has not received with them.
//!
//! Invariant: each number of a sender is received once with a challenge, for as long as the challenge is good.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Length of a challenge, in bytes.
pub(super) const BYTES: usize = 16;
/// How long a challenge is good after it was issued, at least: then another one is issued.
pub const LEAST: Duration = Duration::from_secs(60);
/// How long it is good at most.
pub const MOST: Duration = Duration::from_secs(120);
/// Numbers of one sender for one challenge, which take half a MiB.
const NUMBERS: u64 = 1 << 22;

/// Why a seal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its challenge is over, or was never issued, or all numbers are used.
    Over,
    /// Its number was received before.
    Received,
}

/// The challenges that are good now.
#[derive(Debug)]
pub(super) struct Challenges {
    current: Challenge,
    previous: Option<Challenge>,
}

#[derive(Debug)]
struct Challenge {
    bytes: [u8; BYTES],
    since: Instant,
    /// The numbers that were received, by sender.
    received: HashMap<u128, Numbers>,
}

impl Challenge {
    fn new(now: Instant) -> Self {
        Self { bytes: rand::random(), since: now, received: HashMap::new() }
    }
}

/// Numbers as bits.
#[derive(Debug, Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Whether the number is new.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

impl Challenges {
    pub(super) fn new(now: Instant) -> Self {
        Self { current: Challenge::new(now), previous: None }
    }

    /// The one that is issued now.
    pub(super) fn current(&mut self, now: Instant) -> [u8; BYTES] {
        if now.duration_since(self.current.since) >= LEAST {
            self.previous = Some(std::mem::replace(&mut self.current, Challenge::new(now)));
        }
        self.current.bytes
    }

    /// Takes note of a number.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        challenge: &[u8; BYTES],
        sender: u128,
        number: u64,
    ) -> Result<(), Unfit> {
        let good = [Some(&mut self.current), self.previous.as_mut()].into_iter().flatten();
        let mut good = good.filter(|known| now.duration_since(known.since) < MOST);
        let known = good.find(|known| known.bytes == *challenge).filter(|_| number < NUMBERS).ok_or(Unfit::Over)?;
        if known.received.entry(sender).or_default().insert(number) { Ok(()) } else { Err(Unfit::Received) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_received_once_by_sender_and_challenge_in_any_order() {
        let now = Instant::now();
        let mut challenges = Challenges::new(now);
        let first = challenges.current(now);
        for number in [3, 0, 1, 700, 2] {
            assert_eq!(challenges.receive(now, &first, 1, number), Ok(()));
        }
        for number in [700, 0, 3] {
            assert_eq!(challenges.receive(now, &first, 1, number), Err(Unfit::Received));
            assert_eq!(challenges.receive(now, &first, 2, number), Ok(()), "of another sender");
        }
        let later = now + LEAST;
        let second = challenges.current(later);
        assert_eq!(challenges.receive(later, &second, 1, 3), Ok(()));
        assert_eq!(challenges.receive(later, &first, 1, 3), Err(Unfit::Received));
        assert_eq!(challenges.receive(later, &second, 1, NUMBERS), Err(Unfit::Over));
    }

    #[test]
    fn a_challenge_is_good_for_a_minute_after_it_was_issued_and_for_two_at_most() {
        let now = Instant::now();
        let mut challenges = Challenges::new(now);
        let first = challenges.current(now);
        let late = now + LEAST - Duration::from_millis(1);
        assert_eq!(challenges.current(late), first);
        assert_ne!(challenges.current(now + LEAST), first);
        assert_eq!(challenges.receive(late + LEAST, &first, 1, 0), Ok(()));
        assert_eq!(challenges.receive(now + MOST, &first, 1, 1), Err(Unfit::Over));
        // Also if nobody asked for another one in the meantime.
        let mut challenges = Challenges::new(now);
        let first = challenges.current(now);
        assert_eq!(challenges.receive(now + MOST, &first, 1, 0), Err(Unfit::Over));
        assert_ne!(challenges.current(now + MOST), first);
        assert_eq!(challenges.receive(now + MOST, &first, 1, 0), Err(Unfit::Over));
        assert_eq!(challenges.receive(now, &[7; BYTES], 1, 0), Err(Unfit::Over), "never issued");
    }
}
