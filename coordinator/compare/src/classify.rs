//! What two different words come from, by what they look like and by the conditions of the runs.

use std::sync::LazyLock;

use regex::Regex;

use super::{Conditions, Kind, Runs, times};

/// Longest text that is read as a whole.
const LONGEST: usize = 1 << 20;
/// Bytes on each side of the first difference that are read of a longer one.
const AROUND: usize = 4 << 10;
/// Digits of a number that is a hash rather than a count.
const HASH_DIGITS: usize = 15;

fn pattern(text: &str) -> Regex {
    #[allow(clippy::unwrap_used)]
    Regex::new(text).unwrap()
}

static ADDRESS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(0x[0-9a-fA-F]{5,16}|@[0-9a-f]{5,8}|(7f|55|56)[0-9a-f]{10})$"));
static ADDRESS_WITHIN: LazyLock<Regex> = LazyLock::new(|| pattern(r"0x[0-9a-fA-F]{5,16}|@[0-9a-f]{5,8}\b"));
static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-f]{16,128}")
});
static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d+"));
static TOKEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9_./:+@~%-]+"));
static SECONDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d{10,19}(\.\d+)?"));

/// The first pair of words that differ between two texts, and what they come from. The whole texts are classified where they
/// do not consist of as many words.
pub(super) fn texts(first: &str, second: &str, runs: Runs<'_>) -> (Kind, String, String) {
    let (first, second) = near(first, second);
    if let Some(kind) = by_conditions(first, second, runs) {
        let (a, b) = differing(first, second).unwrap_or((first, second));
        return (kind, a.to_owned(), b.to_owned());
    }
    if same_words(first, second) {
        return (Kind::Order, first.to_owned(), second.to_owned());
    }
    let (one, other) = (words(first), words(second));
    if one.len() == other.len() {
        let differ = one.iter().zip(&other).filter(|(a, b)| a != b);
        let kinds = differ.map(|(a, b)| (word(a, b, runs), (*a).to_owned(), (*b).to_owned()));
        // What says most: anything rather than `content`.
        if let Some(best) = kinds.min_by_key(|(kind, ..)| *kind) {
            return best;
        }
    }
    (whole(first, second, runs), first.to_owned(), second.to_owned())
}

/// What is near the first difference of two texts that are too long to be read as a whole.
fn near<'a>(first: &'a str, second: &'a str) -> (&'a str, &'a str) {
    if first.len().max(second.len()) <= LONGEST {
        return (first, second);
    }
    let same = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
    let at = |text: &str, wanted: usize| {
        (0..=wanted.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
    };
    let cut = |text: &'a str| {
        let (from, to) = (same.saturating_sub(AROUND), same.saturating_add(AROUND));
        text.get(at(text, from)..at(text, to)).unwrap_or_default()
    };
    (cut(first), cut(second))
}

fn words(text: &str) -> Vec<&str> {
    TOKEN.find_iter(text).map(|found| found.as_str()).collect()
}

fn differing<'a>(first: &'a str, second: &'a str) -> Option<(&'a str, &'a str)> {
    let (one, other) = (words(first), words(second));
    if one.len() != other.len() {
        return None;
    }
    one.into_iter().zip(other).find(|(a, b)| a != b)
}

/// What is named by the conditions: the host's name, where each run has its own.
fn by_conditions(first: &str, second: &str, runs: Runs<'_>) -> Option<Kind> {
    let (a, b) = (&runs.first.host_name, &runs.second.host_name);
    let has = |text: &str, name: &str| !name.is_empty() && text.contains(name);
    let is_host = a != b && has(second, b) && has(first, a) && !has(first, b);
    is_host.then_some(Kind::HostName)
}

/// What two words come from.
fn word(first: &str, second: &str, runs: Runs<'_>) -> Kind {
    if is_time(first, runs.first) && is_time(second, runs.second) {
        return Kind::Time;
    }
    if let (Some(a), Some(b)) = (count(first), count(second))
        && runs.first.cpus != 0
        && (a, b) == (runs.first.cpus, runs.second.cpus)
    {
        return Kind::Cpus;
    }
    let both = |pattern: &Regex| pattern.is_match(first) && pattern.is_match(second);
    if both(&ADDRESS) || both(&ADDRESS_WITHIN) || (is_hash(first) && is_hash(second)) {
        return Kind::Address;
    }
    if both(&IDENTIFIER) {
        return Kind::BuildId;
    }
    let is_path = |text: &str| text.contains('/') && !text.contains("://") && text.len() > 2;
    if is_path(first) && is_path(second) {
        return Kind::Path;
    }
    Kind::Content
}

/// What two texts come from that are made of different words.
fn whole(first: &str, second: &str, runs: Runs<'_>) -> Kind {
    let both = |is: &dyn Fn(&str, &Conditions) -> bool| is(first, runs.first) && is(second, runs.second);
    if both(&|text, run| times::has_date(text) || has_seconds(text, run)) {
        return Kind::Time;
    }
    if both(&|text, _| ADDRESS_WITHIN.is_match(text)) {
        return Kind::Address;
    }
    Kind::Content
}

fn is_time(text: &str, run: &Conditions) -> bool {
    times::has_date(text) || has_seconds(text, run)
}

fn has_seconds(text: &str, run: &Conditions) -> bool {
    SECONDS.find_iter(text).take(100).any(|found| times::of_number(found.as_str(), run).is_some())
}

/// The number in a word such as `2`, `-j2` or `cpus:2`.
fn count(text: &str) -> Option<u32> {
    let mut numbers = NUMBER.find_iter(text);
    let only = numbers.next()?;
    if numbers.next().is_some() {
        return None;
    }
    only.as_str().parse().ok()
}

fn is_hash(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    digits.len() >= HASH_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether two texts have the same words, each as often.
fn same_words(first: &str, second: &str) -> bool {
    let sorted = |text| {
        let mut all = words(text);
        all.sort_unstable();
        all
    };
    let (one, other) = (sorted(first), sorted(second));
    one.len() > 1 && one == other
}
