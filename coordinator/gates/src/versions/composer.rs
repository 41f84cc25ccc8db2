//! Composer's order, which is PHP's. Source: the documentation of `version_compare` and of Composer's stability suffixes.

use std::cmp::Ordering;

use super::parts::{digits, numbers, take};

/// What a part is: forms before a release, numbers, patches.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Form {
    Dev,
    Alpha,
    Beta,
    Candidate,
    /// No part at all: the release.
    End,
    Number,
    Patch,
}

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (parts(a)?, parts(b)?);
    let end = (Form::End, "");
    let most = a.len().max(b.len());
    let order = (0..most).map(|at| {
        let (a, b) = (a.get(at).unwrap_or(&end), b.get(at).unwrap_or(&end));
        a.0.cmp(&b.0).then_with(|| numbers(a.1, b.1))
    });
    Some(order.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal))
}

/// The parts of a version; `None` for a branch, which has no place in the order.
fn parts(text: &str) -> Option<Vec<(Form, &str)>> {
    let text = text.split('+').next().unwrap_or_default();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        rest = rest.trim_start_matches(['.', '-', '_']);
        let (number, left) = digits(rest);
        if !number.is_empty() {
            found.push((Form::Number, number));
            rest = left;
            continue;
        }
        let (word, left) = take(rest, |c| c.is_ascii_alphabetic());
        match form(word) {
            Some(form) => found.push((form, "")),
            None if word.is_empty() && left.is_empty() => {}
            None => return None,
        }
        rest = left;
    }
    // `1.0` and `1.0.0` are the same release.
    let first = found.iter().position(|(form, _)| *form != Form::Number).unwrap_or(found.len());
    for _ in first..4 {
        found.insert(first.min(found.len()), (Form::Number, "0"));
    }
    Some(found)
}

fn form(word: &str) -> Option<Form> {
    match word.to_ascii_lowercase().as_str() {
        "dev" => Some(Form::Dev),
        "a" | "alpha" => Some(Form::Alpha),
        "b" | "beta" => Some(Form::Beta),
        "rc" => Some(Form::Candidate),
        "p" | "pl" | "patch" => Some(Form::Patch),
        _ => None,
    }
}
