//! The source tree: the Dockerfile and its `.dockerignore` at the root, each context in a directory below [`CONTEXTS`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;
use kiln_proto::transfer::Blob;
use kiln_scan::{Files, Keeps, Scanned, Why};
use kiln_trees::root::Times;
use kiln_trees::tree::{Entry, Tree};
use tempfile::TempDir;

use crate::archive::Unpacked;
use crate::{Contexts, DOCKERFILE, Error, Wanted};

/// The directory of the contexts.
const CONTEXTS: &str = ".contexts";
/// The context without a name.
pub(crate) const MAIN: &str = "main";

/// The path of a context in the tree.
pub(crate) fn path(place: &str) -> String {
    format!("{CONTEXTS}/{place}")
}

/// The tree while it is made.
pub(crate) struct Layout {
    function: DigestFunction,
    cache: Option<PathBuf>,
    meter: Meter,
    contexts: Tree,
    file: String,
    dockerfile: Vec<u8>,
    blobs: HashMap<Digest, Blob>,
    files: usize,
    hashed: usize,
    times: Times,
    notes: Vec<String>,
    kept: Vec<TempDir>,
    /// The name of the context.
    pub(crate) name: String,
    /// The directory that is the context.
    pub(crate) root: Option<PathBuf>,
    /// What `.dockerignore` says.
    pub(crate) ignore: Option<(String, String)>,
    /// Named contexts.
    pub(crate) named: BTreeMap<String, String>,
}

impl Layout {
    pub(crate) fn new(wanted: &Wanted, meter: Meter) -> Self {
        Self {
            function: wanted.function,
            cache: wanted.cache.clone(),
            meter,
            contexts: Tree::default(),
            file: DOCKERFILE.to_owned(),
            dockerfile: Vec::new(),
            blobs: HashMap::new(),
            files: 0,
            hashed: 0,
            times: Times::default(),
            notes: Vec::new(),
            kept: Vec::new(),
            name: "context".to_owned(),
            root: None,
            ignore: None,
            named: BTreeMap::new(),
        }
    }

    /// Sets the Dockerfile. Of its path, messages show the last part.
    pub(crate) fn dockerfile(&mut self, path: &str, content: Vec<u8>) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_name = !matches!(name, "" | "." | ".." | CONTEXTS | crate::STDIN);
        self.file = if is_name { name.to_owned() } else { DOCKERFILE.to_owned() };
        self.dockerfile = content;
    }

    /// The name of the next named context.
    pub(crate) fn next(&self) -> String {
        (0..)
            .map(|number: usize| number.to_string())
            .find(|name| !self.contexts.entries.contains_key(name))
            .unwrap_or_default()
    }

    /// Keeps files that blobs refer to.
    pub(crate) fn keep(&mut self, kept: TempDir) {
        self.kept.push(kept);
    }

    /// Adds a directory of this machine.
    pub(crate) fn directory(&mut self, place: &str, directory: &Path, keeps: Keeps) -> Result<(), Error> {
        let options = kiln_scan::Options {
            root: directory.to_owned(),
            parts: Vec::new(),
            cache: self.cache.clone(),
            function: self.function,
            files: Files::Context(keeps),
        };
        let scanned = kiln_scan::scan_metered(&options, &self.meter)?;
        for one in scanned.left_out.iter().filter(|one| one.why == Why::Special) {
            self.notes.push(format!("`{}` is left out: a device has no content to copy", one.path));
        }
        self.files = self.files.saturating_add(scanned.files);
        self.hashed = self.hashed.saturating_add(scanned.hashed);
        self.blobs.extend(scanned.blobs());
        let above = path(place);
        let below = |name: Vec<u8>| [above.as_bytes(), b"/", &name].concat();
        self.times.0.extend(scanned.times.0.into_iter().map(|(name, time)| (below(name), time)));
        self.contexts.entries.insert(place.to_owned(), Entry::Sealed { digest: scanned.digest });
        Ok(())
    }

    /// Adds an archive.
    pub(crate) fn unpacked(&mut self, place: &str, unpacked: Unpacked) {
        self.files = self.files.saturating_add(unpacked.blobs.len());
        self.hashed = self.hashed.saturating_add(unpacked.blobs.len());
        self.blobs.extend(unpacked.blobs);
        self.notes.extend(unpacked.notes);
        self.kept.push(unpacked.kept);
        self.contexts.entries.insert(place.to_owned(), Entry::Directory(unpacked.tree));
    }

    /// Adds an empty context.
    pub(crate) fn empty(&mut self) -> Result<(), Error> {
        Ok(self.contexts.insert(MAIN, Entry::Directory(Tree::default()))?)
    }

    fn bytes(&mut self, data: Vec<u8>) -> Digest {
        let digest = self.function.digest(&data);
        self.blobs.insert(digest, Blob::Bytes(Bytes::from(data)));
        digest
    }

    pub(crate) fn finish(mut self) -> Result<Contexts, Error> {
        let mut tree = Tree::default();
        let dockerfile = self.bytes(self.dockerfile.clone());
        tree.insert(&self.file.clone(), Entry::file(dockerfile, false))?;
        // Without one here, the farm would look into the context, which it only should for a directory.
        let text = self.ignore.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
        let ignore = self.bytes(text.into_bytes());
        tree.insert(&format!("{}.dockerignore", self.file), Entry::file(ignore, false))?;
        tree.insert(CONTEXTS, Entry::Directory(self.contexts))?;
        let blobs = &mut self.blobs;
        let digest = tree.encode(self.function, &mut |encoded| {
            blobs.insert(encoded.digest, Blob::Bytes(Bytes::from(encoded.data)));
        });
        let mut scanned = Scanned::of(self.root.clone().unwrap_or_default(), digest, self.blobs);
        (scanned.files, scanned.hashed, scanned.times) = (self.files, self.hashed, self.times);
        scanned.add_times(self.function);
        Ok(Contexts {
            scanned,
            context: path(MAIN),
            file: self.file,
            dockerfile: self.dockerfile,
            ignore: self.ignore,
            named: self.named,
            name: self.name,
            directory: self.root,
            notes: self.notes,
            _kept: self.kept,
        })
    }
}
