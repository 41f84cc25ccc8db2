//! Workers and clients whose results are not believed, from when on.
//!
//! One is distrusted from a time on until it is trusted again. What was recorded between, by the clock of the coordinator that
//! recorded it, counts as if it had never been made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// A period of a worker whose results are not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// The worker, or the client as makers of results are named (`kiln_proto::made::of_client`).
    pub worker: String,
    /// From when on.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// When it was trusted again; absent: it is not.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub until: Option<SystemTime>,
    /// Who decided that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl Period {
    /// Whether something may have been made in it, of what was made between these times.
    fn covers(&self, (first, last): (SystemTime, SystemTime)) -> bool {
        self.since <= last && self.until.is_none_or(|until| first <= until)
    }
}

/// All such periods, as they are written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Periods {
    #[serde(default, rename = "distrusted", skip_serializing_if = "Vec::is_empty")]
    periods: Vec<Period>,
}

impl Periods {
    /// Reads them from TOML.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// As TOML.
    pub fn text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// All of them, in the order in which they were added.
    pub fn all(&self) -> &[Period] {
        &self.periods
    }

    /// Adds a period that has no end yet. One that lasts already begins at the earlier of both times.
    pub fn distrust(&mut self, worker: &str, since: SystemTime, by: &str) {
        let lasting = self.periods.iter_mut().find(|period| period.worker == worker && period.until.is_none());
        match lasting {
            Some(period) => period.since = period.since.min(since),
            None => {
                self.periods.push(Period { worker: worker.to_owned(), since, until: None, by: by.to_owned() });
            }
        }
    }

    /// Ends the period that a worker is in; `false` if it is in none. What is over stays: what was made then is not believed later.
    pub fn trust(&mut self, worker: &str, at: SystemTime) -> bool {
        let lasting = self.periods.iter_mut().find(|period| period.worker == worker && period.until.is_none());
        let Some(period) = lasting else { return false };
        period.until = Some(at.max(period.since));
        true
    }

    /// Whether this worker is distrusted now.
    pub fn lasts(&self, worker: &str) -> bool {
        self.periods.iter().any(|period| period.worker == worker && period.until.is_none())
    }

    /// Whether what a worker made between these times, or at an unknown time, is not believed.
    fn refuse(&self, worker: &str, times: Times) -> bool {
        let is = |period: &Period| period.worker == worker && times.is_none_or(|times| period.covers(times));
        self.periods.iter().any(is)
    }
}

/// When the first and the last of what a worker made were recorded; `None` if that is not known.
pub type Times = Option<(SystemTime, SystemTime)>;

/// The periods as this coordinator knows them at the moment, for all that reads results. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Distrusted(Arc<RwLock<Periods>>);

impl Distrusted {
    /// Takes over others; whether they differ.
    pub fn set(&self, periods: Periods) -> bool {
        let mut known = self.0.write();
        let differs = *known != periods;
        *known = periods;
        differs
    }

    /// What they are now.
    pub fn now(&self) -> Periods {
        self.0.read().clone()
    }

    /// Another text whenever somebody is distrusted, or trusted again; empty as long as nobody ever was.
    pub fn mark(&self) -> String {
        let periods = self.0.read();
        if periods.periods.is_empty() {
            return String::new();
        }
        hex::encode(ring::digest::digest(&ring::digest::SHA256, periods.text().as_bytes()))
    }

    /// Whether nobody was ever distrusted: nothing needs to be looked at then.
    pub fn is_empty(&self) -> bool {
        self.0.read().periods.is_empty()
    }

    /// Why what these workers made is not believed: the first of them that was distrusted then.
    pub fn refuses<'a>(&self, made: &'a BTreeMap<String, Times>) -> Option<&'a str> {
        let periods = self.0.read();
        made.iter().find(|(worker, times)| periods.refuse(worker, **times)).map(|(worker, _)| worker.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn of(workers: &[&str], times: Option<(u64, u64)>) -> BTreeMap<String, Times> {
        let times = times.map(|(first, last)| (at(first), at(last)));
        workers.iter().map(|worker| ((*worker).to_owned(), times)).collect()
    }

    #[test]
    fn what_was_made_in_a_period_is_not_believed_before_or_after_its_end() {
        let (known, mut periods) = (Distrusted::default(), Periods::default());
        assert!(known.is_empty() && known.refuses(&of(&["one"], None)).is_none() && known.mark().is_empty());
        periods.distrust("one", at(10), "ann");
        periods.distrust("one", at(20), "ann");
        assert!(periods.lasts("one") && !periods.lasts("two"));
        assert!(known.set(periods.clone()) && !known.set(periods.clone()));
        let mark = known.mark();
        assert_eq!(known.refuses(&of(&["one"], Some((9, 9)))), None);
        assert_eq!(known.refuses(&of(&["one"], Some((9, 10)))), Some("one"));
        assert_eq!(known.refuses(&of(&["other", "one"], Some((1000, 1000)))), Some("one"));
        assert_eq!(known.refuses(&of(&["other"], Some((1000, 1000)))), None);
        assert_eq!(known.refuses(&of(&["one"], None)), Some("one"), "nobody knows when it was made");
        assert!(periods.trust("one", at(30)) && !periods.trust("one", at(40)) && !periods.lasts("one"));
        known.set(periods.clone());
        assert!(!mark.is_empty() && known.mark() != mark);
        assert_eq!(known.refuses(&of(&["one"], Some((31, 31)))), None);
        assert_eq!(known.refuses(&of(&["one"], Some((15, 31)))), Some("one"));
        assert_eq!(Periods::read(&periods.text()), Ok(periods));
        assert!(Periods::read("distrusted = 7").is_err());
    }

    #[test]
    fn a_longer_period_takes_the_place_of_a_shorter_one() {
        let mut periods = Periods::default();
        periods.distrust("one", at(20), "");
        periods.distrust("one", at(5), "");
        assert_eq!(periods.all().iter().map(|period| period.since).collect::<Vec<_>>(), [at(5)]);
        periods.trust("one", at(1));
        assert_eq!(periods.all()[0].until, Some(at(5)), "a period does not end before it begins");
    }
}
