//! What a command used over time, as a bounded number of points.
//!
//! Invariant: at most [`MOST`] points, however long the command runs: when there are as many, each two become one, and further points are twice as
//! far apart.

use std::time::Duration;

use kiln_proto::v1::{UsageOverTime, UsageSoFar};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Time until the first look, and between two of them.
pub const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of points.
pub const MOST: usize = 120;

/// A span of a command's run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    /// Its end, in microseconds since the command began.
    end_us: u64,
    span_us: u64,
    cpu_us: u64,
    /// Most memory at once.
    memory_bytes: u64,
}

impl Point {
    /// This span together with the next one.
    fn and(self, next: Self) -> Self {
        Self {
            end_us: next.end_us,
            span_us: self.span_us + next.span_us,
            cpu_us: self.cpu_us + next.cpu_us,
            memory_bytes: self.memory_bytes.max(next.memory_bytes),
        }
    }
}

/// What a command has used so far, over time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    points: Vec<Point>,
    /// Looks that make up one point.
    stride: u32,
    /// Looks in the last point, which is complete once they are `stride`.
    looks: u32,
    /// CPU time at the last look.
    cpu_us: u64,
    /// Most memory since the last look, if it was asked for.
    memory_bytes: Option<u64>,
}

impl Samples {
    /// Of a command before whose begin its processes had used this much CPU time, in microseconds, such as those of a group's earlier command.
    pub fn since(cpu_us: u64) -> Self {
        Self { stride: 1, cpu_us, ..Self::default() }
    }

    /// Whether it is time for a look, so long after the command began. Never in the first second.
    pub fn is_due(&self, elapsed: Duration) -> bool {
        let last = self.points.last().map_or(0, |point| point.end_us);
        elapsed.saturating_sub(Duration::from_micros(last)) >= EVERY
    }

    /// Whether there was a look.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// So much memory was in use at some time.
    pub fn saw(&mut self, memory_bytes: u64) {
        self.memory_bytes = self.memory_bytes.max(Some(memory_bytes));
    }

    /// A look so long after the command began, with all CPU time until now, in microseconds.
    pub fn look(&mut self, elapsed: Duration, cpu_us: u64) {
        let end_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let (last, before) = self.points.last().map_or((0, 0), |point| (point.end_us, point.memory_bytes));
        let point = Point {
            end_us: end_us.max(last),
            span_us: end_us.saturating_sub(last),
            cpu_us: cpu_us.saturating_sub(self.cpu_us),
            memory_bytes: self.memory_bytes.take().unwrap_or(before),
        };
        self.cpu_us = self.cpu_us.max(cpu_us);
        match self.points.last_mut() {
            Some(open) if self.looks < self.stride => *open = open.and(point),
            _ => {
                if self.points.len() == MOST {
                    self.points =
                        self.points.chunks(2).filter_map(|two| two.iter().copied().reduce(Point::and)).collect();
                    self.stride = self.stride.saturating_mul(2);
                }
                self.points.push(point);
                self.looks = 0;
            }
        }
        self.looks += 1;
    }

    /// How long the command had run at the last look, the CPU time until then in microseconds, and the most memory of the last point.
    pub fn last(&self) -> Option<(Duration, u64, u64)> {
        let last = self.points.last()?;
        let cpu_us = self.points.iter().map(|point| point.cpu_us).sum();
        Some((Duration::from_micros(last.end_us), cpu_us, last.memory_bytes))
    }

    /// As a part of a result's metadata; none if there was no look.
    pub fn to_wire(&self) -> Option<UsageOverTime> {
        let points = || self.points.iter();
        let cpus = |point: &Point| (point.cpu_us * 1000).checked_div(point.span_us).unwrap_or(0);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        (!self.is_empty()).then(|| UsageOverTime {
            until_ms: points().map(|point| small(point.end_us / 1000)).collect(),
            milli_cpus: points().map(|point| small(cpus(point))).collect(),
            memory_bytes: points().map(|point| point.memory_bytes).collect(),
        })
    }
}

/// What a command has used so far, for whoever asks while it runs.
#[derive(Debug, Default)]
pub struct SoFar(Mutex<Option<UsageSoFar>>);

impl SoFar {
    /// There was a look, as [`Samples::last`] has it.
    pub fn saw(&self, (elapsed, cpu_us, memory_bytes): (Duration, u64, u64)) {
        let mut told = self.0.lock();
        let most = told.as_ref().map_or(0, |told| told.memory_bytes);
        *told = Some(UsageSoFar {
            run_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            cpu_ms: cpu_us / 1000,
            memory_bytes: most.max(memory_bytes),
            ..UsageSoFar::default()
        });
    }

    /// What was seen, if there was a look since this was asked last.
    pub fn take(&self) -> Option<UsageSoFar> {
        self.0.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_looked_at_in_the_first_second() {
        let samples = Samples::since(0);
        assert!(!samples.is_due(Duration::from_millis(999)));
        assert!(samples.is_due(EVERY));
        assert_eq!(samples.to_wire(), None);
    }

    #[test]
    fn a_point_has_the_cpus_of_its_span_and_the_most_memory() {
        let mut samples = Samples::since(500_000);
        samples.saw(7);
        samples.saw(5);
        samples.look(Duration::from_secs(1), 2_500_000);
        assert!(!samples.is_due(Duration::from_millis(1_999)));
        samples.saw(3);
        samples.look(Duration::from_secs(3), 2_500_000);
        samples.look(Duration::from_secs(4), 3_000_000);
        let wire = samples.to_wire().unwrap();
        assert_eq!((wire.until_ms, wire.milli_cpus), (vec![1_000, 3_000, 4_000], vec![2_000, 0, 500]));
        assert_eq!(wire.memory_bytes, [7, 3, 3], "expected what is not known to be as before");
    }

    #[test]
    fn whoever_asks_is_told_of_the_most_memory_since_the_last_time() {
        let (mut samples, so_far) = (Samples::since(0), SoFar::default());
        assert_eq!((samples.last(), so_far.take()), (None, None));
        for (second, memory, cpu) in [(1, 9, 700_000), (2, 4, 1_200_000)] {
            samples.saw(memory);
            samples.look(Duration::from_secs(second), cpu);
            so_far.saw(samples.last().unwrap());
        }
        let told = so_far.take().unwrap();
        assert_eq!((told.run_ms, told.cpu_ms, told.memory_bytes), (2_000, 1_200, 9));
        assert_eq!(so_far.take(), None, "nothing new was seen");
        samples.look(Duration::from_secs(3), 1_200_000);
        so_far.saw(samples.last().unwrap());
        assert_eq!(so_far.take().unwrap().memory_bytes, 4);
    }

    proptest! {
        #[test]
        fn any_number_of_looks_keeps_the_whole_in_few_points(looks in prop::collection::vec((1_u64..5_000, 0_u64..9_000, 0_u64..1 << 40), 1..2_000)) {
            let (mut samples, mut at, mut cpu, mut peak) = (Samples::since(0), 0, 0, 0);
            for (passed, used, memory) in looks {
                (at, cpu, peak) = (at + passed * 1000, cpu + used * 1000, peak.max(memory));
                samples.saw(memory);
                samples.look(Duration::from_micros(at), cpu);
            }
            prop_assert!(samples.points.len() <= MOST);
            prop_assert_eq!(samples.points.iter().map(|point| point.cpu_us).sum::<u64>(), cpu);
            prop_assert_eq!(samples.points.iter().map(|point| point.span_us).sum::<u64>(), at);
            prop_assert_eq!(samples.points.iter().map(|point| point.memory_bytes).max(), Some(peak));
            prop_assert!(samples.points.is_sorted_by_key(|point| point.end_us));
        }
    }
}
