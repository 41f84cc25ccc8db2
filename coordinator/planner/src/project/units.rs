//! Sizes, durations and versions in `kiln.toml`.

use std::time::Duration;

/// What a size should look like, for errors.
pub(crate) const SIZE: &str = "a size such as `512MiB` or `2GiB`, more than zero";
/// What a size that Kiln finds out is written as.
pub(crate) const AUTO: &str = "auto";
/// What a size that may be that should look like, for errors.
pub(crate) const SIZE_OR_AUTO: &str = "`\"auto\"`, or a size such as `512MiB` or `2GiB`, more than zero";
/// What a duration should look like, for errors.
pub(crate) const DURATION: &str = "a duration such as `90s`, `20m` or `2h`, more than zero";

/// Bytes: a whole number with a unit, because a number without one is usually a mistake.
pub(crate) fn read_size(text: &str) -> Option<u64> {
    let is_plain = text.ends_with(|c: char| c.is_ascii_alphabetic()) && !text.contains('.');
    is_plain.then(|| kiln_units::size(text).ok()).flatten()
}

/// A duration greater than zero.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    kiln_units::duration(text).ok().filter(|duration| !duration.is_zero())
}

/// Parses `2.36` into major and minor.
pub(crate) fn read_glibc(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_its_unit_and_nothing_is_none() {
        assert_eq!(read_size("2 GiB"), Some(2 << 30));
        assert_eq!(read_duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "2", "GiB", "2gib", "-1GiB", "0GiB", "2.5GiB"] {
            assert_eq!(read_size(bad), None, "{bad}");
        }
        assert_eq!(read_duration("0s"), None);
        assert_eq!((read_glibc("2.36"), read_glibc("2")), (Some((2, 36)), None));
    }
}
