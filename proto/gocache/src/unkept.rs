//! Actions whose entries are never kept, so that nobody is asked for them.
//!
//! What `go` finds by the times of files (its index of packages, results of tests) is a third of what a warm build asks for, and no farm
//! has it. An action says what kind of entry it has, so one whose entry was not kept once has none that will be.

use std::collections::HashSet;

use parking_lot::Mutex;

/// Maximum number of actions; beyond it they are learned anew.
const MOST: usize = 100_000;

/// Actions of one space whose entries are not kept. They are forgotten when this process ends.
#[derive(Debug, Default)]
pub struct Unkept(Mutex<HashSet<Vec<u8>>>);

impl Unkept {
    pub(crate) fn has(&self, action: &[u8]) -> bool {
        self.0.lock().contains(action)
    }

    /// An action whose entry is not kept.
    pub fn add(&self, action: &[u8]) {
        let mut actions = self.0.lock();
        if actions.len() >= MOST {
            actions.clear();
        }
        actions.insert(action.to_vec());
    }
}
