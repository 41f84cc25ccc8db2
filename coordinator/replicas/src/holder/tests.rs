//! Replicas against a model of a register: messages are late or lost, replicas stop for a while, the register forgets its last second.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const TICK: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(2);

fn replica(name: &str) -> Replica {
    Replica { name: name.into(), address: format!("http://{name}"), version: "1".into(), protocol: 1 }
}

/// A register that does what `Register::claim` and `release` promise.
#[derive(Debug, Clone, Default)]
struct Lease {
    holder: Option<(String, Term, Moment)>,
    epoch: u64,
    nonces: u64,
}

impl Lease {
    fn claim(&mut self, now: Moment, me: &str, held: Option<&Term>, lease: Duration) -> Claimed {
        self.holder.take_if(|(_, _, until)| *until <= now);
        if !lease.is_zero() {
            match &mut self.holder {
                Some((name, term, until)) if name == me && Some(&*term) == held => *until = now + lease,
                Some((name, ..)) if name != me => {}
                _ => {
                    self.epoch += 1;
                    self.nonces += 1;
                    let term = Term { epoch: self.epoch, nonce: self.nonces.to_string() };
                    self.holder = Some((me.to_owned(), term, now + lease));
                }
            }
        }
        let holder = self.holder.as_ref().map(|(name, term, _)| (replica(name), term.clone()));
        Claimed { holder, all: Vec::new() }
    }

    fn release(&mut self, term: &Term) {
        self.holder.take_if(|(_, held, _)| held == term);
    }
}

#[derive(Debug)]
enum Message {
    Claim { from: usize, number: u64, held: Option<Term>, lease: Duration },
    Release(Term),
    Answer { to: usize, event: Event },
}

#[derive(Debug)]
struct Node {
    holder: Holder,
    /// Its clock began then, so its moments are others than anyone else's.
    began: Moment,
    /// It does nothing until then.
    stopped: Moment,
    dead: bool,
    lead: Option<(Term, Moment)>,
    led: BTreeSet<String>,
    follows: Option<String>,
}

struct World {
    now: Moment,
    rng: SmallRng,
    lease: Lease,
    /// What the register was up to a second ago.
    past: Vec<Lease>,
    nodes: Vec<Node>,
    messages: Vec<(Moment, Message)>,
    /// Whether anything goes wrong.
    faulty: bool,
    rolled_back: Moment,
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Duration::from_secs(100);
        let node = |at: usize| {
            let began = Duration::from_millis(rng.random_range(0..100_000));
            let holder = Holder::new(at.to_string(), Timing::default(), now - began);
            let (led, follows) = (BTreeSet::new(), None);
            Node { holder, began, stopped: Moment::ZERO, dead: false, lead: None, led, follows }
        };
        let nodes = (0..count).map(node).collect();
        let (lease, past, messages) = (Lease::default(), Vec::new(), Vec::new());
        Self { now, rng, lease, past, nodes, messages, faulty: true, rolled_back: Moment::ZERO }
    }

    fn delay(&mut self) -> Duration {
        let most = if self.faulty && self.rng.random_bool(0.1) { 4_000 } else { 50 };
        Duration::from_millis(self.rng.random_range(0..most))
    }

    fn is_lost(&mut self) -> bool {
        self.faulty && self.rng.random_bool(0.1)
    }

    fn send(&mut self, message: Message) {
        if !self.is_lost() {
            let at = self.now + self.delay();
            self.messages.push((at, message));
        }
    }

    fn step(&mut self, at: usize, event: Event) {
        let jitter = self.rng.random();
        let node = &mut self.nodes[at];
        let effects = node.holder.step(self.now - node.began, event, jitter);
        for effect in effects {
            let node = &mut self.nodes[at];
            match effect {
                Effect::Claim { number, held, lease } => {
                    // The answer, or that there was none in time, whichever comes first.
                    let failed = Message::Answer { to: at, event: Event::Failed(number) };
                    self.messages.push((self.now + LIMIT, failed));
                    self.send(Message::Claim { from: at, number, held, lease });
                }
                Effect::Release(term) => self.send(Message::Release(term)),
                Effect::Lead(term, until) => {
                    assert!(node.lead.is_none() && node.led.insert(term.to_string()), "{term} began twice");
                    (node.lead, node.follows) = (Some((term, until)), None);
                }
                Effect::Extend(until) => {
                    let (_, known) = node.lead.as_mut().expect("expected to extend a leadership");
                    *known = until;
                }
                Effect::Over => node.lead = None,
                Effect::Follow(leader, _) => node.follows = Some(leader.name),
                Effect::Vacant => node.follows = None,
                Effect::All(_) => {}
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.past.push(self.lease.clone());
        if self.past.len() > 100 {
            self.past.remove(0);
        }
        if self.faulty {
            self.trouble();
        }
        let (due, later) = std::mem::take(&mut self.messages).into_iter().partition(|(at, _)| *at <= self.now);
        self.messages = later;
        for (at, message) in due {
            match message {
                Message::Claim { from, number, held, lease } => {
                    let claimed = self.lease.claim(self.now, &from.to_string(), held.as_ref(), lease);
                    self.send(Message::Answer { to: from, event: Event::Answered(number, claimed) });
                }
                Message::Release(term) => self.lease.release(&term),
                // A stopped process finds it when it continues.
                Message::Answer { to, .. } if self.nodes[to].stopped > self.now => self.messages.push((at, message)),
                Message::Answer { to, event } => {
                    if !self.nodes[to].dead {
                        self.step(to, event);
                    }
                }
            }
        }
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if !node.dead && node.stopped <= self.now && node.holder.wake_at() <= self.now - node.began {
                self.step(at, Event::Wake);
            }
        }
        let leaders = self.leaders();
        if self.now > self.rolled_back + Timing::default().lease {
            assert!(leaders.len() <= 1, "{leaders:?} lead at once");
        }
        for leader in leaders {
            let (term, _) = self.nodes[leader].lead.as_ref().unwrap();
            let has_it =
                self.lease.holder.as_ref().is_some_and(|(name, held, _)| *name == leader.to_string() && held == term);
            // A replica may have asked anew meanwhile for a term that it does not know of yet.
            let is_own = self.lease.holder.as_ref().is_some_and(|(name, ..)| *name == leader.to_string());
            assert!(
                has_it || is_own || self.now <= self.rolled_back + Timing::default().lease,
                "{leader} has no lease"
            );
        }
    }

    fn trouble(&mut self) {
        let count = self.nodes.len();
        if self.rng.random_bool(0.005) {
            let at = self.rng.random_range(0..count);
            self.nodes[at].stopped = self.now + Duration::from_millis(self.rng.random_range(0..12_000));
        }
        if self.rng.random_bool(0.002) {
            let at = self.rng.random_range(0..count);
            let event = match self.rng.random_range(0..3) {
                0 => Event::Resign,
                1 => Event::Resume,
                _ => Event::Doubt,
            };
            if self.nodes[at].stopped <= self.now {
                self.step(at, event);
            }
        }
        if self.rng.random_bool(0.0005) {
            // Nonces are random, and never come again.
            let nonces = self.lease.nonces;
            let at = self.rng.random_range(0..self.past.len());
            self.lease = Lease { nonces, ..self.past[at].clone() };
            self.rolled_back = self.now;
        }
    }

    /// Who believes to lead, by its own clock, whether it runs or not.
    fn leaders(&self) -> Vec<usize> {
        let leads =
            |node: &Node| node.lead.as_ref().is_some_and(|(_, until)| self.now - node.began < *until && !node.dead);
        (0..self.nodes.len()).filter(|at| leads(&self.nodes[*at])).collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_leads_whatever_happens_and_another_soon_when_it_is_gone(seed: u64, count in 2..5_usize) {
        let mut world = World::new(seed, count);
        world.run(Duration::from_secs(120));
        world.faulty = false;
        for at in 0..count {
            world.nodes[at].stopped = Moment::ZERO;
            world.step(at, Event::Resume);
        }
        world.run(Duration::from_secs(15));
        let leaders = world.leaders();
        prop_assert_eq!(leaders.len(), 1);
        for at in (0..count).filter(|at| *at != leaders[0]) {
            prop_assert_eq!(&world.nodes[at].follows, &Some(leaders[0].to_string()));
        }
        world.nodes[leaders[0]].dead = true;
        world.run(Duration::from_secs(8));
        let next = world.leaders();
        prop_assert!(next.len() == 1 && next != leaders, "nobody leads after 8 s: {:?}", next);
        world.step(next[0], Event::Resign);
        prop_assert!(world.leaders().is_empty(), "a leader that has resigned leads");
        // Once the lease has been given back, the first that is told so leads: it does not wait until it would have asked.
        world.run(Duration::from_millis(100));
        let rest: Vec<usize> = (0..count).filter(|at| *at != next[0] && *at != leaders[0]).collect();
        rest.iter().for_each(|at| world.step(*at, Event::Doubt));
        world.run(Duration::from_millis(300));
        prop_assert_eq!(world.leaders().len(), rest.len().min(1));
    }
}

fn claimed(holder: Option<(&str, u64)>) -> Claimed {
    let holder = holder.map(|(name, epoch)| (replica(name), Term { epoch, nonce: "n".into() }));
    Claimed { holder, all: Vec::new() }
}

#[test]
fn a_leadership_is_counted_from_when_it_was_asked_for() {
    let second = Duration::from_secs(1);
    let mut holder = Holder::new("a".into(), Timing::default(), Moment::ZERO);
    let asked = holder.step(Moment::ZERO, Event::Wake, 0.5);
    assert_eq!(asked, [Effect::Claim { number: 1, held: None, lease: 5 * second }]);
    let term = Term { epoch: 7, nonce: "n".into() };
    let led = holder.step(2 * second, Event::Answered(1, claimed(Some(("a", 7)))), 0.5);
    assert_eq!(led[0], Effect::Lead(term.clone(), second * 9 / 2));
    assert_eq!(led[1], Effect::Claim { number: 2, held: Some(term), lease: 5 * second }, "the renewal is due");
    assert_eq!(holder.wake_at(), second * 9 / 2);
    assert_eq!(holder.step(second * 9 / 2, Event::Wake, 0.5), [Effect::Over, Effect::Vacant]);
    // The renewal had worked, but its answer comes when the leadership is over: the term does not begin again.
    let late = holder.step(5 * second, Event::Answered(2, claimed(Some(("a", 7)))), 0.5);
    assert_eq!(late, [Effect::Claim { number: 3, held: None, lease: 5 * second }]);
}

#[test]
fn a_replica_that_resigned_gives_back_what_it_had_asked_for() {
    let second = Duration::from_secs(1);
    let mut holder = Holder::new("a".into(), Timing::default(), Moment::ZERO);
    holder.step(Moment::ZERO, Event::Wake, 0.5);
    assert_eq!(holder.step(second, Event::Resign, 0.5), []);
    assert!(!holder.is_quiet());
    let given = holder.step(second, Event::Answered(1, claimed(Some(("a", 1)))), 0.5);
    assert_eq!(given, [Effect::Release(Term { epoch: 1, nonce: "n".into() })]);
    assert!(holder.is_quiet());
    let looks = holder.step(3 * second, Event::Wake, 0.5);
    assert_eq!(looks, [Effect::Claim { number: 2, held: None, lease: Duration::ZERO }]);
    let follows = holder.step(3 * second, Event::Answered(2, claimed(Some(("b", 2)))), 0.5);
    assert_eq!(follows, [Effect::Follow(replica("b"), Term { epoch: 2, nonce: "n".into() })]);
}
