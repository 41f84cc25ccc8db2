//! Time since a moment of this process, with the time for which its machine was suspended.
//!
//! A monotonic clock stands still meanwhile, and a lease does not. Whatever else the clock of the runtime does, as in a simulation, this one
//! does too.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::holder::Moment;

/// A clock that began when it was made. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    /// For how long the machine had been suspended when it began.
    suspended: Duration,
    read: fn() -> Duration,
}

impl Clock {
    pub(crate) fn begin() -> Self {
        Self::reading(suspended)
    }

    /// One that reads for how long the machine was suspended by this.
    fn reading(read: fn() -> Duration) -> Self {
        Self { began: Instant::now(), suspended: read(), read }
    }

    pub(crate) fn now(&self) -> Moment {
        self.began.elapsed() + (self.read)().saturating_sub(self.suspended)
    }

    /// How long it is until then; nothing if that is past.
    pub(crate) fn until(&self, moment: Moment) -> Duration {
        moment.saturating_sub(self.now())
    }
}

/// For how long the machine has been suspended since it started.
fn suspended() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order, so that time between the two does not count.
    let with_it = read(ClockId::Boottime);
    with_it.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_while_the_machine_is_suspended() {
        static SUSPENDED: AtomicU64 = AtomicU64::new(100);
        let clock = Clock::reading(|| Duration::from_secs(SUSPENDED.load(Ordering::Relaxed)));
        assert_eq!(clock.now(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(2)).await;
        SUSPENDED.store(160, Ordering::Relaxed);
        assert_eq!(clock.now(), Duration::from_secs(62));
        assert_eq!(clock.until(Duration::from_secs(65)), Duration::from_secs(3));
        assert_eq!(clock.until(Duration::from_secs(60)), Duration::ZERO);
    }
}
