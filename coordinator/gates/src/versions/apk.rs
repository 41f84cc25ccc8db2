//! Alpine's order. Source: apk-tools, `apk-package(5)`, "Package version".

use std::cmp::Ordering;

use super::parts::{digits, numbers, take};

/// Suffixes in their order; what has none is between the first four and the others.
const BEFORE: [&str; 4] = ["alpha", "beta", "pre", "rc"];
const AFTER: [&str; 5] = ["cvs", "svn", "git", "hg", "p"];

struct Version<'a> {
    numbers: Vec<&'a str>,
    letter: Option<char>,
    /// The rank and the number of each.
    suffixes: Vec<(usize, &'a str)>,
    revision: &'a str,
}

/// The rank of no suffix.
const NONE: usize = BEFORE.len();

fn rank(suffix: &str) -> Option<usize> {
    let before = BEFORE.iter().position(|known| *known == suffix);
    let after = AFTER.iter().position(|known| *known == suffix);
    before.or(after.map(|at| at.saturating_add(NONE).saturating_add(1)))
}

fn read(text: &str) -> Option<Version<'_>> {
    let (text, revision) = match text.split_once("-r") {
        Some((text, revision)) if digits(revision).1.is_empty() => (text, revision),
        Some(_) => return None,
        None => (text, ""),
    };
    let mut pieces = text.split('_');
    let (numbers, rest) = take(pieces.next()?, |c| c.is_ascii_digit() || c == '.');
    let numbers: Vec<&str> = numbers.split('.').collect();
    let mut letters = rest.chars();
    let letter = letters.next();
    let is_plain = numbers.iter().all(|number| !number.is_empty());
    if !is_plain || letters.next().is_some() || letter.is_some_and(|c| !c.is_ascii_lowercase()) {
        return None;
    }
    let suffix = |piece| {
        let (name, number) = take(piece, |c| c.is_ascii_lowercase());
        digits(number).1.is_empty().then_some((rank(name)?, number))
    };
    Some(Version { numbers, letter, suffixes: pieces.map(suffix).collect::<Option<_>>()?, revision })
}

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (read(a)?, read(b)?);
    let order = by_numbers(&a.numbers, &b.numbers).then_with(|| a.letter.cmp(&b.letter));
    let order = order.then_with(|| by_suffixes(&a.suffixes, &b.suffixes));
    Some(order.then_with(|| numbers(a.revision, b.revision)))
}

fn by_numbers(a: &[&str], b: &[&str]) -> Ordering {
    for (place, (a, b)) in a.iter().zip(b).enumerate() {
        // What begins with a zero is a fraction, but for the first.
        let is_fraction = place > 0 && (a.starts_with('0') || b.starts_with('0'));
        let order = if is_fraction { a.cmp(b) } else { numbers(a, b) };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn by_suffixes(a: &[(usize, &str)], b: &[(usize, &str)]) -> Ordering {
    let most = a.len().max(b.len());
    (0..most)
        .map(|at| {
            let (a, b) = (a.get(at).unwrap_or(&(NONE, "")), b.get(at).unwrap_or(&(NONE, "")));
            a.0.cmp(&b.0).then_with(|| numbers(a.1, b.1))
        })
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}
