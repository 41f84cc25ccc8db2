//! The sums over a case's calls.

use std::time::{Duration, Instant};

use tonic::Status;

use super::document::{Case, Failures};
use crate::process::Process;
use crate::report::Latencies;

/// Counts calls as they end.
#[derive(Debug, Default)]
pub struct Tally {
    /// Time under load.
    pub wall: Duration,
    latencies: Latencies,
    operations: u64,
    bytes: u64,
    failures: Failures,
    first: Option<Status>,
    server: Option<Process>,
    server_began: Option<Duration>,
    server_cpu: Option<Duration>,
}

impl Tally {
    /// Also measures this process's CPU time from now on.
    pub fn watch(&mut self, server: Option<Process>) {
        self.server = server;
    }

    /// Starts measuring time.
    pub fn begin(&mut self) -> Instant {
        self.server_began = self.server.and_then(|server| server.cpu());
        Instant::now()
    }

    /// Stops measuring time.
    pub fn end(&mut self, began: Instant) {
        self.wall += began.elapsed();
        if let (Some(from), Some(to)) = (self.server_began, self.server.and_then(|server| server.cpu())) {
            *self.server_cpu.get_or_insert_default() += to.saturating_sub(from);
        }
    }

    /// Records a successful call.
    pub fn done(&mut self, took: Duration, bytes: u64) {
        self.latencies.record(took);
        self.operations += 1;
        self.bytes += bytes;
    }

    /// Records a failed call, or one with a wrong answer.
    pub fn failed(&mut self, status: &Status) {
        let failure = self.failures.entry(format!("{:?}", status.code())).or_default();
        if failure.count == 0 {
            status.message().clone_into(&mut failure.first);
        }
        failure.count += 1;
        self.first.get_or_insert_with(|| status.clone());
    }

    /// Number of successful calls.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Number of failed calls.
    pub fn failures(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    /// The first failure, if every call failed.
    pub fn refusal(self) -> Option<Status> {
        if self.operations == 0 { self.first } else { None }
    }

    /// Writes the figures into a case.
    pub fn tell(self, case: &mut Case) {
        let seconds = self.wall.as_secs_f64();
        let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        case.operations = self.operations;
        case.bytes = self.bytes;
        case.seconds = seconds;
        case.operations_per_second = rate(self.operations as f64);
        case.mib_per_second = rate(self.bytes as f64 / f64::from(1 << 20));
        case.p50_ms = self.latencies.quantile_ms(0.5);
        case.p90_ms = self.latencies.quantile_ms(0.9);
        case.p99_ms = self.latencies.quantile_ms(0.99);
        case.max_ms = self.latencies.quantile_ms(1.0);
        case.errors = self.failures;
        case.server_cpu_seconds = self.server_cpu.map(|cpu| cpu.as_secs_f64());
    }
}
