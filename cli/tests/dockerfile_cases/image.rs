//! Images as they lie on disk: OCI layouts, and what `docker save` writes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tar::EntryType;

/// An image.
pub struct Image {
    /// Its configuration.
    pub config: Value,
    /// Its layers, lowest first.
    pub layers: Vec<Arc<Layer>>,
}

/// The entries of a layer's archive, in their order.
pub type Layer = Vec<(String, Node)>;

/// An entry of an archive, or a file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u64, u64),
    pub time: i64,
    pub content: Vec<u8>,
    /// What a link says.
    pub link: String,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path of a file that has several.
    pub first: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    HardLink,
    Fifo,
    Character,
    Block,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::HardLink => "hard link",
            Self::Fifo => "fifo",
            Self::Character => "character",
            Self::Block => "block",
        }
    }
}

/// Files by their paths, without a slash before them.
pub type Files = BTreeMap<String, Node>;

impl Image {
    /// Of an OCI layout.
    pub fn of_layout(place: &Path) -> Self {
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            std::fs::read(place.join("blobs").join(digest)).unwrap()
        };
        let index: Value = serde_json::from_slice(&std::fs::read(place.join("index.json")).unwrap()).unwrap();
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| layer_of(layer["digest"].as_str().unwrap(), || blob(layer))).collect();
        Self { config, layers }
    }

    /// Of what `docker save` wrote.
    pub fn of_archive(archive: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let link = entry.link_name().unwrap().map(|link| link.to_string_lossy().into_owned());
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            files.insert(path, (data, link));
        }
        let file = |path: &str| -> &[u8] {
            let (data, link) = &files[path];
            // A layer that is there twice is a link to the other one, relative to its directory.
            link.as_deref().map_or(data, |link| &files[link.trim_start_matches("../")].0)
        };
        let manifest: Value = serde_json::from_slice(file("manifest.json")).unwrap();
        let config: Value = serde_json::from_slice(file(manifest[0]["Config"].as_str().unwrap())).unwrap();
        let ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let paths = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
        let layers = ids.iter().zip(paths);
        let layers = layers.map(|(id, path)| layer_of(id.as_str().unwrap(), || file(path.as_str().unwrap()).to_vec()));
        Self { layers: layers.collect(), config }
    }

    /// How many of its layers, and of its history's entries, are another image's.
    pub fn shared_with(&self, base: &Self) -> (usize, usize) {
        let ids = |image: &Self| image.config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let history = |image: &Self| image.config["history"].as_array().cloned().unwrap_or_default();
        if ids(self).starts_with(&ids(base)) { (ids(base).len(), history(base).len()) } else { (0, 0) }
    }

    /// Its files, and what each layer changed.
    pub fn files(&self) -> (Files, Vec<Vec<String>>) {
        let (mut files, mut changes) = (Files::new(), Vec::new());
        for layer in &self.layers {
            changes.push(apply(&mut files, layer));
        }
        (files, changes)
    }
}

/// Applies a layer, and says what it changed.
fn apply(files: &mut Files, layer: &Layer) -> Vec<String> {
    let mut changed = Vec::new();
    let before = files.clone();
    let remove = |files: &mut Files, path: &str, itself: bool| {
        let below = format!("{path}/");
        files.retain(|at, _| !(at.starts_with(&below) || itself && at == path));
    };
    for (path, _) in layer {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ".wh..wh..opq" {
            changed.push(format!("-{directory}/*"));
            remove(files, directory, false);
        } else if let Some(name) = name.strip_prefix(".wh.") {
            let gone = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
            remove(files, &gone, true);
            changed.push(format!("-{gone}"));
        }
    }
    for (path, node) in layer {
        if path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) {
            continue;
        }
        let mut node = node.clone();
        if node.kind == Kind::HardLink {
            let target = files.get(&node.link).unwrap_or_else(|| panic!("a hard link to `{}`", node.link));
            node = target.clone();
        }
        let known = before.get(path);
        if node.kind == Kind::Directory {
            let same = |known: &Node| (known.mode, known.owner, &known.xattrs) == (node.mode, node.owner, &node.xattrs);
            if known.is_some_and(|known| known.kind == Kind::Directory && !same(known)) {
                changed.push(format!("{path}/"));
            }
            if files.get(path).is_some_and(|there| there.kind != Kind::Directory) {
                files.remove(path);
            }
        } else {
            remove(files, path, true);
            changed.push(path.clone());
        }
        files.insert(path.clone(), node);
    }
    changed.sort();
    changed
}

/// The entries of a layer, each read once.
fn layer_of(id: &str, data: impl FnOnce() -> Vec<u8>) -> Arc<Layer> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Layer>>> = Mutex::new(BTreeMap::new());
    if let Some(known) = KNOWN.lock().unwrap().get(id) {
        return known.clone();
    }
    let data = data();
    let plain: Box<dyn Read> = match &*data {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(&*data)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(&*data).unwrap()),
        _ => Box::new(&*data),
    };
    let layer = Arc::new(entries(plain));
    KNOWN.lock().unwrap().insert(id.to_owned(), layer.clone());
    layer
}

fn entries(archive: impl Read) -> Layer {
    let mut layer = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let clean = |path: String| path.trim_start_matches("./").trim_matches('/').to_owned();
        let path = clean(text(&entry.path_bytes()));
        let kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Link,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::Character,
            EntryType::Block => Kind::Block,
            _ => Kind::File,
        };
        let link = entry.link_name_bytes().map(|link| text(&link)).unwrap_or_default();
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions.map(Result::unwrap) {
                if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let node = Node {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap_or_default(), header.gid().unwrap_or_default()),
            time: i64::try_from(header.mtime().unwrap_or_default()).unwrap(),
            content,
            link: if kind == Kind::HardLink { clean(link) } else { link },
            xattrs,
            first: path.clone(),
        };
        layer.push((path, node));
    }
    layer
}
