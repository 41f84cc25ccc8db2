//! The encoded form: protobuf, in which every path and every file is written once, however many variants have it.
//!
//! Paths are sorted, and each is written as what it shares with the one before it and the rest: paths of headers are long and
//! begin alike.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use prost::Message as _;

use kiln_proto::digest::{Digest, DigestFunction};

use super::variant::{Read, Variant};

/// All variants of a call.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Manifest {
    /// All paths, sorted.
    #[prost(message, repeated, tag = "1")]
    paths: Vec<SharedPath>,
    /// All files and listings, sorted.
    #[prost(message, repeated, tag = "2")]
    contents: Vec<Content>,
    #[prost(message, repeated, tag = "3")]
    variants: Vec<Indices>,
}

/// A path: the first bytes of the path before it, and the rest.
#[derive(Clone, PartialEq, prost::Message)]
struct SharedPath {
    #[prost(uint32, tag = "1")]
    shared: u32,
    #[prost(bytes = "vec", tag = "2")]
    rest: Vec<u8>,
}

/// A path with the digest of what is there.
#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    /// An index of `paths`.
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
    /// Indices of `paths`.
    #[prost(uint32, repeated, tag = "2")]
    absent: Vec<u32>,
    /// Indices of `contents`.
    #[prost(uint32, repeated, tag = "3")]
    listed: Vec<u32>,
}

type Key<'a> = (&'a [u8], Digest, bool);

/// The message of some variants.
pub(super) fn encode(variants: &[Variant]) -> Manifest {
    let mut paths: BTreeMap<&[u8], u32> = BTreeMap::new();
    let mut contents: BTreeMap<Key<'_>, u32> = BTreeMap::new();
    for variant in variants {
        for key in reads(variant).chain(listings(variant)) {
            paths.insert(key.0, 0);
            contents.insert(key, 0);
        }
        paths.extend(variant.absent.iter().map(|path| (bytes(path), 0)));
    }
    number(&mut paths);
    number(&mut contents);
    let path = |path: &[u8]| paths.get(path).copied().unwrap_or_default();
    let content = |key: Key<'_>| contents.get(&key).copied().unwrap_or_default();
    Manifest {
        variants: variants
            .iter()
            .map(|variant| Indices {
                read: reads(variant).map(content).collect(),
                absent: variant.absent.iter().map(|absent| path(bytes(absent))).collect(),
                listed: listings(variant).map(content).collect(),
            })
            .collect(),
        contents: contents
            .keys()
            .map(|(of, digest, executable)| Content {
                path: path(of),
                hash: digest.hash.to_vec(),
                size: digest.size,
                function: digest.function.to_wire(),
                executable: *executable,
            })
            .collect(),
        paths: shared(paths.keys()),
    }
}

fn number<K: Ord>(of: &mut BTreeMap<K, u32>) {
    for (index, number) in (0..).zip(of.values_mut()) {
        *number = index;
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn reads(variant: &Variant) -> impl Iterator<Item = Key<'_>> {
    variant.read.iter().map(|(path, read)| (bytes(path), read.digest, read.executable))
}

fn listings(variant: &Variant) -> impl Iterator<Item = Key<'_>> {
    variant.listed.iter().map(|(path, digest)| (bytes(path), *digest, false))
}

fn shared<'a>(paths: impl Iterator<Item = &'a &'a [u8]>) -> Vec<SharedPath> {
    let mut before: &[u8] = &[];
    paths
        .map(|path| {
            let shared = before.iter().zip(path.iter()).take_while(|(a, b)| a == b).count();
            before = path;
            SharedPath { shared: shared as u32, rest: path[shared..].to_vec() }
        })
        .collect()
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

/// How many bytes all paths of a manifest have at most: written as what they share, they could unfold to much more than they take.
const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// Whether a message has a size, and paths, that are read back.
pub(super) fn fits(message: &Manifest, max_bytes: usize) -> bool {
    message.encoded_len() <= max_bytes && paths(message).is_ok()
}

fn paths(message: &Manifest) -> Result<Vec<PathBuf>, &'static str> {
    let mut before: Vec<u8> = Vec::new();
    let mut total = 0;
    let mut paths = Vec::with_capacity(message.paths.len());
    for path in &message.paths {
        if path.shared as usize > before.len() {
            return Err("a path shares more than there is");
        }
        before.truncate(path.shared as usize);
        before.extend_from_slice(&path.rest);
        total += before.len();
        if total > MAX_PATH_BYTES {
            return Err("its paths are too long");
        }
        paths.push(PathBuf::from(OsStr::from_bytes(&before)));
    }
    Ok(paths)
}

fn read(content: &Content) -> Result<Read, &'static str> {
    let function =
        DigestFunction::from_wire(content.function).map_err(|_| "a digest function is not one that Kiln knows")?;
    let hash = content.hash.as_slice().try_into().map_err(|_| "a hash has the wrong length")?;
    Ok(Read { digest: Digest { function, hash, size: content.size }, executable: content.executable })
}
