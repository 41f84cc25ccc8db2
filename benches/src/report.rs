//! Figures as a table for people or as JSON for scripts.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The target, if there is one.
    pub wanted: Option<String>,
}

impl Figure {
    /// A figure without a target.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, wanted: None }
    }

    /// Sets the target.
    pub fn wanted(mut self, words: impl Into<String>) -> Self {
        self.wanted = Some(words.into());
        self
    }
}

/// Latencies of one kind of call.
#[derive(Debug)]
pub struct Latencies {
    micros: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let hour = 3_600_000_000;
        Self { micros: Histogram::new_with_max(hour, 3).unwrap_or_else(|_| unreachable!("3 digits are valid")) }
    }
}

impl Latencies {
    /// Records one call.
    pub fn record(&mut self, took: Duration) {
        self.micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// p50, p90 and p99 in milliseconds.
    pub fn figures(&self, name: &str) -> Vec<Figure> {
        [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]
            .map(|(label, quantile)| Figure::new(format!("{name}, {label}"), self.quantile_ms(quantile), "ms"))
            .into()
    }

    /// The latency that this share of the calls did not exceed, in milliseconds; 1.0 is the slowest.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Prints the figures as a table or as JSON.
pub fn print(figures: &[Figure], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(figures)?);
        return Ok(());
    }
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    for figure in figures {
        let wanted = figure.wanted.as_deref().map(|words| format!("   (wanted: {words})")).unwrap_or_default();
        println!("{:width$}  {:>10.1} {}{wanted}", figure.name, figure.value, figure.unit);
    }
    Ok(())
}
