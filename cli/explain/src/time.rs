//! Times of records, which are milliseconds since the epoch; 0 is an unknown one, and no words.

use std::time::{Duration, SystemTime};

use kiln_proto::protobuf::Timestamp;
use kiln_terminal as terminal;

/// How long ago it was, by this machine's clock; a future time counts as now.
pub(crate) fn ago(ms: i64) -> String {
    let Some(ms) = u64::try_from(ms).ok().filter(|ms| *ms > 0) else { return String::new() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    terminal::ago(now.saturating_sub(Duration::from_millis(ms)))
}

/// The time for scripts.
pub(crate) fn rfc3339(ms: i64) -> String {
    if ms > 0 { kiln_proto::clock::rfc3339(&Timestamp { seconds: ms / 1000, nanos: 0 }) } else { String::new() }
}
