//! Archives written by `docker save` (or `podman save`, `skopeo copy`), in the old format and around an OCI layout.
//!
//! The tar is listed once; blobs are then read at their offsets. Invariant: no entry can refer to anything outside the
//! file.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::blobs::{Blobs, ByteStream, Error, MAX_DOCUMENT_BYTES};
use crate::digest::{Digest, Hashed};
use crate::image::Image;
use crate::layout;
use crate::manifest::{Descriptor, Document, Manifest, media_type};
use crate::metered::Metered;

/// Docker's own list of the images in the archive.
pub const DOCKER_LIST: &str = "manifest.json";
/// Maximum number of entries in an archive: there are a few for each layer of each image.
const MAX_ENTRIES: usize = 100_000;
/// Bytes in one piece of a blob.
const PIECE_BYTES: usize = 256 << 10;

/// An archive of an image.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    shown: String,
    top: Document,
    /// Each blob's offset and size.
    places: BTreeMap<Digest, (u64, u64)>,
}

/// Docker's list for a single image whose blobs are stored as in a layout.
pub fn docker_list(image: &Image, reference: &str) -> Document {
    let layers: Vec<String> = image.layers.iter().map(|layer| layout::blob_path(&layer.digest)).collect();
    let config = layout::blob_path(&image.config.descriptor.digest);
    let list = serde_json::json!([{ "Config": config, "RepoTags": [reference], "Layers": layers }]);
    Document::encode("application/json", &list)
}

/// The header of a file in a tar.
pub fn header(path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    // The paths of a layout are always short enough.
    let _ = header.set_path(path);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The padding of a file's last block in a tar.
pub fn padding(size: u64) -> Vec<u8> {
    vec![0; (size.wrapping_neg() % 512) as usize]
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

impl Archive {
    /// Opens and lists the file at `path`, which errors call `shown`. Blocks while it reads the whole file.
    ///
    /// # Errors
    /// If it is not such an archive, or contains several images.
    pub fn open(path: &Path, shown: &str) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: PathBuf::from(shown), source };
        let no_image = |reason: String| Error::NoImage { place: shown.to_owned(), reason };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let entries = list(&mut file).map_err(|error| {
            no_image(format!("it is not a tar archive ({error}); expected what `docker save` writes"))
        })?;
        let mut reader = Reader { file, shown, entries: &entries };
        let mut places = BTreeMap::new();
        for (name, place) in &entries {
            if let (Some(digest), Entry::File(offset, size)) = (layout::blob_at(name), place) {
                places.insert(digest, (*offset, *size));
            }
        }
        let top = if entries.contains_key(layout::INDEX) {
            Document::new(media_type::OCI_INDEX, reader.document(layout::INDEX)?)
        } else {
            reader.docker(&mut places)?
        };
        Ok(Self { path: path.to_owned(), shown: shown.to_owned(), top, places })
    }

    /// The starting point: the index of its layout, or the manifest of its only image.
    pub fn top(&self) -> &Document {
        &self.top
    }
}

enum Entry {
    File(u64, u64),
    Link(String),
}

fn list(file: &mut std::fs::File) -> io::Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let (file, allowance) = Metered::new(io::BufReader::new(file));
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        // The content is skipped by seeking.
        allowance.between_after(0);
        if entries.len() >= MAX_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            entries.insert(name, Entry::File(entry.raw_file_position(), entry.size()));
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name()?.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
            let target = if kind.is_symlink() { beside(&name, &target) } else { target };
            entries.insert(name, Entry::Link(target));
        }
    }
    Ok(entries)
}

/// The target of a relative link at `name`.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

struct Reader<'a> {
    file: std::fs::File,
    shown: &'a str,
    entries: &'a BTreeMap<String, Entry>,
}

impl Reader<'_> {
    fn place(&self, name: &str) -> Result<(u64, u64), Error> {
        let absent = |expected| Error::Absent { place: self.shown.to_owned(), path: name.to_owned(), expected };
        match self.entries.get(name) {
            Some(Entry::File(offset, size)) => Ok((*offset, *size)),
            Some(Entry::Link(target)) => match self.entries.get(target) {
                Some(Entry::File(offset, size)) => Ok((*offset, *size)),
                _ => Err(absent("a link to a file of the archive")),
            },
            None => Err(absent("what `docker save` writes")),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io { path: PathBuf::from(self.shown), source }
    }

    fn document(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let (offset, size) = self.place(name)?;
        if size > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge { what: name.to_owned(), size });
        }
        let mut data = Vec::new();
        self.file.seek(SeekFrom::Start(offset)).map_err(|error| self.failed(error))?;
        (&self.file).take(size).read_to_end(&mut data).map_err(|error| self.failed(error))?;
        Ok(data)
    }

    /// The old format: a list of images, each with a configuration and its layers' tars. A manifest is created for it
    /// here.
    fn docker(&mut self, places: &mut BTreeMap<Digest, (u64, u64)>) -> Result<Document, Error> {
        let no_image = |reason: String| Error::NoImage { place: self.shown.to_owned(), reason };
        if !self.entries.contains_key(DOCKER_LIST) {
            return Err(no_image(format!("it has neither `{}` nor `{DOCKER_LIST}`", layout::INDEX)));
        }
        let list = self.document(DOCKER_LIST)?;
        let mut listed: Vec<Listed> = serde_json::from_slice(&list).map_err(|error| Error::NoImage {
            place: self.shown.to_owned(),
            reason: format!("`{DOCKER_LIST}`: {error}"),
        })?;
        let (Some(image), true) = (listed.pop(), listed.is_empty()) else {
            let reason = format!("it contains {} images: save only one", listed.len().saturating_add(1));
            return Err(Error::NoImage { place: self.shown.to_owned(), reason });
        };
        let config = Document::new(media_type::OCI_CONFIG, self.document(&image.config)?);
        places.insert(config.descriptor.digest, self.place(&image.config)?);
        let mut layers = Vec::new();
        for name in &image.layers {
            let (offset, size) = self.place(name)?;
            let digest = self.hash(offset, size)?;
            places.insert(digest, (offset, size));
            layers.push(Descriptor::new(media_type::OCI_LAYER, digest, size));
        }
        Ok(Document::from(&Manifest::new(config.descriptor, layers)))
    }

    fn hash(&mut self, offset: u64, size: u64) -> Result<Digest, Error> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|error| self.failed(error))?;
        let mut hashed = Hashed::new(io::sink());
        let mut content = io::BufReader::with_capacity(PIECE_BYTES, (&self.file).take(size));
        io::copy(&mut content, &mut hashed).map_err(|error| self.failed(error))?;
        Ok(hashed.finish().1)
    }
}

#[async_trait]
impl Blobs for Archive {
    fn place(&self) -> String {
        self.shown.clone()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, Error> {
        let Some((offset, size)) = self.places.get(&descriptor.digest).copied() else {
            let (place, path) = (self.shown.clone(), descriptor.digest.to_string());
            return Err(Error::Absent { place, path, expected: "every blob that its manifest names" });
        };
        let (path, shown) = (self.path.clone(), PathBuf::from(&self.shown));
        let (sender, receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            if let Err(source) = send(&path, offset, size, &sender) {
                let _ = sender.blocking_send(Err(Error::Io { path: shown, source }));
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

fn send(path: &Path, offset: u64, size: u64, to: &mpsc::Sender<Result<Bytes, Error>>) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut left = size;
    while left > 0 {
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
        file.read_exact(&mut piece)?;
        left = left.saturating_sub(piece.len() as u64);
        if to.blocking_send(Ok(piece.into())).is_err() {
            break;
        }
    }
    Ok(())
}
