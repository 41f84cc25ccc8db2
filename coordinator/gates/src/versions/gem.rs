//! RubyGems' order. Source: the documentation of `Gem::Version`.

use std::cmp::Ordering;

use super::parts::{digits, is_zero, numbers, take};

enum Segment<'a> {
    Number(&'a str),
    Text(&'a str),
}

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    // What follows a hyphen is before the release.
    let (a, b) = (a.replace('-', ".pre."), b.replace('-', ".pre."));
    let (a, b) = (segments(&a)?, segments(&b)?);
    let most = a.len().max(b.len());
    let order = (0..most).map(|at| match (a.get(at), b.get(at)) {
        (Some(Segment::Number(a)), Some(Segment::Number(b))) => numbers(a, b),
        (Some(Segment::Text(a)), Some(Segment::Text(b))) => a.cmp(b),
        (Some(Segment::Text(_)), _) => Ordering::Less,
        (_, Some(Segment::Text(_))) => Ordering::Greater,
        (Some(Segment::Number(a)), None) => numbers(a, "0"),
        (None, Some(Segment::Number(b))) => numbers("0", b),
        (None, None) => Ordering::Equal,
    });
    Some(order.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal))
}

/// Its numbers and texts, without the zeros before a text and at the end.
fn segments(text: &str) -> Option<Vec<Segment<'_>>> {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    if !is_plain || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut found: Vec<Segment<'_>> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.trim_start_matches('.');
        let (number, left) = digits(rest);
        if !number.is_empty() {
            found.push(Segment::Number(number));
            rest = left;
            continue;
        }
        let (word, left) = take(rest, |c| c.is_ascii_alphabetic());
        if !word.is_empty() {
            trim(&mut found);
            found.push(Segment::Text(word));
        }
        rest = left;
    }
    trim(&mut found);
    Some(found)
}

fn trim(segments: &mut Vec<Segment<'_>>) {
    while matches!(segments.last(), Some(Segment::Number(number)) if is_zero(number)) {
        segments.pop();
    }
}
