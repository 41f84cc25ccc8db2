//! dpkg's order. Source: Debian Policy 5.6.12, `deb-version(7)`.

use std::cmp::Ordering;

use super::parts::{digits, numbers, take};

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let ((epoch_a, upstream_a, revision_a), (epoch_b, upstream_b, revision_b)) = (split(a)?, split(b)?);
    let order = numbers(epoch_a, epoch_b).then_with(|| parts(upstream_a, upstream_b));
    Some(order.then_with(|| parts(revision_a, revision_b)))
}

/// The epoch, the upstream version and the revision.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+-~:".contains(c);
    if !text.chars().all(allowed) {
        return None;
    }
    let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    let is_epoch = !epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_digit());
    (is_epoch && upstream.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some((epoch, upstream, revision))
}

/// Compares runs of other characters and of digits in turn.
fn parts(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let ((text_a, rest_a), (text_b, rest_b)) = (other(a), other(b));
        let ((number_a, left_a), (number_b, left_b)) = (digits(rest_a), digits(rest_b));
        let order = texts(text_a, text_b).then_with(|| numbers(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (left_a, left_b);
    }
    Ordering::Equal
}

fn other(text: &str) -> (&str, &str) {
    take(text, |c| !c.is_ascii_digit())
}

/// A tilde comes before the end, letters after it, and everything else after letters.
fn texts(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (next_a, next_b) = (a.next(), b.next());
        let order = weight(next_a).cmp(&weight(next_b));
        if order != Ordering::Equal || next_a.is_none() {
            return order;
        }
    }
}
