//! Bytes of no known format: the texts in them, and numbers that are times.

use std::collections::HashMap;

use super::place::{Found, Place, shown};
use super::{Kind, classify, times};

/// Fewest characters of a text among bytes.
const FEWEST: usize = 4;
/// Most texts of one content.
const MAX_TEXTS: usize = 200_000;
/// Places that are looked at.
const REGIONS: usize = 200;
/// Bytes around a difference that are read as text.
const AROUND: usize = 200;

pub(super) fn compare(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let before = found.len();
    if first.len() == second.len() {
        same_size(found, place, first, second);
    } else {
        texts(found, place, first, second);
    }
    if found.len() > before {
        return;
    }
    let at = first.iter().zip(second).position(|(a, b)| a != b).unwrap_or(first.len().min(second.len()));
    let words = match first.len() == second.len() {
        true => {
            let count = first.iter().zip(second).filter(|(a, b)| a != b).count();
            format!("{count} of {} bytes differ, the first at {at}", first.len())
        }
        false => format!("{} bytes against {}, different from byte {at} on", first.len(), second.len()),
    };
    found.add(place, Kind::Content, words);
}

/// Contents of one size: what stands where they differ.
fn same_size(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let mut told = Vec::new();
    let mut at = 0;
    for _ in 0..REGIONS {
        let (Some(one), Some(other)) = (first.get(at..), second.get(at..)) else { break };
        let Some(next) = one.iter().zip(other).position(|(a, b)| a != b) else { break };
        at = at.saturating_add(next);
        let (kind, words, end) = region(first, second, at, found);
        if let Some(kind) = kind.filter(|kind| !told.contains(kind)) {
            told.push(kind);
            found.add(place, kind, format!("byte {at}: {} {words}", kind.words()));
        }
        at = end.max(at.saturating_add(1));
    }
    // The same texts at other places.
    if told.iter().all(|kind| *kind == Kind::Content) && is_reordered(&strings(first), &strings(second)) {
        found.add(place, Kind::Order, "the same texts in another order");
    }
}

/// What differs at a place, and where it ends.
fn region(first: &[u8], second: &[u8], at: usize, found: &Found<'_>) -> (Option<Kind>, String, usize) {
    if let (Some((a, end)), Some((b, _))) = (text_at(first, at), text_at(second, at)) {
        let (kind, a, b) = classify::texts(&a, &b, found.runs);
        return (Some(kind), format!("`{}` against `{}`", shown(&a), shown(&b)), end);
    }
    for start in [at.saturating_sub(3), at.saturating_sub(2), at.saturating_sub(1), at] {
        for read in [u32::from_le_bytes, u32::from_be_bytes] {
            let number = |data: &[u8]| Some(i64::from(read(*data.get(start..)?.first_chunk::<4>()?)));
            let (Some(a), Some(b)) = (number(first), number(second)) else { continue };
            if times::is_of(a, found.runs.first) && times::is_of(b, found.runs.second) && found.runs.first.began != 0 {
                let words = format!("{} against {}", times::shown(a), times::shown(b));
                return (Some(Kind::Time), words, start.saturating_add(4));
            }
        }
    }
    (None, String::new(), at.saturating_add(1))
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// The text around a place, and its end.
fn text_at(data: &[u8], at: usize) -> Option<(String, usize)> {
    let before = data.get(at.saturating_sub(AROUND)..at)?;
    let after = data.get(at..at.saturating_add(AROUND).min(data.len()))?;
    let start = before.iter().rev().take_while(|byte| is_printable(**byte)).count();
    let length = after.iter().take_while(|byte| is_printable(**byte)).count();
    if length == 0 || start.saturating_add(length) < FEWEST {
        return None;
    }
    let (from, to) = (at.saturating_sub(start), at.saturating_add(length));
    Some((String::from_utf8_lossy(data.get(from..to)?).into_owned(), to))
}

/// The texts among bytes, in their order.
fn strings(data: &[u8]) -> Vec<&str> {
    data.split(|byte| !is_printable(*byte))
        .filter(|text| text.len() >= FEWEST)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .take(MAX_TEXTS)
        .collect()
}

fn is_reordered(one: &[&str], other: &[&str]) -> bool {
    if one == other || one.len() != other.len() || one.len() < 2 {
        return false;
    }
    let sorted = |all: &[&str]| {
        let mut all: Vec<String> = all.iter().map(|text| (*text).to_owned()).collect();
        all.sort_unstable();
        all
    };
    sorted(one) == sorted(other)
}

/// Contents of different sizes: the texts that only one of them has.
fn texts(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let (one, other) = (strings(first), strings(second));
    if is_reordered(&one, &other) {
        return found.add(place, Kind::Order, "the same texts in another order");
    }
    let (left, right) = (without(&one, &other), without(&other, &one));
    let mut told = Vec::new();
    for (a, b) in left.iter().zip(&right).take(REGIONS) {
        let (kind, a, b) = classify::texts(a, b, found.runs);
        if !told.contains(&kind) {
            told.push(kind);
            found.add(place, kind, format!("{} `{}` against `{}`", kind.words(), shown(&a), shown(&b)));
        }
    }
}

fn without<'a>(texts: &[&'a str], others: &[&str]) -> Vec<&'a str> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    for text in others {
        let count = known.entry(text).or_default();
        *count = count.saturating_add(1);
    }
    let mut left = Vec::new();
    for text in texts {
        match known.get_mut(text) {
            Some(count) if *count > 0 => *count = count.saturating_sub(1),
            _ => left.push(*text),
        }
    }
    left
}
