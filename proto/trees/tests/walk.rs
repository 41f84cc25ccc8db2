//! The walk over directories that are stored, absent, malformed, or too many.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::closure::{self, closure};
use kiln_trees::walk::{self, Blobs, Decoded, Found, Walk};
use kiln_trees::{Encoded, Entry, Tree};
use proptest::prelude::*;

const F: DigestFunction = DigestFunction::Sha256;

#[derive(Default)]
struct Store {
    blobs: HashMap<Digest, Bytes>,
    asked: parking_lot::Mutex<Vec<Digest>>,
}

impl Store {
    fn put(&mut self, tree: &Tree) -> Digest {
        tree.encode(F, &mut |Encoded { digest, data }| drop(self.blobs.insert(digest, data.into())))
    }
}

#[async_trait::async_trait]
impl Blobs for &Store {
    type Error = String;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, String> {
        self.asked.lock().push(*digest);
        Ok(self.blobs.get(digest).cloned())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

type Step = Result<Option<(Digest, Found<Arc<Tree>>)>, walk::Error<String>>;

fn steps(store: &Store, roots: &[Digest], most: u64) -> Vec<Step> {
    run(async {
        let source = Decoded::<_, Arc<Tree>>::new(store);
        let mut walk = Walk::new(source, roots.iter().copied()).with_max_entries(most);
        let mut found = Vec::new();
        loop {
            let step = walk.next().await;
            let is_last = !matches!(step, Ok(Some(_)));
            found.push(step);
            if is_last {
                return found;
            }
        }
    })
}

fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for path in paths {
        tree.insert(path, Entry::file(F.digest(path.rsplit('/').next().unwrap().as_bytes()), false)).unwrap();
    }
    tree
}

fn digests(steps: &[Step]) -> Vec<Digest> {
    steps.iter().filter_map(|step| Some(step.as_ref().ok()?.as_ref()?.0)).collect()
}

proptest! {
    #[test]
    fn each_directory_is_read_once_and_a_level_after_the_one_above(
        paths in prop::collection::vec("[ab]/[ab]/[ab]{1,2}/[a-c]", 0..20),
    ) {
        let mut store = Store::default();
        let mut whole = Tree::default();
        for path in &paths {
            let _ = whole.insert(path, Entry::file(F.digest(b""), false));
        }
        let root = store.put(&whole);
        let found = digests(&steps(&store, &[root, root], 1000));
        let distinct: std::collections::HashSet<_> = found.iter().collect();
        prop_assert_eq!(distinct.len(), found.len());
        prop_assert_eq!(found.len(), store.blobs.len());
        prop_assert_eq!(found[0], root);
        let closure = run(closure(Decoded::new(&store), &[root])).unwrap();
        // Each is found before what only it names.
        for (at, digest) in found.iter().enumerate().skip(1) {
            prop_assert!(found[..at].iter().any(|above| closure[above].node().below.iter().any(|(below, _)| below == digest)));
        }
    }
}

#[test]
fn what_is_absent_or_malformed_is_told_and_the_rest_is_found() {
    let mut store = Store::default();
    let mut root = tree(&["here/file", "absent/file", "malformed/file"]);
    let absent = store.put(&tree(&["unknown"]));
    store.blobs.remove(&absent);
    let nonsense = F.digest(b"nonsense");
    store.blobs.insert(nonsense, Bytes::from_static(b"nonsense"));
    root.replace("absent", Entry::Sealed { digest: absent }).unwrap();
    root.replace("malformed", Entry::Sealed { digest: nonsense }).unwrap();
    let huge = Digest { size: 1 << 40, ..F.digest(b"huge") };
    root.replace("huge", Entry::Sealed { digest: huge }).unwrap();
    let root = store.put(&root);
    let found = steps(&store, &[root], 1000);
    let of = |digest: Digest| {
        found.iter().find_map(|step| step.as_ref().unwrap().as_ref().filter(|(found, _)| *found == digest)).unwrap()
    };
    assert!(matches!(of(absent).1, Found::Absent));
    assert!(matches!(of(nonsense).1, Found::Malformed(_)));
    assert!(matches!(of(huge).1, Found::Malformed(_)), "expected it to be refused for its size");
    assert!(!store.asked.lock().contains(&huge));
    assert_eq!(digests(&found).len(), 5);
    assert!(matches!(
        run(closure(Decoded::new(&store), &[root])),
        Err(closure::Error::Absent(_) | closure::Error::Malformed(_))
    ));
}

#[test]
fn a_walk_ends_at_its_bound() {
    let mut store = Store::default();
    let root = store.put(&tree(&["a/1", "a/2", "b/3"]));
    assert!(steps(&store, &[root], 5).last().unwrap().as_ref().is_ok_and(Option::is_none));
    assert_eq!(steps(&store, &[root], 4).last().unwrap(), &Err(walk::Error::Entries));
}
