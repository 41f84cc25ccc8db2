//! Entries of a vulnerability database. Source: Open Source Vulnerability schema 1.6, JSON.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::Value;

use crate::ecosystem::Ecosystem;
use crate::severity::Severity;
use crate::versions::{Scheme, compare};

/// An entry. Keys that are not needed are not read.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) modified: String,
    pub(crate) withdrawn: Option<String>,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) affected: Vec<Affected>,
    #[serde(default)]
    severity: Vec<Rated>,
    #[serde(default)]
    database_specific: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Affected {
    pub(crate) package: Option<Package>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    severity: Vec<Rated>,
    #[serde(default)]
    ecosystem_specific: Value,
    #[serde(default)]
    database_specific: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) ecosystem: String,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
struct Rated {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    score: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
    limit: Option<String>,
}

/// Whether a version is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    No,
    /// With the first version that is not, if the entry has one.
    Yes(Option<String>),
    /// Why nobody can tell.
    Unknown(String),
}

impl Entry {
    /// What it is rated, with what rates it and its score as the entry has it.
    pub(crate) fn severity(&self, affected: &Affected) -> Option<(Severity, String, String)> {
        let rated =
            affected.severity.iter().chain(&self.severity).map(|rated| (rated.kind.as_str(), rated.score.as_str()));
        // Of what databases have beside it: GitHub's, Debian's, RustSec's.
        let beside = [
            (&affected.ecosystem_specific, "severity"),
            (&affected.ecosystem_specific, "urgency"),
            (&affected.database_specific, "cvss"),
            (&affected.database_specific, "severity"),
            (&self.database_specific, "severity"),
        ];
        let word = |(specific, key): (&'_ Value, &str)| Some(("database", specific.get(key)?.as_str()?.to_owned()));
        let beside: Vec<(&str, String)> = beside.into_iter().filter_map(word).collect();
        let beside = beside.iter().map(|(method, word)| (*method, word.as_str()));
        let found = rated.chain(beside).filter_map(|(method, text)| {
            let (severity, score) = Severity::read(text)?;
            Some((severity, method.to_owned(), score.map_or_else(|| text.to_owned(), |score| format!("{score:.1}"))))
        });
        // The first of the worst: vectors come before words.
        found.fold(None, |worst, one| match &worst {
            Some((severity, ..)) if *severity >= one.0 => worst,
            _ => Some(one),
        })
    }

    /// Whether it tells of something other than a vulnerability, such as that nobody maintains a package.
    pub(crate) fn is_informational(&self, affected: &Affected) -> bool {
        [&self.database_specific, &affected.database_specific]
            .iter()
            .any(|specific| specific.get("informational").is_some_and(Value::is_string))
    }
}

impl Affected {
    /// Whether a package of this version is affected.
    pub(crate) fn answer(&self, ecosystem: &Ecosystem) -> Answer {
        let version = ecosystem.version.as_str();
        let bare = |text: &str| text.strip_prefix('v').unwrap_or(text).to_owned();
        let is_listed = self.versions.iter().any(|listed| bare(listed) == bare(version));
        let (mut unknown, mut judged) = (None, false);
        for range in &self.ranges {
            let scheme = match range.kind.as_str() {
                "SEMVER" => Scheme::Semver,
                "ECOSYSTEM" => ecosystem.scheme,
                "GIT" => continue,
                other => {
                    unknown = Some(format!("its range is of the unknown type `{other}`"));
                    continue;
                }
            };
            match range.holds(scheme, version) {
                Some((true, fixed)) => return Answer::Yes(fixed),
                Some((false, fixed)) if is_listed => return Answer::Yes(fixed),
                Some((false, _)) => judged = true,
                None => unknown = Some(format!("version `{version}` cannot be compared with its ranges")),
            }
        }
        if is_listed {
            return Answer::Yes(None);
        }
        match unknown {
            Some(reason) => Answer::Unknown(reason),
            None if judged || !self.versions.is_empty() => Answer::No,
            None => Answer::Unknown("it names neither versions nor a range of them".to_owned()),
        }
    }
}

impl Range {
    /// Whether a version is in it, and the first one after it that is not; `None` if a version cannot be compared.
    /// Source: the schema's "Evaluation" algorithm.
    fn holds(&self, scheme: Scheme, version: &str) -> Option<(bool, Option<String>)> {
        let mut changes: Vec<(&str, Change)> = Vec::new();
        let mut limits = self.events.iter().filter_map(|event| event.limit.as_deref()).peekable();
        for event in &self.events {
            let own = [
                (&event.introduced, Change::Begins),
                (&event.fixed, Change::Ends),
                (&event.last_affected, Change::EndsAfter),
            ];
            changes.extend(own.into_iter().filter_map(|(at, change)| Some((at.as_deref()?, change))));
        }
        let order = |at: &str| if at == "0" { Some(Ordering::Greater) } else { compare(scheme, version, at) };
        let mut within = limits.peek().is_none();
        for limit in limits {
            within |= limit == "*" || order(limit)? == Ordering::Less;
        }
        let mut is_affected = false;
        for (at, change) in sorted(changes, scheme)? {
            match (change, order(at)?) {
                (Change::Begins, Ordering::Greater | Ordering::Equal) => is_affected = true,
                (Change::Ends, Ordering::Greater | Ordering::Equal) => is_affected = false,
                (Change::EndsAfter, Ordering::Greater) => is_affected = false,
                _ => {}
            }
        }
        let fixed = self.events.iter().filter_map(|event| event.fixed.as_deref());
        let fixed = fixed.filter(|fixed| order(fixed) == Some(Ordering::Less));
        let first = fixed.reduce(|a, b| if compare(scheme, b, a) == Some(Ordering::Less) { b } else { a });
        Some((is_affected && within, first.map(str::to_owned)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Ends,
    EndsAfter,
    Begins,
}

/// The changes by version; what begins where something ends, begins afterwards.
fn sorted(changes: Vec<(&str, Change)>, scheme: Scheme) -> Option<Vec<(&str, Change)>> {
    let mut sorted: Vec<(&str, Change)> = Vec::new();
    for (at, change) in changes {
        let mut place = sorted.len();
        for (index, (other, its)) in sorted.iter().enumerate() {
            let order = match (at, *other) {
                ("0", "0") => Ordering::Equal,
                ("0", _) => Ordering::Less,
                (_, "0") => Ordering::Greater,
                (at, other) => compare(scheme, at, other)?,
            };
            // A version that is the last affected one ends after itself.
            if order.then_with(|| change.cmp(its)) == Ordering::Less {
                place = index;
                break;
            }
        }
        sorted.insert(place, (at, change));
    }
    Some(sorted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::purl::Purl;

    fn answer(purl: &str, affected: Value) -> Answer {
        let affected: Affected = serde_json::from_value(affected).unwrap();
        affected.answer(&Ecosystem::of(&Purl::read(purl).unwrap()))
    }

    fn fixed(version: &str) -> Answer {
        Answer::Yes(Some(version.to_owned()))
    }

    #[test]
    fn a_version_is_affected_from_where_it_begins_until_it_is_fixed() {
        let events =
            json!([{ "fixed": "1.2.0" }, { "introduced": "0" }, { "introduced": "2.0.0" }, { "fixed": "2.1.0" }]);
        let ranges = json!({ "ranges": [{ "type": "SEMVER", "events": events }] });
        let of = |version: &str| answer(&format!("pkg:npm/a@{version}"), ranges.clone());
        assert_eq!((of("1.0.0"), of("1.2.0"), of("1.9.0")), (fixed("1.2.0"), Answer::No, Answer::No));
        assert_eq!((of("2.0.0"), of("2.0.9"), of("2.1.0-rc.1")), (fixed("2.1.0"), fixed("2.1.0"), fixed("2.1.0")));
        assert_eq!(of("2.1.0"), Answer::No);
    }

    #[test]
    fn the_last_affected_version_is_affected_and_limits_bound_a_range() {
        let last = json!({ "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "1.0" }, { "last_affected": "1.4" }] }] });
        let of = |version: &str| answer(&format!("pkg:pypi/a@{version}"), last.clone());
        assert_eq!((of("0.9"), of("1.4.0"), of("1.4.post1")), (Answer::No, Answer::Yes(None), Answer::No));
        let only = json!({ "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "1.4" }, { "last_affected": "1.4" }] }] });
        assert_eq!(answer("pkg:pypi/a@1.4", only), Answer::Yes(None));
        let limited =
            json!({ "ranges": [{ "type": "SEMVER", "events": [{ "introduced": "0" }, { "limit": "2.0.0" }] }] });
        assert_eq!(answer("pkg:npm/a@1.0.0", limited.clone()), Answer::Yes(None));
        assert_eq!(answer("pkg:npm/a@2.0.0", limited), Answer::No);
    }

    #[test]
    fn what_cannot_be_compared_is_unknown_and_never_unaffected() {
        let ranges = json!([{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": "1.2" }] }]);
        let unknown = |purl: &str, affected: Value| matches!(answer(purl, affected), Answer::Unknown(_));
        assert!(unknown("pkg:pypi/a@not-a-version", json!({ "ranges": ranges })));
        assert!(unknown("pkg:composer/a/b@dev-main", json!({ "ranges": ranges, "versions": ["1.0"] })));
        assert!(unknown(
            "pkg:npm/a@1.0.0",
            json!({ "ranges": [{ "type": "GIT", "events": [{ "introduced": "0" }] }] })
        ));
        assert!(unknown("pkg:npm/a@1.0.0", json!({})));
        assert!(unknown("pkg:npm/a@1.0.0", json!({ "ranges": [{ "type": "NEW", "events": [] }] })));
        assert_eq!(answer("pkg:pypi/a@junk", json!({ "versions": ["junk"] })), Answer::Yes(None));
        assert_eq!(answer("pkg:golang/a.org/b@v1.2.3", json!({ "versions": ["1.2.3"] })), Answer::Yes(None));
        assert_eq!(answer("pkg:npm/a@1.0.0", json!({ "versions": ["1.0.1"] })), Answer::No);
    }

    #[test]
    fn a_package_of_a_system_is_compared_with_its_epoch() {
        let ranges =
            json!({ "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": "1:2.0-3" }] }] });
        assert_eq!(answer("pkg:rpm/rocky/a@2.0-2?epoch=1", ranges.clone()), fixed("1:2.0-3"));
        assert_eq!(answer("pkg:rpm/rocky/a@2.0-3?epoch=1", ranges.clone()), Answer::No);
        assert_eq!(answer("pkg:deb/debian/a@1%3A2.0-2", ranges), fixed("1:2.0-3"));
    }

    #[test]
    fn the_worst_rating_counts_wherever_it_is() {
        let entry: Entry = serde_json::from_value(json!({
            "id": "X-1",
            "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N" }],
            "affected": [{}, { "database_specific": { "cvss": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" } }],
            "database_specific": { "severity": "MODERATE" },
        }))
        .unwrap();
        let rated = |index: usize| entry.severity(&entry.affected[index]).unwrap();
        assert_eq!(rated(0), (Severity::Medium, "database".into(), "MODERATE".into()));
        assert_eq!(rated(1), (Severity::Critical, "database".into(), "9.8".into()));
    }

    proptest! {
        #[test]
        fn a_range_holds_what_its_events_say_in_whatever_order(
            mut bounds in prop::collection::btree_set(0_u32..40, 2..7), version in 0_u32..40, seed: u64
        ) {
            if bounds.len() % 2 == 1 {
                bounds.pop_last();
            }
            let bounds: Vec<u32> = bounds.into_iter().collect();
            let expected = bounds.chunks(2).any(|pair| pair[0] <= version && version < pair[1]);
            let mut events: Vec<Value> = bounds
                .chunks(2)
                .flat_map(|pair| [json!({ "introduced": format!("{}.0.0", pair[0]) }), json!({ "fixed": format!("{}.0.0", pair[1]) })])
                .collect();
            let turn = (seed % events.len() as u64) as usize;
            events.rotate_left(turn);
            if seed % 2 == 0 {
                events.reverse();
            }
            let found = answer(&format!("pkg:npm/a@{version}.0.0"), json!({ "ranges": [{ "type": "SEMVER", "events": events }] }));
            prop_assert_eq!(matches!(found, Answer::Yes(_)), expected);
        }
    }
}
