//! Downloads artifacts: fetches them next to their destination, checks them, and moves them there atomically.
//!
//! Invariant: no answer from a farm can create a file outside the output directory, and whatever has an artifact's name
//! is complete and has the promised digest.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Client;
use kiln_proto::{reapi, transfer, v1};
use kiln_trees::tree::{Entry, Tree};

use crate::Code;
use crate::farm::Farm;
use crate::output::{self, Output};

/// Why an artifact could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot fetch artifact `{name}`")]
    Transfer {
        name: String,
        #[source]
        source: Box<transfer::Error>,
    },
    #[error(
        "the farm no longer has all of artifact `{name}`: it was removed for others (`--artifacts-size`, `--store-size` of a farm on this \
         machine) or damaged, as the coordinator's log says; build it again"
    )]
    Gone { name: String },
    #[error("artifact `{name}` is malformed: {reason}; report this to the farm's operator")]
    Malformed { name: String, reason: String },
    #[error("`{}` cannot be written on this machine: {reason}; package it as an archive (`kind = \"archive\"`)", .path.display())]
    Name { path: PathBuf, reason: String },
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("cannot write `{}`; expected a writable directory", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whose fault it is, as an exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Transfer { source, .. } if matches!(**source, transfer::Error::File { .. }) => Code::Usage,
            Self::Write { .. } | Self::Output(_) | Self::Name { .. } => Code::Usage,
            Self::Transfer { .. } | Self::Gone { .. } | Self::Malformed { .. } => Code::Farm,
        }
    }
}

/// A downloaded artifact.
#[derive(Debug)]
pub struct Arrived {
    /// Its path; if it was not fetched `whole`, that of its provenance.
    pub path: PathBuf,
    /// Where modified predecessors were moved.
    pub kept: Vec<PathBuf>,
}

/// Fetches an artifact and its provenance to `output`, and retries if the farm becomes unavailable.
///
/// A single file with the artifact's name becomes `NAME`, anything else a directory `NAME`. Unless `whole`, only the
/// metadata is fetched. Unchanged existing files are left alone.
pub async fn artifact(farm: &Farm, artifact: &v1::Artifact, output: &Output, whole: bool) -> Result<Arrived, Error> {
    let mut reconnect = farm.reconnect();
    loop {
        let error = match fetch_once(farm, artifact, output, whole).await {
            Err(error @ Error::Transfer { .. }) => error,
            ended => return ended,
        };
        let Error::Transfer { source, name } = &error else { return Err(error) };
        if matches!(**source, transfer::Error::Missing { .. }) {
            return Err(Error::Gone { name: name.clone() });
        }
        let Some(status) = source.connection().cloned() else { return Err(error) };
        if reconnect.wait(farm, "fetch the artifact", status).await.is_err() {
            return Err(error);
        }
    }
}

async fn fetch_once(farm: &Farm, artifact: &v1::Artifact, output: &Output, whole: bool) -> Result<Arrived, Error> {
    let malformed = |reason: String| Error::Malformed { name: artifact.name.clone(), reason };
    let function = DigestFunction::from_wire(artifact.digest_function).map_err(|error| malformed(error.to_string()))?;
    let digest =
        |wire: Option<&reapi::Digest>| Digest::required(function, wire).map_err(|error| malformed(error.to_string()));
    if !is_name(&artifact.name) {
        return Err(malformed("its name is not a file name".to_owned()));
    }
    let place = output.dir().join(&artifact.name);
    let fetch = Fetch { name: &artifact.name, client: farm.blobs(&artifact.instance, function), before: &place };
    let beside = output.staging()?;
    let mut arrived = Arrived { path: place.clone(), kept: Vec::new() };
    if whole {
        let root = digest(artifact.root.as_ref())?;
        if output.current(&artifact.name, &root.to_string()).is_none() {
            let staged = beside.path().join("new");
            let files = fetch.directory(root, &staged).await?;
            let promised = digest(artifact.digest.as_ref())?;
            if promised != root && !files.iter().any(|(_, digest)| *digest == promised) {
                return Err(malformed(format!("its content does not match the promised `{promised}`")));
            }
            let staged = match files.as_slice() {
                [(path, _)] if path.file_name().is_some_and(|name| *name == *artifact.name) => staged.join(path),
                _ => staged,
            };
            arrived.kept.extend(output.place(&artifact.name, &staged, &root.to_string(), &artifact.id)?.kept);
        }
    }
    for (suffix, wire) in beside_it(artifact) {
        let (digest, name) = (digest(Some(wire))?, format!("{}.{suffix}", artifact.name));
        if !is_name(&suffix) {
            return Err(malformed(format!("`{name}` is not a file name")));
        }
        if output.current(&name, &digest.to_string()).is_none() {
            let staged = beside.path().join(&suffix);
            fetch.file(&digest, &staged, Path::new(""), 0o644).await?;
            arrived.kept.extend(output.place(&name, &staged, &digest.to_string(), &artifact.id)?.kept);
        }
        if !whole && suffix == "provenance.json" {
            arrived.path = output.dir().join(name);
        }
    }
    Ok(arrived)
}

/// What is written beside an artifact, by the end of its name: descriptions, and what the farm signed about it.
pub fn beside_it(artifact: &v1::Artifact) -> Vec<(String, &reapi::Digest)> {
    let plain = [("provenance.json", artifact.provenance.as_ref()), ("cdx.json", artifact.sbom.as_ref())];
    let plain = plain.into_iter().map(|(suffix, wire)| (suffix.to_owned(), wire));
    let signed = artifact.attestations.iter().map(|one| (format!("{}.sigstore.json", one.name), one.bundle.as_ref()));
    plain.chain(signed).filter_map(|(suffix, wire)| Some((suffix, wire?))).collect()
}

struct Fetch<'a> {
    name: &'a str,
    client: Client,
    /// An earlier build's files, with which a new version shares much.
    before: &'a Path,
}

impl Fetch<'_> {
    /// Fetches a directory with everything below it; returns its files, relative to it.
    async fn directory(&self, root: Digest, into: &Path) -> Result<Vec<(PathBuf, Digest)>, Error> {
        let mut files = Vec::new();
        let mut links = Vec::new();
        let mut waiting = vec![(root, PathBuf::new())];
        while let Some((digest, relative)) = waiting.pop() {
            let message: reapi::Directory =
                self.client.get_message(&digest).await.map_err(|source| self.transfer(source))?;
            let tree = Tree::from_directory(self.client.function(), &message)
                .map_err(|error| self.malformed(error.to_string()))?;
            let here = into.join(&relative);
            std::fs::create_dir_all(&here).map_err(|source| Error::Write { path: here.clone(), source })?;
            if let Some(mode) = tree.mode {
                // The owner must always be able to remove it.
                let set = kiln_system::set_mode(&here, on_disk(mode) | 0o700);
                set.map_err(|source| Error::Write { path: here.clone(), source })?;
            }
            let mut folded = HashSet::new();
            for (name, entry) in tree.entries {
                if !is_name(&name) {
                    return Err(self.malformed(format!("it contains the invalid name `{name}`")));
                }
                let unusable = |reason: &str| Error::Name { path: relative.join(&name), reason: reason.to_owned() };
                if let Some(reason) = kiln_system::refused_name(&name) {
                    return Err(unusable(reason));
                }
                if kiln_system::FOLDS_CASE && !folded.insert(name.to_lowercase()) {
                    return Err(unusable(
                        "another file beside it differs in the case of letters alone, and here both are one",
                    ));
                }
                let path = relative.join(&name);
                match entry {
                    Entry::File { digest, executable, mode } => {
                        let mode = on_disk(mode.unwrap_or(if executable { 0o755 } else { 0o644 }));
                        self.file(&digest, &into.join(&path), &path, mode).await?;
                        files.push((path, digest));
                    }
                    Entry::Symlink { target } => {
                        if !stays_inside(&path, &target) {
                            return Err(self.malformed(format!("its link `{}` leads outside it", path.display())));
                        }
                        links.push((path, target));
                    }
                    Entry::Sealed { digest } => waiting.push((digest, path)),
                    Entry::Directory(_) => {}
                }
            }
        }
        // Links are created last, so that no file is ever written through one.
        for (path, target) in links {
            let path = into.join(path);
            kiln_system::symlink(Path::new(&target), &path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(files)
    }

    /// Fetches a file to `path`, which errors call `relative`.
    async fn file(&self, digest: &Digest, path: &Path, relative: &Path, mode: u32) -> Result<(), Error> {
        let mut bases = vec![self.before.join(relative), self.before.to_owned()];
        bases.retain(|base| base.is_file());
        self.client.download_over(digest, path, &bases).await.map_err(|source| self.transfer(source))?;
        kiln_system::set_mode(path, mode).map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    fn transfer(&self, source: transfer::Error) -> Error {
        Error::Transfer { name: self.name.to_owned(), source: Box::new(source) }
    }

    fn malformed(&self, reason: String) -> Error {
        Error::Malformed { name: self.name.to_owned(), reason }
    }
}

/// A file's permission bits on this machine. Set-user-id bits are meant for another owner than the one here, so they
/// are only kept in archives and images.
fn on_disk(mode: u32) -> u32 {
    mode & 0o777
}

/// Whether a name is a single path component.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// Whether a link at `path` with this target stays below the directory that `path` is relative to.
fn stays_inside(path: &Path, target: &str) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for component in Path::new(target).components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return false,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
        }
    }
    !target.is_empty()
}
