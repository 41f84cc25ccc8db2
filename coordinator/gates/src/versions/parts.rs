//! What the orders have in common: runs of digits and of other characters.

use std::cmp::Ordering;

/// Splits off what a text begins with, as far as a condition holds.
pub(super) fn take(text: &str, while_it_is: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !while_it_is(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Splits off the digits that a text begins with.
pub(super) fn digits(text: &str) -> (&str, &str) {
    take(text, |c| c.is_ascii_digit())
}

/// Compares two numbers of any length. None at all is zero.
pub(super) fn numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Whether a number is zero.
pub(super) fn is_zero(number: &str) -> bool {
    number.bytes().all(|digit| digit == b'0')
}
