//! What a Dockerfile copies from, wherever it is, as one source tree.
//!
//! Invariant: only what the command line names is read; links in what comes from elsewhere lead nowhere on this machine.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod archive;
mod error;
mod git;
mod http;
mod layout;
mod local;
pub mod project;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_dockerfile::{GitSource, NamedContext};
use kiln_proto::digest::DigestFunction;
use kiln_proto::meter::Meter;
use kiln_scan::Scanned;

pub use error::Error;
use layout::Layout;

/// The context, or the Dockerfile, that is on standard input.
pub const STDIN: &str = "-";
/// The name of a Dockerfile.
const DOCKERFILE: &str = "Dockerfile";

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The context: a directory, a repository, a URL or [`STDIN`].
    pub context: String,
    /// The Dockerfile: relative to the current directory, or within a context that is not a directory; [`STDIN`].
    pub file: Option<String>,
    /// Named contexts, as on the command line.
    pub named: BTreeMap<String, String>,
    /// Whether a repository keeps its `.git`, if it does not say so itself.
    pub keep_git_dir: bool,
    /// The function of digests.
    pub function: DigestFunction,
    /// The directory that remembers digests of files.
    pub cache: Option<PathBuf>,
}

/// A source tree with a Dockerfile and what it copies from.
#[derive(Debug)]
pub struct Contexts {
    /// The tree.
    pub scanned: Scanned,
    /// The Dockerfile's path in it.
    pub file: String,
    /// The Dockerfile's content.
    pub dockerfile: Vec<u8>,
    /// What `.dockerignore` says: the name of the file, and its text.
    pub ignore: Option<(String, String)>,
    /// The path of the context in the tree.
    pub context: String,
    /// Named contexts, those from this machine by their paths in the tree.
    pub named: BTreeMap<String, String>,
    /// What the context is called.
    pub name: String,
    /// The directory that is the context, if it is one.
    pub directory: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Files that blobs refer to.
    _kept: Vec<tempfile::TempDir>,
}

/// Reads everything. Blocks; within a runtime it needs a thread for blocking work.
///
/// # Errors
/// If something cannot be read, or is not what it should be.
pub fn read(wanted: &Wanted, meter: &Meter) -> Result<Contexts, Error> {
    let mut layout = Layout::new(wanted, meter.clone());
    main(wanted, &mut layout)?;
    for (name, value) in &wanted.named {
        let value = named(name, value, wanted, &mut layout)?;
        layout.named.insert(name.clone(), value);
    }
    layout.finish()
}

/// The context that has no name, and the Dockerfile.
fn main(wanted: &Wanted, layout: &mut Layout) -> Result<(), Error> {
    let context = wanted.context.as_str();
    if context == STDIN {
        let (head, archive) = archive::head(std::io::stdin().lock()).map_err(Error::Stdin)?;
        return content(wanted, layout, &head, archive, "standard input");
    }
    if Path::new(context).is_dir() {
        return local::main(wanted, Path::new(context), layout);
    }
    if let Some(source) = git_source(context) {
        let source = source.map_err(|reason| Error::Context { context: context.to_owned(), reason })?;
        let checkout = git::fetch(&source, wanted.keep_git_dir)?;
        let path = wanted.file.as_deref().filter(|file| *file != STDIN).unwrap_or(DOCKERFILE);
        let dockerfile = match wanted.file.as_deref() {
            Some(STDIN) => stdin()?,
            _ => checkout.read(path)?,
        };
        layout.dockerfile(path, dockerfile);
        layout.name = last(&source.remote).trim_end_matches(".git").to_owned();
        layout.directory(layout::MAIN, &checkout.directory, Default::default())?;
        layout.keep(checkout.kept);
        return Ok(());
    }
    if http::is_url(context) {
        let (kept, file) = http::fetch(context)?;
        let open = std::fs::File::open(&file).map_err(|source| Error::Read { path: file, source })?;
        let (head, archive) = archive::head(open).map_err(Error::Stdin)?;
        content(wanted, layout, &head, archive, context)?;
        layout.name = last(context).to_owned();
        layout.keep(kept);
        return Ok(());
    }
    Err(Error::NoContext { path: context.to_owned() })
}

/// A context that came as a file: an archive, or the Dockerfile alone.
fn content(
    wanted: &Wanted,
    layout: &mut Layout,
    head: &[u8],
    mut from: impl std::io::Read,
    shown: &str,
) -> Result<(), Error> {
    layout.name = "context".to_owned();
    if !archive::is_archive(head) {
        if let Some(file) = &wanted.file {
            let reason = format!("it is not an archive, so it has no `{file}`; leave out `--file`");
            return Err(Error::Context { context: shown.to_owned(), reason });
        }
        let mut dockerfile = Vec::new();
        from.read_to_end(&mut dockerfile).map_err(Error::Stdin)?;
        layout.dockerfile(DOCKERFILE, dockerfile);
        return layout.empty();
    }
    let unpacked = archive::unpack(head, from, wanted.function, shown)?;
    let path = wanted.file.as_deref().unwrap_or(DOCKERFILE);
    let dockerfile = match wanted.file.as_deref() {
        Some(STDIN) => stdin()?,
        _ => unpacked.read(path).ok_or_else(|| Error::NoFile { file: path.to_owned(), place: shown.to_owned() })?,
    };
    layout.dockerfile(if path == STDIN { DOCKERFILE } else { path }, dockerfile);
    layout.unpacked(layout::MAIN, unpacked);
    Ok(())
}

/// A named context as the farm is told of it.
fn named(name: &str, value: &str, wanted: &Wanted, layout: &mut Layout) -> Result<String, Error> {
    let failed = |reason: String| Error::Named { name: name.to_owned(), reason };
    let place = layout.next();
    match NamedContext::read(value).map_err(failed)? {
        NamedContext::Image(_) => Ok(value.to_owned()),
        NamedContext::Local(path) => {
            let path = PathBuf::from(path);
            if !path.is_dir() {
                return Err(failed(format!("there is no directory `{}`", path.display())));
            }
            let ignore = local::ignore_of(&path)?;
            layout.directory(&place, &path, local::keeps(ignore.as_ref()))?;
            Ok(layout::path(&place))
        }
        NamedContext::Layout(reference) => {
            // What follows the path: a tag, a digest or both.
            let path = reference.split_once('@').map_or(reference.as_str(), |(path, _)| path);
            let path = match path.rsplit_once(':') {
                Some((before, tag)) if !tag.contains('/') => before,
                _ => path,
            };
            if !Path::new(path).is_dir() {
                return Err(failed(format!("there is no directory `{path}`")));
            }
            layout.directory(&place, Path::new(path), Default::default())?;
            Ok(format!("oci-layout://{}{}", layout::path(&place), reference.strip_prefix(path).unwrap_or_default()))
        }
        NamedContext::Git(source) => {
            let checkout = git::fetch(&source, wanted.keep_git_dir)?;
            layout.directory(&place, &checkout.directory, Default::default())?;
            layout.keep(checkout.kept);
            Ok(layout::path(&place))
        }
        NamedContext::Url(url) => {
            let (kept, file) = http::fetch(&url)?;
            let open = std::fs::File::open(&file).map_err(|source| Error::Read { path: file, source })?;
            let (head, from) = archive::head(open).map_err(Error::Stdin)?;
            if !archive::is_archive(&head) {
                return Err(failed(format!("`{url}` is not an archive")));
            }
            let unpacked = archive::unpack(&head, from, wanted.function, &url)?;
            layout.unpacked(&place, unpacked);
            layout.keep(kept);
            Ok(layout::path(&place))
        }
    }
}

/// A repository, also as `github.com/…`.
fn git_source(text: &str) -> Option<Result<GitSource, String>> {
    let with_scheme = format!("https://{text}");
    let text = if text.starts_with("github.com/") { with_scheme.as_str() } else { text };
    let named = if text.starts_with("https://github.com/") && !text.contains(".git") {
        let at = text.find(['#', '?']).unwrap_or(text.len());
        let (path, rest) = text.split_at(at);
        let is_repository = path.trim_end_matches('/').matches('/').count() == 4;
        is_repository.then(|| format!("{}.git{rest}", path.trim_end_matches('/')))
    } else {
        None
    };
    GitSource::read(named.as_deref().unwrap_or(text))
}

fn stdin() -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text).map_err(Error::Stdin)?;
    Ok(text)
}

/// The last part of a path or a URL.
fn last(text: &str) -> &str {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    text.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default()
}
