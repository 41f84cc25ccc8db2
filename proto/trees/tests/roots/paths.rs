//! Paths in a root, with their links, and what is put there.

use kiln_proto::digest::Digest;
use kiln_trees::root::{self, Attributes, Content, Directory, Error, Follow, Forest, Leaf, Name, Node};
use proptest::prelude::*;

use crate::model::{F, Is, listed, planted};
use crate::{file, model, put};

fn link(target: &str) -> Node {
    Node::Leaf(Leaf::new(Content::Symlink(target.into()), Attributes::of_root(0o777)))
}

fn sample(forest: &mut Forest) -> Digest {
    let mut root = forest.put(Directory::empty(Attributes::directory()));
    let nodes = [
        ("usr/lib/libc.so", file(b"libc")),
        ("lib", link("usr/lib")),
        ("etc/out", link("../../../usr")),
        ("etc/absolute", link("/usr/lib/libc.so")),
        ("loop", link("loop")),
        ("etc/dangling", link("nowhere/x")),
    ];
    for (path, node) in nodes {
        root = put(forest, &root, path, &node);
    }
    root
}

fn shown(path: &[Name]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
}

#[test]
fn links_are_followed_inside_of_the_root() {
    let mut forest = Forest::new(F);
    let root = sample(&mut forest);
    let libc = Some(file(b"libc"));
    for path in [
        "usr/lib/libc.so",
        "/lib/libc.so",
        "etc/out/lib/./libc.so",
        "etc/absolute",
        "etc/../lib/libc.so",
        "../lib/libc.so",
    ] {
        assert_eq!(forest.lookup(&root, path.as_bytes(), Follow::All).unwrap(), libc, "{path}");
    }
    assert_eq!(forest.lookup(&root, b"etc/absolute", Follow::Parents).unwrap(), Some(link("/usr/lib/libc.so")));
    assert_eq!(forest.lookup(&root, b"lib/missing", Follow::All).unwrap(), None);
    assert!(matches!(forest.lookup(&root, b"lib/libc.so", Follow::Never), Err(Error::NotDirectory { .. })));
    assert!(matches!(forest.lookup(&root, b"usr/lib/libc.so/x", Follow::All), Err(Error::NotDirectory { .. })));
    assert!(matches!(forest.lookup(&root, b"loop/x", Follow::All), Err(Error::Links { .. })));
    let resolved =
        |forest: &mut Forest, path: &str| shown(&forest.resolve(&root, path.as_bytes(), Follow::All).unwrap());
    assert_eq!(resolved(&mut forest, "lib/new/file"), "usr/lib/new/file");
    assert_eq!(resolved(&mut forest, "etc/dangling/y"), "etc/nowhere/x/y");
    assert_eq!(resolved(&mut forest, "/"), "");
}

#[test]
fn a_file_and_a_directory_do_not_replace_each_other() {
    let mut forest = Forest::new(F);
    let root = sample(&mut forest);
    let empty = forest.put(Directory::empty(Attributes::of_root(0o700)));
    let mut at = |path: &str, node: &Node| {
        forest.graft(&root, &root::split(path.as_bytes()).unwrap(), node, &Attributes::directory())
    };
    assert_eq!(at("usr/lib", &file(b"x")), Err(Error::IsDirectory { path: "usr/lib".into() }));
    assert_eq!(
        at("usr/lib/libc.so", &Node::Directory(empty)),
        Err(Error::NotDirectory { path: "usr/lib/libc.so".into() })
    );
    assert_eq!(at("lib/x", &file(b"x")), Err(Error::NotDirectory { path: "lib".into() }));
    assert!(at("usr/lib/libc.so", &file(b"x")).is_ok());
    assert!(root::split(b"a/../b").is_err());
}

proptest! {
    #[test]
    fn a_tree_is_put_where_it_belongs(below in model::root(), over in model::root(), at in prop::collection::vec(model::names(), 0..3)) {
        let mut forest = Forest::new(F);
        let (root, tree) = (planted(&mut forest, &below), planted(&mut forest, &over));
        let parents = Attributes::of_root(0o711);
        let grafted = forest.graft(&root, &at, &Node::Directory(tree), &parents);
        let moved = over.iter().map(|(path, is)| (at.iter().chain(path).cloned().collect::<Vec<_>>(), is.clone()));
        let mut expected = below.clone();
        for length in 0..at.len() {
            expected.entry(at[..length].to_vec()).or_insert_with(|| Is::Directory(Some(parents.clone())));
        }
        let is_directory = |is: &Is| matches!(is, Is::Directory(_));
        let mut clash = (0..=at.len()).any(|length| expected.get(&at[..length]).is_some_and(|is| !is_directory(is)));
        for (path, is) in moved {
            clash |= expected.get(&path).is_some_and(|there| is_directory(there) != is_directory(&is));
            expected.insert(path, is);
        }
        match grafted {
            Ok(grafted) => {
                prop_assert!(!clash);
                prop_assert_eq!(listed(&forest, &grafted), expected);
            }
            Err(error) => prop_assert!(clash, "{error}"),
        }
    }
}
