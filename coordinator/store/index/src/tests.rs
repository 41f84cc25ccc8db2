use kiln_proto::digest::DigestFunction;
use proptest::prelude::*;

use super::*;

fn digest(name: u8) -> Digest {
    Digest { size: u64::from(name % 7) * 10, ..DigestFunction::Sha256.digest(&[name]) }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    GiveUp(u8),
    Use(u8),
    Lose(u8),
    /// A result that references these is stored or hit.
    Name(Vec<u8>),
    /// A marking pass that finds these referenced.
    Mark(Vec<u8>),
    Sweep,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let names = || prop::collection::vec(0..20_u8, 0..8);
    prop_oneof![
        5 => (0..20_u8).prop_map(Step::Write),
        1 => (0..20_u8).prop_map(Step::GiveUp),
        3 => (0..20_u8).prop_map(Step::Use),
        1 => (0..20_u8).prop_map(Step::Lose),
        2 => names().prop_map(Step::Name),
        1 => names().prop_map(Step::Mark),
        1 => Just(Step::Sweep),
        2 => (0..30_u64).prop_map(Step::Pass),
    ]
}

const CAPACITY: u64 = 200;
/// Recently used ones go last.
const KEPT: u64 = 20;
/// Those unused for this long are swept.
const LIFE: u64 = 60;

/// The orders as lists of digests with their last uses, oldest first.
#[derive(Default)]
struct Model {
    loose: Vec<(Digest, Stamp)>,
    named: Vec<(Digest, Stamp)>,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.loose.iter().chain(&self.named).map(|(digest, _)| digest.size).sum()
    }

    fn take(&mut self, digest: &Digest) -> Option<(bool, Stamp)> {
        for (named, list) in [(false, &mut self.loose), (true, &mut self.named)] {
            if let Some(at) = list.iter().position(|(known, _)| known == digest) {
                return Some((named, list.remove(at).1));
            }
        }
        None
    }

    fn make_room(&mut self, bytes: u64, kept_from: Stamp) -> Evicted {
        let mut evicted = Evicted::default();
        while self.bytes() + bytes > CAPACITY {
            let oldest = |list: &[(Digest, Stamp)]| list.first().map_or(Stamp::MAX, |(_, used)| *used);
            let (loose, named) = (oldest(&self.loose), oldest(&self.named));
            let loose = loose < kept_from || (named >= kept_from && loose <= named);
            let (digest, used) = if loose { self.loose.remove(0) } else { self.named.remove(0) };
            evicted.blobs.push(Located { digest, place: None });
            if !loose {
                evicted.named_until = evicted.named_until.max(Some(used));
            }
        }
        evicted
    }
}

proptest! {
    #[test]
    fn room_is_made_from_what_no_result_names_then_from_the_oldest_results_and_the_bound_holds(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut index = Index::new(CAPACITY);
        let total = Total::default();
        index.count_in(total.clone());
        let mut model = Model::default();
        let mut now = 1_000;
        for step in steps {
            let kept_from = now - KEPT;
            match step {
                Step::Write(name) => {
                    let digest = digest(name);
                    prop_assert_eq!(index.reserve(digest.size, kept_from).unwrap(), model.make_room(digest.size, kept_from));
                    if index.look(&digest).is_some() {
                        index.release(digest.size);
                    } else {
                        index.insert_reserved(digest, None, now);
                        model.loose.push((digest, now));
                    }
                }
                Step::GiveUp(name) => {
                    let size = digest(name).size;
                    prop_assert_eq!(index.reserve(size, kept_from).unwrap(), model.make_room(size, kept_from));
                    prop_assert!(index.bytes() <= CAPACITY);
                    index.release(size);
                }
                Step::Use(name) => {
                    let digest = digest(name);
                    let there = model.take(&digest);
                    prop_assert_eq!(index.touch(&digest, now).is_some(), there.is_some());
                    if let Some((named, _)) = there {
                        if named { &mut model.named } else { &mut model.loose }.push((digest, now));
                    }
                }
                Step::Lose(name) => {
                    let digest = digest(name);
                    let born = index.look(&digest).map_or(0, |known| known.born);
                    prop_assert!(!index.remove(&digest, born + 1));
                    prop_assert_eq!(index.remove(&digest, born), model.take(&digest).is_some());
                }
                Step::Name(names) => {
                    let digests: Vec<Digest> = names.into_iter().map(digest).collect();
                    index.name(&digests, now);
                    for digest in digests {
                        let already = model.named.iter().any(|(known, used)| *known == digest && *used == now);
                        if !already && model.take(&digest).is_some() {
                            model.named.push((digest, now));
                        }
                    }
                }
                Step::Mark(names) => {
                    let marked: Vec<Digest> = names.into_iter().map(digest).collect();
                    index.begin_marking();
                    index.name(&marked, 0);
                    for digest in &marked {
                        if let Some(at) = model.loose.iter().position(|(known, _)| known == digest) {
                            let moved = model.loose.remove(at);
                            model.named.push(moved);
                        }
                    }
                    let (mut cursor, mut unmarked) = (0, Vec::new());
                    while let Some(found) = index.unmarked(&mut cursor, 3, kept_from) {
                        unmarked.extend(found);
                    }
                    unmarked.sort_by_key(|one| std::cmp::Reverse(one.used()));
                    index.unname(&unmarked);
                    let goes = |(digest, used): &(Digest, Stamp)| !marked.contains(digest) && *used < kept_from;
                    let mut gone: Vec<(Digest, Stamp)> = model.named.extract_if(.., |one| goes(one)).collect();
                    gone.sort_by_key(|(_, used)| *used);
                    // Among those used at the same time, any may be first.
                    let order: Vec<Digest> = index.digests(false);
                    gone.sort_by_key(|(digest, used)| (*used, order.iter().position(|known| known == digest)));
                    model.loose.splice(0..0, gone);
                }
                Step::Sweep => {
                    let before = now - LIFE;
                    let (mut cursor, mut swept) = (0, Vec::new());
                    while let Some(found) = index.sweep(&mut cursor, 3, before) {
                        swept.extend(found.into_iter().map(|gone| gone.digest));
                    }
                    let all = model.loose.iter().chain(&model.named);
                    let mut expected: Vec<Digest> =
                        all.filter(|(_, used)| *used < before).map(|(digest, _)| *digest).collect();
                    model.loose.retain(|(_, used)| *used >= before);
                    model.named.retain(|(_, used)| *used >= before);
                    swept.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(swept, expected);
                }
                Step::Pass(time) => now += time,
            }
            prop_assert_eq!(index.bytes(), model.bytes());
            prop_assert!(index.bytes() <= CAPACITY);
            prop_assert_eq!((total.bytes(), total.reserved()), (index.bytes(), 0));
            let list = |list: &[(Digest, Stamp)]| list.iter().map(|(digest, _)| *digest).collect::<Vec<_>>();
            prop_assert_eq!(index.digests(false), list(&model.loose));
            prop_assert_eq!(index.digests(true), list(&model.named));
        }
    }
}

impl Index {
    /// One order, oldest first.
    fn digests(&self, named: bool) -> Vec<Digest> {
        let mut found = Vec::new();
        let mut next = if named { &self.named } else { &self.loose }.oldest();
        while let Some(at) = next {
            let slot = &self.slots[at as usize];
            found.push(slot.digest);
            next = slot.links.newer();
        }
        found
    }
}

#[test]
fn what_can_never_fit_is_refused_and_evicts_nothing() {
    let mut index = Index::new(100);
    index.reserve(60, 0).unwrap();
    index.insert_reserved(Digest { size: 60, ..digest(1) }, None, 1);
    index.reserve(30, 0).unwrap();
    assert_eq!(index.reserve(80, 0), Err(Full { writing: 30 }));
    assert_eq!(index.reserve(u64::MAX, 0), Err(Full { writing: 30 }));
    assert_eq!(index.bytes(), 90);
}

#[test]
fn a_file_is_told_of_a_use_once_in_a_while_and_never_seems_older_than_it_is() {
    let mut index = Index::new(100);
    let blob = digest(1);
    index.reserve(blob.size, 0).unwrap();
    index.insert_reserved(blob, None, 1_000);
    assert!(!index.touch(&blob, 1_000 + SAVE_EVERY).unwrap().unsaved);
    assert!(index.touch(&blob, 1_001 + SAVE_EVERY).unwrap().unsaved);
    assert!(!index.touch(&blob, 1_002 + SAVE_EVERY).unwrap().unsaved, "expected one to see to it");
    // After a restart: its file says 1,000, and it was used up to 15 minutes later.
    let mut index = Index::new(100);
    index.insert_found(blob, None, 1_000, 10 * SAVE_EVERY);
    assert_eq!(index.sweep(&mut 0, 10, 1_000 + SAVE_EVERY), Some(Vec::new()));
    assert_eq!(index.sweep(&mut 0, 10, 1_001 + SAVE_EVERY), Some(vec![Located { digest: blob, place: None }]));
}
