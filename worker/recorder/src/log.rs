//! Reads a log.

use super::layout::{COUNTER, LENGTH, entry};

/// Paths may be missing: the log is full, or something in it was not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete;

/// The paths in a log. Its content is the job's word.
///
/// # Errors
/// If it may not name all paths.
pub fn paths(log: &[u8]) -> Result<Vec<&[u8]>, Incomplete> {
    let (counter, entries) = log.split_at_checked(COUNTER).ok_or(Incomplete)?;
    let used = counter.try_into().map(u64::from_ne_bytes).map_err(|_| Incomplete)?;
    let mut left = usize::try_from(used).ok().and_then(|used| entries.get(..used)).ok_or(Incomplete)?;
    let mut found = Vec::new();
    while !left.is_empty() {
        let length = left.get(..LENGTH).and_then(|length| length.try_into().ok()).map(u32::from_ne_bytes);
        let length = length.and_then(|length| (length as usize).checked_sub(1)).ok_or(Incomplete)?;
        found.push(left.get(LENGTH..).and_then(|path| path.get(..length)).ok_or(Incomplete)?);
        left = left.get(entry(length)..).ok_or(Incomplete)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(paths: &[Vec<u8>]) -> Vec<u8> {
        let mut entries = Vec::new();
        for path in paths {
            let begins = entries.len();
            entries.extend((path.len() as u32 + 1).to_ne_bytes());
            entries.extend(path);
            entries.resize(begins + entry(path.len()), 0);
        }
        let mut log = (entries.len() as u64).to_ne_bytes().to_vec();
        log.append(&mut entries);
        log
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(written in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50), room in 0_usize..100) {
            let mut log = log(&written);
            log.resize(log.len() + room, 0);
            prop_assert_eq!(paths(&log).unwrap(), written);
        }

        #[test]
        fn whatever_a_job_writes_is_read_or_incomplete(log in prop::collection::vec(any::<u8>(), 0..300), used in 0_u64..400) {
            let _ = paths(&log);
            let log = [used.to_ne_bytes().as_slice(), &log].concat();
            for path in paths(&log).unwrap_or_default() {
                prop_assert!(path.len() < log.len());
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_finished_hides_nothing() {
        let whole = log(&[b"/a".to_vec(), b"/b".to_vec()]);
        assert_eq!(paths(&whole), Ok(vec![&b"/a"[..], b"/b"]));
        let mut unfinished = whole.clone();
        unfinished[COUNTER..COUNTER + LENGTH].fill(0);
        assert_eq!(paths(&unfinished), Err(Incomplete));
        let mut full = whole;
        full[..COUNTER].copy_from_slice(&1_000_u64.to_ne_bytes());
        assert_eq!(paths(&full), Err(Incomplete));
        assert_eq!(paths(&[]), Err(Incomplete));
    }
}
