//! Who claims what, and when: a pure step from state and event to effects.
//!
//! Invariants: a leadership ends a tenth of the lease before the lease does, counted from when it was last asked for. A term that has
//! ended never leads again, even if it still has the lease. One claim is on its way at a time.

use std::time::Duration;

use crate::register::Claimed;
use crate::replica::{Replica, Term};
use crate::timing::Timing;

/// Monotonic time since some moment of this process.
pub(crate) type Moment = Duration;

/// What happens to a replica.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Time has passed.
    Wake,
    /// The claim with this number was answered.
    Answered(u64, Claimed),
    /// The claim with this number failed; it may have taken effect.
    Failed(u64),
    /// It shall not lead.
    Resign,
    /// It may lead again.
    Resume,
    /// Whoever leads did not answer as one who does: what is known may be out of date.
    Doubt,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Claim, and tell of the answer under this number. With a lease of zero it only looks.
    Claim { number: u64, held: Option<Term>, lease: Duration },
    /// Give this term's lease back.
    Release(Term),
    /// It leads until then.
    Lead(Term, Moment),
    /// It leads until then instead.
    Extend(Moment),
    /// It leads no longer.
    Over,
    /// Another one leads.
    Follow(Replica, Term),
    /// Nobody is known to lead.
    Vacant,
    /// These are all replicas.
    All(Vec<Replica>),
}

/// What is known of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Nobody,
    Me { term: Term, until: Moment },
    Other { term: Term, until: Moment },
}

/// A claim that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    at: Moment,
}

/// One replica's part in the agreement.
#[derive(Debug)]
pub(crate) struct Holder {
    me: String,
    timing: Timing,
    resigned: bool,
    known: Known,
    /// The last term of this replica that has ended.
    ended: Option<Term>,
    asked: Option<Asked>,
    /// When it asked last.
    last: Moment,
    claims: u64,
    /// When to ask next.
    next: Moment,
    all: Vec<Replica>,
}

impl Holder {
    pub(crate) fn new(me: String, timing: Timing, now: Moment) -> Self {
        let (known, all) = (Known::Nobody, Vec::new());
        Self {
            me,
            timing,
            resigned: false,
            known,
            ended: None,
            asked: None,
            last: Moment::ZERO,
            claims: 0,
            next: now,
            all,
        }
    }

    /// When it wants to be woken.
    pub(crate) fn wake_at(&self) -> Moment {
        let until = match &self.known {
            Known::Nobody => Moment::MAX,
            Known::Me { until, .. } | Known::Other { until, .. } => *until,
        };
        if self.asked.is_some() { until } else { until.min(self.next) }
    }

    /// Whether it has resigned, and nothing is on its way that could make it hold the lease.
    pub(crate) fn is_quiet(&self) -> bool {
        self.resigned && self.asked.is_none()
    }

    /// One step. `jitter` is random, from 0 to 1: replicas that ask at the same moment once do not do so for ever.
    pub(crate) fn step(&mut self, now: Moment, event: Event, jitter: f64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        match event {
            Event::Wake => {}
            Event::Answered(number, claimed) => {
                if let Some(asked) = self.asked.filter(|asked| asked.number == number) {
                    self.asked = None;
                    self.learn(now, asked.at, claimed, jitter, &mut effects);
                }
            }
            Event::Failed(number) => {
                if self.asked.is_some_and(|asked| asked.number == number) {
                    self.asked = None;
                    self.next = now + self.timing.renew.mul_f64(0.25 + jitter / 4.0);
                }
            }
            Event::Resign => {
                self.resigned = true;
                if let Known::Me { term, .. } = &self.known {
                    effects.push(Effect::Release(term.clone()));
                    self.end(&mut effects);
                }
            }
            Event::Resume => {
                self.resigned = false;
                self.next = now;
            }
            Event::Doubt => self.next = self.next.min((self.last + self.timing.renew / 10).max(now)),
        }
        if self.asked.is_none() && now >= self.next {
            effects.push(self.ask(now));
        }
        effects
    }

    fn ask(&mut self, now: Moment) -> Effect {
        self.claims += 1;
        let number = self.claims;
        self.asked = Some(Asked { number, at: now });
        self.last = now;
        let held = match &self.known {
            Known::Me { term, .. } => Some(term.clone()),
            _ => None,
        };
        let lease = if self.resigned { Duration::ZERO } else { self.timing.lease };
        Effect::Claim { number, held, lease }
    }

    /// What is known holds for a time only.
    fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        match &self.known {
            Known::Me { until, .. } if now >= *until => self.end(effects),
            Known::Other { until, .. } if now >= *until => {
                self.known = Known::Nobody;
                effects.push(Effect::Vacant);
            }
            _ => {}
        }
    }

    /// Its own leadership ends.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        if let Known::Me { term, .. } = &self.known {
            self.ended = Some(term.clone());
            self.known = Known::Nobody;
            effects.extend([Effect::Over, Effect::Vacant]);
        }
    }

    fn learn(&mut self, now: Moment, sent: Moment, claimed: Claimed, jitter: f64, effects: &mut Vec<Effect>) {
        if claimed.all != self.all {
            self.all.clone_from(&claimed.all);
            effects.push(Effect::All(claimed.all));
        }
        self.next = now + self.timing.renew.mul_f64(0.75 + jitter / 2.0);
        match claimed.holder {
            Some((holder, term)) if holder.name == self.me => self.learn_own(now, sent, term, effects),
            Some((holder, term)) => {
                self.end(effects);
                let is_new = !matches!(&self.known, Known::Other { term: known, .. } if *known == term);
                self.known = Known::Other { term: term.clone(), until: now + self.timing.lease };
                if is_new {
                    effects.push(Effect::Follow(holder, term));
                }
            }
            None => {
                self.end(effects);
                if self.known != Known::Nobody {
                    self.known = Known::Nobody;
                    effects.push(Effect::Vacant);
                }
            }
        }
    }

    /// This replica has the lease.
    fn learn_own(&mut self, now: Moment, sent: Moment, term: Term, effects: &mut Vec<Effect>) {
        if self.resigned {
            self.end(effects);
            effects.push(Effect::Release(term));
            return;
        }
        let until = sent + self.timing.lease - self.timing.lease / 10;
        if now >= until || self.ended.as_ref() == Some(&term) {
            // Too late, or a term that has ended. The next claim gets a new term, as it names none.
            self.end(effects);
            self.next = now;
            return;
        }
        self.next = (sent + self.timing.renew).max(now);
        match &mut self.known {
            Known::Me { term: known, until: known_until } if *known == term => {
                *known_until = until;
                effects.push(Effect::Extend(until));
            }
            _ => {
                self.end(effects);
                self.known = Known::Me { term: term.clone(), until };
                effects.push(Effect::Lead(term, until));
            }
        }
    }
}

#[cfg(test)]
mod tests;
