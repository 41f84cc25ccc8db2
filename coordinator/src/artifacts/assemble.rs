//! From the outputs of steps to an artifact's files: chosen, laid out, checked, and for an archive packed.
//!
//! Invariant: what is made depends on the outputs and the artifact's description alone; the same files give the same bytes.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use futures::StreamExt;
use kiln_core::plan::{Artifact, ArtifactKind, Target};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::tree::{Entry, Tree};

use super::{Subject, layout};
use crate::builds::elf;
use crate::builds::source::{self, flatten};
use crate::store::{self, BlobStore};

/// Times in archives: 2000-01-01, as everywhere in a build.
const MTIME: u64 = 946_684_800;
/// zstd's level for archives.
const LEVEL: i32 = 9;
/// Largest executable that is read for its check.
const MAX_ELF_BYTES: u64 = 4 << 30;

/// An artifact that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("artifact `{artifact}`: no output matches `{path}`; its steps left: {found}")]
    NoFile { artifact: String, path: String, found: String },
    #[error("artifact `{artifact}`: {reason}")]
    Layout { artifact: String, reason: String },
    #[error("artifact `{artifact}` would not run on its target: {}", .objections.join("; "))]
    WouldNotRun { artifact: String, objections: Vec<String> },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error("cannot pack an archive: {0}")]
    Pack(#[from] std::io::Error),
}

impl Error {
    /// Whether the project must mend it, as opposed to the farm.
    pub fn is_projects(&self) -> bool {
        matches!(self, Self::NoFile { .. } | Self::Layout { .. } | Self::WouldNotRun { .. })
    }
}

/// An artifact's content in the store.
#[derive(Debug, Clone)]
pub struct Made {
    /// Directory of its files.
    pub root: Digest,
    /// Its one file, or the root.
    pub content: Digest,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Its files.
    pub subjects: Vec<Subject>,
    /// Every blob that it consists of.
    pub blobs: Vec<Digest>,
}

/// Makes an artifact from the merged outputs of its steps. `file_stem` names the archive.
pub async fn assemble(
    store: &dyn BlobStore,
    function: DigestFunction,
    artifact: &Artifact,
    target: &Target,
    outputs: &Tree,
    file_stem: &str,
) -> Result<Made, Error> {
    let mut outputs = outputs.clone();
    source::expand_in_place(store, &mut outputs).await?;
    let tree = layout::choose(artifact, &outputs)?;
    if artifact.check_elf {
        check(store, artifact, target, &tree).await?;
    }
    let tree = match artifact.kind {
        ArtifactKind::Binary => tree,
        ArtifactKind::Archive => pack(store, function, &tree, file_stem).await?,
    };
    finish(store, function, &tree).await
}

async fn check(store: &dyn BlobStore, artifact: &Artifact, target: &Target, tree: &Tree) -> Result<(), Error> {
    let files = flatten(tree);
    let carried: BTreeSet<String> =
        files.iter().map(|(path, _)| path.rsplit('/').next().unwrap_or(path).to_owned()).collect();
    let mut objections = Vec::new();
    for (path, entry) in &files {
        let Entry::File { digest, .. } = entry else { continue };
        if digest.size < 20 || digest.size > MAX_ELF_BYTES {
            continue;
        }
        let mut start = store.read(digest, 0, Some(4)).await?;
        let magic = match start.next().await {
            Some(bytes) => bytes?,
            None => continue,
        };
        drop(start);
        if !elf::is_elf(&magic) {
            continue;
        }
        let data = store.get(digest).await?;
        // A file that only looks like ELF is data of the artifact's own.
        let Ok(wants) = elf::read(&data) else { continue };
        objections.extend(elf::objections(path, &wants, target, &carried));
    }
    if objections.is_empty() {
        return Ok(());
    }
    Err(Error::WouldNotRun { artifact: artifact.name.clone(), objections })
}

/// Packs a tree as a reproducible `.tar.zst` with its checksum beside it: sorted names, one time, no owner.
async fn pack(store: &dyn BlobStore, function: DigestFunction, tree: &Tree, stem: &str) -> Result<Tree, Error> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("archive");
    let mut builder = tar::Builder::new(zstd::Encoder::new(std::fs::File::create(&path)?, LEVEL)?);
    builder.mode(tar::HeaderMode::Deterministic);
    for (name, entry) in flatten(tree) {
        append(store, &mut builder, &name, &entry).await?;
    }
    builder.into_inner()?.finish()?.flush()?;
    let (archive, sha256) = put_file(store, function, &path).await?;
    let name = format!("{stem}.tar.zst");
    let checksum = format!("{}  {name}\n", sha256.hex()).into_bytes();
    let checksum_digest = function.digest(&checksum);
    store.put(&checksum_digest, checksum.into()).await?;
    let mut packed = Tree::default();
    let plain = |digest| Entry::File { digest, executable: false };
    packed.entries.insert(format!("{name}.sha256"), plain(checksum_digest));
    packed.entries.insert(name, plain(archive));
    Ok(packed)
}

async fn append<W: Write>(
    store: &dyn BlobStore,
    builder: &mut tar::Builder<W>,
    name: &str,
    entry: &Entry,
) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        Entry::File { digest, executable } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(digest.size);
            // Large files pass through a temporary one: the builder reads, the store streams.
            let mut file = tempfile::tempfile()?;
            let mut stream = store.read(digest, 0, None).await?;
            while let Some(chunk) = stream.next().await {
                file.write_all(&chunk?)?;
            }
            std::io::Seek::rewind(&mut file)?;
            builder.append_data(&mut header, name, file)?;
        }
        Entry::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, name, target)?;
        }
        Entry::Directory(_) | Entry::Sealed { .. } => {}
    }
    Ok(())
}

/// Streams a file into the store; returns its digest, and its SHA-256 whatever the store's function.
async fn put_file(store: &dyn BlobStore, function: DigestFunction, path: &Path) -> Result<(Digest, Digest), Error> {
    use tokio::io::AsyncReadExt;
    let mut hashers = (function.hasher(), DigestFunction::Sha256.hasher());
    let mut buffer = vec![0; 1 << 20];
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        hashers.0.update(&buffer[..read]);
        hashers.1.update(&buffer[..read]);
    }
    let digest = hashers.0.finish();
    if !store.find_missing(&[digest]).await?.is_empty() {
        let mut writer = store.write(&digest).await?;
        let mut file = tokio::fs::File::open(path).await?;
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            writer.write(buffer[..read].to_vec().into()).await?;
        }
        writer.commit().await?;
    }
    Ok((digest, hashers.1.finish()))
}

async fn finish(store: &dyn BlobStore, function: DigestFunction, tree: &Tree) -> Result<Made, Error> {
    let mut blobs = Vec::new();
    tree.encode(function, &mut |encoded| blobs.push(encoded.digest));
    let root = source::store_tree(store, function, tree).await?;
    let files = flatten(tree);
    let mut subjects = Vec::new();
    let mut size_bytes = 0;
    for (name, entry) in files {
        if let Entry::File { digest, .. } = entry {
            size_bytes += digest.size;
            blobs.push(digest);
            subjects.push(Subject { name, digest });
        }
    }
    let content =
        match subjects.iter().filter(|subject| !subject.name.ends_with(".tar.zst.sha256")).collect::<Vec<_>>()[..] {
            [only] => only.digest,
            _ => root,
        };
    Ok(Made { root, content, size_bytes, subjects, blobs })
}
