//! The other ways of mounting roots: each is forced, and gives what the first gives.

use std::io::Write as _;
use std::process::{Command, Stdio};

use kiln_proto::root::Mount;
use kiln_proto::v1::{CacheMount, CacheName};
use kiln_trees::root::{Content, Directory, Forest, Leaf, Node};
use kiln_trees::tree::Entry;
use kiln_worker::sandbox::{Layout, Way};

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

/// What these changes come to on a worker: the layer, and what is seen of them in the roots that follow.
async fn everything(own: &Place, fresh: &Place) -> String {
    let root = with_capability(own);
    let ran = own.run(ask(root, SCRIPT)).await;
    let mut said = format!("{}\n{:?}\n{:?}\n", ran.ok(), ran.layer, ran.paths());
    // What it wrote is there for the next, and looks as what is unpacked.
    let seen = own.run(ask(ran.after, SEEN)).await;
    assert_eq!(seen.paths(), Vec::<String>::new());
    assert_eq!(fresh.run(ask(ran.after, SEEN)).await.ok(), seen.ok());
    said.push_str(&seen.ok());
    // Copied over, capabilities and attributes stay as they are in images.
    let copied = own.run(ask(ran.after, "chmod 711 bin/able; chown app bin/able-too; mv bin/able-too bin/moved")).await;
    copied.ok();
    let Some(Node::Leaf(able)) = copied.node("bin/able") else { panic!("a file") };
    let capability = able.attributes.xattrs.get("security.capability");
    assert_eq!((capability, able.attributes.mode), (Some(&CAPABILITY.to_vec()), 0o711));
    assert_eq!(able.attributes.xattrs.get("user.note").map(Vec::as_slice), Some(&b"kept"[..]));
    said.push_str(&format!("{:?}\n", copied.layer));
    // Mounts are like the root.
    let mut mounted = ask(
        root,
        "stat -c '%n %u %g %a' /bound/new /bound/usr/share/two /cache /cache/* 2>/dev/null || true; echo x > /bound/x; \
         echo >> /cache/lines; chown app:shadow /cache/lines; chmod 4711 /cache/lines; rm -rf /cache/d; mkdir -m 2750 /cache/d; wc -l < /cache/lines",
    );
    let (uid, gid) = (1000, 42);
    let cache =
        |target: &str| Mount::Cache { target: target.into(), source: None, rw: true, mode: Some(0o750), uid, gid };
    mounted.mounts = vec![Mount::Bind { target: "/bound".into(), source: 0, rw: true }, cache("/cache")];
    // Each of these workers has a cache of its own.
    let name = CacheName { id: own.directory.display().to_string(), ..CacheName::default() };
    mounted.caches = vec![CacheMount { target: "/cache".into(), name: Some(name), sharing: 0 }];
    mounted.sources = vec![Entry::Sealed { digest: ran.after }];
    for _ in 0..10 {
        let ran = own.run(mounted.clone()).await;
        said.push_str(&ran.ok());
        assert_eq!(ran.after, root);
    }
    let script = "id -u; id -g; pwd; stat -c '%u %a' . in $HOME /etc; test ! -w /etc; test -d out; echo x > /tmp/x; echo $TOKEN\n\
                  cat in > out/file; echo more >> in; chmod 600 in; mkdir -p left/behind; ls";
    for input in ["given\n", "other\n", "given\n"] {
        let (heard, made) = own.build(root, script, input).await;
        assert_eq!(made, format!("out/file: {input}; in: {input}more\n"));
        said.push_str(&heard);
    }
    said
}

async fn with(layout: Layout, way: Way) -> String {
    let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |dir: &tempfile::TempDir| Place::with(dir.path(), (Some(layout), Some(way)), false);
    let (one, other) = (open(&dirs.0), open(&dirs.1));
    let found = one.sandbox.roots().unwrap();
    assert_eq!((found.layout, found.way), (layout, way));
    everything(&one, &other).await
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A root with programs that have capabilities and attributes.
fn with_capability(place: &Place) -> kiln_proto::digest::Digest {
    let cas = &place.cas;
    let root = busybox(cas);
    let mut forest = Forest::new(F);
    place.load(&mut forest, &root);
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
async fn every_layout_gives_the_same_layers() {
    let expected = with(Layout::Unpacked, Way::Inside).await;
    for (layout, way) in [(Layout::Erofs, Way::Inside), (Layout::Erofs, Way::Outside), (Layout::Unpacked, Way::Outside)]
    {
        assert_eq!(with(layout, way).await, expected, "{layout:?} {way:?}");
    }
}

/// Runs a test of this program as root of a user namespace with this first id, as a worker that is not root makes itself.
fn in_namespace(test: &str, base: u32) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(base), Some(base)).unwrap();
    let ids = [format!("--reuid={base}"), format!("--regid={base}")];
    let script = r#"read go; exec setpriv --reuid=0 --regid=0 --clear-groups unshare --mount "$@""#;
    let mut child = Command::new("setpriv")
        .args(&ids)
        .args(["--clear-groups", "unshare", "--user", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Whose namespace it is changes when `unshare` has made it; the maps can be written once.
    let process = format!("/proc/{}", child.id());
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    while std::fs::read_link(format!("{process}/ns/user")).is_ok_and(|namespace| namespace == own) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("{process}/{file}"), format!("0 {base} 1\n1 {} 65536\n", base + 1)).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_root_gives_the_same_layers() {
    if !nix::unistd::geteuid().is_root() {
        return crate::base::cannot_run("only root can give a process the ids that `newuidmap` would");
    }
    let said = in_namespace("attributes::inside_of_a_namespace", 1_900_000_000);
    let expected = with(Layout::Unpacked, Way::Inside).await;
    assert!(said.contains(&expected), "expected\n{expected}\nfound\n{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the inner part of `a_worker_without_root_gives_the_same_layers`"]
async fn inside_of_a_namespace() {
    println!("{}", with(Layout::Unpacked, Way::Shared).await);
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
