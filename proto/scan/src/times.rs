//! When files, links and the directories above them were modified: beside the tree, and part of no digest of it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::path::Path;

use kiln_trees::root::{Time, Times};

use super::walk::{Found, Kind};

/// The times of what was found below an absolute directory, sorted by path. What is gone meanwhile has none.
pub(super) fn of(root: &Path, found: &[Found]) -> Times {
    // Nearly in order, so that sorting them at the end is quicker than to look for the place of each.
    let mut times = Vec::with_capacity(found.len());
    let mut directories = HashSet::from([""]);
    let mut last = "";
    let read = |path: &str| std::fs::symlink_metadata(root.join(path)).ok().as_ref().map(time);
    for one in found {
        if matches!(one.kind, Kind::Directory { .. }) && !directories.insert(&one.path) {
            continue;
        }
        let own = match &one.kind {
            Kind::File { stat, .. } => Some(of_ns(stat.mtime_ns)),
            _ => read(&one.path),
        };
        times.extend(own.map(|time| (one.path.clone().into_bytes(), time)));
        let mut path = one.path.as_str();
        while let Some((directory, _)) = path.rsplit_once('/') {
            if directory == last || !directories.insert(directory) {
                break;
            }
            times.extend(read(directory).map(|time| (directory.as_bytes().to_vec(), time)));
            path = directory;
        }
        last = one.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    }
    Times(times.into_iter().collect())
}

fn time(data: &Metadata) -> Time {
    of_ns(kiln_system::Stamp::of(data).modified_ns)
}

fn of_ns(ns: i64) -> Time {
    let nanos = u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or_default();
    Time { seconds: ns.div_euclid(1_000_000_000), nanos }
}
