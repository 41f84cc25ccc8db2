use std::sync::atomic::AtomicU64;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use proptest::prelude::*;

use super::super::{Config, Disk, write};
use super::*;
use crate::clock::Clock;
use crate::in_use::{Hold, InUse};

const CAPACITY: u64 = 1_000;
const MINUTE: u64 = 60;
const TENANTS: usize = 3;

fn content(tenant: usize, name: u8) -> Bytes {
    // Blobs of 12 to about 200 bytes, different for each tenant.
    let text = format!("{tenant} {name} ");
    text.repeat(usize::from(name % 9 + 1) * 3).into_bytes().into()
}

fn digest(tenant: usize, name: u8) -> Digest {
    DigestFunction::Sha256.digest(&content(tenant, name))
}

/// Stores of several tenants with a common bound, and a simulated time.
struct Farm {
    directory: tempfile::TempDir,
    seconds: Arc<AtomicU64>,
    budget: Budget,
    in_use: Vec<InUse>,
    stores: Vec<Option<Disk>>,
}

impl Farm {
    fn new(tenants: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::new(CAPACITY, directory.path());
        let seconds = Arc::new(AtomicU64::new(1_800_000_000));
        let mut farm = Self { directory, seconds, budget, in_use: Vec::new(), stores: Vec::new() };
        farm.in_use = (0..tenants).map(|_| InUse::new(farm.clock())).collect();
        farm.stores = (0..tenants).map(|_| None).collect();
        (0..tenants).for_each(|tenant| farm.open(tenant, Bound::Bytes(CAPACITY)));
        farm
    }

    fn clock(&self) -> Clock {
        let seconds = self.seconds.clone();
        Clock::of(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }

    fn open(&mut self, tenant: usize, capacity: Bound) {
        let config = Config {
            dir: self.directory.path().join(tenant.to_string()),
            capacity,
            budget: Some(self.budget.clone()),
            packed_bytes: 0,
            durable: None,
            clock: self.clock(),
            in_use: self.in_use[tenant].clone(),
        };
        self.stores[tenant] = None;
        self.stores[tenant] = Some(Disk::open(config).unwrap());
    }

    fn inner(&self, tenant: usize) -> &Arc<Inner> {
        &self.stores[tenant].as_ref().unwrap().inner
    }

    fn put(&self, tenant: usize, name: u8) -> Result<(), Error> {
        write::put(self.inner(tenant), &digest(tenant, name), content(tenant, name))
    }

    fn fill(&self, tenant: usize, names: std::ops::Range<u8>) {
        names.for_each(|name| self.put(tenant, name).unwrap());
    }

    fn has(&self, tenant: usize, name: u8) -> bool {
        self.inner(tenant).index.lock().look(&digest(tenant, name)).is_some()
    }

    fn bytes(&self, tenant: usize) -> u64 {
        self.inner(tenant).index.lock().bytes()
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn on_disk(&self) -> u64 {
        (0..self.stores.len()).map(|tenant| usage::measure(&self.directory.path().join(tenant.to_string()))).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8),
    Use(usize, u8),
    Begin(usize),
    End(usize),
    Reopen(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = || 0..TENANTS;
    prop_oneof![
        8 => (tenant(), any::<u8>()).prop_map(|(tenant, name)| Step::Put(tenant, name)),
        2 => (tenant(), any::<u8>()).prop_map(|(tenant, name)| Step::Use(tenant, name)),
        1 => tenant().prop_map(Step::Begin),
        1 => tenant().prop_map(Step::End),
        1 => tenant().prop_map(Step::Reopen),
        4 => (1..60 * MINUTE).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_sum_stays_within_the_bound_the_oldest_goes_and_what_may_be_needed_only_from_who_has_most(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        let mut farm = Farm::new(TENANTS);
        let mut holds: Vec<Vec<Hold>> = (0..TENANTS).map(|_| Vec::new()).collect();
        for step in steps {
            match step {
                Step::Put(tenant, name) => {
                    let known = |farm: &Farm| -> Vec<(usize, Digest, (bool, Stamp))> {
                        let of = |tenant: usize| {
                            let all = farm.inner(tenant).index.lock().all();
                            all.into_iter().map(move |(digest, named, used)| (tenant, digest, (named, used)))
                        };
                        (0..TENANTS).flat_map(of).collect()
                    };
                    let before = known(&farm);
                    let kept_from: Vec<Stamp> = farm.in_use.iter().map(InUse::kept_from).collect();
                    let mut held: Vec<u64> = (0..TENANTS).map(|tenant| farm.bytes(tenant)).collect();
                    if !farm.has(tenant, name) {
                        held[tenant] += digest(tenant, name).size;
                    }
                    let share = CAPACITY / held.iter().filter(|bytes| **bytes > 0).count().max(1) as u64;
                    farm.put(tenant, name).unwrap();
                    let after = known(&farm);
                    let gone = before.iter().filter(|(tenant, digest, _)| {
                        !after.iter().any(|(owner, there, _)| owner == tenant && there == digest)
                    });
                    // Unreferenced blobs precede referenced ones, and then older ones precede newer ones.
                    let is_old = |(tenant, _, (_, used)): &&(usize, Digest, (bool, Stamp))| *used < kept_from[*tenant];
                    let oldest = after.iter().filter(is_old).map(|one| one.2).min();
                    for (tenant, digest, place) in gone {
                        if place.1 < kept_from[*tenant] {
                            let first = oldest.is_none_or(|oldest| *place <= oldest);
                            prop_assert!(first, "{digest} of {tenant} went before older ones");
                        } else {
                            prop_assert!(oldest.is_none(), "{digest} of {tenant} was used lately, and others were not");
                            prop_assert!(held[*tenant] > share, "{tenant} held {held:?}, less than its part of {share}");
                        }
                    }
                }
                Step::Use(tenant, name) => {
                    farm.inner(tenant).index.lock().touch(&digest(tenant, name), farm.clock().now());
                }
                Step::Begin(tenant) => holds[tenant].push(farm.in_use[tenant].begin()),
                Step::End(tenant) => drop(holds[tenant].pop()),
                Step::Reopen(tenant) => farm.open(tenant, Bound::Bytes(CAPACITY)),
                Step::Pass(seconds) => farm.pass(seconds),
            }
            let sum: u64 = (0..TENANTS).map(|tenant| farm.bytes(tenant)).sum();
            prop_assert_eq!((sum, farm.on_disk()), (farm.budget.bytes(), sum));
            prop_assert!(sum <= CAPACITY, "{} bytes are held", sum);
        }
    }
}

#[test]
fn who_fills_the_store_displaces_what_is_old_and_then_their_own() {
    let farm = Farm::new(2);
    farm.fill(0, 0..3);
    farm.pass(2 * 60 * MINUTE);
    farm.fill(0, 3..6);
    let running = farm.in_use[0].begin();
    farm.fill(1, 0..200);
    assert!((0..3).all(|name| !farm.has(0, name)), "expected what nobody used for hours to go");
    assert!((3..6).all(|name| farm.has(0, name)), "expected what was used lately to stay");
    assert!(farm.has(1, 199) && !farm.has(1, 0), "expected the other's own to go, the oldest first");
    // Nor does a whole day of it affect what runs.
    farm.pass(24 * 60 * MINUTE);
    farm.fill(1, 0..200);
    assert!((3..6).all(|name| farm.has(0, name)));
    drop(running);
    farm.fill(1, 0..200);
    assert!((3..6).all(|name| !farm.has(0, name)), "expected it to go once it is old and nothing runs");
}

#[test]
fn a_store_full_of_what_running_work_uses_has_room_for_another_tenant() {
    let farm = Farm::new(2);
    let _running = farm.in_use[0].begin();
    farm.fill(0, 0..200);
    farm.fill(1, 0..3);
    assert!((0..3).all(|name| farm.has(1, name)));
    assert!(farm.bytes(0) > CAPACITY / 2, "expected no more to be taken than is needed");
}

#[test]
fn a_quota_bounds_one_store_within_the_bound_of_all() {
    let mut farm = Farm::new(2);
    farm.open(1, Bound::Bytes(200));
    farm.fill(0, 0..6);
    farm.pass(1);
    farm.fill(1, 0..200);
    assert!(farm.bytes(1) <= 200, "the quota is 200, and {} bytes are held", farm.bytes(1));
    assert!((0..6).all(|name| farm.has(0, name)), "expected its own blobs to go for its quota");
}

#[test]
fn open_uploads_leave_room_for_the_next_tenant() {
    let farm = Farm::new(3);
    let reserve = |tenant: usize, bytes: u64| farm.inner(tenant).reserve(bytes);
    reserve(0, 500).unwrap();
    let refused = reserve(0, 1).unwrap_err();
    assert!(matches!(refused, Error::Crowded { needed: 1, most: 500 }), "{refused}");
    reserve(1, 250).unwrap();
    assert!(reserve(1, 1).is_err());
    farm.put(2, 0).unwrap();
    assert!(farm.has(2, 0));
    // Reservations that were not used were returned.
    assert_eq!(farm.budget.bytes(), 750 + digest(2, 0).size);
    farm.inner(0).release(500);
    reserve(1, 1).unwrap();
}

#[test]
fn stores_that_hold_too_much_together_are_cut_when_they_open() {
    let mut farm = Farm::new(2);
    farm.fill(0, 0..30);
    farm.pass(3 * 60 * MINUTE);
    let older = farm.bytes(0);
    assert!(older > CAPACITY / 2);
    // The other coordinator had a bound for each tenant.
    farm.stores[0] = None;
    farm.fill(1, 0..30);
    let newer = farm.bytes(1);
    assert_eq!(farm.budget.bytes(), newer, "expected a closed store not to count");
    farm.open(0, Bound::Bytes(CAPACITY));
    assert_eq!(farm.bytes(1), newer, "expected the older ones to go");
    assert!(farm.budget.bytes() <= CAPACITY && farm.on_disk() <= CAPACITY);
}

#[test]
fn a_share_of_the_disk_counts_what_all_tenants_hold_as_free() {
    let directory = tempfile::tempdir().unwrap();
    let free = rustix::fs::statvfs(directory.path()).unwrap();
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let budget = Budget::new(Bound::Share, &directory.path().join("tenants"));
    assert_eq!(budget.capacity(), None);
    let capacity = budget.settle(directory.path(), 0);
    assert_eq!((budget.capacity(), budget.settle(directory.path(), 1 << 40)), (Some(capacity), capacity));
    assert!(capacity <= free.max(1), "expected a part of the {free} bytes that are free, got {capacity}");
}
