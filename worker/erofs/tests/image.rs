//! Images as Linux reads them: every name, attribute and link is there, and `fsck.erofs` finds nothing wrong.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_erofs::{Error, Kind, Node, write};
use kiln_harness::cannot_run;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;

fn node(kind: Kind) -> Node {
    let mode = if matches!(kind, Kind::Directory(_)) { 0o755 } else { 0o644 };
    Node { kind, mode, uid: 0, gid: 0, modified: (1_000_000_000, 5), xattrs: Vec::new() }
}

fn directory(names: &[(&str, usize)]) -> Node {
    node(Kind::Directory(names.iter().map(|(name, node)| (name.as_bytes().to_vec(), *node)).collect()))
}

fn image(nodes: &[Node], marks: &str) -> Vec<u8> {
    let mut image = Vec::new();
    write(nodes, marks, &mut image).unwrap();
    assert_eq!(image.len() % 4096, 0);
    image
}

/// An image that is mounted as long as this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where nothing can be mounted.
    fn new(nodes: &[Node], marks: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, image(nodes, marks)).unwrap();
        check(&file);
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let at = dir.path().join("root");
        match mount(Some(&file), &at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>) {
            Ok(()) => Some(Self(dir)),
            Err(error) if nix::unistd::geteuid().is_root() => panic!("cannot mount an image: {error}"),
            Err(_) => {
                cannot_run("root, which may mount images");
                None
            }
        }
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.root(), MntFlags::MNT_DETACH);
    }
}

/// Checks an image with the tool of those who define the format.
fn check(file: &Path) {
    match Command::new("fsck.erofs").arg(file).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
        }
        Err(_) => cannot_run("`fsck.erofs` (package `erofs-utils`)"),
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn names_attributes_and_links_are_there() {
    let mut nodes = vec![
        directory(&[
            ("dev", 1),
            ("etc", 2),
            ("file", 5),
            ("hard", 5),
            ("empty", 6),
            ("-first", 7),
            ("link", 8),
            ("pipe", 9),
        ]),
        directory(&[("null", 3), ("disk", 4)]),
        directory(&[]),
        node(Kind::Character(1, 3)),
        node(Kind::Block(259, 70_000)),
        node(Kind::File(5_000_000_000, b"/ab/object".to_vec())),
        node(Kind::File(0, Vec::new())),
        node(Kind::File(1, b"/cd/other".to_vec())),
        node(Kind::Symlink(b"../anywhere at all".to_vec())),
        node(Kind::Fifo),
    ];
    nodes[5].mode = 0o4711;
    (nodes[5].uid, nodes[5].gid, nodes[5].modified) = (65_535, 42, (-7, 123_456_789));
    nodes[5].xattrs = vec![("user.mime".into(), b"x".to_vec()), ("security.capability".into(), vec![7; 20])];
    nodes[2].xattrs = vec![("user.large".into(), vec![9; 5000])];
    let Some(mounted) = Mounted::new(&nodes, "trusted.overlay.") else { return };
    let at = |path: &str| mounted.root().join(path);
    let data = |path: &str| std::fs::symlink_metadata(at(path)).unwrap();
    let names: Vec<String> = std::fs::read_dir(mounted.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["-first", "dev", "empty", "etc", "file", "hard", "link", "pipe"]);
    let file = data("file");
    assert_eq!(
        (file.mode(), file.uid(), file.gid(), file.len(), file.nlink()),
        (0o104_711, 65_535, 42, 5_000_000_000, 2)
    );
    assert_eq!((file.mtime(), file.mtime_nsec()), (-7, 123_456_789));
    assert_eq!(file.ino(), data("hard").ino());
    assert_eq!((data("").nlink(), data("dev").nlink(), data("etc").nlink()), (4, 2, 2));
    assert_eq!(xattr(&at("file"), "user.mime").as_deref(), Some(&b"x"[..]));
    assert_eq!(xattr(&at("file"), "trusted.overlay.redirect").as_deref(), Some(&b"/ab/object"[..]));
    assert_eq!(xattr(&at("file"), "trusted.overlay.metacopy").as_deref(), Some(&b""[..]));
    assert_eq!(xattr(&at("empty"), "trusted.overlay.metacopy"), None);
    assert_eq!(xattr(&at("etc"), "user.large"), Some(vec![9; 5000]));
    assert!(data("dev/null").file_type().is_char_device() && data("dev/disk").file_type().is_block_device());
    assert_eq!(data("dev/disk").rdev(), nix::sys::stat::makedev(259, 70_000));
    assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("../anywhere at all"));
    assert!(data("pipe").file_type().is_fifo());
}

#[test]
fn large_directories_and_long_links_are_there() {
    let count = 5_000;
    let target = |at: usize| format!("{at}/{}", "t".repeat(at % 4090)).into_bytes();
    let names = (0..count).map(|at| (format!("{at:05}{}", "n".repeat(at % 240)).into_bytes(), at + 1));
    let mut nodes = vec![node(Kind::Directory(names.collect()))];
    nodes.extend((0..count).map(|at| node(Kind::Symlink(target(at)))));
    let Some(mounted) = Mounted::new(&nodes, "user.overlay.") else { return };
    let Kind::Directory(names) = &nodes[0].kind else { unreachable!() };
    assert_eq!(std::fs::read_dir(mounted.root()).unwrap().count(), count);
    for (name, at) in names {
        let path = mounted.root().join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read_link(path).unwrap().as_os_str().as_bytes(), target(at - 1));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |nodes: &[Node]| write(nodes, "user.overlay.", &mut Vec::new()).unwrap_err();
    assert!(matches!(refused(&[]), Error::NotTree));
    assert!(matches!(refused(&[node(Kind::Fifo)]), Error::NotTree));
    assert!(matches!(refused(&[directory(&[("itself", 0)])]), Error::NotTree));
    assert!(matches!(refused(&[directory(&[("beyond", 1)])]), Error::NotTree));
    assert!(matches!(refused(&[directory(&[]), directory(&[])]), Error::NotTree), "nothing stands for the second");
    let two = [directory(&[("one", 1), ("two", 1)]), directory(&[])];
    assert!(matches!(refused(&two), Error::NotTree), "a directory has one name");
    for name in ["", "a/b", "..", "a\0b"] {
        assert!(matches!(refused(&[directory(&[(name, 1)]), node(Kind::Fifo)]), Error::NotTree), "{name:?}");
    }
    assert!(matches!(refused(&[directory(&[(&"n".repeat(256), 1)]), node(Kind::Fifo)]), Error::Long(256)));
    let link = |length| [directory(&[("link", 1)]), node(Kind::Symlink(vec![b'x'; length]))];
    assert!(matches!((refused(&link(4096)), refused(&link(0))), (Error::Long(4096), Error::Long(0))));
    let with = |name: &str, bytes| {
        let mut top = directory(&[]);
        top.xattrs = vec![(name.to_owned(), vec![0; bytes])];
        [top]
    };
    for (name, bytes) in [("system.posix_acl_access", 1), ("user.", 1), ("user.x", 65_536)] {
        assert!(matches!(refused(&with(name, bytes)), Error::Attribute(_)), "{name}");
    }
    assert!(write(&with("user.x", 65_535), "user.overlay.", &mut Vec::new()).is_ok());
}

/// What a tree is made of: for each node the directory that it is in, its kind, and what varies.
fn trees() -> impl Strategy<Value = Vec<(usize, u8, u64, Vec<u8>)>> {
    let name = proptest::collection::vec(prop_oneof![1..=46_u8, 48..=255_u8], 1..60);
    proptest::collection::vec((any::<usize>(), 0..6_u8, any::<u64>(), name), 0..120)
}

fn built(parts: &[(usize, u8, u64, Vec<u8>)]) -> Vec<Node> {
    let mut nodes = vec![node(Kind::Directory(Vec::new()))];
    let mut taken: HashMap<usize, BTreeMap<Vec<u8>, usize>> = HashMap::new();
    for (place, kind, number, name) in parts {
        let directories: Vec<usize> = nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| matches!(node.kind, Kind::Directory(_)))
            .map(|(at, _)| at)
            .collect();
        let parent = directories[place % directories.len()];
        let is_taken = taken.get(&parent).is_some_and(|names| names.contains_key(name));
        if is_taken || [&b"."[..], b".."].contains(&name.as_slice()) {
            continue;
        }
        let kind = match kind {
            0 => Kind::Directory(Vec::new()),
            1 => Kind::File(number % (1 << 43), name.clone()),
            2 => Kind::Symlink(vec![b'l'; 1 + (number % 4095) as usize]),
            3 => Kind::Character((*number % 4096) as u32, (number >> 32) as u32 % (1 << 20)),
            4 => Kind::File(0, Vec::new()),
            _ => Kind::Fifo,
        };
        taken.entry(parent).or_default().insert(name.clone(), nodes.len());
        // Linux shows these of no other nodes.
        let has_xattrs = matches!(kind, Kind::Directory(_) | Kind::File(..));
        let xattrs = match number % 3 {
            0 if has_xattrs => vec![("user.x".to_owned(), vec![1; (number >> 8) as usize % 6000])],
            _ => Vec::new(),
        };
        let (mode, uid, gid) = ((number >> 3) as u32 & 0o7777, (number >> 16) as u32, (number >> 40) as u32);
        nodes.push(Node { kind, mode, uid, gid, modified: ((number >> 20) as i64, 7), xattrs });
    }
    for (parent, names) in taken {
        nodes[parent].kind = Kind::Directory(names.into_iter().collect());
    }
    nodes
}

fn compare(nodes: &[Node], at: usize, path: &Path) {
    let (node, data) = (&nodes[at], std::fs::symlink_metadata(path).unwrap());
    assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (node.mode & 0o7777, node.uid, node.gid));
    assert_eq!((data.mtime(), data.mtime_nsec()), (node.modified.0, i64::from(node.modified.1)));
    for (name, value) in &node.xattrs {
        assert!(xattr(path, name).as_ref() == Some(value), "`{name}` of {}", path.display());
    }
    match &node.kind {
        Kind::Directory(names) => {
            assert_eq!(std::fs::read_dir(path).unwrap().count(), names.len());
            for (name, below) in names {
                compare(nodes, *below, &path.join(OsStr::from_bytes(name)));
            }
        }
        Kind::File(size, object) => {
            assert_eq!(data.len(), *size);
            let redirect = xattr(path, "trusted.overlay.redirect");
            assert_eq!(redirect, (*size > 0).then(|| object.clone()));
        }
        Kind::Symlink(target) => assert_eq!(std::fs::read_link(path).unwrap().as_os_str().as_bytes(), target),
        Kind::Fifo => assert!(data.file_type().is_fifo()),
        Kind::Character(major, minor) => {
            assert_eq!(data.rdev(), nix::sys::stat::makedev(u64::from(*major), u64::from(*minor)));
        }
        Kind::Block(..) => unreachable!(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_read_as_it_was_written(parts in trees()) {
        let nodes = built(&parts);
        if let Some(mounted) = Mounted::new(&nodes, "trusted.overlay.") {
            compare(&nodes, 0, &mounted.root());
        }
        prop_assert_eq!(image(&nodes, "user.overlay."), image(&nodes, "user.overlay."));
    }
}
