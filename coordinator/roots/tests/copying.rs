//! `COPY`, `ADD` and `WORKDIR` on roots in a store on disk, as `docker build` does them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use kiln_dockerfile::{Chmod, Copy, CopySource, WithParents};
use kiln_images::layer::Compression;
use kiln_images::manifest::media_type;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_roots::{Error, Files, Packing, Roots};
use kiln_store::{Config, Stores};

const F: DigestFunction = DigestFunction::Sha256;

struct World {
    roots: Roots,
    stores: Stores,
    _dir: tempfile::TempDir,
}

/// An entry of an archive: path, what it is, mode, owner.
type Entry = (&'static str, Kind, u32, (u64, u64));

#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File(&'static str),
    Symlink(&'static str),
    Link(&'static str),
}
use Kind::{Directory, File, Link, Symlink};

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (at, (path, kind, mode, (uid, gid))) in entries.iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*gid);
        header.set_mtime(1000 + at as u64);
        match kind {
            Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            File(text) => {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
            Symlink(target) | Link(target) => {
                let is_hard = matches!(kind, Link(_));
                header.set_entry_type(if is_hard { tar::EntryType::Link } else { tar::EntryType::Symlink });
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with_store(1 << 30).await
    }

    async fn with_store(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(&Config::on_disk(dir.path().to_owned(), bytes)).await.unwrap();
        Self { roots: Roots::new(stores.clone(), "", F), stores, _dir: dir }
    }

    async fn put(&self, data: Vec<u8>) -> Digest {
        let digest = F.digest(&data);
        self.stores.blobs.put(&digest, data.into()).await.unwrap();
        digest
    }

    /// An image of one layer.
    async fn image(&self, entries: &[Entry]) -> Files {
        let data = archive(entries);
        let mut packed = Vec::new();
        let layer = kiln_images::layer::compress(&mut data.as_slice(), &mut packed, Compression::Gzip).unwrap();
        let blob = self.put(packed).await;
        self.roots.base("base", &[(layer.descriptor, blob)]).await.unwrap()
    }

    /// Lines of `path mode uid gid what`, sorted.
    async fn list(&self, files: &Files) -> Vec<String> {
        let scratch = self.roots.scratch().await.unwrap();
        let packing = Packing { compression: Compression::Zstd, ..Packing::default() };
        let layer = self.roots.layer(&scratch, files, packing).await.unwrap();
        let data = self.stores.blobs.get(&layer.blob).await.unwrap();
        let plain = kiln_images::layer::unpacked(media_type::OCI_LAYER_ZSTD, &*data).unwrap();
        let mut archive = tar::Archive::new(plain);
        let mut lines = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header().clone();
            let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let mut data = Vec::new();
            let what = match header.entry_type() {
                tar::EntryType::Directory => "dir".to_owned(),
                tar::EntryType::Symlink => format!("-> {link}"),
                tar::EntryType::Link => format!("= {link}"),
                _ => {
                    std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
                    format!("`{}`", String::from_utf8_lossy(&data))
                }
            };
            lines.push(format!("{path} {mode:o} {uid}:{gid} {what}"));
        }
        lines.retain(|line| !line.starts_with("./ "));
        lines
    }

    async fn copy(&self, into: &Files, from: &Files, copy: Copy) -> Result<Files, Error> {
        self.roots.copy(into, &copy, &BTreeMap::from([(1, from.clone())])).await
    }
}

fn copy(path: &str, destination: &str) -> Copy {
    let files = CopySource::Files { from: 1, path: path.to_owned(), parents: None, unpack: false };
    Copy {
        root: 0,
        sources: vec![files],
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        link: false,
        excludes: Vec::new(),
    }
}

const SOURCE: [Entry; 9] = [
    ("src", Directory, 0o750, (7, 8)),
    ("src/a.txt", File("a"), 0o640, (7, 8)),
    ("src/b.sh", File("b"), 0o4755, (0, 0)),
    ("src/deep", Directory, 0o700, (1, 1)),
    ("src/deep/c.txt", File("c"), 0o644, (0, 0)),
    ("src/link", Symlink("a.txt"), 0o777, (0, 0)),
    ("src/one", File("twice"), 0o644, (0, 0)),
    ("src/two", Link("src/one"), 0o644, (0, 0)),
    ("current", Symlink("src"), 0o777, (0, 0)),
];

#[tokio::test]
async fn a_directory_is_copied_by_its_content_with_owners_modes_and_links() {
    let world = World::new().await;
    let source = world.image(&SOURCE).await;
    let target = world.image(&[("app", Directory, 0o711, (5, 5)), ("app/old", File("o"), 0o644, (0, 0))]).await;
    let done = world.copy(&target, &source, copy("/current", "/app/")).await.unwrap();
    let expected = [
        "app/ 711 5:5 dir",
        "app/a.txt 640 7:8 `a`",
        "app/b.sh 4755 0:0 `b`",
        "app/deep/ 700 1:1 dir",
        "app/deep/c.txt 644 0:0 `c`",
        "app/link 777 0:0 -> a.txt",
        "app/old 644 0:0 `o`",
        "app/one 644 0:0 `twice`",
        "app/two 644 0:0 = app/one",
    ];
    assert_eq!(world.list(&done).await, expected);
    let new = world.copy(&target, &source, copy("/src", "/new/place")).await.unwrap();
    let listed = world.list(&new).await;
    assert!(listed.contains(&"new/ 755 0:0 dir".to_owned()), "{listed:?}");
    assert!(
        listed.contains(&"new/place/ 755 0:0 dir".to_owned()),
        "a new directory only takes what is in it: {listed:?}"
    );
}

#[tokio::test]
async fn owners_are_looked_up_in_the_destination_and_modes_apply_to_all() {
    let world = World::new().await;
    let source = world.image(&SOURCE).await;
    let etc: [Entry; 3] = [
        ("etc", Directory, 0o755, (0, 0)),
        ("etc/passwd", File("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"), 0o644, (0, 0)),
        ("etc/group", File("root:x:0:\nweb:x:33:\n"), 0o644, (0, 0)),
    ];
    let target = world.image(&etc).await;
    for (owner, expected) in
        [("app", "1000:1001"), ("app:web", "1000:33"), ("5", "5:5"), ("5:6", "5:6"), (":web", "0:33")]
    {
        let copy = Copy { owner: Some(owner.to_owned()), ..copy("/src/a.txt", "/x/y/") };
        let done = world.copy(&target, &source, copy).await.unwrap();
        let listed = world.list(&done).await;
        assert!(listed.contains(&format!("x/y/a.txt 640 {expected} `a`")), "{owner}: {listed:?}");
        assert!(listed.contains(&format!("x/ 755 {expected} dir")), "made on the way: {listed:?}");
    }
    let copy_as = |owner: &str| Copy { owner: Some(owner.to_owned()), ..copy("/src/a.txt", "/x") };
    let error = world.copy(&target, &source, copy_as("nobody")).await.unwrap_err();
    assert!(error.is_project_fault() && error.to_string().contains("cannot find user `nobody`"), "{error}");
    let mode = Some(Chmod::Symbolic("u=rwX,go=rX".to_owned()));
    let done = world.copy(&target, &source, Copy { mode, ..copy("/src", "/m") }).await.unwrap();
    let listed = world.list(&done).await;
    for line in ["m/ 755 0:0 dir", "m/a.txt 644 7:8 `a`", "m/deep/ 755 1:1 dir", "m/link 777 0:0 -> a.txt"] {
        assert!(listed.contains(&line.to_owned()), "expected `{line}` in {listed:?}");
    }
}

#[tokio::test]
async fn paths_patterns_and_links_lead_where_they_do_in_docker() {
    let world = World::new().await;
    let source = world.image(&SOURCE).await;
    let target = world.image(&[("real", Directory, 0o755, (0, 0)), ("to", Symlink("/real"), 0o777, (0, 0))]).await;
    let names = |listed: Vec<String>| -> Vec<String> {
        listed.into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let done = world.copy(&target, &source, copy("/src/*.txt", "/to/")).await.unwrap();
    assert_eq!(names(world.list(&done).await), ["real/", "real/a.txt", "to"]);
    let done = world.copy(&target, &source, copy("/src/a.txt", "/to")).await.unwrap();
    assert_eq!(names(world.list(&done).await), ["real/", "real/a.txt", "to"]);
    let none = world.copy(&target, &source, copy("/src/*.none", "/to/")).await.unwrap();
    assert_eq!(none.root, target.root, "a pattern may match nothing");
    let linked = world.copy(&target, &source, Copy { link: true, ..copy("/src/a.txt", "/to/") }).await.unwrap();
    assert_eq!(names(world.list(&linked).await), ["real/", "to/", "to/a.txt"], "with --link, links are not followed");
    let except = Copy { excludes: vec!["**/*.txt".to_owned(), "two".to_owned()], ..copy("/src", "/d") };
    let done = world.copy(&target, &source, except).await.unwrap();
    let listed = world.list(&done).await;
    assert!(
        listed.contains(&"d/one 644 0:0 `twice`".to_owned()),
        "a file whose links stay behind is alone: {listed:?}"
    );
    assert!(!listed.iter().any(|line| line.contains(".txt ")), "{listed:?}");
    let parents = WithParents { pattern: "deep/*.txt".to_owned(), required: None };
    let files = CopySource::Files { from: 1, path: "/src".to_owned(), parents: Some(parents), unpack: false };
    let done = world.copy(&target, &source, Copy { sources: vec![files], ..copy("", "/p/") }).await.unwrap();
    let listed = names(world.list(&done).await);
    assert_eq!(listed, ["p/", "p/deep/", "p/deep/c.txt", "real/", "to"]);
}

#[tokio::test]
async fn what_is_missing_or_in_the_way_is_said_with_what_is_there() {
    let world = World::new().await;
    let source = world.image(&SOURCE).await;
    let target = world.image(&[("d", Directory, 0o755, (0, 0)), ("f", File("f"), 0o644, (0, 0))]).await;
    let error = world.copy(&target, &source, copy("/src/nothing", "/x")).await.unwrap_err().to_string();
    assert_eq!(error, "`/src/nothing` does not exist; `/src` has `a.txt`, `b.sh`, `deep`, `link`, `one`, `two`");
    let error = world.copy(&target, &source, copy("/src", "/f")).await.unwrap_err();
    assert!(error.is_project_fault() && error.to_string().contains("`f` is a file"), "{error}");
    let inline = CopySource::Inline { name: "d".to_owned(), data: "x".to_owned() };
    let onto = Copy { sources: vec![inline], ..copy("", "/") };
    let error = world.copy(&target, &source, onto).await.unwrap_err().to_string();
    assert!(error.contains("`d` is a directory"), "{error}");
}

#[tokio::test]
async fn heredocs_archives_and_directories_become_files() {
    let world = World::new().await;
    let target = world.image(&[("opt", Directory, 0o775, (3, 3))]).await;
    let inline = CopySource::Inline { name: "hello".to_owned(), data: "hi\n".to_owned() };
    let done = world.copy(&target, &target, Copy { sources: vec![inline], ..copy("", "/opt/") }).await.unwrap();
    assert!(world.list(&done).await.contains(&"opt/hello 644 0:0 `hi\n`".to_owned()));
    let inner = archive(&[("opt/tool", File("t"), 0o755, (9, 9)), ("bin", Symlink("opt"), 0o777, (9, 9))]);
    let mut packed = Vec::new();
    kiln_images::layer::compress(&mut inner.as_slice(), &mut packed, Compression::Gzip).unwrap();
    let context = kiln_trees::tree::Tree::default();
    let mut context = context;
    context.insert("a.tgz", kiln_trees::tree::Entry::file(world.put(packed).await, false)).unwrap();
    let sources = kiln_store::trees::store_tree(&*world.stores.blobs, F, &context).await.unwrap();
    let context = world.roots.context(sources, None, &kiln_trees::root::Times::default()).await.unwrap();
    let add = |unpack| CopySource::Files { from: 1, path: "/a.tgz".to_owned(), parents: None, unpack };
    let done = world.copy(&target, &context, Copy { sources: vec![add(true)], ..copy("", "/") }).await.unwrap();
    let expected = ["bin 777 9:9 -> opt", "opt/ 775 3:3 dir", "opt/tool 755 9:9 `t`"];
    assert_eq!(world.list(&done).await, expected, "a directory that the archive only implies stays as it is");
    let owned = Copy { sources: vec![add(true)], owner: Some("4:4".to_owned()), ..copy("", "/x/") };
    let done = world.copy(&target, &context, owned).await.unwrap();
    assert!(world.list(&done).await.contains(&"x/opt/tool 755 4:4 `t`".to_owned()));
    let kept = world.copy(&target, &context, Copy { sources: vec![add(false)], ..copy("", "/") }).await.unwrap();
    assert!(world.list(&kept).await[0].starts_with("a.tgz 644 0:0"));
    let done = world.roots.workdir(&target, "/srv/app/", "5").await.unwrap();
    assert_eq!(world.list(&done).await, ["opt/ 775 3:3 dir", "srv/ 755 5:5 dir", "srv/app/ 755 5:5 dir"]);
    assert_eq!(world.roots.workdir(&done, "/srv/app", "").await.unwrap().root, done.root, "what exists stays");
}

#[tokio::test]
async fn a_layer_holds_what_changed_and_says_what_it_repeats() {
    let world = World::new().await;
    let base = world.image(&SOURCE).await;
    let flat = base.times.flat();
    let times = &flat.0;
    assert_eq!(times[&b"src/a.txt"[..]].seconds, 1001);
    let mode = Some(Chmod::Octal(0o600));
    let owned = world.copy(&base, &base, Copy { mode, ..copy("/src/a.txt", "/src/a.txt") }).await.unwrap();
    assert_eq!(owned.times.get(b"src/a.txt").unwrap().seconds, 1001, "a copy keeps its source's time");
    let layer = world.roots.layer(&base, &owned, Packing::default()).await.unwrap();
    assert_eq!(layer.repeated_bytes, 1);
    let again = world.roots.layer(&base, &owned, Packing::default()).await.unwrap();
    assert_eq!(layer, again);
    let clamped = Packing { epoch: 5, clamp: true, ..Packing::default() };
    let rewritten = world.roots.layer(&base, &owned, clamped).await.unwrap();
    assert_ne!(rewritten.layer.diff_id, layer.layer.diff_id);
    // The same archive is not read again: its result is in the action cache.
    let empty = world.roots.layer(&base, &base, Packing::default()).await.unwrap();
    assert_eq!(empty.repeated_bytes, 0);
}

#[tokio::test]
async fn a_malformed_layer_names_the_image_and_the_layer() {
    let world = World::new().await;
    let mut data = archive(&SOURCE);
    data.truncate(700);
    let mut packed = Vec::new();
    let layer = kiln_images::layer::compress(&mut data.as_slice(), &mut packed, Compression::Gzip).unwrap();
    let blob = world.put(packed).await;
    let error = world.roots.base("shop/base:1", &[(layer.descriptor, blob)]).await.unwrap_err();
    assert!(error.is_project_fault() && error.to_string().starts_with("layer 1 of `shop/base:1`"), "{error}");
}

#[tokio::test]
async fn an_archive_that_decompresses_to_more_than_the_store_holds_is_refused() {
    let world = World::with_store(8 << 20).await;
    let zeros = vec![0_u8; 32 << 20];
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(zeros.len() as u64);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "zeros", zeros.as_slice()).unwrap();
    let (plain, mut packed) = (builder.into_inner().unwrap(), Vec::new());
    let layer = kiln_images::layer::compress(&mut plain.as_slice(), &mut packed, Compression::Zstd).unwrap();
    assert!(packed.len() < 1 << 20);
    let blob = world.put(packed).await;
    let error = world.roots.base("bomb", &[(layer.descriptor, blob)]).await.unwrap_err().to_string();
    assert!(error.contains("larger than the farm's store"), "{error}");
}
