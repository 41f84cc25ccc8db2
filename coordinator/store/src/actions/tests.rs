use kiln_proto::digest::DigestFunction;

use super::*;

const NOW: Stamp = 1_800_000_000_000;

fn action(number: u8) -> Digest {
    DigestFunction::Sha256.digest(&[number])
}

fn open(path: &Path, max_entries: u64) -> Result<RedbActions, Error> {
    RedbActions::open(path, max_entries, Clock::system())
}

fn result(exit_code: i32) -> reapi::ActionResult {
    reapi::ActionResult { exit_code, ..Default::default() }
}

#[tokio::test]
async fn the_oldest_results_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("actions.redb"), 3).unwrap();
    for number in 0..3 {
        store.put("", &action(number), &result(1), NOW).await.unwrap();
    }
    store.put("", &action(0), &result(2), NOW).await.unwrap();
    store.put("", &action(3), &result(1), NOW).await.unwrap();
    assert_eq!(store.get("", &action(0)).await.unwrap(), Some(result(2)));
    assert_eq!(store.get("", &action(1)).await.unwrap(), None);
    assert_eq!(store.get("", &action(2)).await.unwrap(), Some(result(1)));
    assert_eq!(store.get("", &action(3)).await.unwrap(), Some(result(1)));
}

#[tokio::test]
async fn a_removed_result_is_gone_in_its_instance_and_can_be_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("actions.redb"), 2).unwrap();
    for instance in ["a", "b"] {
        store.put(instance, &action(0), &result(1), NOW).await.unwrap();
    }
    store.remove("a", &action(0)).await.unwrap();
    store.remove("a", &action(0)).await.unwrap();
    assert_eq!(store.get("a", &action(0)).await.unwrap(), None);
    assert_eq!(store.get("b", &action(0)).await.unwrap(), Some(result(1)));
    store.put("a", &action(0), &result(2), NOW).await.unwrap();
    assert_eq!(store.get("a", &action(0)).await.unwrap(), Some(result(2)));
    assert_eq!(store.get("b", &action(0)).await.unwrap(), Some(result(1)), "its place in the order was freed");
}

#[tokio::test]
async fn instances_and_digest_functions_do_not_share_results() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("actions.redb"), 10).unwrap();
    store.put("a", &action(0), &result(1), NOW).await.unwrap();
    assert_eq!(store.get("b", &action(0)).await.unwrap(), None);
    let other = Digest { function: DigestFunction::Blake3, ..action(0) };
    assert_eq!(store.get("a", &other).await.unwrap(), None);
    assert_eq!(store.get("a", &action(0)).await.unwrap(), Some(result(1)));
}

#[tokio::test]
async fn many_writers_at_once_are_all_kept_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actions.redb");
    {
        let store = open(&path, 1_000).unwrap();
        let put = |number: u8| {
            let store = &store;
            async move { store.put("", &action(number), &result(i32::from(number)), NOW).await }
        };
        let puts = (0..200_u8).map(put);
        futures::future::try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
        assert!(matches!(open(&path, 1_000), Err(Error::Locked { .. })));
    }
    let store = open(&path, 1_000).unwrap();
    for number in 0..200 {
        assert_eq!(store.get("", &action(number)).await.unwrap(), Some(result(i32::from(number))));
    }
}

#[tokio::test]
async fn results_go_by_their_last_use_and_what_was_used_is_known_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actions.redb");
    {
        let store = open(&path, 10).unwrap();
        for number in 0..4 {
            store.put("", &action(number), &result(1), NOW + u64::from(number)).await.unwrap();
        }
        store.used("", &action(0), NOW + 2 * NOTE_EVERY);
        store.used("", &action(0), NOW + 2 * NOTE_EVERY + 1);
        store.used("", &action(9), NOW + 2 * NOTE_EVERY);
    }
    let store = open(&path, 10).unwrap();
    let all = store.page(None, 10).await.unwrap();
    let order: Vec<(Digest, Stamp)> = all.iter().map(|entry| (entry.action, entry.used())).collect();
    let expected = [(1, NOW + 1), (2, NOW + 2), (3, NOW + 3), (0, NOW + 2 * NOTE_EVERY)];
    assert_eq!(order, expected.map(|(number, used)| (action(number), used)));
    assert_eq!(store.page(Some(all[1].place), 1).await.unwrap()[0].action, action(3));
    assert_eq!(store.expire(NOW + 3).await.unwrap(), 2);
    assert_eq!(store.get("", &action(2)).await.unwrap(), None);
    assert_eq!(store.get("", &action(3)).await.unwrap(), Some(result(1)));
    assert_eq!(store.get("", &action(0)).await.unwrap(), Some(result(1)));
}

#[tokio::test]
async fn results_that_may_have_lost_blobs_are_gone_at_once_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actions.redb");
    let floor = Floor::default();
    {
        let store =
            RedbActions::with_floor(&path, Most { entries: 10, bytes: u64::MAX }, Clock::system(), floor.clone())
                .unwrap();
        for number in 0..3 {
            store.put("", &action(number), &result(1), NOW + u64::from(number)).await.unwrap();
        }
        floor.raise(NOW + 1);
        assert_eq!(store.get("", &action(1)).await.unwrap(), None);
        assert_eq!(store.get("", &action(2)).await.unwrap(), Some(result(1)));
    }
    assert_eq!(open(&path, 10).unwrap().page(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn results_of_a_file_without_times_count_as_used_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actions.redb");
    {
        // Earlier versions only numbered their writes from 0.
        let store = open(&path, 10).unwrap();
        for number in 0..3 {
            store.put("", &action(number), &result(i32::from(number)), 0).await.unwrap();
        }
    }
    let opened =
        RedbActions::open(&path, 10, Clock::of(|| std::time::UNIX_EPOCH + std::time::Duration::from_millis(NOW)))
            .unwrap();
    let all = opened.page(None, 10).await.unwrap();
    let found: Vec<_> = all.iter().map(|entry| (entry.result.exit_code, entry.used())).collect();
    assert_eq!(found, [(0, NOW), (1, NOW), (2, NOW)]);
}
