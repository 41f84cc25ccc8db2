//! The encoded form: protobuf, in which every directory, name, path and file is written once, however many variants have it.
//!
//! The same names are looked for in many directories, so a path is a directory and a name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use prost::Message as _;

use kiln_proto::digest::{Digest, DigestFunction};

use super::variant::{Read, Variant};

/// All variants of a call.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Manifest {
    /// All directories, sorted, without a slash at the end.
    #[prost(bytes = "vec", repeated, tag = "1")]
    directories: Vec<Vec<u8>>,
    /// All names in them, sorted.
    #[prost(bytes = "vec", repeated, tag = "2")]
    names: Vec<Vec<u8>>,
    /// All paths, sorted: for each, the index of its directory …
    #[prost(uint32, repeated, tag = "3")]
    path_directories: Vec<u32>,
    /// … and that of its name.
    #[prost(uint32, repeated, tag = "4")]
    path_names: Vec<u32>,
    /// All files and listings, sorted.
    #[prost(message, repeated, tag = "5")]
    contents: Vec<Content>,
    #[prost(message, repeated, tag = "6")]
    variants: Vec<Indices>,
}

/// A path with the digest of what is there.
#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    /// An index of the paths.
    #[prost(uint32, tag = "1")]
    path: u32,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    size: u64,
    /// REAPI's number of the digest function.
    #[prost(int32, tag = "4")]
    function: i32,
    #[prost(bool, tag = "5")]
    executable: bool,
}

/// One variant.
#[derive(Clone, PartialEq, prost::Message)]
struct Indices {
    /// Indices of `contents`.
    #[prost(uint32, repeated, tag = "1")]
    read: Vec<u32>,
    /// Indices of the paths.
    #[prost(uint32, repeated, tag = "2")]
    absent: Vec<u32>,
    /// Indices of `contents`.
    #[prost(uint32, repeated, tag = "3")]
    listed: Vec<u32>,
}

/// A path as its directory and its name.
type Split<'a> = (&'a [u8], &'a [u8]);
type Key<'a> = (Split<'a>, Digest, bool);
type Numbers<K> = BTreeMap<K, u32>;

/// The message of some variants.
pub(super) fn encode(variants: &[Variant]) -> Manifest {
    let mut paths: Numbers<Split<'_>> = Numbers::new();
    let mut contents: Numbers<Key<'_>> = Numbers::new();
    for variant in variants {
        for key in reads(variant).chain(listings(variant)) {
            paths.insert(key.0, 0);
            contents.insert(key, 0);
        }
        paths.extend(variant.absent.iter().map(|path| (split(path), 0)));
    }
    let mut directories: Numbers<&[u8]> = paths.keys().map(|(directory, _)| (*directory, 0)).collect();
    let mut names: Numbers<&[u8]> = paths.keys().map(|(_, name)| (*name, 0)).collect();
    number(&mut paths);
    number(&mut contents);
    number(&mut directories);
    number(&mut names);
    Manifest {
        variants: variants
            .iter()
            .map(|variant| Indices {
                read: reads(variant).map(|key| index(&contents, &key)).collect(),
                absent: variant.absent.iter().map(|path| index(&paths, &split(path))).collect(),
                listed: listings(variant).map(|key| index(&contents, &key)).collect(),
            })
            .collect(),
        contents: contents
            .keys()
            .map(|(path, digest, executable)| Content {
                path: index(&paths, path),
                hash: digest.hash.to_vec(),
                size: digest.size,
                function: digest.function.to_wire(),
                executable: *executable,
            })
            .collect(),
        path_directories: paths.keys().map(|(directory, _)| index(&directories, directory)).collect(),
        path_names: paths.keys().map(|(_, name)| index(&names, name)).collect(),
        directories: directories.keys().map(|directory| directory.to_vec()).collect(),
        names: names.keys().map(|name| name.to_vec()).collect(),
    }
}

fn index<K: Ord>(numbers: &Numbers<K>, key: &K) -> u32 {
    numbers.get(key).copied().unwrap_or_default()
}

/// The directory and the name of an absolute path.
fn split(path: &Path) -> Split<'_> {
    let bytes = path.as_os_str().as_bytes();
    let mut parts = bytes.rsplitn(2, |c| *c == b'/');
    let name = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), name)
}

fn number<K: Ord>(of: &mut Numbers<K>) {
    for (index, number) in (0..).zip(of.values_mut()) {
        *number = index;
    }
}

fn reads(variant: &Variant) -> impl Iterator<Item = Key<'_>> {
    variant.read.iter().map(|(path, read)| (split(path), read.digest, read.executable))
}

fn listings(variant: &Variant) -> impl Iterator<Item = Key<'_>> {
    variant.listed.iter().map(|(path, digest)| (split(path), *digest, false))
}

/// The variants of a message, or what is wrong with it.
pub(super) fn decode(message: &Manifest) -> Result<Vec<Variant>, &'static str> {
    let paths = paths(message)?;
    let path = |index: u32| paths.get(index as usize).ok_or("an index of a path is out of range");
    let mut contents: Vec<(&PathBuf, Read)> = Vec::with_capacity(message.contents.len());
    for content in &message.contents {
        contents.push((path(content.path)?, read(content)?));
    }
    let content = |index: &u32| contents.get(*index as usize).copied().ok_or("an index of a content is out of range");
    message
        .variants
        .iter()
        .map(|variant| {
            let read = variant.read.iter().map(|index| content(index).map(|(path, read)| (path.clone(), read)));
            let absent = variant.absent.iter().map(|index| path(*index).cloned());
            let listed =
                variant.listed.iter().map(|index| content(index).map(|(path, read)| (path.clone(), read.digest)));
            Ok(Variant {
                read: read.collect::<Result<BTreeMap<_, _>, _>>()?,
                absent: absent.collect::<Result<BTreeSet<_>, _>>()?,
                listed: listed.collect::<Result<BTreeMap<_, _>, _>>()?,
            })
        })
        .collect()
}

/// How many bytes all paths of a manifest have at most: put together they could take much more than they do here.
const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// Whether a message has a size, and paths, that are read back.
pub(super) fn fits(message: &Manifest, max_bytes: usize) -> bool {
    message.encoded_len() <= max_bytes && paths(message).is_ok()
}

fn paths(message: &Manifest) -> Result<Vec<PathBuf>, &'static str> {
    if message.path_directories.len() != message.path_names.len() {
        return Err("a path lacks its directory or its name");
    }
    let mut total = 0_usize;
    let parts = message.path_directories.iter().zip(&message.path_names);
    parts
        .map(|(directory, name)| {
            let directory =
                message.directories.get(*directory as usize).ok_or("an index of a directory is out of range")?;
            let name = message.names.get(*name as usize).ok_or("an index of a name is out of range")?;
            total = total.saturating_add(directory.len()).saturating_add(name.len()).saturating_add(1);
            if total > MAX_PATH_BYTES {
                return Err("its paths are too long");
            }
            Ok(PathBuf::from(OsString::from_vec([directory.as_slice(), b"/", name.as_slice()].concat())))
        })
        .collect()
}

fn read(content: &Content) -> Result<Read, &'static str> {
    let function =
        DigestFunction::from_wire(content.function).map_err(|_| "a digest function is not one that Kiln knows")?;
    let hash = content.hash.as_slice().try_into().map_err(|_| "a hash has the wrong length")?;
    Ok(Read { digest: Digest { function, hash, size: content.size }, executable: content.executable })
}
