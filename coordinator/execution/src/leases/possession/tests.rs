use std::collections::BTreeSet;

use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use kiln_state::Current;
use kiln_store::{Config, Stores};
use proptest::prelude::*;
use prost::Message;
use tonic::Code;

use super::super::{Grant, LiveLeases};
use super::*;
use crate::ToolSpace;
use crate::scopes::Scopes;

const F: DigestFunction = DigestFunction::Sha256;
/// The input of the lease's action.
const INPUT: usize = 0;
/// What the farm does not have before it is sent.
const NEW: usize = 1;
const ALL: usize = 6;

/// Contents of all sizes that are read in ways of their own.
fn content(number: usize) -> Vec<u8> {
    vec![number as u8 + 1; [100, 200, 0, 1, SMALL_BYTES as usize, 300_000][number]]
}

fn blob(number: usize) -> Digest {
    F.digest(&content(number))
}

fn named(numbers: &BTreeSet<usize>) -> Named {
    let file = |number: &usize| reapi::OutputFile { digest: Some(blob(*number).to_wire()), ..Default::default() };
    let result = reapi::ActionResult { output_files: numbers.iter().map(file).collect(), ..Default::default() };
    Named::of(F, &result).unwrap()
}

/// A farm with the blobs and a lease whose action has one of them as its input.
struct Place {
    _dir: tempfile::TempDir,
    stores: Stores,
    leases: LiveLeases,
    scopes: Scopes,
    grant: Grant,
}

impl Place {
    async fn with(challenge: Option<Challenge>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), 1 << 30)).await.unwrap();
        let put = async |data: Vec<u8>| {
            let digest = F.digest(&data);
            stores.blobs.put(&digest, data.into()).await.unwrap();
            digest
        };
        for number in (0..ALL).filter(|number| *number != NEW) {
            put(content(number)).await;
        }
        let input = reapi::FileNode { name: "in".into(), digest: Some(blob(INPUT).to_wire()), ..Default::default() };
        let root = put(reapi::Directory { files: vec![input], ..Default::default() }.encode_to_vec()).await;
        let command =
            put(reapi::Command { arguments: vec!["true".into()], ..Default::default() }.encode_to_vec()).await;
        let action = reapi::Action {
            command_digest: Some(command.to_wire()),
            input_root_digest: Some(root.to_wire()),
            ..Default::default()
        };
        let grant = Grant {
            lease: 1,
            worker: "vm".into(),
            instance: String::new(),
            action: put(action.encode_to_vec()).await,
            times: None,
            caches: Vec::new(),
            calls: String::new(),
            tools: ToolSpace::default(),
            shell: false,
            challenge,
        };
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(Current::default()));
        scopes.add("", &stores);
        leases.begin(1);
        Self { _dir: dir, stores, leases, scopes, grant }
    }

    fn access(&self) -> LeaseAccess {
        self.leases.access_of(&self.grant, &self.scopes).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Show(BTreeSet<usize>),
    Lie(usize),
    Seal(BTreeSet<usize>),
    Ask,
}

fn step() -> impl Strategy<Value = Step> {
    let some = || proptest::collection::btree_set(0..ALL, 0..ALL);
    prop_oneof![
        2 => (0..ALL).prop_map(Step::Send),
        4 => some().prop_map(Step::Show),
        1 => (0..ALL).prop_map(Step::Lie),
        4 => some().prop_map(Step::Seal),
        2 => Just(Step::Ask),
    ]
}

/// Compares a lease with what may be named by hand.
async fn follows(steps: Vec<Step>) {
    let challenge = Challenge::of(rand::random());
    let place = Place::with(Some(challenge)).await;
    let (mut stored, mut may_name, mut refuted) = (BTreeSet::from_iter(0..ALL), BTreeSet::from([INPUT, 2]), false);
    stored.remove(&NEW);
    for step in steps {
        let access = place.access();
        match step {
            Step::Send(number) => {
                place.stores.blobs.put(&blob(number), content(number).into()).await.unwrap();
                access.sent(&blob(number));
                stored.insert(number);
                may_name.insert(number);
            }
            Step::Show(numbers) => {
                let shown: Vec<_> = numbers.iter().map(|at| (blob(*at), challenge.prove(&content(*at)))).collect();
                match access.show(&shown).await {
                    Ok(send) => {
                        assert!(!refuted);
                        let absent = |number: &&usize| !stored.contains(number) && !may_name.contains(number);
                        let absent: Vec<usize> = numbers.iter().filter(absent).copied().collect();
                        let send: Vec<usize> = send.iter().map(|place| *numbers.iter().nth(*place).unwrap()).collect();
                        assert_eq!(send, absent);
                        may_name.extend(numbers.iter().filter(|number| stored.contains(number)));
                    }
                    Err(status) => assert!(refuted && status.code() == Code::PermissionDenied, "{status}"),
                }
            }
            Step::Lie(number) => {
                let proof = Challenge::of([0; 32]).prove(&content(number));
                let result = access.show(&[(blob(number), proof)]).await;
                // What it may name already, or the farm does not have, is not compared.
                let compared = !may_name.contains(&number) && stored.contains(&number);
                assert_eq!(result.is_err(), refuted || compared, "{result:?}");
                refuted |= compared;
            }
            Step::Seal(numbers) => {
                let sealed = access.seal(&named(&numbers)).await;
                assert_eq!(sealed.is_ok(), !refuted && numbers.is_subset(&may_name), "{sealed:?}");
                if let Ok(seal) = sealed {
                    assert!(is_sealed(place.leases.key(), 1, &named(&numbers), &seal));
                    assert!(!is_sealed(place.leases.key(), 2, &named(&numbers), &seal));
                    let others: BTreeSet<usize> = (0..ALL).filter(|number| !numbers.contains(number)).collect();
                    assert!(
                        named(&others) == named(&numbers) || !is_sealed(place.leases.key(), 1, &named(&others), &seal)
                    );
                }
            }
            Step::Ask => {
                let left = access.left(&(0..ALL).map(blob).collect::<Vec<_>>()).await.unwrap();
                let strange = |is_stored: bool| {
                    let strange = |number: &usize| !may_name.contains(number) && stored.contains(number) == is_stored;
                    (0..ALL).filter(strange).collect::<Vec<_>>()
                };
                assert_eq!(left, Left { send: strange(false), show: strange(true) });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn only_what_was_given_sent_or_shown_may_be_named(steps in proptest::collection::vec(step(), 1..12)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(follows(steps));
    }
}

#[tokio::test]
async fn an_older_worker_shows_nothing_and_is_told_what_to_send() {
    let place = Place::with(None).await;
    let access = place.access();
    let all: Vec<Digest> = (0..ALL).map(blob).collect();
    assert_eq!(access.only_by_sending(&all).await.unwrap(), [blob(1), blob(3), blob(4), blob(5)]);
    let proof = Challenge::of([0; 32]).prove(&content(3));
    assert_eq!(access.show(&[(blob(3), proof)]).await.unwrap_err().code(), Code::FailedPrecondition);
    access.sent(&blob(3));
    assert!(access.has_named(&named(&[INPUT, 3].into())).await.is_ok());
    assert!(access.has_named(&named(&[4].into())).await.is_err());
}

#[test]
fn small_blobs_are_read_in_groups_that_fit_into_memory() {
    let sizes = [BATCH_BYTES / 2, BATCH_BYTES / 2, 1, BATCH_BYTES, 3];
    let blobs = sizes.map(|size| Digest { size, ..blob(3) });
    let groups: Vec<Vec<u64>> =
        batches(&blobs).iter().map(|group| group.iter().map(|blob| blob.size).collect()).collect();
    assert_eq!(groups.concat(), sizes);
    assert!(groups.iter().all(|group| group.iter().sum::<u64>() <= BATCH_BYTES), "{groups:?}");
}
