//! The cache of input trees: the files on disk match the tree, cached content is not fetched or copied again, and its
//! size is bounded.

#![allow(clippy::unwrap_used)]

mod faults;
mod power;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_trees::tree::{Entry, Tree};
use kiln_worker::inputs::{Config, Error, InputTree, Inputs};
use proptest::prelude::*;
use prost::Message;
use support::{Cas, F};

pub(crate) fn open(dir: &Path) -> Inputs {
    open_with(dir, 1 << 30)
}

pub(crate) fn open_with(dir: &Path, max_bytes: u64) -> Inputs {
    Inputs::open(Config { directory: dir.join("cache"), max_bytes, owner: None }).unwrap()
}

/// The entry at a path: `d`, `f` or `x` with the content, `l` with the target.
pub(crate) type Seen = BTreeMap<String, String>;

/// The layers as one tree, like an overlay.
pub(crate) fn seen(tree: &InputTree) -> Seen {
    fn walk(at: &Path, within: &str, seen: &mut Seen) {
        for entry in std::fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{within}{}", entry.file_name().to_str().unwrap());
            let data = entry.metadata().unwrap();
            let what = if data.is_dir() {
                walk(&entry.path(), &format!("{path}/"), seen);
                "d".to_owned()
            } else if data.is_symlink() {
                format!("l{}", std::fs::read_link(entry.path()).unwrap().display())
            } else {
                let kind = if data.permissions().mode() & 0o111 == 0 { "f" } else { "x" };
                format!("{kind}{}", std::fs::read_to_string(entry.path()).unwrap())
            };
            let before = seen.insert(path.clone(), what.clone());
            assert!(before.is_none_or(|before| before == "d" && what == "d"), "`{path}` is in two layers");
        }
    }
    let mut seen = Seen::new();
    tree.layers().iter().for_each(|layer| walk(layer, "", &mut seen));
    seen
}

/// A tree of this many files in each of these directories.
pub(crate) fn wide(cas: &Cas, directories: usize, files: usize, edited: Option<&str>) -> Tree {
    let mut tree = Tree::default();
    for directory in 0..directories {
        for file in 0..files {
            let path = format!("d{directory}/f{file}");
            let text = if edited == Some(path.as_str()) { "edited".to_owned() } else { format!("text of {path}") };
            tree.insert(&path, cas.file(text, false)).unwrap();
        }
    }
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_are_the_tree() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut tree = wide(&cas, 3, 200, None);
    tree.insert("run", cas.file("#!/bin/sh", true)).unwrap();
    tree.insert("same", cas.file("#!/bin/sh", false)).unwrap();
    tree.insert("empty", Entry::Directory(Tree::default())).unwrap();
    tree.insert("d0/link", Entry::Symlink { target: "f0".into() }).unwrap();
    tree.insert("void", cas.file("", false)).unwrap();
    let fetched = open(dir.path()).fetch(&client, &cas.tree(&tree)).await.unwrap();
    let seen = seen(&fetched);
    assert_eq!(seen.len(), 3 + 600 + 5);
    for (path, what) in [
        ("run", "x#!/bin/sh"),
        ("same", "f#!/bin/sh"),
        ("empty", "d"),
        ("d0/link", "lf0"),
        ("void", "f"),
        ("d2/f199", "ftext of d2/f199"),
    ] {
        assert_eq!(seen[path], what);
    }
    let time = fetched.layers()[0].join("run").metadata().unwrap().mtime();
    assert_eq!(time, 946_684_800, "expected the same time for every file on every worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_of_one_content_than_the_file_system_takes_links_of_are_laid_out() {
    // ext4 allows 65,000 links to a file; if a file system allows more, this test shows nothing.
    const NAMES: usize = 65_100;
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let same = cas.file("the same", false);
    (0..NAMES).for_each(|at| tree.insert(&format!("d{}/f{at}", at % 7), same.clone()).unwrap());
    let fetched = open(dir.path()).fetch(&client, &cas.tree(&tree)).await.unwrap();
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().count();
    let directories = fetched.layers().iter().flat_map(|layer| (0..7).map(move |at| layer.join(format!("d{at}"))));
    assert_eq!(directories.map(|directory| below(&directory)).sum::<usize>(), NAMES);
    for name in ["d0/f0", "d6/f65099"] {
        let content = fetched.layers().iter().find_map(|layer| std::fs::read_to_string(layer.join(name)).ok());
        assert_eq!(content.as_deref(), Some("the same"), "expected `{name}` to be complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_neither_fetched_nor_copied_again() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(dir.path());
    let root = cas.tree(&wide(&cas, 4, 100, None));
    let first = inputs.fetch(&client, &root).await.unwrap();
    let reads = cas.all_reads();
    let again = inputs.fetch(&client, &root).await.unwrap();
    assert_eq!(cas.all_reads(), reads, "expected no request for an unchanged tree");
    assert_eq!(first.layers(), again.layers(), "expected it to be on disk once");

    let edited = cas.tree(&wide(&cas, 4, 100, Some("d1/f7")));
    let third = inputs.fetch(&client, &edited).await.unwrap();
    assert_eq!(cas.all_reads() - reads, 3, "expected the edited file, its directory and the root");
    let shared: Vec<_> = third.layers().iter().filter(|layer| first.layers().contains(layer)).collect();
    assert_eq!(shared.len(), 3, "expected the other three directories to be shared");
    let inode = |tree: &InputTree| {
        let file = tree.layers().iter().map(|layer| layer.join("d1/f8")).find(|path| path.exists()).unwrap();
        file.metadata().unwrap().ino()
    };
    assert_eq!(
        inode(&first),
        inode(&third),
        "expected an unchanged file next to an edited one to be a link to the same file"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_at_the_same_time_share_the_work() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(dir.path());
    let digest = cas.put("text of d0/f0");
    let root = cas.tree(&wide(&cas, 3, 100, None));
    let trees = futures::future::join_all((0..8).map(|_| inputs.fetch(&client, &root))).await;
    let layers: Vec<_> = trees.into_iter().map(|tree| tree.unwrap().layers().to_vec()).collect();
    assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(cas.reads(&digest), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_outlives_its_process_and_what_was_half_made_is_gone() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let root = cas.tree(&wide(&cas, 2, 100, None));
    let before = seen(&open(dir.path()).fetch(&client, &root).await.unwrap());
    let file = cas.put("text of d0/f0");
    let reads = cas.reads(&file);
    let inputs = open(dir.path());
    assert_eq!(seen(&inputs.fetch(&client, &root).await.unwrap()), before);
    assert_eq!(cas.reads(&file), reads, "expected the files to be still cached");
    assert!(inputs.bytes() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_was_made_here_is_not_fetched() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(dir.path());
    let made = dir.path().join("made");
    std::fs::write(&made, "made here").unwrap();
    let mut tree = Tree::default();
    tree.insert("out/made", cas.file("made here", false)).unwrap();
    let digest = F.digest(b"made here");
    inputs.adopt_all(vec![(digest, false, made.clone())], dir.path(), None).await;
    std::fs::write(&made, "changed later").unwrap();
    let fetched = inputs.fetch(&client, &cas.tree(&tree)).await.unwrap();
    assert_eq!(seen(&fetched)["out/made"], "fmade here");
    assert_eq!(cas.reads(&digest), 0);
}

/// What an action wrote lies in a directory of the worker's; its tree shows the same files elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_is_moved_into_the_cache_unless_it_is_more_than_its_content() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(&dir.path().join("cache"));
    let (root, written) = (dir.path().join("root"), dir.path().join("written"));
    for directory in [&root, &written] {
        std::fs::create_dir_all(directory.join("out")).unwrap();
    }
    let (mut tree, mut made) = (Tree::default(), Vec::new());
    for name in ["moved", "program", "linked", "marked", "replaced", "elsewhere"] {
        let content = format!("content of {name}");
        let executable = name == "program";
        std::fs::write(root.join("out").join(name), &content).unwrap();
        std::fs::write(written.join("out").join(name), &content).unwrap();
        std::fs::set_permissions(written.join("out").join(name), PermissionsExt::from_mode(0o640)).unwrap();
        tree.insert(&format!("out/{name}"), cas.file(content.clone(), executable)).unwrap();
        made.push((F.digest(content.as_bytes()), executable, root.join("out").join(name)));
    }
    let out = |name: &str| written.join("out").join(name);
    std::fs::hard_link(out("linked"), dir.path().join("other")).unwrap();
    let mark = rustix::fs::setxattr(out("marked"), "user.mark", b"1", rustix::fs::XattrFlags::empty());
    // Neither is what was hashed: a link to something of the worker's, and another size.
    std::fs::write(dir.path().join("secret"), "content of replaced").unwrap();
    std::fs::remove_file(out("replaced")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), out("replaced")).unwrap();
    std::fs::write(out("elsewhere"), "longer than what was hashed").unwrap();
    let moved = out("moved").metadata().unwrap().ino();
    inputs.adopt_all(made.clone(), &root, Some(&written)).await;
    let gone = |name: &str| out(name).symlink_metadata().is_err();
    assert!(gone("moved") && gone("program"));
    assert!(!gone("linked") && !gone("replaced") && !gone("elsewhere"), "expected these to be copied");
    assert!(mark.is_err() || !gone("marked"), "expected no attribute to get into the cache");
    let fetched = inputs.fetch(&client, &cas.tree(&tree)).await.unwrap();
    let there = fetched.layers().iter().find_map(|layer| layer.join("out/moved").metadata().ok()).unwrap();
    assert_eq!((there.ino(), there.mode() & 0o777, there.mtime()), (moved, 0o644, 946_684_800));
    for (digest, executable, path) in made {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let kind = if executable { "x" } else { "f" };
        assert_eq!(seen(&fetched)[&format!("out/{name}")], format!("{kind}content of {name}"));
        assert_eq!(cas.reads(&digest), 0, "expected {name} not to be fetched");
    }
}

/// Small directories are units of their own, and their files come together all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_all_units_come_in_one_batch() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let root = cas.tree(&wide(&cas, 8, 100, None));
    let fetched = open(dir.path()).fetch(&client, &root).await.unwrap();
    assert!(fetched.layers().len() > 4, "expected several units");
    assert_eq!(seen(&fetched).len(), 808, "expected all files and their directories");
    assert_eq!(cas.largest_batch(), 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_use_is_evicted_and_what_is_stays() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open_with(dir.path(), 300_000);
    let tree = |number: usize| {
        let mut tree = Tree::default();
        for file in 0..10 {
            tree.insert(&format!("f{file}"), cas.file(format!("{number} {file}").repeat(1000), false)).unwrap();
        }
        cas.tree(&tree)
    };
    let held = inputs.fetch(&client, &tree(0)).await.unwrap();
    for number in 1..40 {
        drop(inputs.fetch(&client, &tree(number)).await.unwrap());
    }
    assert!(inputs.bytes() <= 400_000, "expected about 300,000 bytes, found {}", inputs.bytes());
    assert_eq!(seen(&held).len(), 10, "expected a tree in use to be complete");
    let again = inputs.fetch(&client, &tree(1)).await.unwrap();
    assert_eq!(seen(&again).len(), 10, "expected what was evicted to be fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_blobs_are_named_and_a_later_fetch_works() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(dir.path());
    let root = cas.tree(&wide(&cas, 2, 80, None));
    let absent = cas.put("text of d1/f3");
    cas.remove(&absent);
    let error = inputs.fetch(&client, &root).await.expect_err("a blob is missing");
    let Error::Missing(digests) = error else { panic!("expected the missing blob, found {error}") };
    assert_eq!(digests, [absent]);
    cas.put("text of d1/f3");
    assert_eq!(seen(&inputs.fetch(&client, &root).await.unwrap()).len(), 162);
}

fn root_of(cas: &Cas, directory: reapi::Directory) -> Digest {
    cas.put(directory.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_are_refused_and_touch_nothing() {
    let (cas, client) = Cas::start().await;
    let dir = tempfile::tempdir().unwrap();
    let inputs = open(dir.path());
    let file = cas.put("evil").to_wire();
    for name in ["../escaped", "..", ".", "", "a/b", "/etc/escaped", "nul\0"] {
        let node = reapi::FileNode { name: name.into(), digest: Some(file.clone()), ..Default::default() };
        let root = root_of(&cas, reapi::Directory { files: vec![node], ..Default::default() });
        let error = inputs.fetch(&client, &root).await.expect_err("a hostile name");
        assert!(matches!(error, Error::Invalid(_)), "{name:?}: {error}");
    }
    let node = reapi::FileNode { name: "twice".into(), digest: Some(file.clone()), ..Default::default() };
    let link = reapi::SymlinkNode { name: "twice".into(), target: "/etc".into(), ..Default::default() };
    let root = root_of(&cas, reapi::Directory { files: vec![node], symlinks: vec![link], ..Default::default() });
    assert!(
        matches!(inputs.fetch(&client, &root).await, Err(Error::Invalid(_))),
        "expected a refusal of two entries with one name"
    );
    let root = cas.put(b"\xff\xff this is no directory");
    assert!(matches!(inputs.fetch(&client, &root).await, Err(Error::Invalid(_))));
    assert!(!dir.path().join("escaped").exists() && !dir.path().join("cache/escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_nothing_but_empty_files_is_laid_out() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let mut tree = Tree::default();
    tree.insert("a/none", Entry::file(Digest::empty(F), false)).unwrap();
    let laid_out = open(dir.path()).fetch(&client, &cas.tree(&tree)).await.unwrap();
    assert_eq!(seen(&laid_out).get("a/none").map(String::as_str), Some("f"));
}

/// A tree of this many levels, each of which references the one below this many times.
fn levels(cas: &Cas, depth: usize, fan: usize) -> Digest {
    let mut digest = cas.put(reapi::Directory::default().encode_to_vec());
    for _ in 0..depth {
        let node = |at: usize| reapi::DirectoryNode { name: format!("d{at}"), digest: Some(digest.to_wire()) };
        let directory = reapi::Directory { directories: (0..fan).map(node).collect(), ..Default::default() };
        digest = cas.put(directory.encode_to_vec());
    }
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_would_explode_or_is_too_deep_is_refused_before_anything_is_laid_out() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let inputs = open(dir.path());
    for (depth, fan, words) in [(40, 10, "entries"), (600, 1, "deeper"), (7, 10, "entries")] {
        let refused = inputs.fetch(&client, &levels(&cas, depth, fan)).await;
        let Err(Error::Invalid(text)) = refused else { panic!("expected a refusal of {depth} levels of {fan}") };
        assert!(text.contains(words), "expected `{words}` in `{text}`");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("cache/units")).unwrap().count(), 0);
    assert!(inputs.fetch(&client, &levels(&cas, 3, 10)).await.is_ok());
}

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, u8, u8)>> {
    // A path of short parts, a kind, a content.
    prop::collection::vec((prop::collection::vec(0..6u8, 1..5), 0..4u8, 0..5u8), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_on_disk_as_it_was_described(entries in entries()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (cas, client) = Cas::start().await;
            let dir = tempfile::tempdir().unwrap();
            let mut tree = Tree::default();
            let mut expected = Seen::new();
            for (parts, kind, content) in entries {
                let path = parts.iter().map(|part| format!("n{part}")).collect::<Vec<_>>().join("/");
                let (entry, what) = match kind {
                    0 => (Entry::Directory(Tree::default()), "d".to_owned()),
                    1 => (Entry::Symlink { target: format!("n{content}") }, format!("ln{content}")),
                    2 => (cas.file(format!("{content}"), true), format!("x{content}")),
                    _ => (cas.file(format!("{content}"), false), format!("f{content}")),
                };
                // Entries that conflict with existing ones are left out.
                let fits = !expected.contains_key(&path)
                    && path.match_indices('/').all(|(at, _)| expected.get(&path[..at]).is_none_or(|what| what == "d"));
                if fits {
                    tree.insert(&path, entry).unwrap();
                    path.match_indices('/').for_each(|(at, _)| drop(expected.insert(path[..at].to_owned(), "d".to_owned())));
                    expected.insert(path, what);
                }
            }
            let fetched = open(dir.path()).fetch(&client, &cas.tree(&tree)).await.unwrap();
            assert_eq!(seen(&fetched), expected);
        });
    }
}
