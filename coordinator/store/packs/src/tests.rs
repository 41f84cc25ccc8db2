use kiln_proto::digest::DigestFunction;
use proptest::prelude::*;

use super::*;

/// A blob of this many bytes, different for each name.
fn blob(name: u32, size: usize) -> (Digest, Bytes) {
    let mut data = DigestFunction::Blake3.digest(&name.to_le_bytes()).hash.repeat(size / 32 + 1);
    data.truncate(size);
    let function = if name.is_multiple_of(2) { DigestFunction::Sha256 } else { DigestFunction::Blake3 };
    (function.digest(&data), data.into())
}

fn open(dir: &tempfile::TempDir) -> (Packs, Vec<Found>) {
    Packs::open(dir.path().join("packs")).unwrap()
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path().join("packs")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes on the disk.
fn blocks(dir: &tempfile::TempDir) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let sizes = names(dir).into_iter().filter(|name| name.ends_with(".data"));
    sizes.map(|name| dir.path().join("packs").join(name).metadata().unwrap().blocks() * 512).sum()
}

fn with_places(blobs: &[(Digest, Bytes)], places: Vec<Place>) -> Vec<(Digest, Place)> {
    blobs.iter().map(|(digest, _)| *digest).zip(places).collect()
}

#[test]
fn what_is_in_memory_is_read_at_once_and_what_is_not_there_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<(Digest, Bytes)> = (1..50).map(|name| blob(name, name as usize * 100)).collect();
    let there = {
        let (packs, _) = open(&dir);
        let there = with_places(&blobs, packs.append(&blobs, 1).unwrap());
        for ((digest, place), (_, data)) in there.iter().zip(&blobs) {
            assert_eq!(packs.read_now(digest, *place).as_ref(), Some(data), "it was just written");
        }
        let (digest, last) = there.last().unwrap();
        let longer = Digest { size: digest.size + 1, ..*digest };
        assert_eq!(packs.read_now(&longer, *last), None, "the pack ends before");
        there
    };
    let more: Vec<(Digest, Bytes)> = (100..101).map(|name| blob(name, 100)).collect();
    let (packs, _) = open(&dir);
    packs.append(&more, 2).unwrap();
    // The newest pack is open; another is not opened for this.
    let (digest, place) = there[0];
    assert_eq!(packs.read_now(&digest, Place { pack: place.pack + 1, ..place }), None);
    assert_eq!(packs.read_now(&digest, place), Some(blobs[0].1.clone()));
}

#[test]
fn what_was_appended_is_there_after_a_restart_with_its_last_use_and_what_was_removed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<(Digest, Bytes)> = (0..500).map(|name| blob(name, name as usize * 13)).collect();
    {
        let (packs, found) = open(&dir);
        assert!(found.is_empty());
        let there = with_places(&blobs, packs.append(&blobs, 7).unwrap());
        packs.note(9, || there[..100].iter().map(|(_, place)| *place).collect());
        packs.free(&there[400..]);
    }
    let (packs, found) = open(&dir);
    let digests: Vec<Digest> = found.iter().map(|one| one.digest).collect();
    assert_eq!(digests, blobs[..400].iter().map(|(digest, _)| *digest).collect::<Vec<_>>());
    assert!(found[..100].iter().all(|one| one.used == 9) && found[100..].iter().all(|one| one.used == 7));
    // In another order than they are in.
    let mut wanted: Vec<(Digest, Place)> = found.iter().map(|one| (one.digest, one.place)).collect();
    wanted.reverse();
    for (read, (digest, data)) in packs.read(&wanted).into_iter().zip(blobs[..400].iter().rev()) {
        assert_eq!(read.unwrap(), data, "{digest}");
    }
    // It is continued.
    packs.append(&blobs[400..], 10).unwrap();
    assert_eq!(names(&dir), ["00000000.data", "00000000.list"]);
    drop(packs);
    assert_eq!(open(&dir).1.len(), 500);
}

#[test]
fn bytes_without_a_record_are_no_blob_and_a_torn_or_damaged_record_costs_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<(Digest, Bytes)> = (0..10).map(|name| blob(name, 1_000)).collect();
    open(&dir).0.append(&blobs, 1).unwrap();
    let path = |name: &str| dir.path().join("packs").join(name);
    let list = std::fs::read(path("00000000.list")).unwrap();
    let mut torn = list.clone();
    torn.truncate(list.len() - 5);
    std::fs::write(path("00000000.list"), &torn).unwrap();
    assert_eq!(open(&dir).1.len(), 9);
    let mut damaged = list.clone();
    damaged[3 * record::BYTES + 1] ^= 1;
    std::fs::write(path("00000000.list"), &damaged).unwrap();
    let (packs, found) = open(&dir);
    assert_eq!(found.len(), 9);
    // Nothing is appended to it any more.
    packs.append(&blobs[3..4], 1).unwrap();
    assert!(names(&dir).contains(&"00000001.data".to_owned()));
    drop(packs);
    // A power cut may lose bytes that the list has.
    std::fs::write(path("00000000.list"), &list).unwrap();
    std::fs::File::options().write(true).open(path("00000000.data")).unwrap().set_len(4_500).unwrap();
    let found = open(&dir).1;
    assert_eq!(found.len(), 5, "expected four of the ten, and the one of the second pack");
    // Half of a pack, as after a kill in between, is removed.
    std::fs::write(path("00000007.data"), "bytes").unwrap();
    std::fs::write(path("00000008.list"), &list).unwrap();
    assert_eq!(open(&dir).1.len(), 5);
    assert!(!path("00000007.data").exists() && !path("00000008.list").exists());
}

#[test]
fn a_use_that_is_recorded_late_does_not_bring_back_what_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = [blob(1, 100), blob(2, 100)];
    let (packs, _) = open(&dir);
    let there = with_places(&blobs, packs.append(&blobs, 1).unwrap());
    packs.free(&there[..1]);
    packs.note(5, || vec![there[1].1]);
    drop(packs);
    let found = open(&dir).1;
    assert_eq!(found.iter().map(|one| (one.digest, one.used)).collect::<Vec<_>>(), [(blobs[1].0, 5)]);
}

#[test]
fn a_full_pack_is_followed_by_another_and_goes_with_its_last_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (packs, _) = open(&dir);
    let batch: Vec<(Digest, Bytes)> = (0..64).map(|name| blob(name, 64 << 10)).collect();
    let mut there = Vec::new();
    for _ in 0..17 {
        there.push(with_places(&batch, packs.append(&batch, 1).unwrap()));
    }
    assert_eq!(names(&dir).len(), 4);
    let full = blocks(&dir);
    assert!(full >= 68 << 20);
    there[..8].iter().for_each(|batch| packs.free(batch));
    assert!(blocks(&dir) <= full - (31 << 20), "expected blocks to be given back, found {}", blocks(&dir));
    assert_eq!(packs.overhead(), 0, "expected only what is there to be counted");
    there[8..16].iter().for_each(|batch| packs.free(batch));
    assert_eq!(names(&dir), ["00000001.data", "00000001.list"]);
    for (read, (_, data)) in packs.read(&there[16]).into_iter().zip(&batch) {
        assert_eq!(read.unwrap(), data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Appends, removals and restarts in any order: every blob that was not removed is read back, and what is counted is
    /// what the disk has.
    #[test]
    fn whatever_happens_each_blob_is_there_until_it_is_removed(
        steps in prop::collection::vec((0..4_u8, 1..40_u32, any::<prop::sample::Index>()), 1..30)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut packs = Some(open(&dir).0);
        let mut model: Vec<((Digest, Bytes), Place)> = Vec::new();
        let mut name = 0;
        for (step, count, which) in steps {
            match step {
                0 | 1 => {
                    let blobs: Vec<(Digest, Bytes)> = (0..count).map(|at| blob(name + at, (at * 331) as usize)).collect();
                    name += count;
                    let places = packs.as_ref().unwrap().append(&blobs, 1).unwrap();
                    model.extend(blobs.into_iter().zip(places));
                }
                2 => {
                    let from = which.index(model.len() + 1);
                    let gone: Vec<_> = model.drain(from..model.len().min(from + count as usize)).collect();
                    let gone: Vec<_> = gone.into_iter().map(|((digest, _), place)| (digest, place)).collect();
                    packs.as_ref().unwrap().free(&gone);
                }
                _ => {
                    drop(packs.take());
                    let (opened, found) = open(&dir);
                    packs = Some(opened);
                    let mut found: Vec<Digest> = found.into_iter().map(|one| one.digest).collect();
                    let mut expected: Vec<Digest> = model.iter().map(|((digest, _), _)| *digest).collect();
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
            let packs = packs.as_ref().unwrap();
            let wanted: Vec<(Digest, Place)> = model.iter().map(|((digest, _), place)| (*digest, *place)).collect();
            for (read, ((_, data), _)) in packs.read(&wanted).into_iter().zip(&model) {
                prop_assert_eq!(&read.unwrap(), data);
            }
            let live: u64 = model.iter().map(|((digest, _), _)| digest.size).sum();
            let counted: u64 = packs.packs.lock().values().map(Pack::overhead).sum();
            prop_assert!(blocks(&dir) <= live + counted, "{} on the disk, {live} live, {counted} counted", blocks(&dir));
        }
    }
}
