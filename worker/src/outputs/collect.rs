//! Collects the outputs that a command names, as specified for `Command.output_paths` and `ActionResult` in REAPI v2.

use std::collections::HashSet;
use std::path::Path;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Blob;
use kiln_proto::{property, reapi};
use kiln_trees::tree::node_properties;
use prost::Message;
use reapi::command::OutputDirectoryFormat as Format;
use tokio_util::sync::CancellationToken;

use super::hash::{self, Hashed};
use super::room::{MAX_BYTES, Room};
use super::walk::{self, Found, Output};
use super::{Error, Gathered, Kind, Request, wanted};

/// Maximum number of output files added to the input cache for later actions.
const ADOPT_FILES: usize = 20_000;

/// Bytes of an action's small outputs that are kept in memory until they are sent.
const KEEP_BYTES: u64 = 16 << 20;

impl Gathered {
    fn file(&mut self, hashed: &Hashed, found: &Found) {
        let digest = hashed.digest;
        let blob = hashed.data.clone().map_or_else(|| Blob::File(found.path.clone()), Blob::Bytes);
        self.blobs.push((digest, blob));
        if self.files.len() < ADOPT_FILES {
            self.files.push((digest, found.executable, found.path.clone()));
        }
    }

    fn message(&mut self, digest: Digest, data: Vec<u8>) {
        self.blobs.push((digest, Blob::Bytes(data.into())));
    }
}

/// Reads the outputs. Missing ones are omitted.
///
/// # Errors
/// If they are not what the command asks for, or cannot be read.
pub async fn gather(request: Request<'_>) -> Result<Gathered, Error> {
    if let Some(property) = request.command.output_node_properties.iter().find(|name| *name != property::UNIX_MODE) {
        return Err(Error::Invalid(format!(
            "output node property `{property}` is not supported; remove it (supported: `{}`)",
            property::UNIX_MODE
        )));
    }
    let wanted = wanted(request.command)?;
    let (root, command, function) = (request.root.to_owned(), request.command.clone(), request.function);
    // Stops reading if the caller is dropped.
    let cancel = CancellationToken::new();
    let _unwanted = cancel.clone().drop_guard();
    let read = tokio::task::spawn_blocking(move || read(&root, &command, function, wanted, &cancel));
    read.await.map_err(|error| Error::Farm(error.to_string()))?
}

fn read(
    root: &Path,
    command: &reapi::Command,
    function: DigestFunction,
    wanted: Vec<(String, Kind)>,
    cancel: &CancellationToken,
) -> Result<Gathered, Error> {
    if !root.is_dir() {
        return Err(Error::Farm(format!("the tree at `{}` is gone", root.display())));
    }
    let with_modes = command.output_node_properties.iter().any(|name| name == property::UNIX_MODE);
    let mut gathered = Gathered::default();
    let mut room = Room::new(MAX_BYTES);
    // All outputs are listed before the first is hashed, so that limits are checked early.
    let mut found = Vec::new();
    for (path, kind) in wanted {
        let place = super::place(command, &path)?;
        let Some(output) = walk::look(root, &place, &mut room)? else { continue };
        check(&path, kind, &output)?;
        found.push((path, kind, output));
    }
    // All of them at once, so that all processors have something to do.
    let files: Vec<&Found> = found.iter().flat_map(|(_, _, output)| output.files()).collect();
    let hashed = hash::hash(function, &files, KEEP_BYTES, cancel)?;
    files.iter().zip(&hashed).for_each(|(found, hashed)| gathered.file(hashed, found));
    let mut digests = hashed.iter().map(|hashed| hashed.digest);
    for (path, kind, output) in found {
        match (output, kind) {
            (Output::Link(target), kind) => {
                let link = reapi::OutputSymlink { path, target, node_properties: None };
                match kind {
                    Kind::Any => {}
                    Kind::File => gathered.collected.output_file_symlinks.push(link.clone()),
                    Kind::Directory => gathered.collected.output_directory_symlinks.push(link.clone()),
                }
                gathered.collected.output_symlinks.push(link);
            }
            (Output::File(found), _) => {
                let Some(digest) = digests.next() else { continue };
                gathered.collected.output_files.push(reapi::OutputFile {
                    path,
                    digest: Some(digest.to_wire()),
                    is_executable: found.executable,
                    node_properties: node_properties(found.mode.filter(|_| with_modes)),
                    ..Default::default()
                });
            }
            (Output::Directory(listing), _) => {
                let tree = walk::tree(&listing, digests.by_ref().take(listing.files.len()), with_modes)?;
                let directory = directory(path, &tree, command.output_directory_format(), function, &mut gathered)?;
                gathered.collected.output_directories.push(directory);
            }
        }
    }
    Ok(gathered)
}

/// Refuses a file where a directory was requested, and the other way round.
fn check(path: &str, kind: Kind, output: &Output) -> Result<(), Error> {
    let (is, requested) = match (output, kind) {
        (Output::File(_), Kind::Directory) => ("file", "directory"),
        (Output::Directory(_), Kind::File) => ("directory", "file"),
        _ => return Ok(()),
    };
    Err(Error::Precondition(format!("output `{path}` is a {is}, but a {requested} was requested")))
}

/// An output directory in the requested format: as one `Tree`, as separate `Directory` messages, or both.
fn directory(
    path: String,
    tree: &kiln_trees::tree::Tree,
    format: Format,
    function: DigestFunction,
    gathered: &mut Gathered,
) -> Result<reapi::OutputDirectory, Error> {
    let mut encoded = Vec::new();
    let mut seen = HashSet::new();
    let root = tree.encode(function, &mut |directory| {
        if seen.insert(directory.digest) {
            encoded.push(directory);
        }
    });
    let mut output = reapi::OutputDirectory { path, ..Default::default() };
    if format != Format::DirectoryOnly {
        // `encoded` has children before parents; reversed, every parent precedes its children.
        let mut messages = Vec::new();
        for directory in encoded.iter().rev() {
            let message = reapi::Directory::decode(directory.data.as_slice());
            messages.push(message.map_err(|error| Error::Farm(error.to_string()))?);
        }
        let mut messages = messages.into_iter();
        let message = reapi::Tree { root: messages.next(), children: messages.collect() };
        let data = message.encode_to_vec();
        let digest = function.digest(&data);
        output.tree_digest = Some(digest.to_wire());
        output.is_topologically_sorted = true;
        gathered.message(digest, data);
    }
    if format != Format::TreeOnly {
        output.root_directory_digest = Some(root.to_wire());
        for directory in encoded {
            gathered.message(directory.digest, directory.data);
        }
    }
    Ok(output)
}
