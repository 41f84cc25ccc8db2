//! What an artifact must be made from.

use serde_json::Value;

use crate::policy::Dependency;
use crate::report::Check;

/// Each demanded dependency is there, and everything that its pattern matches has one of its digests.
pub(crate) fn check(stated: &[Value], demanded: &[Dependency]) -> Vec<Check> {
    demanded.iter().map(|one| Check::of("dependency", &found(stated, one), wrong(stated, one))).collect()
}

fn matching<'a>(stated: &'a [Value], one: &'a Dependency) -> impl Iterator<Item = (&'a str, &'a str)> {
    let text = |value: &'a Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pair = move |value| (text(value, "/uri"), text(value, "/digest/sha256"));
    stated.iter().map(pair).filter(|(uri, _)| one.uri.has(uri))
}

fn found(stated: &[Value], one: &Dependency) -> String {
    let all: Vec<String> = matching(stated, one).map(|(uri, digest)| format!("{uri} (sha256:{digest})")).collect();
    all.join(", ")
}

fn wrong(stated: &[Value], one: &Dependency) -> Option<String> {
    let demanded = one.sha256.all();
    let is_demanded = |digest: &str| demanded.is_empty() || demanded.iter().any(|one| one.eq_ignore_ascii_case(digest));
    let mut all = matching(stated, one).peekable();
    if all.peek().is_none() {
        return Some(format!("it is made from nothing that matches {}", one.uri.words()));
    }
    let (uri, digest) = all.find(|(_, digest)| !is_demanded(digest))?;
    let demanded = demanded.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(" or ");
    Some(format!("`{uri}` has the digest `{digest}`; expected {demanded}"))
}
