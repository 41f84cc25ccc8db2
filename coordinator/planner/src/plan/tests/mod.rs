//! The planner's behaviour as its callers see it.

mod caches;
mod detection;
mod directories;
mod invalid;
mod languages;
mod members;
mod planning;
mod testing;
mod unversioned;

use super::{MemorySource, Options, Plan, Platform, plan};

/// A tree of these files, each a path and its content.
fn tree(files: &[(&str, &str)]) -> MemorySource {
    files.iter().copied().collect()
}

fn options() -> Options {
    Options::new(Platform::Amd64)
}

fn planned(files: &[(&str, &str)]) -> Plan {
    plan(&tree(files), &options()).unwrap()
}

fn refused(files: &[(&str, &str)]) -> String {
    plan(&tree(files), &options()).unwrap_err().to_string()
}
