//! Wall-clock times and durations in the types of REAPI's and Kiln's messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protobuf;

/// A point in time. Times before 1970 become 1970.
pub fn timestamp(at: SystemTime) -> protobuf::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    protobuf::Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// Reads a point in time; `None` if it is before 1970 or out of range.
pub fn read_timestamp(at: &protobuf::Timestamp) -> Option<SystemTime> {
    let (seconds, nanos) = (u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
    let since = (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))?;
    UNIX_EPOCH.checked_add(since)
}

/// The current time.
pub fn now() -> protobuf::Timestamp {
    timestamp(SystemTime::now())
}

/// A time as text, in RFC 3339.
pub fn rfc3339(at: &protobuf::Timestamp) -> String {
    prost_types::Timestamp { seconds: at.seconds, nanos: at.nanos }.to_string()
}

/// A duration.
pub fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

/// Reads a duration; `None` if it is negative or out of range.
pub fn read_duration(duration: &protobuf::Duration) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(duration.seconds).ok()?, u32::try_from(duration.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Milliseconds between two times; 0 if one is absent or they are in the wrong order.
pub fn milliseconds_between(from: Option<&protobuf::Timestamp>, to: Option<&protobuf::Timestamp>) -> u64 {
    let (Some(from), Some(to)) = (from, to) else { return 0 };
    let nanos = |time: &protobuf::Timestamp| {
        i128::from(time.seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(time.nanos))
    };
    let milliseconds = nanos(to).saturating_sub(nanos(from)).max(0) / 1_000_000;
    u64::try_from(milliseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_any_two_times_is_known() {
        let at = |seconds, nanos| protobuf::Timestamp { seconds, nanos };
        let between = |from, to| milliseconds_between(Some(&from), Some(&to));
        assert_eq!(between(at(1, 900_000_000), at(3, 100_000_000)), 1200);
        assert_eq!(between(at(3, 0), at(1, 0)), 0);
        // A worker may write anything.
        assert_eq!(between(at(i64::MIN, i32::MIN), at(i64::MAX, i32::MAX)), u64::MAX);
        assert_eq!(between(at(i64::MAX, 0), at(i64::MIN, 0)), 0);
        assert_eq!(milliseconds_between(None, Some(&at(1, 0))), 0);
    }
}
