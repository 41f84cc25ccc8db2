//! Roots and layers against a file system that is a list of paths.

#![allow(clippy::unwrap_used)]

mod archives;
mod model;
mod paths;

use std::collections::HashMap;

use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_trees::Blobs;
use kiln_trees::root::{self, Attributes, Content, Directory, Error, Forest, Leaf, Node, Time, Times};
use kiln_trees::walk::Directory as _;
use model::{F, Is, listed, name, planted, unpacked};
use proptest::prelude::*;

fn decoded(digest: &Digest, data: &[u8]) -> Result<Directory, kiln_trees::walk::Malformed> {
    Directory::decode(digest, &Bytes::copy_from_slice(data))
}

proptest! {
    #[test]
    fn a_directory_is_read_as_it_was_written(paths in prop_oneof![model::root(), model::layer()]) {
        let mut forest = Forest::new(F);
        let root = planted(&mut forest, &paths);
        prop_assert_eq!(listed(&forest, &root), paths);
        for encoded in forest.take_made() {
            let read = decoded(&encoded.digest, &encoded.data).unwrap();
            prop_assert_eq!(&read, &**forest.get(&encoded.digest).unwrap());
        }
    }

    #[test]
    fn a_layer_is_applied_as_it_would_be_unpacked(below in model::root(), over in model::layer()) {
        let mut forest = Forest::new(F);
        let (root, layer) = (planted(&mut forest, &below), planted(&mut forest, &over));
        let applied = forest.apply(&root, &layer).unwrap();
        prop_assert_eq!(listed(&forest, &applied), unpacked(below, &over));
        // What it made is a root.
        prop_assert_eq!(forest.diff(&applied, &applied).is_ok(), true);
    }

    #[test]
    fn the_layer_between_two_roots_makes_one_of_the_other(before in model::root(), after in model::root()) {
        let mut forest = Forest::new(F);
        let (old, new) = (planted(&mut forest, &before), planted(&mut forest, &after));
        let layer = forest.diff(&old, &new).unwrap();
        prop_assert_eq!(forest.apply(&old, &layer).unwrap(), new);
        // And it has nothing that both have, but for the directories on the way.
        for (path, is) in listed(&forest, &layer) {
            let unchanged = before.get(&path) == Some(&is) && after.get(&path) == Some(&is);
            prop_assert!(!unchanged || matches!(is, Is::Directory(_)), "{path:?} did not change");
        }
    }

    #[test]
    fn the_layer_of_a_change_has_the_size_of_the_change(root in model::root(), added in model::leaf()) {
        let mut forest = Forest::new(F);
        let old = planted(&mut forest, &root);
        let at = [name(b"new")];
        let new = forest.graft(&old, &at, &Node::Leaf(added.clone()), &Attributes::directory()).unwrap();
        let layer = forest.diff(&old, &new).unwrap();
        let expected = model::Paths::from([(Vec::new(), root[&Vec::new()].clone()), (at.to_vec(), Is::Leaf(added))]);
        prop_assert_eq!(listed(&forest, &layer), expected);
    }

    #[test]
    fn an_operation_on_stored_roots_gives_what_it_gives_in_memory(before in model::root(), after in model::root()) {
        let mut made = Forest::new(F);
        let (old, new) = (planted(&mut made, &before), planted(&mut made, &after));
        let expected = made.diff(&old, &new);
        let store = Store::of(&mut made);
        let mut forest = Forest::new(F);
        let layer = run(root::read(&store, &mut forest, |forest| forest.diff(&old, &new))).unwrap();
        prop_assert_eq!(Ok(layer), expected);
        prop_assert_eq!(run(root::read(&store, &mut forest, |forest| forest.apply(&old, &layer))).unwrap(), new);
    }

    #[test]
    fn times_are_read_as_they_were_written(
        times in prop::collection::btree_map(any::<Vec<u8>>(), (any::<i64>(), 0..1_000_000_000_u32), 0..30),
    ) {
        let times = times.into_iter().map(|(path, (seconds, nanos))| (path, Time { seconds, nanos }));
        let times = Times(times.collect());
        prop_assert_eq!(Times::decode(&times.encode()), Ok(times));
    }

    #[test]
    fn times_of_any_bytes_are_read_or_refused(data in any::<Vec<u8>>()) {
        if let Ok(times) = Times::decode(&data) {
            prop_assert_eq!(Times::decode(&times.encode()), Ok(times));
        }
    }
}

/// Directories that are stored, and nothing else.
struct Store(HashMap<Digest, Bytes>, parking_lot::Mutex<Vec<Digest>>);

impl Store {
    fn of(forest: &mut Forest) -> Self {
        let made = forest.take_made().into_iter().map(|encoded| (encoded.digest, encoded.data.into()));
        Self(made.collect(), parking_lot::Mutex::default())
    }
}

#[async_trait::async_trait]
impl Blobs for &Store {
    type Error = std::convert::Infallible;

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, Self::Error> {
        self.1.lock().push(*digest);
        Ok(self.0.get(digest).cloned())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn file(text: &[u8]) -> Node {
    Node::Leaf(Leaf::new(Content::File(F.digest(text)), Attributes::of_root(0o644)))
}

fn put(forest: &mut Forest, root: &Digest, path: &str, node: &Node) -> Digest {
    let path = root::split(path.as_bytes()).unwrap();
    forest.graft(root, &path, node, &Attributes::directory()).unwrap()
}

#[test]
fn directories_that_are_equal_are_not_read() {
    let mut made = Forest::new(F);
    let empty = made.put(Directory::empty(Attributes::directory()));
    let mut old = empty;
    for path in ["usr/bin/a", "usr/lib/deep/b", "etc/c"] {
        old = put(&mut made, &old, path, &file(path.as_bytes()));
    }
    let new = put(&mut made, &old, "etc/c", &file(b"other"));
    let store = Store::of(&mut made);
    let mut forest = Forest::new(F);
    let layer = run(root::read(&store, &mut forest, |forest| forest.diff(&old, &new))).unwrap();
    assert_eq!(store.1.lock().len(), 4, "expected the two roots and the two of `etc`");
    assert!(run(root::read(&store, &mut forest, |forest| forest.apply(&old, &layer))).is_ok());
    assert_eq!(store.1.lock().len(), 4);
    let absent = F.digest(b"absent");
    let failed = run(root::read(&store, &mut forest, |forest| forest.apply(&absent, &layer)));
    assert!(matches!(failed, Err(root::ReadError::Absent(digest)) if digest == absent));
}

#[test]
fn a_layer_is_not_taken_for_a_root() {
    let mut forest = Forest::new(F);
    let layer =
        Directory { entries: [(name(b"gone"), Node::Whiteout)].into(), ..Directory::empty(Attributes::directory()) };
    let layer = forest.put(layer);
    assert_eq!(forest.apply(&layer, &layer), Err(Error::NotRoot(layer)));
    assert_eq!(forest.diff(&layer, &layer), Err(Error::NotRoot(layer)));
    let root = forest.flatten(&layer).unwrap();
    assert_eq!(listed(&forest, &root).len(), 1, "expected an empty root");
}

#[test]
fn no_directory_has_two_forms() {
    use kiln_proto::reapi;
    use prost::Message;
    let mut forest = Forest::new(F);
    let empty = forest.put(Directory::empty(Attributes::directory()));
    let root = put(&mut forest, &empty, "a", &file(b"1"));
    let root = put(&mut forest, &root, "b", &file(b"2"));
    let data = forest.take_made().into_iter().find(|encoded| encoded.digest == root).unwrap().data;
    let message = reapi::Directory::decode(&*data).unwrap();
    let property = |name: &str, value: &str| reapi::NodeProperty { name: name.into(), value: value.into() };
    type Change<'a> = Box<dyn Fn(&mut reapi::Directory) + 'a>;
    let changed: Vec<(&str, Change<'_>)> = vec![
        ("unsorted", Box::new(|message| message.files.reverse())),
        ("twice", Box::new(|message| message.files.push(message.files[0].clone()))),
        ("without attributes", Box::new(|message| message.node_properties = None)),
        ("without a mode", Box::new(|message| message.files[0].node_properties.as_mut().unwrap().unix_mode = None)),
        (
            "a default that is written",
            Box::new(|message| {
                message.files[0].node_properties.as_mut().unwrap().properties.push(property("kiln.uid", "0"));
            }),
        ),
        (
            "a property of others",
            Box::new(|message| {
                message.files[0].node_properties.as_mut().unwrap().properties.push(property("other", "1"));
            }),
        ),
        (
            "a time",
            Box::new(|message| {
                let mtime = Some(kiln_proto::protobuf::Timestamp { seconds: 1, nanos: 0 });
                message.files[0].node_properties.as_mut().unwrap().mtime = mtime;
            }),
        ),
        ("an executable that is none", Box::new(|message| message.files[0].is_executable = true)),
        ("a name that leads out", Box::new(|message| message.files[0].name = "..".into())),
        ("a name that is a path", Box::new(|message| message.files[0].name = "a/b".into())),
    ];
    for (what, change) in changed {
        let mut message = message.clone();
        change(&mut message);
        let data = message.encode_to_vec();
        assert!(decoded(&F.digest(&data), &data).is_err(), "{what}");
    }
    assert!(decoded(&root, &data).is_ok());
}
