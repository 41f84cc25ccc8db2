//! Wall-clock times and durations in the types of REAPI's and Kiln's messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protobuf;

/// A point in time in REAPI's type. Times before 1970 become 1970.
pub fn timestamp(at: SystemTime) -> protobuf::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    protobuf::Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// The current time in REAPI's type.
pub fn now() -> protobuf::Timestamp {
    timestamp(SystemTime::now())
}

/// The current time in the type of Kiln's own messages.
pub fn kiln_now() -> prost_types::Timestamp {
    let now = now();
    prost_types::Timestamp { seconds: now.seconds, nanos: now.nanos }
}

/// A duration in REAPI's type.
pub fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

/// Reads a duration; `None` if it is negative or out of range.
pub fn read_duration(duration: &protobuf::Duration) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(duration.seconds).ok()?, u32::try_from(duration.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Milliseconds between two of Kiln's times; 0 if one is absent or they are in the wrong order.
pub fn milliseconds_between(from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>) -> u64 {
    let (Some(from), Some(to)) = (from, to) else { return 0 };
    let milliseconds = (to.seconds - from.seconds) * 1000 + i64::from(to.nanos - from.nanos) / 1_000_000;
    u64::try_from(milliseconds).unwrap_or(0)
}
