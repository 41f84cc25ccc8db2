//! Counters that the kernel keeps for control groups.

use std::fs;
use std::path::Path;

/// Reads a counter from a control group's file of `name count` lines; 0 if it is missing.
pub fn count(file: Option<&Path>, name: &str) -> u64 {
    let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
