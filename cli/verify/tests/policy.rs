//! What a policy demands of an artifact, and what becomes of evidence that somebody tampered with.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_attest::{Algorithm, Envelope, Key, Keys, PrivateKey, Signature, pae};
use kiln_verify::{Bundle, Evidence, Item, Outcome, Policy, Report, Target, verify};
use proptest::prelude::*;
use serde_json::{Value, json};

const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const OTHER: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
const BUILT: &str = "2026-11-01T12:00:00Z";

fn at(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).unwrap()
}

fn now() -> SystemTime {
    at("2026-11-02T12:00:00Z")
}

/// A farm with one key.
struct Farm(PrivateKey);

impl Farm {
    fn new() -> Self {
        Self(PrivateKey::generate(Algorithm::Ed25519).unwrap())
    }

    fn keys(&self, created: Option<&str>, not_after: Option<&str>) -> Keys {
        Keys::new(vec![Key { public: self.0.public().clone(), created: created.map(at), not_after: not_after.map(at) }])
    }

    fn bundle(&self, name: &str, statement: &Value) -> Bundle {
        let payload = statement.to_string().into_bytes();
        let bytes = self.0.sign(&pae(kiln_attest::PAYLOAD_TYPE, &payload)).unwrap();
        let signature = Signature { key: self.0.public().id().to_owned(), bytes };
        let data = kiln_attest::bundle(&Envelope::new(payload, vec![signature])).unwrap();
        Bundle { name: name.to_owned(), data }
    }
}

fn statement(kind: &str, digest: &str, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "shop", "digest": { "sha256": digest } }],
        "predicateType": kind,
        "predicate": predicate,
    })
}

fn predicate() -> Value {
    json!({
        "buildDefinition": {
            "buildType": "urn:kiln:plan:v1",
            "externalParameters": { "platform": "linux/amd64" },
            "resolvedDependencies": [
                {
                    "uri": "git+https://git.example/shop@0123abcd", "digest": { "gitCommit": "0123abcd" },
                    "annotations": { "dirty": false, "branch": "main", "assertedBy": "farm" },
                },
                { "uri": "docker.io/library/debian:12", "digest": { "sha256": OTHER } },
            ],
        },
        "runDetails": {
            "builder": { "id": "https://farm.example" },
            "metadata": { "finishedOn": BUILT },
            "byproducts": [{ "name": "compile", "annotations": { "reproduced": { "outcome": "same" } } }],
        },
    })
}

fn provenance(change: impl FnOnce(&mut Value)) -> Value {
    let mut predicate = predicate();
    change(&mut predicate);
    statement("https://slsa.dev/provenance/v1", DIGEST, predicate)
}

fn shop() -> Target {
    Target { name: "shop".into(), items: vec![Item::sha256("shop", DIGEST.into())], ..Target::default() }
}

fn evidence(bundles: Vec<Bundle>) -> Evidence {
    Evidence { what: "shop".into(), targets: vec![shop()], bundles }
}

fn policy(text: &str) -> Policy {
    Policy::parse(Path::new("policy.toml"), text.to_owned()).unwrap()
}

#[track_caller]
fn refused(report: &Report, check: &str, words: &str) {
    assert!(!report.verified, "{report:?}");
    let found = report.verdicts.iter().flat_map(|verdict| &verdict.checks);
    let refused: Vec<_> = found.filter(|check| check.outcome == Outcome::Refused).collect();
    let is = |one: &&&kiln_verify::Check| one.check == check && one.text.contains(words);
    assert!(refused.iter().any(|one| is(&one)), "expected `{check}` with `{words}` in {refused:?}");
}

/// What becomes of a provenance under a policy.
fn judged(text: &str, change: impl FnOnce(&mut Value)) -> Report {
    let farm = Farm::new();
    let bundle = farm.bundle("provenance", &provenance(change));
    verify(&evidence(vec![bundle]), &farm.keys(None, None), &policy(text), now())
}

#[test]
fn an_artifact_that_meets_every_demand_is_verified() {
    let farm = Farm::new();
    let gate = json!({ "result": "PASSED", "configuration": [{ "name": "smoke" }] });
    let bundles = vec![
        farm.bundle("provenance", &provenance(|_| ())),
        farm.bundle("sbom", &statement("https://cyclonedx.org/bom", DIGEST, json!({}))),
        farm.bundle("gate", &statement("https://in-toto.io/attestation/test-result/v0.1", DIGEST, gate)),
    ];
    let all = format!(
        r#"
        builder = "https://farm.example"
        repository = ["https://git.example/*"]
        branch = ["main", "release/*"]
        verified-source = true
        platforms = ["linux/amd64"]
        max-age = "30d"
        reproducible = true
        gates = ["smoke"]
        require = ["sbom"]
        [[dependencies]]
        uri = "docker.io/library/debian:*"
        sha256 = "{OTHER}"
        "#
    );
    let report = verify(&evidence(bundles), &farm.keys(None, None), &policy(&all), now());
    assert!(report.verified && report.warnings.is_empty(), "{report:?}");
    let stated =
        report.verdicts[0].checks.iter().filter(|check| check.outcome == Outcome::Stated).map(|check| check.check);
    assert_eq!(stated.collect::<Vec<_>>(), ["commit"], "everything else was demanded");
}

#[test]
fn each_demand_that_is_not_met_is_refused_in_words() {
    type Case<'a> = (&'a str, &'a str, Value, &'a str, &'a str);
    let source = "/buildDefinition/resolvedDependencies/0";
    let commit = format!("{source}/annotations");
    let cases: [Case; 12] = [
        (
            "builder = 'https://farm.example'",
            "/runDetails/builder/id",
            json!("https://evil.example"),
            "builder",
            "evil",
        ),
        (
            "repository = 'https://git.example/shop'",
            &format!("{source}/uri"),
            json!("git+https://git.example/fork@0123abcd"),
            "repository",
            "fork",
        ),
        ("branch = 'main'", &format!("{commit}/branch"), json!("feature"), "branch", "feature"),
        ("branch = 'main'", &format!("{commit}/branch"), json!(""), "branch", "not stated"),
        ("builder = '*'", &format!("{commit}/dirty"), json!(true), "commit", "allow-dirty"),
        ("verified-source = true", &format!("{commit}/assertedBy"), json!("client"), "verified-source", "client"),
        (
            "platforms = ['linux/amd64']",
            "/buildDefinition/externalParameters/platform",
            json!("linux/arm64"),
            "platform",
            "linux/arm64",
        ),
        ("max-age = '1d'", "/runDetails/metadata/finishedOn", json!("2026-01-01T00:00:00Z"), "age", "ago"),
        ("max-age = '1d'", "/runDetails/metadata/finishedOn", json!("soon"), "age", "not stated"),
        (
            "reproducible = true",
            "/runDetails/byproducts/0/annotations/reproduced/outcome",
            json!("different"),
            "reproducible",
            "compile",
        ),
        (
            "reproducible = true",
            "/runDetails/byproducts/0/annotations",
            json!({}),
            "reproducible",
            "not made a second time",
        ),
        ("reproducible = true", "/runDetails/byproducts", json!([]), "reproducible", "no step"),
    ];
    for (text, pointer, value, check, words) in cases {
        assert!(judged(text, |_| ()).verified, "{text}");
        let report = judged(text, |predicate| *predicate.pointer_mut(pointer).unwrap() = value);
        refused(&report, check, words);
    }
    refused(&judged("gates = ['smoke']", |_| ()), "gate", "smoke");
    refused(&judged("require = ['sbom']", |_| ()), "sbom", "no signed");
    let dependency = |digest: &str| format!("[[dependencies]]\nuri = 'docker.io/*'\nsha256 = ['{digest}']");
    assert!(judged(&dependency(OTHER), |_| ()).verified);
    refused(&judged(&dependency(DIGEST), |_| ()), "dependency", OTHER);
    refused(&judged("[[dependencies]]\nuri = 'ghcr.io/*'", |_| ()), "dependency", "nothing that matches");
}

#[test]
fn the_latest_verification_that_tells_decides_whether_it_is_reproducible() {
    let farm = Farm::new();
    let found = |way: &str, outcome: &str, day: u8, steps: &[&str]| {
        let step = |outcome: &&str| json!({ "name": "compile", "reproduced": { "outcome": outcome } });
        json!({
            "way": way, "outcome": outcome, "invocationId": format!("build-{day}"),
            "finishedOn": format!("2026-11-{day:02}T12:00:00Z"), "steps": steps.iter().map(step).collect::<Vec<_>>(),
        })
    };
    let judge = |first: &str, later: &[Value]| {
        let outcome = "/runDetails/byproducts/0/annotations/reproduced/outcome";
        let own = provenance(|predicate| *predicate.pointer_mut(outcome).unwrap() = json!(first));
        let own = farm.bundle("provenance", &own);
        let stated = |one: &Value| farm.bundle("reproduced", &statement("urn:kiln:reproduced:v1", DIGEST, one.clone()));
        let bundles = std::iter::once(own).chain(later.iter().map(stated)).collect();
        verify(&evidence(bundles), &farm.keys(None, None), &policy("reproducible = true"), now())
    };
    let (same, rebuilt) = (found("reproduced", "same", 5, &["same"]), found("rebuilt", "same", 6, &[]));
    assert!(judge("not-run", std::slice::from_ref(&same)).verified);
    assert!(judge("not-run", std::slice::from_ref(&rebuilt)).verified);
    let different = |way, day| found(way, "different", day, &["different"]);
    refused(&judge("same", &[different("reproduced", 4)]), "reproducible", "step `compile`");
    refused(
        &judge("same", &[different("sampled", 7), same.clone()]),
        "reproducible",
        "made again in parts by the build `build-7`",
    );
    refused(&judge("same", &[found("rebuilt", "different", 8, &[]), same.clone()]), "reproducible", "build-8");
    assert!(judge("same", &[different("reproduced", 4), same.clone()]).verified, "the later one tells");
    // What fetches counts for a policy, although no build fails for it.
    refused(&judge("same", &[found("reproduced", "same", 9, &["different"])]), "reproducible", "build-9");
    // These do not tell: not all of it was made again.
    for open in [found("sampled", "same", 9, &["same"]), found("reproduced", "not-run", 9, &["not-run", "same"])] {
        assert!(judge("not-run", &[open.clone(), same.clone()]).verified);
        refused(&judge("not-run", &[open]), "reproducible", "not made a second time");
    }
    // Nor does what a stranger states, or what is about something else.
    let stranger = Farm::new();
    let strange = stranger.bundle("strange", &statement("urn:kiln:reproduced:v1", DIGEST, different("reproduced", 9)));
    let own = farm.bundle("provenance", &provenance(|_| ()));
    let report = verify(&evidence(vec![own, strange]), &farm.keys(None, None), &policy("reproducible = true"), now());
    assert!(report.verified, "{report:?}");
}

#[test]
fn without_a_policy_everything_that_is_stated_is_told_and_nothing_demanded() {
    let farm = Farm::new();
    let bundle = farm.bundle("provenance", &provenance(|predicate| predicate["buildDefinition"] = json!({})));
    let report = verify(&evidence(vec![bundle]), &farm.keys(None, None), &Policy::default(), now());
    assert!(report.verified, "{report:?}");
}

#[test]
fn a_statement_about_something_else_is_refused_with_both_digests() {
    let farm = Farm::new();
    let other = statement("https://slsa.dev/provenance/v1", OTHER, predicate());
    let report = verify(&evidence(vec![farm.bundle("p", &other)]), &farm.keys(None, None), &Policy::default(), now());
    refused(&report, "signature", DIGEST);
    refused(&report, "signature", OTHER);
    // Beside one that is true it is refused as well: somebody put it there.
    let both = vec![farm.bundle("q", &provenance(|_| ())), farm.bundle("p", &other)];
    refused(&verify(&evidence(both), &farm.keys(None, None), &Policy::default(), now()), "signature", "`p`");
}

#[test]
fn a_stranger_can_attach_statements_and_nobody_believes_them() {
    let (farm, stranger) = (Farm::new(), Farm::new());
    let (own, strange) =
        (provenance(|_| ()), provenance(|predicate| predicate["runDetails"]["builder"]["id"] = json!("x")));
    let both = vec![stranger.bundle("strange", &strange), farm.bundle("own", &own)];
    let report = verify(&evidence(both), &farm.keys(None, None), &policy("builder = 'https://farm.example'"), now());
    assert!(report.verified && report.warnings[0].contains("strange"), "{report:?}");
    let alone = vec![stranger.bundle("strange", &strange)];
    refused(&verify(&evidence(alone), &farm.keys(None, None), &Policy::default(), now()), "signature", "trusted");
    refused(
        &verify(&evidence(Vec::new()), &farm.keys(None, None), &Policy::default(), now()),
        "signature",
        "no signed",
    );
}

#[test]
fn keys_sign_in_their_time_and_a_policy_decides_about_retired_ones() {
    let farm = Farm::new();
    let bundle = farm.bundle("provenance", &provenance(|_| ()));
    let with = |created, not_after, text: &str| {
        verify(&evidence(vec![bundle.clone()]), &farm.keys(created, not_after), &policy(text), now())
    };
    assert!(with(Some("2026-10-01T00:00:00Z"), Some("2027-01-01T00:00:00Z"), "").verified);
    refused(&with(Some("2026-12-01T00:00:00Z"), None, ""), "signature", "set the clock");
    let retired = Some("2026-11-02T00:00:00Z");
    refused(&with(None, retired, ""), "signature", "retired-keys");
    refused(&with(None, retired, "retired-keys = 'refuse'"), "signature", "retired");
    assert!(with(None, retired, "retired-keys = 'allow'").verified);
    refused(&with(None, Some("2026-11-01T00:00:00Z"), "retired-keys = 'allow'"), "age", "after its key was retired");
}

#[test]
fn equal_bytes_of_another_source_are_not_what_a_policy_demands() {
    let farm = Farm::new();
    let uri = "/buildDefinition/resolvedDependencies/0/uri";
    let fork =
        provenance(|predicate| *predicate.pointer_mut(uri).unwrap() = json!("git+https://git.example/fork@0123abcd"));
    let demands = policy("repository = 'https://git.example/shop'");
    let alone = vec![farm.bundle("fork", &fork)];
    refused(&verify(&evidence(alone.clone()), &farm.keys(None, None), &demands, now()), "repository", "fork");
    // Both made the same, and one of them is the demanded one.
    let both = [alone, vec![farm.bundle("own", &provenance(|_| ()))]].concat();
    assert!(verify(&evidence(both), &farm.keys(None, None), &demands, now()).verified);
}

#[test]
fn a_directory_is_refused_if_a_file_is_missing_added_or_renamed() {
    let farm = Farm::new();
    let mut stated = provenance(|_| ());
    let subject = |name: &str, digest: &str| json!({ "name": name, "digest": { "sha256": digest } });
    stated["subject"] = json!([subject("bin/a", DIGEST), subject("lib/b", OTHER)]);
    let judge = |items: &[(&str, &str)]| {
        let items = items.iter().map(|(name, digest)| Item::sha256(name, (*digest).to_owned())).collect();
        let target = Target { name: "dir".into(), items, is_whole: true, ..Target::default() };
        let evidence = Evidence { what: "dir".into(), targets: vec![target], bundles: vec![farm.bundle("p", &stated)] };
        verify(&evidence, &farm.keys(None, None), &Policy::default(), now())
    };
    assert!(judge(&[("bin/a", DIGEST), ("lib/b", OTHER)]).verified);
    refused(&judge(&[("bin/a", DIGEST)]), "signature", "`lib/b` is missing");
    refused(&judge(&[("bin/a", DIGEST), ("lib/b", OTHER), ("lib/c", OTHER)]), "signature", "lib/c");
    refused(&judge(&[("bin/a", OTHER), ("lib/b", DIGEST)]), "signature", "bin/a");
    refused(&judge(&[]), "signature", "no files");
}

#[test]
fn the_links_of_a_directory_are_compared_with_those_that_are_stated() {
    let farm = Farm::new();
    let judge = |stated: Option<Value>, links: &[(&str, &str)]| {
        let stated = provenance(|predicate| {
            if let Some(links) = stated {
                predicate["kiln_links"] = links;
            }
        });
        let links = links.iter().map(|(path, to)| ((*path).to_owned(), (*to).to_owned())).collect();
        let target = Target { links: Some(links), is_whole: true, ..shop() };
        let bundles = vec![farm.bundle("p", &stated)];
        let evidence = Evidence { what: "dir".into(), targets: vec![target], bundles };
        verify(&evidence, &farm.keys(None, None), &Policy::default(), now())
    };
    let two = || Some(json!({ "bin/run": "../shop", "lib/x.so": "x.so.1" }));
    let same = [("bin/run", "../shop"), ("lib/x.so", "x.so.1")];
    let said = |report: &Report| report.verdicts[0].checks.iter().find(|one| one.check == "links").cloned();
    let whole = judge(two(), &same);
    assert!(whole.verified && said(&whole).unwrap().text == "2 symbolic links", "{whole:?}");
    refused(&judge(two(), &same[..1]), "links", "`lib/x.so`, a symbolic link to `x.so.1`, is missing");
    refused(&judge(two(), &[same[0], ("lib/x.so", "/tmp/x.so")]), "links", "`lib/x.so` leads to `/tmp/x.so`");
    refused(
        &judge(Some(json!({})), &same),
        "links",
        "`bin/run`, a symbolic link to `../shop`, is not part of the artifact",
    );
    let none = judge(Some(json!({})), &[]);
    assert!(none.verified && said(&none).is_none(), "{none:?}");
    // A farm of before stated none, and what it does not cover is told.
    let before = judge(None, &same);
    assert!(before.verified && said(&before).unwrap().text.contains("covers none of 2 symbolic links"), "{before:?}");
}

#[test]
fn an_index_that_offers_an_image_for_another_platform_is_refused() {
    let farm = Farm::new();
    let judge = |platform: &str| {
        let target = Target { platform: Some(platform.to_owned()), ..shop() };
        let bundles = vec![farm.bundle("p", &provenance(|_| ()))];
        let evidence = Evidence { what: "image".into(), targets: vec![target], bundles };
        verify(&evidence, &farm.keys(None, None), &Policy::default(), now())
    };
    assert!(judge("linux/amd64").verified && judge("linux/amd64/v2").verified);
    refused(&judge("linux/arm64"), "platform", "offered for `linux/arm64`");
}

#[test]
fn each_platform_of_an_image_needs_a_statement_of_its_own() {
    let farm = Farm::new();
    let arm64 = Target { name: "arm64".into(), items: vec![Item::sha256("shop", OTHER.into())], ..Target::default() };
    let mut both = evidence(vec![farm.bundle("p", &provenance(|_| ()))]);
    both.targets.push(arm64);
    refused(&verify(&both, &farm.keys(None, None), &Policy::default(), now()), "signature", "no signed statement");
    both.bundles.push(farm.bundle("q", &statement("https://slsa.dev/provenance/v1", OTHER, predicate())));
    assert!(verify(&both, &farm.keys(None, None), &Policy::default(), now()).verified);
}

#[test]
fn a_gate_counts_if_it_passed_and_is_the_one_that_was_demanded() {
    let farm = Farm::new();
    let judge = |predicate: Value| {
        let gate = statement("https://in-toto.io/attestation/test-result/v0.1", DIGEST, predicate);
        let bundles = vec![farm.bundle("p", &provenance(|_| ())), farm.bundle("g", &gate)];
        verify(&evidence(bundles), &farm.keys(None, None), &policy("gates = ['smoke']"), now())
    };
    for name in ["smoke", "gate-smoke", "gate:smoke"] {
        assert!(judge(json!({ "result": "PASSED", "configuration": [{ "name": name }] })).verified);
        assert!(judge(json!({ "result": "PASSED", "gate": name })).verified);
    }
    refused(&judge(json!({ "result": "FAILED", "configuration": [{ "name": "smoke" }] })), "gate", "FAILED");
    refused(&judge(json!({ "result": "PASSED", "configuration": [{ "name": "load" }] })), "gate", "smoke");
    refused(&judge(json!({ "configuration": [{ "name": "smoke" }] })), "gate", "unknown");
}

#[test]
fn a_policy_with_a_mistake_is_refused_with_its_line_and_the_nearest_name() {
    let wrong = |text: &str| Policy::parse(Path::new("policy.toml"), text.to_owned()).unwrap_err().to_string();
    let cases = [
        ("\nrepositry = 'x'", &["line 2", "repository"][..]),
        ("[[dependencies]]\nurl = 'x'", &["dependencies.url", "uri"]),
        ("max-age = 'long'", &["line 1"]),
        ("retired-keys = 'maybe'", &["line 1", "allow"]),
        ("builder = ['[']", &["line 1"]),
        ("gates = 'smoke'", &["line 1"]),
        ("builder =", &["line 1"]),
    ];
    for (text, words) in cases {
        let error = wrong(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

/// Values of JSON, some of which have the shape of provenance.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[a-z:/@]{0,8}".prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![
            Just("buildDefinition".to_owned()),
            Just("resolvedDependencies".to_owned()),
            Just("digest".to_owned()),
            Just("gitCommit".to_owned()),
            Just("uri".to_owned()),
            Just("runDetails".to_owned()),
            Just("byproducts".to_owned()),
            Just("annotations".to_owned()),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_signed_statement_of_any_shape_is_judged_without_a_panic(predicate in json_value()) {
        let farm = Farm::new();
        let stated = statement("https://slsa.dev/provenance/v1", DIGEST, predicate);
        let demands = policy("repository = 'https://git.example/shop'\nreproducible = true\ngates = ['smoke']");
        let report = verify(&evidence(vec![farm.bundle("p", &stated)]), &farm.keys(None, None), &demands, now());
        prop_assert!(!report.verified, "nothing of that meets the demands");
    }

    #[test]
    fn no_bytes_without_a_signature_are_accepted(data in proptest::collection::vec(any::<u8>(), 0..400), days in 0..100_000u64) {
        let farm = Farm::new();
        let found = evidence(vec![Bundle { name: "p".into(), data }]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        prop_assert!(!verify(&found, &farm.keys(None, None), &Policy::default(), now).verified);
    }
}
