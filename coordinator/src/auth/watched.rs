//! Files that are replaced while the coordinator runs: looked at now and then, and read anew when they changed.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    paths.iter().map(of).collect()
}

/// Calls `changed` whenever one of these files is another than before, for as long as it says so.
pub(super) async fn watch<F: Future<Output = bool>>(paths: Vec<PathBuf>, mut changed: impl FnMut() -> F) {
    let mut before = stamp(&paths);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = stamp(&paths);
        if now != before {
            before = now;
            if !changed().await {
                return;
            }
        }
    }
}
