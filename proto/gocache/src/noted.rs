//! What `go` commands asked for, so that all of it can be asked for at once the next time.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Places of entries, and actions whose entries are not kept.
#[derive(Debug, Default)]
pub struct Noted(Mutex<BTreeMap<Vec<u8>, bool>>);

impl Noted {
    pub(crate) fn note(&self, place: &[u8], is_kept: bool) {
        self.0.lock().insert(place.to_vec(), is_kept);
    }

    /// Everything until now, each with whether it is kept.
    pub fn all(&self) -> BTreeMap<Vec<u8>, bool> {
        self.0.lock().clone()
    }
}
