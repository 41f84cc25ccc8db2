//! The progress of scans and transfers, shown if they take longer than a moment.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use kiln_proto::meter::Meter;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Show;
use kiln_terminal::{duration, size};

/// Shorter work is not shown.
const MOMENT: Duration = Duration::from_secs(1);
/// Interval between updates.
const EVERY: Duration = Duration::from_millis(200);

/// The progress of a scan or a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The activity, such as `uploading`.
    pub what: String,
    /// Number of bytes done.
    pub done: u64,
    /// Total number of bytes; 0 if unknown.
    pub total: u64,
    /// Time since its start.
    pub elapsed: Duration,
}

/// How long work goes on before the rest of it is estimated.
const SETTLED: Duration = Duration::from_secs(2);

impl Work {
    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.done.saturating_mul(1000) / millis
    }

    /// Whether it is measured in bytes.
    pub fn is_counted(&self) -> bool {
        self.done > 0 || self.total > 0
    }

    /// The amount done and the rate, or the elapsed time if nothing is measured.
    pub fn amounts(&self) -> String {
        if !self.is_counted() {
            return duration(self.elapsed);
        }
        let rate = format!("{}/s", size(self.rate()));
        match self.total {
            0 => format!("{}, {rate}", size(self.done)),
            total => format!("{} of {}, {rate}", size(self.done), size(total)),
        }
    }

    /// The progress as text, with an estimate of the remaining time.
    pub fn words(&self) -> String {
        let rate = self.rate();
        let left = self.total.saturating_sub(self.done);
        match left.checked_div(rate) {
            // What was done in the first moment says little of the rest.
            Some(seconds) if left > 0 && self.elapsed >= SETTLED => {
                format!("{}: {}, {} left", self.what, self.amounts(), duration(Duration::from_secs(seconds.max(1))))
            }
            _ => format!("{}: {}", self.what, self.amounts()),
        }
    }
}

/// Runs `work`, and shows its progress from `meter` once it takes longer than a moment; `what` may change meanwhile.
pub async fn watched<T>(show: &mut dyn Show, what: &Cell<&str>, meter: &Meter, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut ticks = interval_at(began + MOMENT, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    let mut is_shown = false;
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                if is_shown {
                    show.work(None);
                }
                return result;
            }
            _ = ticks.tick() => {
                let (done, total) = meter.read();
                is_shown = true;
                show.work(Some(&Work { what: what.get().to_owned(), done, total, elapsed: began.elapsed() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_with_its_rate_and_what_is_left() {
        let work = |done: u64, total: u64| Work {
            what: "uploading".into(),
            done: done << 20,
            total: total << 20,
            elapsed: Duration::from_secs(4),
        };
        assert_eq!(work(300, 900).words(), "uploading: 300.0 MiB of 900.0 MiB, 75.0 MiB/s, 8.0 s left");
        assert_eq!(work(900, 900).words(), "uploading: 900.0 MiB of 900.0 MiB, 225.0 MiB/s");
        assert_eq!(work(0, 900).words(), "uploading: 0 B of 900.0 MiB, 0 B/s");
        assert_eq!(work(0, 0).words(), "uploading: 4.0 s");
        let begun = Work { elapsed: Duration::from_secs(1), ..work(1, 900) };
        assert_eq!(begun.words(), "uploading: 1.0 MiB of 900.0 MiB, 1.0 MiB/s");
        assert_eq!(work(8, 0).words(), "uploading: 8.0 MiB, 2.0 MiB/s");
    }
}
