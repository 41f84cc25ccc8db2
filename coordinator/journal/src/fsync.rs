//! When what was written has to be on the disk.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How often a journal is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// At every commit.
    Always,
    /// At durable commits, and this long after any other.
    Interval(Duration),
    /// Never: a power cut may leave a journal that cannot be opened.
    Never,
}

/// The interval if none is given.
const INTERVAL: Duration = Duration::from_secs(1);

impl Default for Fsync {
    fn default() -> Self {
        Self::Interval(INTERVAL)
    }
}

/// A policy that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid fsync policy `{0}`: expected `always`, `interval`, `interval=TIME` such as `interval=5s`, or `never`")]
pub struct Error(String);

impl FromStr for Fsync {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "always" => Ok(Self::Always),
            "interval" => Ok(Self::default()),
            "never" => Ok(Self::Never),
            _ => {
                let time = text.strip_prefix("interval=").and_then(|time| kiln_units::duration(time).ok());
                time.filter(|time| !time.is_zero()).map(Self::Interval).ok_or_else(|| Error(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => formatter.write_str("always"),
            Self::Interval(INTERVAL) => formatter.write_str("interval"),
            Self::Interval(time) => write!(formatter, "interval={}ms", time.as_millis()),
            Self::Never => formatter.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_back_as_it_is_shown() {
        for text in ["always", "interval", "interval=250ms", "never"] {
            assert_eq!(text.parse::<Fsync>().unwrap().to_string(), text);
        }
        for text in ["", "sometimes", "interval=", "interval=0s", "interval=soon"] {
            let refused = text.parse::<Fsync>().unwrap_err().to_string();
            assert!(refused.contains("`always`") && refused.contains(&format!("`{text}`")), "{refused}");
        }
    }
}
