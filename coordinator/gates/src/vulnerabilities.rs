//! Known vulnerabilities of what an artifact consists of.
//!
//! Invariant: a package that no entry could be compared with is reported, and so is one whose ecosystem the database does not cover.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::components::{Component, Unreadable, components};
use crate::osv::{Answer, Entry};
use crate::severity::Severity;
use crate::{Level, Verdict};

/// Ids that do not count, with the place where each is listed.
#[derive(Debug, Clone, Default)]
pub struct Ignored(BTreeSet<String>);

impl Ignored {
    /// Reads a list: an id a line, and comments after `#`.
    pub fn read(text: &str) -> Self {
        let ids = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Self(ids.filter(|id| !id.is_empty()).map(str::to_owned).collect())
    }
}

/// What fails.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The least severity; `None`: any, and those of which none is known.
    pub fail_on: Option<Severity>,
    /// Ids and aliases that do not count.
    pub ignored: Ignored,
    /// Whether what cannot be judged fails.
    pub unknown_fails: bool,
}

/// A vulnerability of a component.
#[derive(Debug, Clone)]
struct Hit {
    /// The entry's id and its aliases.
    ids: BTreeSet<String>,
    component: usize,
    severity: Option<(Severity, String, String)>,
    fixed: Option<String>,
    summary: String,
    is_informational: bool,
    /// Why nobody can tell whether it is one.
    unknown: Option<String>,
}

/// A scan: entries of a database are shown to it one after another.
#[derive(Debug)]
pub struct Scan {
    components: Vec<Component>,
    /// The components by each of their names, in lower case.
    by_name: BTreeMap<String, Vec<usize>>,
    covered: BTreeSet<String>,
    hits: Vec<Hit>,
    unreadable: Vec<(String, String)>,
    entries: usize,
    updated: String,
}

impl Scan {
    /// A scan of a CycloneDX document.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(sbom: &[u8]) -> Result<Self, Unreadable> {
        let components = components(sbom)?;
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, component) in components.iter().enumerate().filter(|(_, component)| !component.is_excluded) {
            for name in component.ecosystem.iter().flat_map(|ecosystem| &ecosystem.names) {
                by_name.entry(simple(name)).or_default().push(index);
            }
        }
        let (covered, hits, unreadable) = (BTreeSet::new(), Vec::new(), Vec::new());
        Ok(Self { components, by_name, covered, hits, unreadable, entries: 0, updated: String::new() })
    }

    /// Shows it an entry, given where it is for people.
    pub fn entry(&mut self, path: &str, data: &[u8]) {
        let entry: Entry = match serde_json::from_slice(data) {
            Ok(entry) => entry,
            Err(error) => {
                self.unreadable.push((path.to_owned(), error.to_string()));
                return;
            }
        };
        self.entries = self.entries.saturating_add(1);
        if entry.modified > self.updated {
            self.updated.clone_from(&entry.modified);
        }
        for affected in &entry.affected {
            let Some(package) = &affected.package else { continue };
            let base = package.ecosystem.split(':').next().unwrap_or_default();
            if !self.covered.contains(base) {
                self.covered.insert(base.to_owned());
            }
            if entry.withdrawn.is_some() {
                continue;
            }
            for index in self.by_name.get(&simple(&package.name)).into_iter().flatten() {
                let ecosystem = self.components.get(*index).and_then(|component| component.ecosystem.as_ref());
                let meant = ecosystem.filter(|ecosystem| ecosystem.is_meant(&package.ecosystem, &package.name));
                let (fixed, unknown) = match meant.map(|ecosystem| affected.answer(ecosystem)) {
                    None | Some(Answer::No) => continue,
                    Some(Answer::Yes(fixed)) => (fixed, None),
                    Some(Answer::Unknown(reason)) => (None, Some(reason)),
                };
                self.hits.push(Hit {
                    ids: entry.aliases.iter().chain([&entry.id]).cloned().collect(),
                    component: *index,
                    severity: entry.severity(affected),
                    fixed,
                    summary: entry.summary.clone(),
                    is_informational: entry.is_informational(affected),
                    unknown,
                });
            }
        }
    }

    /// The verdict.
    pub fn verdict(&self, policy: &Policy) -> Verdict {
        let mut verdict = Verdict::default();
        if self.entries == 0 {
            verdict.add(Level::Unknown, "the database", "it has no entry: expected OSV's JSON files, one for each");
        }
        for (path, reason) in &self.unreadable {
            verdict.unknown(policy.unknown_fails, format!("`{path}`"), format!("is no entry of OSV: {reason}"));
        }
        self.uncovered(policy, &mut verdict);
        let hits = merged(&self.hits);
        for hit in &hits {
            self.judge(hit, policy, &mut verdict);
        }
        let known: BTreeSet<&String> = hits.iter().flat_map(|hit| &hit.ids).collect();
        for id in policy.ignored.0.iter().filter(|id| !known.contains(id)) {
            verdict.add(Level::Note, id.clone(), "is ignored and was not found: it need not be listed any more");
        }
        let excluded = self.components.iter().filter(|component| component.is_excluded).count();
        if excluded > 0 {
            verdict.add(Level::Note, "not checked", format!("{excluded} packages that only development needs"));
        }
        verdict
    }

    fn judge(&self, hit: &Hit, policy: &Policy, verdict: &mut Verdict) {
        let Some(component) = self.components.get(hit.component) else { return };
        let shown = component.shown();
        let ids = hit.ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let rated = hit.severity.as_ref().map_or("severity unknown".to_owned(), |(severity, _, score)| {
            if score.eq_ignore_ascii_case(severity.name()) {
                score.to_lowercase()
            } else {
                format!("{} {score}", severity.name())
            }
        });
        let fix =
            hit.fixed.as_ref().map_or("no fixed version is known".to_owned(), |fixed| format!("fixed in {fixed}"));
        let summary = if hit.summary.is_empty() { String::new() } else { format!(": {}", hit.summary.trim()) };
        let words = format!("{ids} ({rated}; {fix}){summary}");
        if hit.ids.iter().any(|id| policy.ignored.0.contains(id)) {
            verdict.add(Level::Note, shown, format!("{words} (ignored)"));
        } else if let Some(reason) = &hit.unknown {
            verdict.unknown(policy.unknown_fails, shown, format!("{ids}: {reason}"));
        } else {
            let severity = hit.severity.as_ref().map(|(severity, ..)| *severity);
            match (policy.fail_on, severity) {
                (Some(_), _) if hit.is_informational => verdict.add(Level::Note, shown, words),
                (None, _) => verdict.add(Level::Forbidden, shown, words),
                (Some(least), Some(severity)) if severity >= least => verdict.add(Level::Forbidden, shown, words),
                (Some(_), Some(_)) => verdict.add(Level::Note, shown, words),
                (Some(_), None) => verdict.unknown(policy.unknown_fails, shown, words),
            }
        }
    }

    /// Reports packages that no entry of the database could be about.
    fn uncovered(&self, policy: &Policy, verdict: &mut Verdict) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for component in self.components.iter().filter(|component| !component.is_excluded) {
            let Some(ecosystem) = &component.ecosystem else { continue };
            if ecosystem.name.is_empty() {
                let kind = component.purl.split(['@', '?']).next().unwrap_or_default();
                let kind = kind.rsplit_once('/').map_or(kind, |(above, _)| above);
                let count = counts.entry(format!("OSV has no ecosystem for `{kind}`")).or_default();
                *count = count.saturating_add(1);
            } else if !self.covered.contains(ecosystem.name) {
                let count = counts.entry(format!("the database has nothing about {}", ecosystem.name)).or_default();
                *count = count.saturating_add(1);
            }
        }
        for (why, count) in counts {
            verdict.unknown(
                policy.unknown_fails,
                format!("{count} packages"),
                format!("{why}, so they were not checked"),
            );
        }
    }

    /// What was found, as the `scanner` of in-toto's predicate for vulnerabilities. `database` names the database, such as by its digest.
    pub fn scanner(&self, version: &str, database: &str) -> Value {
        let result = |hit: &Hit| {
            let severity = hit.severity.iter().map(|(_, method, score)| json!({ "method": method, "score": score }));
            let component = self.components.get(hit.component);
            json!({
                "id": hit.ids.first(),
                "severity": severity.collect::<Vec<_>>(),
                "annotations": [{
                    "aliases": hit.ids.iter().skip(1).collect::<Vec<_>>(),
                    "package": component.map(|component| &component.purl),
                    "fixed": hit.fixed,
                    "unknown": hit.unknown,
                }],
            })
        };
        json!({
            "uri": "urn:kiln:gate:vulns",
            "version": version,
            "db": { "uri": database, "lastUpdate": self.updated },
            "result": merged(&self.hits).iter().map(result).collect::<Vec<_>>(),
        })
    }
}

/// A name as the index has it. Whether it is really the same is asked of the ecosystem.
fn simple(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The hits with those joined that are of one vulnerability under several ids.
fn merged(hits: &[Hit]) -> Vec<Hit> {
    let mut found: Vec<Hit> = Vec::new();
    for hit in hits {
        let mut one = hit.clone();
        let (same, others) = found
            .into_iter()
            .partition(|other: &Hit| other.component == one.component && !other.ids.is_disjoint(&one.ids));
        found = others;
        for other in same {
            one.ids.extend(other.ids);
            // What one database can tell, another need not.
            one.unknown = one.unknown.take().and(other.unknown);
            one.is_informational &= other.is_informational;
            one.fixed = one.fixed.take().or(other.fixed);
            if one.summary.is_empty() {
                one.summary = other.summary;
            }
            let of = |hit: &Option<(Severity, String, String)>| hit.as_ref().map(|(severity, ..)| *severity);
            if of(&other.severity) > of(&one.severity) {
                one.severity = other.severity;
            }
        }
        found.push(one);
    }
    found.sort_by(|a, b| (a.component, &a.ids).cmp(&(b.component, &b.ids)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    const SBOM: &str = r#"{"bomFormat":"CycloneDX","components":[
        {"name":"left-pad","purl":"pkg:npm/left-pad@1.0.0"},
        {"name":"libssl3","purl":"pkg:deb/debian/libssl3@3.0.1-1?distro=debian-12&upstream=openssl"},
        {"name":"jest","purl":"pkg:npm/jest@1.0.0","scope":"excluded"},
        {"name":"libc.so.6"}]}"#;

    fn entry(id: &str, more: &str, ecosystem: &str, name: &str, fixed: &str) -> String {
        format!(
            r#"{{"id":"{id}","modified":"2026-01-01T00:00:00Z",{more}"affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"{name}"}},
            "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]}}]}}]}}"#
        )
    }

    const CRITICAL: &str = r#""severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],"#;
    const NOTHING: &str = r#""severity":[{"type":"CVSS_V3","score":"3.1"}],"#;

    fn scan(entries: &[String]) -> Scan {
        let mut scan = Scan::new(SBOM.as_bytes()).unwrap();
        for (number, entry) in entries.iter().enumerate() {
            scan.entry(&format!("osv/{number}.json"), entry.as_bytes());
        }
        scan
    }

    fn policy(fail_on: Option<Severity>) -> Policy {
        Policy { fail_on, ignored: Ignored::default(), unknown_fails: true }
    }

    fn covering() -> Vec<String> {
        vec![entry("D-1", CRITICAL, "Debian:12", "other", "9"), entry("N-1", CRITICAL, "npm", "other", "9.0.0")]
    }

    #[test]
    fn what_is_affected_and_severe_enough_fails() {
        let clean = scan(&covering());
        assert_eq!(clean.verdict(&policy(Some(Severity::High))).outcome(), Outcome::Passed);
        let mut entries = covering();
        entries.push(entry("CVE-1", CRITICAL, "Debian:12", "openssl", "3.0.2-1"));
        entries.push(entry("GHSA-1", NOTHING, "npm", "left-pad", "1.1.0"));
        let scan = scan(&entries);
        let verdict = scan.verdict(&policy(Some(Severity::High)));
        assert_eq!(verdict.message().as_deref(), Some("libssl3 3.0.1-1: CVE-1 (critical 9.8; fixed in 3.0.2-1)"));
        assert!(verdict.text().contains("note: left-pad 1.0.0: GHSA-1 (low 3.1; fixed in 1.1.0)"));
        assert_eq!(
            scan.verdict(&policy(Some(Severity::Low)))
                .findings()
                .iter()
                .filter(|f| f.level == Level::Forbidden)
                .count(),
            2
        );
    }

    #[test]
    fn ids_of_one_vulnerability_are_one_finding_and_are_ignored_together() {
        let mut entries = covering();
        entries.push(entry("GHSA-1", &format!("{NOTHING}\"aliases\":[\"CVE-1\"],"), "npm", "left-pad", "1.1.0"));
        entries.push(entry("SNYK-1", &format!("{CRITICAL}\"aliases\":[\"CVE-1\"],"), "npm", "left-pad", "1.1.0"));
        let scan = scan(&entries);
        let verdict = scan.verdict(&policy(Some(Severity::High)));
        assert_eq!(
            verdict.message().as_deref(),
            Some("left-pad 1.0.0: CVE-1, GHSA-1, SNYK-1 (critical 9.8; fixed in 1.1.0)")
        );
        let ignored = Ignored::read("# accepted\nCVE-1 # not reachable\nCVE-9\n");
        let verdict = scan.verdict(&Policy { ignored, ..policy(Some(Severity::High)) });
        assert_eq!(verdict.outcome(), Outcome::Passed);
        assert!(verdict.text().contains("(ignored)") && verdict.text().contains("CVE-9: is ignored and was not found"));
    }

    #[test]
    fn whatever_cannot_be_judged_is_unknown() {
        let words = |scan: &Scan| scan.verdict(&policy(Some(Severity::High))).text();
        assert!(words(&scan(&[])).contains("unknown: the database: it has no entry"));
        let partial = scan(&[entry("N-1", CRITICAL, "npm", "other", "9.0.0")]);
        assert!(
            words(&partial).contains("unknown: 1 packages: the database has nothing about Debian"),
            "{}",
            words(&partial)
        );
        let mut entries = covering();
        entries.push("{".to_owned());
        entries.push(entry("N-2", "", "npm", "left-pad", "1.1.0"));
        entries.push(entry("N-3", CRITICAL, "npm", "left-pad", "next"));
        let scan = scan(&entries);
        let text = words(&scan);
        assert!(text.contains("unknown: `osv/2.json`: is no entry of OSV"), "{text}");
        assert!(text.contains("unknown: left-pad 1.0.0: N-2 (severity unknown; fixed in 1.1.0)"), "{text}");
        assert!(text.contains("unknown: left-pad 1.0.0: N-3: version `1.0.0` cannot be compared"), "{text}");
        let lenient = Policy { unknown_fails: false, ..policy(Some(Severity::High)) };
        assert_eq!(scan.verdict(&lenient).outcome(), Outcome::Warned);
    }

    #[test]
    fn what_was_withdrawn_or_is_of_development_or_informs_does_not_count() {
        let mut entries = covering();
        entries.push(entry(
            "N-2",
            &format!("{CRITICAL}\"withdrawn\":\"2026-01-02T00:00:00Z\","),
            "npm",
            "left-pad",
            "2.0.0",
        ));
        entries.push(entry("N-3", CRITICAL, "npm", "jest", "2.0.0"));
        entries.push(entry(
            "R-1",
            "\"database_specific\":{\"informational\":\"unmaintained\"},",
            "npm",
            "left-pad",
            "2.0.0",
        ));
        let scan = scan(&entries);
        assert_eq!(scan.verdict(&policy(Some(Severity::Low))).outcome(), Outcome::Passed);
        assert_eq!(scan.verdict(&policy(None)).outcome(), Outcome::Failed, "any means any");
    }

    #[test]
    fn the_predicate_lists_what_was_found() {
        let mut entries = covering();
        entries.push(entry("CVE-1", CRITICAL, "Debian:12", "openssl", "3.0.2-1"));
        let scanner = scan(&entries).scanner("1.0", "sha256:abc");
        assert_eq!(scanner["result"][0]["id"], "CVE-1");
        assert_eq!(scanner["result"][0]["severity"][0], json!({ "method": "CVSS_V3", "score": "9.8" }));
        assert_eq!(scanner["db"], json!({ "uri": "sha256:abc", "lastUpdate": "2026-01-01T00:00:00Z" }));
    }

    proptest::proptest! {
        #[test]
        fn no_document_panics(at in 0_usize..400, length in 0_usize..40, put: Vec<u8>) {
            let changed = |text: &str| {
                let mut data = text.as_bytes().to_vec();
                let from = at.min(data.len());
                let to = from.saturating_add(length).min(data.len());
                data.splice(from..to, put.clone());
                data
            };
            let osv = entry("CVE-1", CRITICAL, "Debian:12", "openssl", "3.0.2-1");
            for (sbom, entry) in [(changed(SBOM), osv.clone().into_bytes()), (SBOM.into(), changed(&osv))] {
                let Ok(mut scan) = Scan::new(&sbom) else { continue };
                scan.entry("osv/1.json", &entry);
                let _ = (scan.verdict(&policy(None)).text(), scan.scanner("1", "x"));
            }
        }
    }
}
