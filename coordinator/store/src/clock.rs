//! The time of day as a parameter, so that what is kept for a month can be tested in a second.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970: when something was used last.
pub type Stamp = u64;

/// Where the stores take the time from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's own.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that says what `now` says.
    pub fn of(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Stamp {
        stamp((self.0)())
    }

    /// The time `age` ago, or 1970 where that is later.
    pub(crate) fn ago(&self, age: Duration) -> Stamp {
        self.now().saturating_sub(millis(age))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A time as a stamp; 0 where it is before 1970.
pub(crate) fn stamp(time: SystemTime) -> Stamp {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// A duration in stamps' units.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
