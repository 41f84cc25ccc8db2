//! Times: which numbers and texts are times of a run, and how they are shown.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use regex::Regex;

use super::Conditions;

/// How far from a run a time may be that it left: clocks of other zones, and sources that were made shortly before.
const NEAR: i64 = 2 * 24 * 60 * 60;
/// 9999-12-31, the last day that is shown as one.
const LAST: i64 = 253_402_300_799;
/// 2001-09-09: numbers of seconds before have fewer than ten digits.
const TEN_DIGITS: i64 = 1_000_000_000;

static DATE: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        r"\b\d{4}[-/.]\d{2}[-/.]\d{2}\b",
        r"\b\d{2}[-/.]\d{2}[-/.]\d{4}\b",
        r"\b\d{1,2}:\d{2}:\d{2}\b",
        r"\b20\d{6}(T?\d{6}Z?)?\b",
        r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* +\d{1,2}\b",
    ];
    Regex::new(&patterns.join("|")).unwrap_or_else(|_| never())
});

/// A pattern that matches nothing.
#[allow(clippy::unwrap_used)]
fn never() -> Regex {
    Regex::new(r"[^\s\S]").unwrap()
}

/// Whether a text has a date or a time of day.
pub(super) fn has_date(text: &str) -> bool {
    DATE.is_match(text)
}

/// A time in seconds as it is shown: `2026-11-30 10:02:11`.
pub(super) fn shown(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(since) if seconds <= LAST => {
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(since)).unwrap_or(UNIX_EPOCH);
            humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").trim_end_matches('Z').to_owned()
        }
        _ => format!("{seconds} s"),
    }
}

/// Whether a time is one at which a run may have run.
pub(super) fn is_of(seconds: i64, run: &Conditions) -> bool {
    if run.began == 0 {
        return seconds >= TEN_DIGITS;
    }
    let (from, to) = (run.began.saturating_sub(NEAR), run.ended.max(run.began).saturating_add(NEAR));
    (from..=to).contains(&seconds)
}

/// The time that a number stands for if it is one of a run: in seconds, milliseconds, microseconds or nanoseconds.
pub(super) fn of_number(digits: &str, run: &Conditions) -> Option<i64> {
    let whole = digits.split_once('.').map_or(digits, |(whole, fraction)| {
        if fraction.bytes().all(|byte| byte.is_ascii_digit()) { whole } else { digits }
    });
    let number: i64 = whole.parse().ok()?;
    [1, 1_000, 1_000_000, 1_000_000_000]
        .into_iter()
        .filter_map(|unit| number.checked_div(unit))
        .find(|seconds| *seconds >= TEN_DIGITS && is_of(*seconds, run))
}
