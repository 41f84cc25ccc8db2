//! A collection's operations on the index, in small steps so that no other caller waits long.

use kiln_proto::digest::Digest;

use super::{Index, Located, Slot};
use kiln_packs::Stamp;

/// The position of a scan.
pub type Cursor = usize;

/// A blob that no result names any more.
#[derive(Debug, Clone, Copy)]
pub struct Unmarked {
    at: u32,
    born: u64,
    used: Stamp,
}

impl Unmarked {
    /// Its last use.
    pub fn used(&self) -> Stamp {
        self.used
    }
}

impl Index {
    /// Starts a marking: blobs that are not named before its end are named by no result.
    pub fn begin_marking(&mut self) {
        self.marking = self.marking.saturating_add(1);
    }

    /// Records that a result used at this time names these blobs; they were used no earlier.
    pub fn name(&mut self, digests: &[Digest], used: Stamp) {
        for digest in digests {
            let Some(&at) = self.by_digest.get(digest) else { continue };
            let marking = self.marking;
            let slot = self.slot_mut(at);
            slot.mark = marking;
            let (named, newer) = (slot.named, slot.used < used);
            if named && !newer {
                continue;
            }
            self.unlink(at);
            let slot = self.slot_mut(at);
            slot.named = true;
            slot.used = slot.used.max(used);
            self.link_newest(at);
        }
    }

    /// Among the next `count` slots, the blobs that the marking did not find named and that were not used since
    /// `kept_from`. `None` at the end.
    pub fn unmarked(&self, cursor: &mut Cursor, count: usize, kept_from: Stamp) -> Option<Vec<Unmarked>> {
        let slots = self.next(cursor, count)?;
        let is_unmarked = |(_, slot): &(u32, &Slot)| slot.named && slot.mark != self.marking && slot.used < kept_from;
        Some(slots.filter(is_unmarked).map(|(at, slot)| Unmarked { at, born: slot.born, used: slot.used }).collect())
    }

    /// Moves those that have not changed since to the front of the blobs that no result names, the last of them first.
    pub fn unname(&mut self, unmarked: &[Unmarked]) {
        for &Unmarked { at, born, used } in unmarked {
            let slot = self.slot(at);
            let same = self.by_digest.get(&slot.digest) == Some(&at) && slot.born == born && slot.used == used;
            if same && slot.named && slot.mark != self.marking {
                self.unlink(at);
                self.slot_mut(at).named = false;
                self.link_oldest(at);
            }
        }
    }

    /// Removes those of these blobs that the last marking did not find named and that were last used before this time.
    pub fn free(&mut self, blobs: &[Digest], before: Stamp) -> Vec<Located> {
        let mut gone = Vec::new();
        for digest in blobs {
            let slot = self.by_digest.get(digest).map(|at| self.slot(*at));
            if let Some(slot) = slot.filter(|slot| slot.mark != self.marking && slot.used < before) {
                gone.push(slot.located());
                self.take(digest);
            }
        }
        self.tell();
        gone
    }

    /// Removes those in the next `count` slots that were last used before this time. `None` at the end.
    pub fn sweep(&mut self, cursor: &mut Cursor, count: usize, before: Stamp) -> Option<Vec<Located>> {
        let old = self.next(cursor, count)?.filter(|(_, slot)| slot.used < before);
        let old: Vec<Located> = old.map(|(_, slot)| slot.located()).collect();
        old.iter().for_each(|gone| self.take(&gone.digest));
        self.tell();
        Some(old)
    }

    fn next(&self, cursor: &mut Cursor, count: usize) -> Option<impl Iterator<Item = (u32, &Slot)>> {
        let from = *cursor;
        let to = self.slots.len().min(from.saturating_add(count));
        *cursor = to;
        // A free slot still contains its old values.
        let is_taken = |(at, slot): &(u32, &Slot)| self.by_digest.get(&slot.digest) == Some(at);
        let some = (0..).zip(&self.slots).skip(from).take(count);
        (from < to).then(|| some.filter(is_taken))
    }
}
