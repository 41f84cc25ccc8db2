//! Sizes, durations and versions as people write them.
//!
//! Invariant: what a `show_` function writes, its `read_` counterpart reads back to the same value.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];
const TIMES: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// What a size should look like, for errors.
pub(crate) const SIZE: &str = "a size such as `512MiB` or `2GiB`, more than zero";
/// What a duration should look like, for errors.
pub(crate) const DURATION: &str = "a duration such as `90s`, `20m` or `2h`, more than zero";

/// `2GiB`, `512MB`, `100B`: bytes.
pub(crate) fn read_size(text: &str) -> Option<u64> {
    let (number, factor) = split(text, &SIZES)?;
    let bytes = number.checked_mul(factor)?;
    (bytes > 0).then_some(bytes)
}

/// The size in the largest unit that holds it whole.
pub(crate) fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZES[..4].iter().find(|(_, f)| bytes.is_multiple_of(*f)).unwrap_or(&SIZES[8]);
    format!("{}{unit}", bytes / factor)
}

/// `90s`, `20m`, `1h30m`, `250ms`.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let (number, factor) = split(&rest[..letters], &TIMES)?;
        total_ms = total_ms.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[letters..];
    }
    (total_ms > 0).then(|| Duration::from_millis(total_ms))
}

/// The duration in the largest unit that holds it whole, to the millisecond.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    let (unit, factor) = TIMES[2..].iter().find(|(_, f)| ms.is_multiple_of(*f)).unwrap_or(&TIMES[0]);
    format!("{}{unit}", ms / factor)
}

/// `2.36`: major and minor.
pub(crate) fn read_glibc(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn split(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = text[digits..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some((text[..digits].parse().ok()?, *factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_read_as_people_write_them() {
        assert_eq!(read_size("2GiB"), Some(2 << 30));
        assert_eq!(read_size("2 GiB"), Some(2 << 30));
        assert_eq!(read_size("500MB"), Some(500_000_000));
        assert_eq!(read_duration("20m"), Some(Duration::from_secs(1200)));
        assert_eq!(read_duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "2", "GiB", "2gib", "-1GiB", "0GiB", "2.5GiB", "99999999999TiB", "é"] {
            assert_eq!(read_size(bad), None, "{bad}");
        }
        for bad in ["", "20", "m", "20x", "0s", "1h30", "99999999999999999999d", "é1s"] {
            assert_eq!(read_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 1u64.., ms in 1u64..1 << 50) {
            prop_assert_eq!(read_size(&show_size(bytes)), Some(bytes));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(read_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (read_size(&text), read_duration(&text), read_glibc(&text));
        }
    }
}
