//! Parses and formats sizes and durations: `512MiB`, `1h30m`.
//!
//! Used for command lines, variables and `kiln.toml`. Crates for this accept more than Kiln should: for `humantime`,
//! `30M` is thirty months. Invariant: what a `show_` function writes, its counterpart parses to the same value.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

const SIZES: [(&str, u64); 14] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
];
/// Number of units used to show a size, largest first.
const SHOWN_SIZES: usize = 5;
/// Units in milliseconds.
const TIMES: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Upper limit of sizes, so that sums of a few do not overflow.
const MAX_BYTES: f64 = 1e18;
/// The longest duration of Protocol Buffers (`google.protobuf.Duration`), about 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// The size limit of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many bytes.
    Bytes(u64),
    /// A fifth of the free disk space when the store opens, counting its own blobs as free, and at most 50 GiB.
    Share,
}

impl From<u64> for Bound {
    fn from(bytes: u64) -> Self {
        Self::Bytes(bytes)
    }
}

/// Text that is not a size or duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid size `{text}`: expected a number and a unit, such as `512MiB` or `50GiB`")]
    Size { text: String },
    #[error("invalid duration `{text}`: expected a number and a unit, such as `90s`, `45m`, `12h` or `30d`")]
    Duration { text: String },
}

/// Parses the limit of a store: a size, or `auto` for a share of the disk.
///
/// # Errors
/// [`Error::Size`]
pub fn bound(text: &str) -> Result<Bound, Error> {
    if text == "auto" { Ok(Bound::Share) } else { size(text).map(Bound::Bytes) }
}

/// Parses a size in bytes: a number, optionally with a fraction and a unit; greater than zero.
///
/// # Errors
/// [`Error::Size`]
pub fn size(text: &str) -> Result<u64, Error> {
    let read = || {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(end)?;
        let (number, unit): (f64, &str) = (digits.parse().ok()?, unit.trim());
        let factor = if unit.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == unit)?.1 };
        // Whole numbers are exact, however large.
        let bytes = match digits.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor)?,
            Err(_) => (number * factor as f64) as u64,
        };
        (bytes > 0 && (bytes as f64) < MAX_BYTES).then_some(bytes)
    };
    read().ok_or_else(|| Error::Size { text: text.to_owned() })
}

/// Parses a duration: one or more numbers with units.
///
/// # Errors
/// [`Error::Duration`]
pub fn duration(text: &str) -> Result<Duration, Error> {
    let read = || {
        let mut rest = text;
        let mut total_ms: u64 = 0;
        while !rest.is_empty() {
            let (digits, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at_checked(end)?;
            let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
            total_ms = total_ms.checked_add(digits.parse::<u64>().ok()?.checked_mul(*factor)?)?;
            rest = after;
        }
        (!text.is_empty() && total_ms / 1000 < MAX_SECONDS).then(|| Duration::from_millis(total_ms))
    };
    read().ok_or_else(|| Error::Duration { text: text.to_owned() })
}

/// The limit of a store, as [`bound`] parses it.
pub fn show_bound(bound: Bound) -> String {
    match bound {
        Bound::Bytes(bytes) => show_size(bytes),
        Bound::Share => "auto".to_owned(),
    }
}

/// A size in the largest binary unit in which it is a whole number.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZES.iter().take(SHOWN_SIZES).find(|(_, f)| bytes.is_multiple_of(*f)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes.checked_div(*factor).unwrap_or(bytes))
}

/// A duration in the largest of hours, minutes, seconds and milliseconds in which it is a whole number.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    let (unit, factor) = TIMES.iter().skip(2).find(|(_, f)| ms.is_multiple_of(*f)).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms.checked_div(*factor).unwrap_or(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units() {
        let expected = [
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("45m", 2_700),
            ("0s", 0),
            ("1w", 604_800),
            ("1h30m", 5_400),
            ("5000ms", 5),
        ];
        for (text, seconds) in expected {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        let wrong = [
            "",
            "30",
            "d",
            "-1d",
            "1.5d",
            "1y",
            "1 d",
            "20x",
            "1h30",
            "é1s",
            "99999999999999d",
            "99999999999999999999d",
        ];
        for bad in wrong {
            assert!(duration(bad).is_err(), "expected `{bad}` to be refused");
        }
    }

    #[test]
    fn sizes_have_units() {
        let expected = [
            ("50GiB", 50 << 30),
            ("2 GiB", 2 << 30),
            ("1.5MiB", 3 << 19),
            ("10MB", 10_000_000),
            ("7", 7),
            ("3K", 3072),
        ];
        for (text, bytes) in expected {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "0", "-1", "1XB", "1..2M", "2gib", "99999999999TiB", "é", "9e9"] {
            assert!(size(bad).is_err(), "expected `{bad}` to be refused");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 1u64..1 << 59, ms in 0u64..1 << 48) {
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let time = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (size(&text), duration(&text));
        }
    }
}
