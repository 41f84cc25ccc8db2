//! A store's size limit: a number of bytes, or its share of the disk.

use std::path::Path;

use kiln_units::Bound;

/// Upper limit of a share.
const MAX_DEFAULT_BYTES: u64 = 50 << 30;
/// A share is one part in this many of the free disk space, including what the store already holds.
const PART: u64 = 5;

/// The limit in bytes for a store in `dir` that holds `held` bytes.
pub(super) fn bytes(bound: Bound, dir: &Path, held: u64) -> u64 {
    match bound {
        Bound::Bytes(bytes) => bytes,
        Bound::Share => match rustix::fs::statvfs(dir) {
            Ok(disk) => share(disk.f_bavail.saturating_mul(disk.f_frsize), held),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "cannot determine how full the disk is");
                MAX_DEFAULT_BYTES
            }
        },
    }
}

fn share(free: u64, held: u64) -> u64 {
    (free.saturating_add(held) / PART).clamp(1, MAX_DEFAULT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_fifth_of_what_is_free_and_does_not_shrink_as_it_fills() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(100 * GIB, 0), 20 * GIB);
        assert_eq!(share(80 * GIB, 20 * GIB), 20 * GIB);
        assert_eq!(share(10_000 * GIB, 0), 50 * GIB);
        assert_eq!(share(0, 0), 1);
    }
}
