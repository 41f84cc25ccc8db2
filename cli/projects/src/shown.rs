//! A plan for people and for programs.

mod object;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_planner::plan::Step;

pub use object::object;
pub use words::words;

/// How long each step is likely to run, if that is known.
pub type Expected = BTreeMap<String, Duration>;

fn cpus(step: &Step) -> f64 {
    f64::from(step.milli_cpus) / 1000.0
}
