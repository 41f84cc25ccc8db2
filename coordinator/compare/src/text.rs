//! Texts: the lines that differ.

use std::collections::HashMap;

use super::place::{Found, Place, shown};
use super::{Kind, classify};

/// Most lines that are looked at.
const MAX_LINES: usize = 1_000_000;
/// Pairs of lines that are classified.
const PAIRS: usize = 2_000;

pub(super) fn compare(found: &mut Found<'_>, place: &Place, first: &str, second: &str) {
    let (one, other): (Vec<&str>, Vec<&str>) =
        (first.lines().take(MAX_LINES).collect(), second.lines().take(MAX_LINES).collect());
    if one.len() > 1 && is_permutation(&one, &other) {
        let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap_or_default();
        let (a, b) = (one.get(at).unwrap_or(&""), other.get(at).unwrap_or(&""));
        let line = at.saturating_add(1);
        let words = format!("the same lines in another order: line {line} is `{}` against `{}`", shown(a), shown(b));
        return found.add(place, Kind::Order, words);
    }
    if one.len() == other.len() {
        return by_line(found, place, &one, &other);
    }
    // Lines that the other text has somewhere as well say nothing.
    let (left, right) = (without(&one, &other), without(&other, &one));
    by_line(found, place, &left, &right);
    let (a, b) = (one.len(), other.len());
    if let Some(line) = left.get(right.len()).or_else(|| right.get(left.len())) {
        found.add(place, Kind::Content, format!("{a} lines against {b}: only one run has `{}`", shown(line)));
    }
}

/// One difference of each kind, of the first line that has it.
fn by_line(found: &mut Found<'_>, place: &Place, one: &[&str], other: &[&str]) {
    let mut told = Vec::new();
    let differ = one.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b);
    for (at, (a, b)) in differ.take(PAIRS) {
        let (kind, a, b) = classify::texts(a, b, found.runs);
        if !told.contains(&kind) {
            told.push(kind);
            let line = at.saturating_add(1);
            found.add(place, kind, format!("line {line}: {} `{}` against `{}`", kind.words(), shown(&a), shown(&b)));
        }
    }
}

fn counted<'a>(lines: &[&'a str]) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for line in lines {
        let count = counts.entry(*line).or_insert(0_usize);
        *count = count.saturating_add(1);
    }
    counts
}

fn is_permutation(one: &[&str], other: &[&str]) -> bool {
    one.len() == other.len() && counted(one) == counted(other)
}

/// The lines of the first that the second does not have.
fn without<'a>(lines: &[&'a str], others: &[&str]) -> Vec<&'a str> {
    let mut known = counted(others);
    let is_left = |line: &&&'a str| match known.get_mut(**line) {
        Some(count) if *count > 0 => {
            *count = count.saturating_sub(1);
            false
        }
        _ => true,
    };
    lines.iter().filter(is_left).copied().collect()
}
