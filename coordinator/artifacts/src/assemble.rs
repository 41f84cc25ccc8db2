//! Turns steps' outputs into an artifact in the store: selects, lays out and checks files, and packs archives and
//! images.
//!
//! Invariant: the result depends only on the outputs and the artifact's description (and, for an image, on its base and
//! the commit); the same files produce the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_images::image::Origin;
use kiln_planner::plan::{Artifact, ArtifactKind, Platform, Target};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{Entry, Tree};

use super::bundle::{self, Supplied, System};
use super::choose::{choose, lay_out};
use super::image::dockerfile::Commands;
use super::image::{self, Bases};
use super::sbom::system::Installed;
use super::start::{self, Start};
use super::{Material, Subject, archive, check};
use crate::elf::Wants;
use kiln_store::trees::overlay;
use kiln_store::trees::{self, flatten};
use kiln_store::{BlobStore, Stores};

/// Why an artifact cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("artifact `{artifact}`: no output matches `{path}`; its steps produced: {found}")]
    NoFile { artifact: String, path: String, found: String },
    #[error("artifact `{artifact}`: {reason}")]
    Layout { artifact: String, reason: String },
    #[error("artifact `{artifact}` would not run on its target: {}{fix}", .objections.join("; "))]
    WouldNotRun { artifact: String, objections: Vec<String>, fix: String },
    #[error("artifact `{artifact}`: cannot look up its libraries: {reason}")]
    Libraries { artifact: String, reason: String, is_project_fault: bool },
    #[error("artifact `{artifact}`, base `{base}`: {source}")]
    Base {
        artifact: String,
        base: String,
        #[source]
        source: Box<image::BaseError>,
    },
    #[error(transparent)]
    Root(#[from] kiln_roots::Error),
    #[error("artifact `{artifact}`: {place}: {source}")]
    Instruction {
        artifact: String,
        place: String,
        #[source]
        source: Box<kiln_roots::Error>,
    },
    #[error("artifact `{artifact}`: {reason}")]
    Command { artifact: String, reason: String, is_project_fault: bool },
    #[error("artifact `{artifact}`: {reason}")]
    InputsGone { artifact: String, reason: String },
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error(transparent)]
    Tree(#[from] trees::Error),
    #[error("cannot pack an artifact: {0}")]
    Pack(#[from] std::io::Error),
    #[error("cannot write a layer: {0}")]
    Layer(#[from] kiln_images::layer::Error),
}

impl From<kiln_store::files::PutError> for Error {
    fn from(error: kiln_store::files::PutError) -> Self {
        match error {
            kiln_store::files::PutError::Io(error) => Self::Pack(error),
            kiln_store::files::PutError::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    /// Whether something that an earlier step made is no longer in the store. What made it runs again if this is tried again.
    pub fn is_something_gone(&self) -> bool {
        let is_gone = |error: &kiln_store::Error| matches!(error, kiln_store::Error::NotFound { .. });
        let root = |error: &kiln_roots::Error| match error {
            kiln_roots::Error::Gone(_) => true,
            kiln_roots::Error::Store(error) => is_gone(error),
            _ => false,
        };
        match self {
            Self::InputsGone { .. } => true,
            Self::Root(source) => root(source),
            Self::Instruction { source, .. } => root(source),
            Self::Store(source) => is_gone(source),
            _ => false,
        }
    }

    /// Whether it is the project's fault rather than the farm's.
    pub fn is_project_fault(&self) -> bool {
        match self {
            Self::NoFile { .. } | Self::Layout { .. } | Self::WouldNotRun { .. } => true,
            Self::Libraries { is_project_fault, .. } | Self::Command { is_project_fault, .. } => *is_project_fault,
            Self::Root(source) => source.is_project_fault(),
            Self::Instruction { source, .. } => source.is_project_fault(),
            Self::Base { source, .. } => source.is_project_fault(),
            Self::InputsGone { .. } | Self::Store(_) | Self::Tree(_) | Self::Pack(_) | Self::Layer(_) => false,
        }
    }
}

/// A context that the client sent beside the project: what `.dockerignore` leaves of a directory, with its modes.
#[derive(Debug, Clone)]
pub struct SentContext {
    /// Where it is in the tree that was sent.
    pub place: String,
    /// Its files.
    pub tree: Tree,
}

/// Contexts by the Dockerfile that they are for, empty for a named context, and the path that it calls them by.
pub type SentContexts = BTreeMap<(String, String), SentContext>;

/// The inputs of an artifact.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// Where inputs are read and results are stored.
    pub stores: &'a Stores,
    /// The digest function for blobs.
    pub function: DigestFunction,
    /// The REAPI instance for cached results.
    pub instance: &'a str,
    /// The artifact's description.
    pub artifact: &'a Artifact,
    /// The target that it is for.
    pub target: &'a Target,
    /// The platform of a Dockerfile's stages that name it as `$BUILDPLATFORM`.
    pub builder: Platform,
    /// The outputs of each of its steps with the step's name, in the plan's order.
    pub outputs: &'a [(String, Tree)],
    /// The base of an archive's file name.
    pub stem: &'a str,
    /// The project's source tree, which may contain an image's base.
    pub sources: &'a Tree,
    /// The digest of the tree that was sent: those sources, and what Dockerfiles copy from.
    pub tree: Digest,
    /// What its Dockerfile copies from, as far as that is not taken from the sources.
    pub contexts: &'a SentContexts,
    /// The blob with the times of its files, if they are known.
    pub times: Option<Digest>,
    /// The bases of this build's images.
    pub bases: &'a Bases,
    /// The origin recorded in an image.
    pub origin: &'a Origin,
    /// The system that its steps ran on.
    pub system: &'a dyn System,
    /// Runs the commands of a Dockerfile.
    pub commands: &'a dyn Commands,
}

/// An artifact's content in the store.
#[derive(Debug, Clone)]
pub struct Made {
    /// The directory of its files.
    pub root: Digest,
    /// Its only file, an image's manifest, or the root.
    pub content: Digest,
    /// Total size of its files.
    pub size_bytes: u64,
    /// Its files, or the image.
    pub subjects: Vec<Subject>,
    /// Its symbolic links, with what they lead to; `None` of an image, whose manifest covers them.
    pub links: Option<BTreeMap<String, String>>,
    /// Every blob that belongs to it.
    pub blobs: Vec<Digest>,
    /// What it was made from besides the sources.
    pub materials: Vec<Material>,
    /// What its executables require of their target.
    pub wants: BTreeMap<String, Wants>,
    /// The packages of its system, if it is the image of a Dockerfile.
    pub installed: Vec<Installed>,
    /// Its files as lines of `sha256sum`; `None` if they are identified by another hash function.
    pub checksums: Option<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// How it is started, as in `v1::Artifact`.
    pub start: Start,
}

impl Made {
    /// An artifact of which nothing but its blobs is known.
    pub(super) fn of_blobs(root: Digest, content: Digest, size_bytes: u64, blobs: Vec<Digest>) -> Self {
        Self {
            root,
            content,
            size_bytes,
            subjects: Vec::new(),
            links: None,
            blobs,
            materials: Vec::new(),
            wants: BTreeMap::new(),
            installed: Vec::new(),
            checksums: None,
            notes: Vec::new(),
            start: Start::default(),
        }
    }
}

/// Makes an artifact.
///
/// # Errors
/// See [`Error::is_project_fault`] for whose fault they are.
pub async fn assemble(given: &Ingredients<'_>) -> Result<Made, Error> {
    if let ArtifactKind::Dockerfile(description) = &given.artifact.kind {
        return image::dockerfile::assemble(given, description).await;
    }
    let store = &*given.stores.blobs;
    let mut outputs = given.outputs.to_vec();
    let mut merged = Tree::default();
    for (_, tree) in &mut outputs {
        trees::expand_in_place(store, tree).await?;
    }
    // Outputs of a later step in `from` take precedence over those of an earlier one.
    for name in &given.artifact.from {
        if let Some((_, tree)) = outputs.iter().find(|(step, _)| step == name) {
            overlay(store, &mut merged, tree.clone()).await?;
        }
    }
    let chosen = choose(given.artifact, &merged)?;
    let tree = lay_out(given.artifact, &chosen)?;
    if let ArtifactKind::Image(description) = &given.artifact.kind {
        return image::assemble(given, description, &chosen, &tree, &outputs, &merged).await;
    }
    let wants = check::wants(store, &tree).await?;
    let mut own: BTreeSet<String> = given.target.libraries.iter().cloned().collect();
    let missing = bundle::missing(&wants, [&check::carried(&tree), &own]);
    let asks = given.artifact.bundle_libraries || given.artifact.check_elf && !given.target.is_declared();
    let supplied = match asks && !missing.is_empty() {
        true => bundle::supply(given, tree, wants, &missing).await?,
        false => Supplied { tree, wants, ..Supplied::default() },
    };
    let Supplied { tree, wants, there, materials, notes } = supplied;
    own.extend(there);
    if given.artifact.check_elf {
        let carried = check::carried(&tree);
        let left = bundle::missing(&wants, [&carried, &own]);
        let fix = if left.is_empty() { String::new() } else { format!("; {}", bundle::fixes(given, &left)) };
        check::hold(&given.artifact.name, &wants, &check::of_target(given.target, &carried, &own), fix)?;
    }
    let start = start::of(&tree, &given.artifact.name);
    let tree = match given.artifact.kind {
        ArtifactKind::Archive => archive::pack(store, given.function, &tree, given.stem).await?,
        ArtifactKind::Binary | ArtifactKind::Image(_) | ArtifactKind::Dockerfile(_) => tree,
    };
    Ok(Made { wants, materials, notes, start, ..store_files(store, given.function, &tree).await? })
}

/// The output of `sha256sum` for a tree's files, if the hashes are known already.
pub(super) fn checksums(tree: &Tree) -> Option<String> {
    let line = |(path, entry): &(String, Entry)| match entry {
        Entry::File { digest, .. } if digest.function != DigestFunction::Sha256 => Some(None),
        Entry::File { digest, .. } => Some(Some(format!("{}  {path}\n", digest.hex()))),
        _ => None,
    };
    flatten(tree).iter().filter_map(line).collect()
}

/// Stores an artifact's tree.
pub(super) async fn store_files(store: &dyn BlobStore, function: DigestFunction, tree: &Tree) -> Result<Made, Error> {
    let mut blobs = Vec::new();
    tree.encode(function, &mut |encoded| blobs.push(encoded.digest));
    let root = trees::store_tree(store, function, tree).await?;
    let (mut subjects, mut links) = (Vec::new(), BTreeMap::new());
    let mut size_bytes = 0_u64;
    for (name, entry) in flatten(tree) {
        match entry {
            Entry::File { digest, .. } => {
                size_bytes = size_bytes.saturating_add(digest.size);
                blobs.push(digest);
                subjects.push(Subject { name, digest });
            }
            Entry::Symlink { target } => drop(links.insert(name, target)),
            _ => {}
        }
    }
    let content =
        match subjects.iter().filter(|subject| !subject.name.ends_with(".tar.zst.sha256")).collect::<Vec<_>>()[..] {
            [only] => only.digest,
            _ => root,
        };
    Ok(Made {
        subjects,
        links: Some(links),
        checksums: checksums(tree),
        ..Made::of_blobs(root, content, size_bytes, blobs)
    })
}
