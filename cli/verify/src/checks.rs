//! The checks, in the order in which they are told.

use std::time::{Duration, SystemTime};

use kiln_attest::Keys;
use serde_json::Value;

use crate::dependencies;
use crate::evidence::{Evidence, Target};
use crate::links;
use crate::policy::{Patterns, Policy, Required};
use crate::provenance::{PROVENANCE, Provenance, Source};
use crate::report::{Check, Report, Verdict};
use crate::reproduced::{REPRODUCED, Verification};
use crate::statements::{self, Proven, Statements};

const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
const VULNERABILITIES: &str = "https://in-toto.io/attestation/vulns/v0.1";
const CYCLONEDX: &str = "https://cyclonedx.org/bom";
const SPDX: &str = "https://spdx.dev/Document";

/// Verifies an artifact with what was found about it.
pub fn verify(evidence: &Evidence, keys: &Keys, policy: &Policy, now: SystemTime) -> Report {
    let statements = statements::read(evidence, keys, policy, now);
    let mut verdicts: Vec<Verdict> =
        evidence.targets.iter().map(|target| verdict(target, evidence, &statements, policy, now)).collect();
    if verdicts.is_empty() {
        let checks = vec![Check::refused("digest", "there is nothing to verify")];
        verdicts.push(Verdict { name: evidence.what.clone(), checks });
    }
    let verified = !verdicts.iter().flat_map(|verdict| &verdict.checks).any(Check::is_refused);
    let warnings = statements.unused.iter().map(|why| format!("not used: {why}")).collect();
    Report { artifact: evidence.what.clone(), verified, verdicts, warnings }
}

fn verdict(target: &Target, evidence: &Evidence, statements: &Statements, policy: &Policy, now: SystemTime) -> Verdict {
    let mut checks: Vec<Check> = statements.wrong.iter().map(|why| Check::refused("signature", why)).collect();
    // The same bytes may have been built from several sources: one that is accepted will do.
    let candidates = statements.about(target, PROVENANCE).map(|proven| {
        let found = provenance(proven, target, policy, now);
        (found.iter().filter(|check| check.is_refused()).count(), proven, found)
    });
    match candidates.min_by_key(|(refused, _, _)| *refused) {
        Some((_, proven, found)) => {
            checks.push(Check::ok("signature", format!("`{}`, by the key `{}`", proven.name, proven.key.public.id())));
            checks.push(Check::ok("digest", digest(target)));
            checks.extend(found);
            if !target.is_index {
                checks.extend(required(target, statements, policy));
                checks.extend(gates(target, statements, policy));
                if policy.reproducible {
                    checks.push(reproducible(Provenance::of(proven), statements.about(target, REPRODUCED)));
                }
            }
        }
        None => checks.extend(unproven(evidence, statements)),
    }
    Verdict { name: target.name.clone(), checks }
}

/// Why there is no provenance.
fn unproven(evidence: &Evidence, statements: &Statements) -> Vec<Check> {
    if evidence.bundles.is_empty() {
        let words = "there is no signed statement about it; a bundle is in `NAME.provenance.sigstore.json` beside an artifact, or name it \
                     with `--bundle FILE`";
        return vec![Check::refused("signature", words)];
    }
    let mut checks: Vec<Check> = statements.unused.iter().map(|why| Check::refused("signature", why)).collect();
    if checks.is_empty() && statements.wrong.is_empty() {
        checks.push(Check::refused("signature", "no signed statement tells where it is from (SLSA provenance, v1)"));
    }
    checks
}

fn digest(target: &Target) -> String {
    match target.items.as_slice() {
        [only] => only.digests.iter().map(|(name, hex)| format!("{name}:{hex}")).next_back().unwrap_or_default(),
        several => format!("{} files", several.len()),
    }
}

/// What a policy demands of provenance.
fn provenance(proven: &Proven, target: &Target, policy: &Policy, now: SystemTime) -> Vec<Check> {
    let stated = Provenance::of(proven);
    let mut checks = vec![matches("builder", stated.builder(), policy.builder.as_ref())];
    checks.extend(source(stated.source(), policy));
    checks.extend(stated.platforms().into_iter().map(|stated| platform(stated, target, policy)));
    checks.push(age(stated.finished(), proven, policy, now));
    checks.extend(links::check(stated.links().as_ref(), target));
    if target.is_index {
        // What its images are made from, and how, they say themselves.
        return checks;
    }
    checks.extend(dependencies::check(stated.dependencies(), &policy.dependencies));
    checks
}

/// Whether something that is stated matches what is demanded, if anything is.
fn matches(check: &'static str, stated: &str, demanded: Option<&Patterns>) -> Check {
    match demanded {
        None => Check::stated(check, if stated.is_empty() { "unknown" } else { stated }),
        Some(demanded) if demanded.has(stated) => Check::ok(check, stated),
        Some(demanded) => {
            let stated = if stated.is_empty() { "not stated".to_owned() } else { format!("`{stated}`") };
            Check::refused(check, format!("it is {stated}; expected {}", demanded.words()))
        }
    }
}

fn source(source: Option<Source<'_>>, policy: &Policy) -> Vec<Check> {
    let demands = policy.repository.is_some() || policy.branch.is_some() || policy.verified_source;
    let Some(source) = source else {
        let words = "the artifact was not built from a git checkout";
        return vec![if demands { Check::refused("source", words) } else { Check::stated("source", words) }];
    };
    // Both names of one repository.
    let repository = match &policy.repository {
        Some(demanded) if demanded.has(source.repository.trim_end_matches(".git")) => {
            Check::ok("repository", source.repository)
        }
        demanded => matches("repository", source.repository, demanded.as_ref()),
    };
    let dirty = if source.is_dirty { ", with changes that are not committed" } else { "" };
    let commit = format!("{}{dirty}", source.commit);
    let is_refused = policy.is_given && source.is_dirty && !policy.allow_dirty;
    let commit = match is_refused {
        true => Check::refused("commit", format!("{commit}; `allow-dirty = true` in the policy allows that")),
        false => Check::stated("commit", commit),
    };
    let mut checks = vec![repository, matches("branch", source.branch, policy.branch.as_ref()), commit];
    if policy.verified_source {
        let wrong = (!source.is_verified).then(|| {
            "a client uploaded the sources and said what they are; expected ones that the farm fetched".to_owned()
        });
        checks.push(Check::of("verified-source", "the farm fetched the commit", wrong));
    }
    checks
}

fn platform(stated: &str, target: &Target, policy: &Policy) -> Check {
    // `linux/arm64/v8` is offered for what is built for `linux/arm64`.
    let base = |platform: &str| platform.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    let offered = target.platform.as_deref().filter(|offered| base(offered) != base(stated));
    let demanded = policy.platforms.as_ref().filter(|demanded| !demanded.iter().any(|one| one == stated));
    match (offered, demanded) {
        (Some(offered), _) => {
            Check::refused("platform", format!("it was built for `{stated}`, and is offered for `{offered}`"))
        }
        (None, Some(demanded)) => Check::refused(
            "platform",
            format!("it was built for `{stated}`; expected one of `{}`", demanded.join("`, `")),
        ),
        (None, None) if policy.platforms.is_some() => Check::ok("platform", stated),
        (None, None) => Check::stated("platform", stated),
    }
}

fn age(finished: Option<SystemTime>, proven: &Proven, policy: &Policy, now: SystemTime) -> Check {
    let Some(finished) = finished else {
        let words = "it is not stated when it was built";
        let demands = policy.max_age.is_some() || proven.key.not_after.is_some();
        return if demands { Check::refused("age", words) } else { Check::stated("age", words) };
    };
    let at = humantime::format_rfc3339_seconds(finished);
    // A retired key may have been lost: what it signs later is nobody's word.
    if let Some(end) = proven.key.not_after.filter(|end| finished > *end) {
        let end = humantime::format_rfc3339_seconds(end);
        return Check::refused("age", format!("it was built at {at}, after its key was retired ({end})"));
    }
    let age = now.duration_since(finished).unwrap_or_default();
    match policy.max_age {
        Some(most) if age > most => {
            let days = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
            Check::refused("age", format!("it was built at {at}, {} ago; expected at most {}", days(age), days(most)))
        }
        Some(_) => Check::ok("age", format!("built at {at}")),
        None => Check::stated("age", format!("built at {at}")),
    }
}

/// Whether it came out the same each time: as the latest verification found that is conclusive, or as the provenance states.
fn reproducible<'a>(stated: Provenance<'_>, later: impl Iterator<Item = &'a Proven>) -> Check {
    let mut later: Vec<Verification<'_>> = later.map(Verification::of).collect();
    later.sort_by_key(|one| std::cmp::Reverse(one.finished()));
    if let Some((last, same)) = later.iter().find_map(|one| Some((one, one.is_same()?))) {
        let words = format!("{} by the build `{}`", last.how(), last.build());
        let wrong = (!same).then(|| format!("it came out different when it was {words}{}", last.differing()));
        return Check::of("reproducible", &words, wrong);
    }
    let wrong = match stated.not_reproduced() {
        None => Some("no step is stated".to_owned()),
        Some(steps) if steps.is_empty() => None,
        Some(steps) => {
            let words = |(step, outcome): &(&str, &str)| match *outcome {
                "different" => format!("step `{step}` made something else the second time"),
                _ => format!("step `{step}` was not made a second time"),
            };
            Some(steps.iter().map(words).collect::<Vec<_>>().join(", "))
        }
    };
    Check::of("reproducible", "every step made the same a second time", wrong)
}

/// Statements that must be there besides provenance.
fn required(target: &Target, statements: &Statements, policy: &Policy) -> Vec<Check> {
    let kinds = [("sbom", CYCLONEDX, Required::Sbom), ("spdx", SPDX, Required::Spdx)];
    let check = |(name, kind, required): (&'static str, &str, Required)| match (
        statements.about(target, kind).next(),
        policy.require.contains(&required),
    ) {
        (Some(proven), true) => Some(Check::ok(name, format!("`{}`", proven.name))),
        (Some(proven), false) => Some(Check::stated(name, format!("`{}`", proven.name))),
        (None, true) => Some(Check::refused(name, "there is no signed bill of materials of this kind")),
        (None, false) => None,
    };
    kinds.into_iter().filter_map(check).collect()
}

fn gates(target: &Target, statements: &Statements, policy: &Policy) -> Vec<Check> {
    let about = || statements.about(target, TEST_RESULT).chain(statements.about(target, VULNERABILITIES));
    let check = |gate: &String| {
        let of = about().filter(|proven| is_of(&proven.statement.predicate, gate));
        // What finds vulnerabilities is only attested if they are accepted.
        let result = |proven: &Proven| match proven.statement.predicate.get("result").and_then(Value::as_str) {
            Some(result) => result.to_owned(),
            None if proven.statement.predicate_type == VULNERABILITIES => "PASSED".to_owned(),
            None => "unknown".to_owned(),
        };
        let results: Vec<String> = of.map(result).collect();
        let passed = results.iter().any(|result| result == "PASSED" || result == "WARNED");
        let wrong = match results.first() {
            _ if passed => None,
            None => Some(format!("nothing states that gate `{gate}` ran")),
            Some(result) => Some(format!("gate `{gate}`: {result}")),
        };
        Check::of("gate", gate, wrong)
    };
    policy.gates.iter().map(check).collect()
}

/// Whether a result is that of a gate: its name is in `gate`, or in one of the resources of `configuration`.
fn is_of(predicate: &Value, gate: &str) -> bool {
    let is = |name: &str| name == gate || name.strip_prefix("gate-").or(name.strip_prefix("gate:")) == Some(gate);
    let named = |value: &Value| value.get("name").and_then(Value::as_str).is_some_and(is);
    let configuration = predicate.get("configuration").and_then(Value::as_array);
    predicate.get("gate").and_then(Value::as_str).is_some_and(is) || configuration.into_iter().flatten().any(named)
}
