//! Artifacts on a disk: files, directories and OCI image layouts, with bundles beside them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_images::layout;
use kiln_images::manifest::{Descriptor, Index, Manifest, media_type};
use sha2::Digest as _;

use crate::Error;
use crate::evidence::{Bundle, Evidence, Item, Target};

/// What the names of bundles end with.
const ENDING: &str = ".sigstore.json";
/// Maximum size of a manifest.
const MAX_DOCUMENT: u64 = kiln_images::blobs::MAX_DOCUMENT_BYTES;
/// How deep indexes may be nested.
const DEPTH: usize = 4;
/// How much is read at once.
const PIECE: usize = 256 << 10;

/// The artifact at `path`, and the bundles in `bundles`, or if there are none, those beside it.
///
/// # Errors
/// If something cannot be read, or a layout is damaged.
pub fn on_disk(path: &Path, bundles: &[PathBuf]) -> Result<Evidence, Error> {
    let bundles = if bundles.is_empty() { bundles_beside(path)? } else { bundles.to_vec() };
    let bundles = read_bundles(&bundles)?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let mut evidence = Evidence { what: path.display().to_string(), bundles, ..Evidence::default() };
    if path.join(layout::MARKER).is_file() {
        evidence.targets = images(path)?;
    } else if path.is_dir() {
        let (mut items, mut links) = (Vec::new(), BTreeMap::new());
        files(path, "", &mut items, &mut links)?;
        evidence.targets.push(Target { name, items, links: Some(links), is_whole: true, ..Target::default() });
    } else {
        let items = vec![Item { digests: digests(path)?, name: name.clone() }];
        evidence.targets.push(Target { name, items, ..Target::default() });
    }
    Ok(evidence)
}

/// The bundles beside an artifact: `NAME.*.sigstore.json` beside `NAME`, or beside the directory `NAME` that it is in.
///
/// # Errors
/// If the directory cannot be read.
pub fn bundles_beside(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let real = std::fs::canonicalize(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    for of in real.ancestors().take(2) {
        let (Some(directory), Some(name)) = (of.parent(), of.file_name()) else { break };
        let begins = format!("{}.", name.to_string_lossy());
        let read = |source| Error::Read { path: directory.to_owned(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = name.strip_prefix(&begins).and_then(|rest| rest.strip_suffix(ENDING));
            if kind.is_some_and(|kind| !kind.is_empty() && !kind.contains('.')) {
                found.push(entry.path());
            }
        }
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Reads bundles.
///
/// # Errors
/// If one cannot be read.
pub fn read_bundles(paths: &[PathBuf]) -> Result<Vec<Bundle>, Error> {
    paths
        .iter()
        .map(|path| Ok(Bundle { name: path.display().to_string(), data: read(path, kiln_attest::MAX_BYTES as u64)? }))
        .collect()
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut data = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut data).map_err(failed)?;
    if data.len() as u64 > most {
        return Err(Error::File { path: path.to_owned(), reason: format!("it is larger than {} MiB", most >> 20) });
    }
    Ok(data)
}

/// Passes a file's content on in pieces.
fn each(path: &Path, mut with: impl FnMut(&[u8])) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(failed)? {
            0 => return Ok(()),
            read => with(piece.get(..read).unwrap_or_default()),
        }
    }
}

fn digests(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let (mut sha256, mut blake3) = (sha2::Sha256::new(), blake3::Hasher::new());
    each(path, |piece| {
        sha256.update(piece);
        blake3.update(piece);
    })?;
    let digests = [("sha256", hex::encode(sha256.finalize())), ("blake3", blake3.finalize().to_string())];
    Ok(digests.map(|(name, hex)| (name.to_owned(), hex)).into())
}

/// The files of a directory, by their paths with `/`.
fn files(
    directory: &Path,
    prefix: &str,
    found: &mut Vec<Item>,
    links: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let failed = |source| Error::Read { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            files(&path, &format!("{name}/"), found, links)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).map_err(failed)?;
            links.insert(name, target.to_string_lossy().into_owned());
        } else {
            found.push(Item { digests: digests(&path)?, name });
        }
    }
    Ok(())
}

/// The images of a layout, whose blobs are all what their names say.
fn images(root: &Path) -> Result<Vec<Target>, Error> {
    let path = root.join(layout::INDEX);
    let index: Index = parse(&path, &read(&path, MAX_DOCUMENT)?)?;
    let mut targets = Vec::new();
    let mut waiting: Vec<(Descriptor, usize)> = index.manifests.into_iter().map(|one| (one, 0)).collect();
    while let Some((descriptor, depth)) = waiting.pop() {
        if is_about_another(&descriptor) {
            continue;
        }
        let path = blob(root, &descriptor)?;
        if media_type::is_index(&descriptor.media_type) {
            if depth == DEPTH {
                let reason = format!("its indexes are nested deeper than {DEPTH}");
                return Err(Error::File { path: root.to_owned(), reason });
            }
            let index: Index = parse(&path, &read(&path, MAX_DOCUMENT)?)?;
            waiting.extend(index.manifests.into_iter().map(|one| (one, depth.saturating_add(1))));
            continue;
        }
        let manifest: Manifest = parse(&path, &read(&path, MAX_DOCUMENT)?)?;
        for part in manifest.layers.iter().chain([&manifest.config]) {
            blob(root, part)?;
        }
        targets.push(target(&descriptor));
    }
    targets.sort_by(|one: &Target, other| one.platform.cmp(&other.platform));
    Ok(targets)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, data: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(data).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
}

/// The path of a blob that is what its name says.
fn blob(root: &Path, descriptor: &Descriptor) -> Result<PathBuf, Error> {
    let path = root.join(layout::blob_path(&descriptor.digest));
    let mut sha256 = sha2::Sha256::new();
    each(&path, |piece| sha256.update(piece))?;
    let found = hex::encode(sha256.finalize());
    if found != descriptor.digest.hex() {
        let reason = format!("its content has the digest `sha256:{found}`");
        return Err(Error::Tampered { place: path.display().to_string(), reason });
    }
    Ok(path)
}

/// Whether a manifest in an index is no image but a document about one, as BuildKit adds them.
pub(crate) fn is_about_another(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
}

/// The manifest of an image.
pub(crate) fn target(descriptor: &Descriptor) -> Target {
    let platform = descriptor.platform.as_ref().map(ToString::to_string);
    let name = platform.clone().unwrap_or_else(|| descriptor.digest.to_string());
    Target { items: vec![Item::sha256(&name, descriptor.digest.hex())], name, platform, ..Target::default() }
}
