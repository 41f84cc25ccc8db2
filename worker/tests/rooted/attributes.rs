//! The other ways of mounting roots: each is forced, and gives what the first gives.

use kiln_trees::root::{Content, Directory, Forest, Leaf, Node};
use kiln_worker::sandbox::Way;

use crate::base::{Builder, attributes, busybox, store};
use crate::place::{Place, ask, place};
use crate::support::F;

/// Changes of every kind.
const SCRIPT: &str = "chown app:shadow usr/share/one; chmod 4755 usr/share/two; rm -r usr/share/deep; mkdir -p usr/share/deep/other; \
    echo x > new; chown 33:42 new; chmod 6711 new; mkfifo pipe; chown 7:8 pipe; ln -s nowhere link; chown -h 9:10 link; \
    ln new newer; mkdir -m 2770 group; chown :shadow group; touch etc/known; rm -r var; mkdir var; chown 1:2 var; \
    su app -c 'id -u; echo y > /home/app/mine'";
const SEEN: &str = "stat -c '%n %u %g %a' usr/share/one usr/share/two new newer pipe link group var home/app/mine; find usr/share var | sort; \
    [ new -ef newer ] && echo same; su app -c 'id -u'";

async fn gives_the_same(way: Way) {
    let dir = tempfile::tempdir().unwrap();
    let other = Place::open(dir.path(), Some(way));
    assert_eq!(other.sandbox.roots().unwrap().way, way);
    let root = with_capability();
    let (ran, expected) = (other.run(ask(root, SCRIPT)).await, place().run(ask(root, SCRIPT)).await);
    assert_eq!((ran.ok(), ran.paths()), (expected.ok(), expected.paths()));
    assert_eq!(ran.layer, expected.layer, "expected the same layer");
    // What it wrote is there for the next, and looks as what is unpacked.
    let (seen, expected) = (other.run(ask(ran.after, SEEN)).await, place().run(ask(expected.after, SEEN)).await);
    assert_eq!(seen.ok(), expected.ok());
    assert_eq!(seen.paths(), Vec::<String>::new());
    let fresh = tempfile::tempdir().unwrap();
    let fresh = Place::open(fresh.path(), Some(way));
    assert_eq!(fresh.run(ask(ran.after, SEEN)).await.ok(), expected.ok());
    // Copied over, capabilities and attributes stay as they are in images.
    let copied =
        other.run(ask(ran.after, "chmod 711 bin/able; chown app bin/able-too; mv bin/able-too bin/moved")).await;
    copied.ok();
    let Some(Node::Leaf(able)) = copied.node("bin/able") else { panic!("a file") };
    assert_eq!(
        (able.attributes.xattrs.get("security.capability"), able.attributes.mode),
        (Some(&CAPABILITY.to_vec()), 0o711)
    );
    assert_eq!(able.attributes.xattrs.get("user.note").map(Vec::as_slice), Some(&b"kept"[..]));
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A root with programs that have capabilities and attributes.
fn with_capability() -> kiln_proto::digest::Digest {
    let cas = &place().cas;
    let root = busybox(cas);
    let mut forest = Forest::new(F);
    place().load(&mut forest, &root);
    let mut own = attributes(0o755, 0, 0);
    own.xattrs.insert("security.capability".into(), CAPABILITY.to_vec());
    own.xattrs.insert("user.note".into(), b"kept".to_vec());
    let content = Content::File(cas.put("program"));
    Builder::default().leaf("bin/able", content.clone(), own.clone()).leaf("bin/able-too", content, own).over(
        cas,
        &mut forest,
        root,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn overlays_of_the_worker_give_the_same_layers() {
    gives_the_same(Way::Outside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_base_is_there_and_cannot_be_opened() {
    let cas = &place().cas;
    let mut forest = Forest::new(F);
    let root = busybox(cas);
    place().load(&mut forest, &root);
    let device = Leaf::new(Content::Character(1, 3), attributes(0o666, 0, 0));
    let mut top = Directory::clone(forest.get(&root).unwrap());
    top.entries.insert("null".parse().unwrap(), Node::Leaf(device));
    let root = forest.put(top);
    store(cas, &mut forest);
    let ran = place().run(ask(root, "stat -c '%F %t %T' /null; cat /null 2>/dev/null || echo closed; mknod /x c 1 3 2>/dev/null || echo refused")).await;
    assert_eq!(ran.ok(), "character special file 1 3\nclosed\nrefused\n");
    assert_eq!(ran.after, root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_not_whole_or_not_one_is_the_actions_fault() {
    let cas = &place().cas;
    let mut forest = Forest::new(F);
    let missing = F.digest(b"never stored");
    let empty = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    let with = |forest: &mut Forest, node: Node| {
        let mut top = Directory::clone(forest.get(&empty).unwrap());
        top.entries.insert("here".parse().unwrap(), node);
        forest.put(top)
    };
    let lacks = with(&mut forest, Node::Leaf(Leaf::new(Content::File(missing), attributes(0o644, 0, 0))));
    let layer = with(&mut forest, Node::Whiteout);
    store(cas, &mut forest);
    let ran = place().run(ask(lacks, "true")).await;
    assert!(ran.layer.is_none() && !ran.status.is_empty(), "{}", ran.status);
    let ran = place().run(ask(layer, "true")).await;
    assert!(ran.layer.is_none(), "a layer is no root: {}", ran.status);
    let mut elsewhere = ask(empty, "true");
    elsewhere.directory = "elsewhere".into();
    assert!(place().run(elsewhere).await.status.contains("working directory `elsewhere` is not in the root"));
    let ran = place().run(ask(empty, "true")).await;
    assert_eq!(ran.code, 127, "{}", ran.err);
    assert!(ran.err.contains("`/bin/sh` not found; expected it in the inputs or in the root"), "{}", ran.err);
}
