//! Runs cases side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::case::Case;

/// Cases that run at once, for each processor: they mostly wait for each other's processes.
const PER_PROCESSOR: usize = 2;

/// What was found in each case, in the order of the cases.
pub fn run(cases: &[Case], problems: impl Fn(&Case) -> Vec<String> + Sync) -> Vec<(String, Vec<String>)> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let lanes = std::thread::available_parallelism().map_or(2, usize::from) * PER_PROCESSOR;
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // One case that cannot even be read must not hide what is wrong with the others.
                    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| problems(case)));
                    let problems = checked.unwrap_or_else(|_| vec!["it panicked, as said above".to_owned()]);
                    found.lock().unwrap().push((case.name.clone(), problems));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort();
    found
}
