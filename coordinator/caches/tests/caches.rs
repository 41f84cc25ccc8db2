//! What a name of a cache mount stands for, and what may be published under one.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kiln_caches::{Began, Caches, Error, Limits, Place, Prune, Published, WAITING};
use kiln_journal::{Fsync, Journal};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::CacheName;
use kiln_store::{Config, Stores};
use kiln_trees::root::{Attributes, Content, Forest, Leaf, Node, Time, Times};

const F: DigestFunction = DigestFunction::Sha256;

struct Farm {
    dir: tempfile::TempDir,
    stores: Stores,
    caches: Caches,
}

const LIMITS: Limits = Limits { one_bytes: 1000, all_bytes: 2500 };

async fn open(dir: tempfile::TempDir) -> Farm {
    let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), 1 << 30)).await.unwrap();
    let journal = Journal::open(&dir.path().join("journal.redb"), Fsync::default()).unwrap();
    let caches = Caches::new(journal, stores.clone(), LIMITS);
    Farm { dir, stores, caches }
}

async fn farm() -> Farm {
    open(tempfile::tempdir().unwrap()).await
}

fn name(id: &str) -> CacheName {
    CacheName { id: id.into(), project: "shop".into(), platform: "linux/amd64".into(), ..CacheName::default() }
}

fn place(name: &CacheName) -> Place<'_> {
    Place { instance: "main", function: F, name }
}

impl Farm {
    async fn put(&self, data: Vec<u8>) -> Digest {
        let digest = F.digest(&data);
        self.stores.blobs.put(&digest, data.into()).await.unwrap();
        digest
    }

    /// Stores a tree with these nodes.
    async fn tree(&self, nodes: &[(&str, Node)]) -> Published {
        let mut forest = Forest::new(F);
        let mut directory = kiln_trees::root::Directory::empty(Attributes::directory());
        for (name, node) in nodes {
            directory.entries.insert(name.parse().unwrap(), node.clone());
        }
        let tree = forest.put(directory);
        for made in forest.take_made() {
            self.put(made.data).await;
        }
        let times = Times([(b"a".to_vec(), Time { seconds: 7, nanos: 0 })].into());
        Published { tree, times: self.put(times.encode()).await }
    }

    /// A tree with one file of so many bytes.
    async fn sized(&self, bytes: usize, byte: u8) -> Published {
        let digest = self.put(vec![byte; bytes]).await;
        self.tree(&[("a", Node::Leaf(Leaf::new(Content::File(digest), Attributes::of_root(0o644))))]).await
    }

    async fn publish(&self, id: &str, published: Published, writer: &str) -> Result<(), Error> {
        self.caches.publish(place(&name(id)), published, Began::Unknown, writer).await
    }

    async fn take(&self, id: &str) -> Option<Published> {
        self.caches.take(place(&name(id))).await.unwrap()
    }

    async fn ids(&self) -> Vec<(String, String)> {
        let listed = self.caches.list("main", "").await.unwrap();
        listed.into_iter().map(|mount| (mount.name.unwrap().id, mount.writer)).collect()
    }
}

#[tokio::test]
async fn a_name_stands_for_what_was_published_last_and_survives_a_restart() {
    let farm = farm().await;
    assert_eq!(farm.take("go").await, None);
    let (one, other) = (farm.sized(100, 1).await, farm.sized(200, 2).await);
    farm.publish("go", one, "vm-1").await.unwrap();
    farm.publish("go", other, "vm-2").await.unwrap();
    assert_eq!(farm.take("go").await, Some(other));
    for different in [
        CacheName { project: "another".into(), ..name("go") },
        CacheName { project: String::new(), ..name("go") },
        CacheName { platform: "linux/arm64".into(), ..name("go") },
        CacheName { owner: "755:0:0".into(), ..name("go") },
        CacheName { worker: "vm-1".into(), ..name("go") },
    ] {
        assert_eq!(farm.caches.take(place(&different)).await.unwrap(), None, "{different:?}");
    }
    let go = name("go");
    let elsewhere = Place { instance: "other", ..place(&go) };
    assert_eq!(farm.caches.take(elsewhere).await.unwrap(), None);
    let Farm { dir, stores, caches } = farm;
    drop((stores, caches));
    // The files are closed when what still uses them in the background has ended.
    let farm = loop {
        let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), 1 << 30)).await;
        match (stores, Journal::open(&dir.path().join("journal.redb"), Fsync::default())) {
            (Ok(stores), Ok(journal)) => {
                break Farm { caches: Caches::new(journal, stores.clone(), LIMITS), stores, dir };
            }
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(farm.take("go").await, Some(other));
    assert_eq!(farm.ids().await, [("go".to_owned(), "vm-2".to_owned())]);
}

#[tokio::test]
async fn steps_that_used_a_cache_at_the_same_time_keep_what_each_added() {
    let farm = farm().await;
    let file = async |byte: u8| {
        let digest = farm.put(vec![byte; 10]).await;
        Node::Leaf(Leaf::new(Content::File(digest), Attributes::of_root(0o644)))
    };
    let [a, b, c, d, e] = [file(1).await, file(2).await, file(3).await, file(4).await, file(5).await];
    let publish = async |tree: Published, began: Began| {
        let cache = name("go");
        farm.caches.publish(place(&cache), tree, began, "vm").await.unwrap();
        farm.take("go").await.unwrap()
    };
    // Both began with nothing.
    let one = farm.tree(&[("a", a.clone()), ("same", c.clone())]).await;
    assert_eq!(publish(one, Began::Nothing).await, one);
    let both = farm.tree(&[("a", a.clone()), ("b", b.clone()), ("same", d.clone())]).await;
    let other = farm.tree(&[("b", b.clone()), ("same", d.clone())]).await;
    assert_eq!(publish(other, Began::Nothing).await.tree, both.tree, "where both wrote, the last one wins");
    // Both began with that: one removes a file and adds one, the other changes one.
    let fewer = farm.tree(&[("a", a.clone()), ("same", d.clone()), ("e", e.clone())]).await;
    assert_eq!(publish(fewer, Began::With(both.tree)).await.tree, fewer.tree);
    let changed = farm.tree(&[("a", e.clone()), ("b", b.clone()), ("same", d.clone())]).await;
    let merged = farm.tree(&[("a", e.clone()), ("same", d.clone()), ("e", e.clone())]).await;
    assert_eq!(publish(changed, Began::With(both.tree)).await.tree, merged.tree);
    // What a step began with is gone, or unknown: it replaces what is there.
    let gone = F.digest(b"a tree that nobody has");
    assert_eq!(publish(one, Began::With(gone)).await, one);
    assert_eq!(publish(other, Began::Unknown).await, other);
    // Together they would be too much: what the last one left is kept.
    let large = farm.sized(995, 9).await;
    assert_eq!(publish(large, Began::Nothing).await, large);
}

#[tokio::test]
async fn too_much_is_not_kept_and_the_least_recently_used_goes_first() {
    let farm = farm().await;
    let first = farm.sized(900, 1).await;
    farm.publish("a", first, "vm").await.unwrap();
    let error = farm.publish("a", farm.sized(1001, 9).await, "vm").await.unwrap_err();
    assert!(error.to_string().contains("`--cache-mount-size`"), "{error}");
    assert_eq!(farm.take("a").await, Some(first), "expected what it was before to stay");
    tokio::time::sleep(Duration::from_millis(2)).await;
    farm.publish("b", farm.sized(800, 2).await, "vm").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    farm.publish("c", farm.sized(900, 3).await, "vm").await.unwrap();
    assert_eq!(farm.take("a").await, None);
    let ids: Vec<String> = farm.ids().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["c", "b"]);
}

#[tokio::test]
async fn only_complete_trees_of_what_steps_can_make_are_published() {
    let farm = farm().await;
    let kept = farm.sized(10, 1).await;
    farm.publish("a", kept, "vm").await.unwrap();
    let leaf = |content| Node::Leaf(Leaf::new(content, Attributes::of_root(0o644)));
    let nobody = F.digest(b"nobody has this");
    for (what, tree) in [
        ("a device", farm.tree(&[("disk", leaf(Content::Block(8, 0)))]).await),
        ("a device", farm.tree(&[("null", leaf(Content::Character(1, 3)))]).await),
        ("whiteouts", farm.tree(&[("gone", Node::Whiteout)]).await),
        ("lacks 1 blobs", farm.tree(&[("lost", leaf(Content::File(nobody)))]).await),
        ("lacks 1 blobs", farm.tree(&[("lost", Node::Directory(nobody))]).await),
        ("lacks 1 blobs", Published { times: nobody, ..kept }),
        ("times", Published { times: farm.put(b"no times at all".to_vec()).await, ..kept }),
        ("directory", Published { tree: farm.put(b"no directory".to_vec()).await, ..kept }),
    ] {
        let error = farm.publish("a", tree, "evil").await.unwrap_err();
        assert!(error.to_string().contains(what), "expected `{what}`: {error}");
    }
    // Ten million entries in a few messages.
    let mut forest = Forest::new(F);
    let mut tree = forest.put(kiln_trees::root::Directory::empty(Attributes::directory()));
    for _ in 0..4 {
        let mut directory = kiln_trees::root::Directory::empty(Attributes::directory());
        for number in 0..60 {
            directory.entries.insert(number.to_string().parse().unwrap(), Node::Directory(tree));
        }
        tree = forest.put(directory);
    }
    for made in forest.take_made() {
        farm.put(made.data).await;
    }
    let error = farm.publish("a", Published { tree, ..kept }, "evil").await.unwrap_err();
    assert!(error.to_string().contains("entries"), "{error}");
    // Links that lead out are links: whoever lays them out follows none.
    let links = farm.tree(&[("up", leaf(Content::Symlink(b"../../../etc".to_vec())))]).await;
    farm.publish("links", links, "vm").await.unwrap();
    assert_eq!(farm.take("a").await, Some(kept));
    assert_eq!(farm.take("links").await, Some(links));
}

#[tokio::test]
async fn pruned_caches_are_gone_with_their_bytes() {
    let farm = farm().await;
    farm.publish("a", farm.sized(500, 1).await, "vm").await.unwrap();
    let prune = |older_than, dry_run| Prune { project: "shop".into(), older_than, dry_run };
    let (kept, _) = farm.caches.prune("main", &prune(Duration::from_secs(60), false)).await.unwrap();
    assert!(kept.is_empty());
    let (would, freed) = farm.caches.prune("main", &prune(Duration::ZERO, true)).await.unwrap();
    assert_eq!((would.len(), freed), (1, 0));
    let other = Prune { project: "other".into(), ..prune(Duration::ZERO, false) };
    assert!(farm.caches.prune("main", &other).await.unwrap().0.is_empty());
    let (gone, _) = farm.caches.prune("main", &prune(Duration::ZERO, false)).await.unwrap();
    assert_eq!(gone[0].size_bytes, 500 + gone[0].size_bytes % 500);
    assert_eq!(farm.take("a").await, None);
    assert!(farm.ids().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_cache_goes_on_after_a_while() {
    let farm = farm().await;
    let name = name("locked");
    let alone = farm.caches.alone(place(&name)).await.unwrap();
    assert!(farm.caches.try_alone(place(&name)).is_none());
    let before = tokio::time::Instant::now();
    assert!(farm.caches.alone(place(&name)).await.is_none());
    assert_eq!(before.elapsed(), WAITING);
    drop(alone);
    assert!(farm.caches.alone(place(&name)).await.is_some());
}
