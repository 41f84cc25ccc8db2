//! Roots to start from: a small one made of `busybox`, and a Debian made by `mmdebstrap`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use kiln_proto::digest::Digest;
use kiln_trees::root::{Attributes, Content, Directory, Forest, Leaf, Name, Node, tar};

pub use kiln_harness::cannot_run;

use crate::support::{Cas, F};

/// A root under construction.
#[derive(Default)]
pub struct Builder {
    nodes: Vec<(String, Node)>,
}

pub fn attributes(mode: u32, uid: u32, gid: u32) -> Attributes {
    Attributes { uid, gid, ..Attributes::of_root(mode) }
}

impl Builder {
    pub fn leaf(mut self, path: &str, content: Content, attributes: Attributes) -> Self {
        self.nodes.push((path.to_owned(), Node::Leaf(Leaf::new(content, attributes))));
        self
    }

    pub fn file(self, cas: &Cas, path: &str, mode: u32, text: &str) -> Self {
        let digest = cas.put(text);
        self.leaf(path, Content::File(digest), attributes(mode, 0, 0))
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.leaf(path, Content::Symlink(target.into()), attributes(0o777, 0, 0))
    }

    /// Stores the root, over another.
    pub fn over(self, cas: &Cas, forest: &mut Forest, root: Digest) -> Digest {
        let mut root = root;
        for (path, node) in self.nodes {
            let names: Vec<Name> = kiln_trees::root::split(path.as_bytes()).unwrap();
            root = forest.graft(&root, &names, &node, &Attributes::directory()).unwrap();
        }
        store(cas, forest);
        root
    }
}

/// Stores every directory of a forest that was made.
pub fn store(cas: &Cas, forest: &mut Forest) {
    for made in forest.take_made() {
        cas.put(made.data);
    }
}

/// A root of `busybox` with a few users.
pub fn busybox(cas: &Cas) -> Digest {
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("`busybox` (package `busybox-static`)");
    let content = cas.put(std::fs::read(program).unwrap());
    let applets = Command::new(program).arg("--list").output().unwrap();
    let mut builder = Builder::default().leaf("bin/busybox", Content::File(content), attributes(0o4755, 0, 0));
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        builder = builder.link(&format!("bin/{applet}"), "busybox");
    }
    let mut forest = Forest::new(F);
    let empty = forest.put(Directory::empty(attributes(0o755, 0, 0)));
    let tmp = forest.put(Directory::empty(attributes(0o1777, 0, 0)));
    let home = forest.put(Directory::empty(attributes(0o750, 1000, 1001)));
    let builder = builder
        .file(cas, "etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
        .file(cas, "etc/group", 0o644, "root:x:0:\nshadow:x:42:app\napp:x:1001:\n")
        .file(cas, "etc/known", 0o644, "known\n")
        .file(cas, "usr/share/one", 0o644, "one\n")
        .file(cas, "usr/share/two", 0o644, "two\n")
        .file(cas, "usr/share/deep/er/file", 0o600, "deep\n");
    let directories = [("tmp", tmp), ("root", empty), ("var", empty), ("home/app", home)];
    let root = builder.over(cas, &mut forest, empty);
    let root = directories.iter().fold(root, |root, (path, digest)| {
        let names: Vec<Name> = kiln_trees::root::split(path.as_bytes()).unwrap();
        forest.graft(&root, &names, &Node::Directory(*digest), &attributes(0o755, 0, 0)).unwrap()
    });
    store(cas, &mut forest);
    root
}

/// A Debian with `apt`: its root, and the blob of its times.
pub fn debian(cas: &Cas) -> Option<(Digest, Digest)> {
    static MADE: OnceLock<Option<(Digest, Digest)>> = OnceLock::new();
    let make = || {
        let mut forest = Forest::new(F);
        let mut put = |content: &mut dyn Read| {
            let mut data = Vec::new();
            content.read_to_end(&mut data)?;
            Ok(cas.put(data))
        };
        let (layer, times) =
            tar::read(&mut forest, File::open(kiln_harness::bases::debian()?).unwrap(), &mut put).unwrap();
        let root = forest.flatten(&layer).unwrap();
        // Devices are the container engine's affair, and a worker that is not root could not make them.
        let names: Vec<Name> = kiln_trees::root::split(b"dev").unwrap();
        let mut top = Directory::clone(forest.get(&root).unwrap());
        let dev = forest.put(Directory::empty(attributes(0o755, 0, 0)));
        top.entries.insert(names[0].clone(), Node::Directory(dev));
        let root = forest.put(top);
        store(cas, &mut forest);
        Some((root, cas.put(times.encode())))
    };
    *MADE.get_or_init(make)
}
