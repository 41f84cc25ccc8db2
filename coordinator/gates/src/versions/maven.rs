//! Maven's order. Source: Maven's POM reference, "Version Order Specification".

use std::cmp::Ordering;

use super::parts::{is_zero, numbers, take};

/// Qualifiers in their order; the empty one is the release itself. Unknown ones come after all of these.
const QUALIFIERS: [&str; 7] = ["alpha", "beta", "milestone", "rc", "snapshot", "", "sp"];
const RELEASE: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(&'a str),
    /// Its place in the order, and its name where it is unknown.
    Qualifier(usize, &'a str),
}

impl Value<'_> {
    /// Whether it adds nothing where it is the last.
    fn is_null(&self) -> bool {
        match self {
            Self::Number(number) => is_zero(number),
            Self::Qualifier(place, _) => *place == RELEASE,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    after_hyphen: bool,
    value: Value<'a>,
}

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let is_version = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+".contains(c))
    };
    if !is_version(&a) || !is_version(&b) {
        return None;
    }
    let (a, b) = (tokens(&a), tokens(&b));
    let most = a.len().max(b.len());
    let order = (0..most).map(|at| match (a.get(at), b.get(at)) {
        (Some(a), Some(b)) => by_token(*a, *b),
        (Some(a), None) => by_token(*a, filler(*a)),
        (None, Some(b)) => by_token(filler(*b), *b),
        (None, None) => Ordering::Equal,
    });
    Some(order.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal))
}

/// What the shorter version has in the place of a token of the longer one.
fn filler(other: Token<'_>) -> Token<'static> {
    let value = match other.value {
        Value::Number(_) => Value::Number("0"),
        Value::Qualifier(..) => Value::Qualifier(RELEASE, ""),
    };
    Token { after_hyphen: other.after_hyphen, value }
}

fn by_token(a: Token<'_>, b: Token<'_>) -> Ordering {
    let class = |token: Token<'_>| match (token.value, token.after_hyphen) {
        (Value::Qualifier(..), _) => 0,
        (Value::Number(_), true) => 1,
        (Value::Number(_), false) => 2,
    };
    match (a.value, b.value) {
        (Value::Number(one), Value::Number(other)) => class(a).cmp(&class(b)).then_with(|| numbers(one, other)),
        (Value::Qualifier(one, name), Value::Qualifier(other, its)) => one.cmp(&other).then_with(|| name.cmp(its)),
        _ => class(a).cmp(&class(b)),
    }
}

/// The numbers and qualifiers of a version, without those that add nothing at its end or before a hyphen.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut after_hyphen) = (Vec::new(), text, false);
    loop {
        let is_number = rest.starts_with(|c: char| c.is_ascii_digit());
        let (token, left) = match is_number {
            true => take(rest, |c| c.is_ascii_digit()),
            false => take(rest, |c| !c.is_ascii_digit() && c != '.' && c != '-'),
        };
        let before_number = left.starts_with(|c: char| c.is_ascii_digit());
        let value = match token {
            "" => Value::Number("0"),
            _ if is_number => Value::Number(token),
            _ => qualifier(token, before_number),
        };
        found.push(Token { after_hyphen, value });
        match left.chars().next() {
            None => break,
            Some('.') => (rest, after_hyphen) = (left.get(1..).unwrap_or_default(), false),
            Some('-') => (rest, after_hyphen) = (left.get(1..).unwrap_or_default(), true),
            // From a digit to a letter or back is as a hyphen.
            Some(_) => (rest, after_hyphen) = (left, true),
        }
    }
    trimmed(found)
}

fn trimmed(all: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut kept: Vec<Token<'_>> = Vec::new();
    let mut ends = true;
    for token in all.into_iter().rev() {
        if ends && token.value.is_null() {
            // What follows it, if anything does, still begins with its hyphen.
            continue;
        }
        ends = token.after_hyphen;
        kept.push(token);
    }
    kept.reverse();
    kept
}

fn qualifier(name: &str, before_number: bool) -> Value<'_> {
    let known = match name {
        "a" if before_number => "alpha",
        "b" if before_number => "beta",
        "m" if before_number => "milestone",
        "cr" => "rc",
        "ga" | "final" | "release" => "",
        other => other,
    };
    match QUALIFIERS.iter().position(|qualifier| *qualifier == known) {
        Some(place) => Value::Qualifier(place, ""),
        None => Value::Qualifier(QUALIFIERS.len(), name),
    }
}
