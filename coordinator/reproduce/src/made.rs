//! What two runs made: where their trees differ, and what differs in those files.
//!
//! Invariant: equal directories are not read, and of files that differ only so many are, up to a size.

use std::collections::BTreeMap;

use kiln_compare::{Conditions, Limits, Node, Runs};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::root::TIMES_OUTPUT;
use kiln_proto::{reapi, v1};
use kiln_store::{BlobStore, Stores};
use prost::Message;
use tokio::sync::Semaphore;

use super::layout;

/// Largest file that is looked into.
const MAX_BYTES: u64 = 64 << 20;
/// Files are looked into one at a time, in all builds together: each takes up to six times that much memory.
static LOOKING: Semaphore = Semaphore::const_new(1);
/// Files that are looked into.
const LOOKED_INTO: usize = 50;
/// Differences that are told of.
const TOLD: usize = 50;
/// Directories that are read of each run.
const MAX_DIRECTORIES: usize = 100_000;
/// Where merged results have the tests of several runs, which are no output.
const NO_OUTPUTS: &str = ".kiln/";

/// What cannot be compared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("what the first run made is not in the store any more ({0}); build again")]
    Gone(String),
    #[error(transparent)]
    Store(kiln_store::Error),
    #[error("a directory in the store is invalid: {0}")]
    Invalid(String),
    #[error("more than {MAX_DIRECTORIES} directories differ")]
    TooMany,
}

impl From<kiln_store::Error> for Error {
    fn from(error: kiln_store::Error) -> Self {
        match error {
            kiln_store::Error::NotFound { digest } => Self::Gone(digest.to_string()),
            other => Self::Store(other),
        }
    }
}

pub(super) type Nodes = BTreeMap<String, Node>;

/// What differs between two trees: the nodes that are not in both.
#[derive(Debug, Default)]
pub(super) struct Sides {
    function: DigestFunction,
    pub(super) first: Nodes,
    pub(super) second: Nodes,
    /// What is at each content's name.
    pub(super) digests: BTreeMap<String, Digest>,
    read: usize,
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) differences: Vec<v1::FileDifference>,
    /// How many files differ.
    pub(super) files: u64,
}

impl Sides {
    /// The outputs of two results.
    pub(super) async fn of_results(
        stores: &Stores,
        function: DigestFunction,
        (first, second): (&reapi::ActionResult, &reapi::ActionResult),
    ) -> Result<Self, Error> {
        let mut sides = Self { function, ..Self::default() };
        let is_layer = |result: &reapi::ActionResult| result.output_files.iter().any(|file| file.path == TIMES_OUTPUT);
        // Times are no content of a root: what they are in an image is decided when its layers are packed.
        let ignored = |path: &str| path.starts_with(NO_OUTPUTS) || (path == TIMES_OUTPUT && is_layer(first));
        for (result, is_first) in [(first, true), (second, false)] {
            for file in result.output_files.iter().filter(|file| !ignored(&file.path)) {
                sides.file(
                    &file.path,
                    (file.digest.as_ref(), file.is_executable, file.node_properties.as_ref()),
                    is_first,
                )?;
            }
            for link in &result.output_symlinks {
                sides.put(link.path.clone(), Node::Link(link.target.clone()), is_first);
            }
        }
        let roots = |result: &reapi::ActionResult| {
            let all = result.output_directories.iter();
            all.map(|one| (one.path.clone(), one.root_directory_digest.clone())).collect::<BTreeMap<_, _>>()
        };
        let (one, other) = (roots(first), roots(second));
        let paths: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for path in paths {
            let digest = |of: &BTreeMap<String, Option<reapi::Digest>>| {
                of.get(path).map(|digest| Digest::required(function, digest.as_ref()))
            };
            let (a, b) = (digest(&one).transpose(), digest(&other).transpose());
            let invalid = |error: kiln_proto::digest::Error| Error::Invalid(error.to_string());
            sides.directories(&*stores.blobs, path, (a.map_err(invalid)?, b.map_err(invalid)?)).await?;
        }
        sides.without_equal();
        Ok(sides)
    }

    /// The files of two trees.
    pub(super) async fn of_trees(stores: &Stores, (first, second): (Digest, Digest)) -> Result<Self, Error> {
        let mut sides = Self { function: first.function, ..Self::default() };
        sides.directories(&*stores.artifacts, "", (Some(first), Some(second))).await?;
        layout::name_blobs(stores, &mut sides).await;
        sides.without_equal();
        Ok(sides)
    }

    fn put(&mut self, path: String, node: Node, is_first: bool) {
        let side = if is_first { &mut self.first } else { &mut self.second };
        side.insert(path, node);
    }

    fn file(
        &mut self,
        path: &str,
        (digest, executable, properties): (Option<&reapi::Digest>, bool, Option<&reapi::NodeProperties>),
        is_first: bool,
    ) -> Result<(), Error> {
        let digest = Digest::required(self.function, digest).map_err(|error| Error::Invalid(error.to_string()))?;
        let content = digest.to_string();
        self.digests.insert(content.clone(), digest);
        let mode = properties.and_then(|properties| properties.unix_mode);
        let mode = mode.map_or(if executable { 0o755 } else { 0o644 }, |mode| mode.value);
        let others = properties.map(|properties| &properties.properties[..]).unwrap_or_default();
        let attributes = others.iter().map(|one| format!("{}={}", one.name, one.value)).collect::<Vec<_>>().join(" ");
        self.put(path.to_owned(), Node::File { content, mode, attributes }, is_first);
        Ok(())
    }

    /// Reads two directories, and those below them that differ.
    async fn directories(
        &mut self,
        store: &dyn BlobStore,
        path: &str,
        pair: (Option<Digest>, Option<Digest>),
    ) -> Result<(), Error> {
        let mut waiting = vec![(path.to_owned(), pair)];
        while let Some((path, (first, second))) = waiting.pop() {
            if first == second {
                continue;
            }
            let mut below: BTreeMap<String, (Option<Digest>, Option<Digest>)> = BTreeMap::new();
            for (digest, is_first) in [(first, true), (second, false)] {
                let Some(digest) = digest else { continue };
                self.read = self.read.saturating_add(1);
                if self.read > MAX_DIRECTORIES.saturating_mul(2) {
                    return Err(Error::TooMany);
                }
                let data = store.get(&digest).await?;
                let directory = reapi::Directory::decode(data).map_err(|error| Error::Invalid(error.to_string()))?;
                self.entries(&path, &directory, is_first, &mut below)?;
            }
            waiting.extend(below);
        }
        Ok(())
    }

    fn entries(
        &mut self,
        path: &str,
        directory: &reapi::Directory,
        is_first: bool,
        below: &mut BTreeMap<String, (Option<Digest>, Option<Digest>)>,
    ) -> Result<(), Error> {
        let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        for file in &directory.files {
            let what = (file.digest.as_ref(), file.is_executable, file.node_properties.as_ref());
            self.file(&within(&file.name), what, is_first)?;
        }
        for link in &directory.symlinks {
            self.put(within(&link.name), Node::Link(link.target.clone()), is_first);
        }
        for one in &directory.directories {
            let digest = Digest::required(self.function, one.digest.as_ref());
            let digest = digest.map_err(|error| Error::Invalid(error.to_string()))?;
            let pair = below.entry(within(&one.name)).or_default();
            *(if is_first { &mut pair.0 } else { &mut pair.1 }) = Some(digest);
        }
        if directory.files.is_empty() && directory.symlinks.is_empty() && directory.directories.is_empty() {
            self.put(path.to_owned(), Node::Directory, is_first);
        }
        Ok(())
    }

    fn without_equal(&mut self) {
        let equal: Vec<String> = self
            .first
            .iter()
            .filter(|(path, node)| self.second.get(*path) == Some(node))
            .map(|(path, _)| path.clone())
            .collect();
        for path in equal {
            self.first.remove(&path);
            self.second.remove(&path);
        }
    }
}

fn conditions(wire: &v1::RunConditions) -> Conditions {
    let seconds = |at: &Option<kiln_proto::protobuf::Timestamp>| at.as_ref().map_or(0, |at| at.seconds);
    Conditions {
        began: seconds(&wire.began),
        ended: seconds(&wire.ended),
        cpus: wire.cpus,
        host_name: wire.host_name.clone(),
    }
}

/// Says what differs. Whatever cannot be looked into differs all the same.
pub(super) async fn compare(
    stores: &Stores,
    sides: Sides,
    of: &(v1::RunConditions, v1::RunConditions),
) -> Result<Compared, Error> {
    let (first, second) = (conditions(&of.0), conditions(&of.1));
    let listing = kiln_compare::listings(&sides.first, &sides.second, Runs { first: &first, second: &second });
    let mut paths: std::collections::BTreeSet<String> =
        listing.differences.iter().map(|one| one.path.clone()).collect();
    paths.extend(listing.changed.iter().map(|(path, _)| path.clone()));
    let files = paths.len() as u64;
    let mut differences = listing.differences;
    for (number, (a, b)) in listing.changed.iter().enumerate() {
        if number >= LOOKED_INTO || differences.len() >= TOLD {
            break;
        }
        let content = |nodes: &Nodes, path: &str| match nodes.get(path) {
            Some(Node::File { content, .. }) => sides.digests.get(content).copied(),
            _ => None,
        };
        let (Some(one), Some(other)) = (content(&sides.first, a), content(&sides.second, b)) else { continue };
        differences.extend(looked_into(stores, a, (one, other), (&first, &second)).await?);
    }
    differences.truncate(TOLD);
    let wire = |one: kiln_compare::Difference| v1::FileDifference {
        path: one.path,
        kind: one.kind.name().to_owned(),
        words: one.words,
    };
    Ok(Compared { differences: differences.into_iter().map(wire).collect(), files })
}

async fn looked_into(
    stores: &Stores,
    path: &str,
    (first, second): (Digest, Digest),
    of: (&Conditions, &Conditions),
) -> Result<Vec<kiln_compare::Difference>, Error> {
    if first.size.max(second.size) > MAX_BYTES {
        let words = format!("{} bytes against {}, which is too much to look into", first.size, second.size);
        return Ok(vec![kiln_compare::Difference { path: path.to_owned(), kind: kiln_compare::Kind::Content, words }]);
    }
    let _one = LOOKING.acquire().await.map_err(|error| Error::Invalid(error.to_string()))?;
    let (a, b) = (content(stores, &first).await?, content(stores, &second).await?);
    let (path, of) = (path.to_owned(), (of.0.clone(), of.1.clone()));
    let compare = move || {
        let runs = Runs { first: &of.0, second: &of.1 };
        kiln_compare::contents(&path, &a, &b, runs, &Limits::default())
    };
    tokio::task::spawn_blocking(compare).await.map_err(|error| Error::Invalid(error.to_string()))
}

/// A file's content, from wherever it is kept.
pub(super) async fn content(stores: &Stores, digest: &Digest) -> Result<bytes::Bytes, Error> {
    match stores.blobs.get(digest).await {
        Err(kiln_store::Error::NotFound { .. }) => Ok(stores.artifacts.get(digest).await?),
        found => Ok(found?),
    }
}
