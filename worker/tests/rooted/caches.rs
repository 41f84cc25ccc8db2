//! Cache mounts: what the farm keeps of them, and what a command on another worker begins with.

use kiln_proto::digest::Digest;
use kiln_proto::root::Mount;
use kiln_proto::v1::{CacheMount, CacheName, CacheSharing};
use kiln_trees::root::{Content, Directory, Forest, Leaf, Node, Times};
use tokio_util::sync::CancellationToken;

use crate::base::{Builder, attributes, busybox, store};
use crate::place::{Ask, Place, Ran, ask};
use crate::support::{Cas, F};

fn mount(target: &str) -> Mount {
    Mount::Cache { target: target.into(), source: None, rw: true, mode: None, uid: 0, gid: 0 }
}

/// A command with a cache at `/c`.
fn with(root: Digest, script: &str, (project, id): (&str, &str), sharing: CacheSharing) -> Ask {
    let name = CacheName { project: project.into(), id: id.into(), ..CacheName::default() };
    let mut ask = ask(root, script);
    ask.mounts = vec![mount("/c")];
    ask.caches = vec![CacheMount { target: "/c".into(), name: Some(name), sharing: sharing.into() }];
    ask
}

/// Two workers of one farm.
struct Two {
    _dirs: [tempfile::TempDir; 2],
    one: Place,
    other: Place,
    root: Digest,
}

fn two() -> Two {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = [0, 1].map(|at| Place::open(dirs[at].path(), None));
    let root = busybox(&one.cas);
    Two { _dirs: dirs, one, other, root }
}

impl Two {
    async fn shared(&self, place: &Place, project: &str, script: &str) -> Ran {
        place.run(with(self.root, script, (project, "one"), CacheSharing::CacheShared)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_elsewhere_begins_with_what_the_last_one_that_succeeded_left() {
    let two = two();
    let project = "begins";
    let script = "ls /c; mkdir -p /c/d; echo 1 > /c/a; echo 2 > /c/d/b; ln /c/d/b /c/d/hard; ln -s /etc/passwd /c/out; mkfifo /c/pipe; chown 1000:1001 /c/a; \
                  chmod 4750 /c/a; touch -d '2001-02-03 04:05:06' /c/d/b; chmod 2775 /c/d";
    let first = two.shared(&two.one, project, script).await;
    assert_eq!(
        (first.ok().as_str(), first.after),
        ("", two.root),
        "expected no trace in the layer: {:?}",
        first.paths()
    );
    let failed = two.shared(&two.one, project, "rm -r /c/d; echo x > /c/x; exit 3").await;
    assert_eq!(failed.code, 3);
    let look =
        "cd /c; ls; cat d/b; stat -c '%u:%g %a %h' a d d/b; stat -c %Y d/b; readlink out; [ -p pipe ] && echo pipe";
    let expected = "a\nd\nout\npipe\n2\n1000:1001 4750 1\n0:0 2775 2\n0:0 644 2\n981173106\n/etc/passwd\npipe\n";
    assert_eq!(two.shared(&two.other, project, look).await.ok(), expected);
    assert_eq!(two.shared(&two.one, project, look).await.ok(), expected);
    // Another name has nothing of it.
    assert_eq!(two.shared(&two.other, "another", "ls /c").await.ok(), "");
    // What the other one changes comes back.
    two.shared(&two.other, project, "rm /c/d/hard; echo 3 > /c/d/b; touch -d '2002-02-03 04:05:06' /c/a").await.ok();
    let back = two.shared(&two.one, project, "cd /c; ls d; cat d/b; stat -c %Y a").await;
    assert_eq!(back.ok(), "b\n3\n1012709106\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_travels() {
    let two = two();
    let cas = &two.one.cas;
    let text: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    let (large, small) = (F.digest(text.as_bytes()), F.digest(b"only here\n"));
    let first = "seq 400000 > /c/large; mkdir /c/d; echo only here > /c/d/small";
    two.shared(&two.one, "travels", first).await.ok();
    for round in 0..3 {
        for place in [&two.other, &two.one] {
            two.shared(place, "travels", &format!("echo {round} >> /c/d/more; tail -n 1 /c/large")).await.ok();
        }
    }
    for digest in [large, small] {
        // As an image, the next tree names content that the worker which made it has only in a layer: it fetches that once as well.
        assert_eq!(cas.writes(&digest), 1, "sent once");
        assert!(cas.reads(&digest) <= 2, "fetched {} times by two workers", cas.reads(&digest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_writer_wins_and_nobody_sees_half_of_anything() {
    let two = two();
    let write = |place, value: u32| {
        let script = format!(
            "for n in $(seq 50); do echo {value} > /c/$n; done; sleep 0.1; for n in $(seq 50); do cat /c/$n; done | sort -u"
        );
        let two = &two;
        async move { two.shared(place, "wins", &script).await.ok() }
    };
    let (one, other) = tokio::join!(write(&two.one, 1), write(&two.other, 2));
    assert_eq!((one.as_str(), other.as_str()), ("1\n", "2\n"), "each has a snapshot of its own");
    let all = two.shared(&two.one, "wins", "cat /c/* | sort -u").await.ok();
    assert!(["1\n", "2\n"].contains(&all.as_str()), "{all:?}");
    // More changes than a cache has layers on disk.
    for round in 0..12 {
        let place = if round % 2 == 0 { &two.one } else { &two.other };
        let script = format!("echo {round} > /c/round; echo > /c/n{round}; rm -f /c/n{}", round - 2);
        two.shared(place, "wins", &script).await.ok();
    }
    assert_eq!(two.shared(&two.one, "wins", "cd /c; ls n*; cat round").await.ok(), "n10\nn11\n11\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_step_publishes_nothing() {
    let two = two();
    two.shared(&two.one, "cancelled", "echo before > /c/a").await.ok();
    let before = two.one.cas.caches.get("cancelled", "one");
    let cancel = CancellationToken::new();
    let slow =
        with(two.root, "echo after > /c/a; echo started; sleep 300", ("cancelled", "one"), CacheSharing::CacheShared);
    let running = two.one.run_until(slow, cancel.clone());
    let stop = async {
        two.one.until_written("mount-0/a").await;
        cancel.cancel();
    };
    let (ran, ()) = tokio::join!(running, stop);
    assert!(ran.status.contains("cancelled"), "{ran:?}");
    assert_eq!(two.one.cas.caches.get("cancelled", "one"), before);
    assert_eq!(two.shared(&two.other, "cancelled", "cat /c/a").await.ok(), "before\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_steps_take_turns_and_private_ones_have_a_cache_of_their_own() {
    let two = two();
    let script = "[ -e /c/busy ] && exit 9; touch /c/busy; n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.2; echo $((n+1)) > /c/n; rm /c/busy";
    let locked = |place: &'static str| {
        let place = if place == "one" { &two.one } else { &two.other };
        place.run(with(two.root, script, ("locked", "one"), CacheSharing::CacheLocked))
    };
    let (one, two_, three) = tokio::join!(locked("one"), locked("other"), locked("one"));
    assert_eq!([one.code, two_.code, three.code], [0, 0, 0]);
    let look = with(two.root, "cat /c/n", ("locked", "one"), CacheSharing::CacheLocked);
    assert_eq!(two.other.run(look).await.ok(), "3\n");
    let private = || with(two.root, script, ("private", "one"), CacheSharing::CachePrivate);
    let (one, other) = tokio::join!(two.one.run(private()), two.one.run(private()));
    assert_eq!([one.code, other.code], [0, 0]);
    let look = with(two.root, "cat /c/n", ("private", "one"), CacheSharing::CachePrivate);
    assert_eq!(two.one.run(look).await.ok(), "1\n", "one of two at once is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cache_begins_as_its_source_with_the_owner_that_the_mount_names() {
    let two = two();
    let cas = &two.one.cas;
    let mut forest = Forest::new(F);
    let empty = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    let seed = Builder::default().file(cas, "from/seed", 0o600, "seed\n").over(cas, &mut forest, empty);
    let seeded = |script: &str, source: Option<u32>| {
        let mut ask = with(two.root, script, ("seeded", "one"), CacheSharing::CacheShared);
        ask.sources = vec![kiln_trees::tree::Entry::Sealed { digest: seed }];
        ask.mounts =
            vec![Mount::Cache { target: "/c".into(), source, rw: true, mode: Some(0o700), uid: 1000, gid: 1001 }];
        ask
    };
    two.one.run(seeded("cat /c/from/seed; echo own > /c/from/own", Some(0))).await.ok();
    assert_eq!(two.other.run(seeded("ls /c/from; rm /c/from/seed", Some(0))).await.ok(), "own\nseed\n");
    assert_eq!(two.one.run(seeded("ls /c/from", Some(0))).await.ok(), "own\n", "what is published is not seeded again");
    let mut owned = with(two.root, "stat -c '%u:%g %a' /c; touch /c/x", ("owned", "one"), CacheSharing::CacheShared);
    owned.mounts =
        vec![Mount::Cache { target: "/c".into(), source: None, rw: true, mode: Some(0o700), uid: 1000, gid: 1001 }];
    assert_eq!(two.one.run(owned.clone()).await.ok(), "1000:1001 700\n");
    assert_eq!(two.other.run(owned).await.ok(), "1000:1001 700\n");
    let mut read = with(
        two.root,
        "ls /c; (echo > /c/x) 2>/dev/null || echo read-only",
        ("seeded", "one"),
        CacheSharing::CacheShared,
    );
    read.mounts = vec![Mount::Cache { target: "/c".into(), source: None, rw: false, mode: None, uid: 0, gid: 0 }];
    assert_eq!(two.other.run(read).await.ok(), "from\nread-only\n");
}

/// Stores a tree and publishes it as another worker would.
fn publish(cas: &Cas, project: &str, forest: &mut Forest, tree: Digest) {
    store(cas, forest);
    let times = cas.put(Times::default().encode());
    cas.caches.put(project, "one", (tree, times));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_another_worker_made_up_leads_nowhere_and_breaks_no_step() {
    let two = two();
    let cas = &two.one.cas;
    let mut forest = Forest::new(F);
    let empty = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    // Links out, and below one a file; a device of the machine's disk; a program with user bits.
    let hostile = Builder::default()
        .link("etc", "/etc")
        .link("up", "../../../../../../etc")
        .file(cas, "shadowed/passwd", 0o666, "hostile\n")
        .leaf("disk", Content::Block(8, 0), attributes(0o666, 0, 0))
        .leaf("null", Content::Character(1, 3), attributes(0o666, 0, 0))
        .leaf("suid", Content::File(cas.put("#!/bin/sh\nid -u\n")), attributes(0o4777, 0, 0))
        .over(cas, &mut forest, empty);
    publish(cas, "hostile", &mut forest, hostile);
    let marker = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let script = "cat /c/etc/known /c/up/known; (cat /c/disk || cat /c/null) >/dev/null 2>&1 || echo closed; \
                  echo written > /c/etc/new; cat /etc/new; grep nosuid /proc/self/mountinfo | grep -c ' /c '";
    let ran = two.shared(&two.one, "hostile", script).await;
    assert_eq!(ran.ok(), "known\nknown\nclosed\nwritten\n1\n", "links lead to the step's own files");
    assert!(!std::path::Path::new("/etc/new").exists());
    assert_eq!(std::fs::read_to_string("/etc/hostname").unwrap_or_default(), marker);
    // More entries than any tree may have, in a few messages: 200 times 200 times 200 times one.
    let mut forest = Forest::new(F);
    let mut tree = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    for _ in 0..4 {
        let mut directory = Directory::empty(attributes(0o755, 0, 0));
        for number in 0..200 {
            directory.entries.insert(format!("{number}").parse().unwrap(), Node::Directory(tree));
        }
        tree = forest.put(directory);
    }
    publish(cas, "huge", &mut forest, tree);
    assert_eq!(two.shared(&two.one, "huge", "ls /c; echo new > /c/new").await.ok(), "");
    // One of whose files the farm has lost, and one that is a layer.
    let mut forest = Forest::new(F);
    let mut directory = Directory::empty(attributes(0o755, 0, 0));
    let lost = Leaf::new(Content::File(F.digest(b"nobody has this")), attributes(0o644, 0, 0));
    directory.entries.insert("lost".parse().unwrap(), Node::Leaf(lost));
    let incomplete = forest.put(directory);
    publish(cas, "incomplete", &mut forest, incomplete);
    assert_eq!(two.shared(&two.one, "incomplete", "ls /c; echo new > /c/new").await.ok(), "");
    for project in ["huge", "incomplete"] {
        assert_eq!(two.shared(&two.other, project, "cat /c/new").await.ok(), "new\n", "the whole one took its place");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_the_lease_gives_no_name_begins_empty_and_is_forgotten() {
    let two = two();
    let mut unnamed = ask(two.root, "ls /c; echo > /c/x");
    unnamed.mounts = vec![mount("/c")];
    for _ in 0..2 {
        assert_eq!(two.one.run(unnamed.clone()).await.ok(), "");
    }
}
