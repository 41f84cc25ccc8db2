//! Layers: compressed tars, for which equal files always produce the same bytes.
//!
//! Invariant: nothing about the machine or the time affects a layer. Entries have a fixed order and no path occurs
//! twice; owner, time and mode are given; the compressor's output does not depend on the processor. Tar, compression
//! and both digests are computed in one pass, in constant memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashed};
use crate::gzip::Gzip;
use crate::manifest::{Descriptor, media_type};

/// zstd level: about as fast as a disk.
const ZSTD_LEVEL: i32 = 3;

/// Why a layer cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid path `/{path}` in an image: expected a path without `.`, `..` or empty parts")]
    Path { path: String },
    #[error("`/{path}` occurs twice in one layer")]
    Twice { path: String },
    #[error("`/{path}` came after `/{before}`: expected the entries of a layer in order")]
    Order { path: String, before: String },
    #[error("`/{path}` has {found} bytes, expected {expected}")]
    Size { path: String, expected: u64, found: u64 },
    #[error("cannot write a layer: {0}")]
    Write(#[from] io::Error),
}

/// A layer's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Supported by every runtime.
    #[default]
    Gzip,
    /// Smaller and much faster; Docker supports it since version 23.
    Zstd,
}

impl Compression {
    /// OCI's media type for such a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }
}

/// Owner and permissions of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

/// What holds for every entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// User and group that own the entries.
    pub owner: (u64, u64),
    /// Timestamp of every entry, in seconds since the epoch.
    pub mtime: u64,
    /// The layer's compression.
    pub compression: Compression,
    /// Directories that already exist with special attributes, which they keep. Others are 0755 and owned by root.
    pub directories: BTreeMap<String, Attributes>,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The descriptor of its compressed bytes.
    pub descriptor: Descriptor,
    /// The digest of its tar, as used in configurations.
    pub diff_id: Digest,
}

enum Compressor<W: Write> {
    Gzip(Gzip<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    fn new(inner: W, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => Self::Gzip(Gzip::new(inner)?),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(inner, ZSTD_LEVEL)?),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing in mid-stream would change the bytes.
        Ok(())
    }
}

/// Compresses a tar while it is written.
pub struct Packer<W: Write> {
    plain: Hashed<Compressor<Hashed<W>>>,
    compression: Compression,
}

impl<W: Write> Packer<W> {
    /// Compresses into `to`.
    ///
    /// # Errors
    /// If the compressor cannot start.
    pub fn new(to: W, compression: Compression) -> io::Result<Self> {
        let plain = Hashed::new(Compressor::new(Hashed::new(to), compression)?);
        Ok(Self { plain, compression })
    }

    /// Ends the layer.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub fn finish(self) -> io::Result<(W, Layer)> {
        let (compressor, diff_id, _) = self.plain.finish();
        let (to, digest, size) = compressor.finish()?.finish();
        let descriptor = Descriptor::new(self.compression.media_type(), digest, size);
        Ok((to, Layer { descriptor, diff_id }))
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.plain.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

/// The tar in a layer of this media type.
///
/// # Errors
/// If the decompressor cannot start.
pub fn unpacked<'a>(media_type: &str, layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match media_type {
        media_type::OCI_LAYER_GZIP => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(layer))),
        media_type::OCI_LAYER_ZSTD => Box::new(zstd::Decoder::new(layer)?),
        _ => Box::new(layer),
    })
}

/// Compresses an existing tar.
///
/// # Errors
/// If reading or writing fails.
pub fn compress(from: &mut impl Read, to: impl Write, compression: Compression) -> io::Result<Layer> {
    let mut packer = Packer::new(to, compression)?;
    io::copy(from, &mut packer)?;
    Ok(packer.finish()?.1)
}

/// The order of entries: by the components of their paths, so that a directory's contents follow it.
pub fn order(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Writes a layer entry by entry. Parent directories of an entry are written automatically.
pub struct LayerWriter<W: Write> {
    tar: tar::Builder<Hashed<Compressor<Hashed<W>>>>,
    options: Options,
    last: Option<String>,
    /// The directories that the last entry is in, outermost first.
    open: Vec<String>,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer whose compressed bytes are written to `to`.
    ///
    /// # Errors
    /// If the compressor cannot be created.
    pub fn new(to: W, options: Options) -> Result<Self, Error> {
        let compressor = Compressor::new(Hashed::new(to), options.compression)?;
        let mut tar = tar::Builder::new(Hashed::new(compressor));
        tar.mode(tar::HeaderMode::Deterministic);
        Ok(Self { tar, options, last: None, open: Vec::new() })
    }

    /// Adds a directory. Only necessary for empty ones.
    ///
    /// # Errors
    /// If the path is invalid, a duplicate or out of order, or writing fails.
    pub fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.advance(path)?;
        self.put_directory(path.to_owned())
    }

    /// Adds a file of `size` bytes with these permission bits.
    ///
    /// # Errors
    /// As for a directory, and if `content` has another size or cannot be read.
    pub fn file(&mut self, path: &str, mode: u32, size: u64, content: impl Read) -> Result<(), Error> {
        self.advance(path)?;
        let mut header = self.header(tar::EntryType::Regular, mode);
        header.set_size(size);
        let mut counted = Counted { inner: content.take(size.saturating_add(1)), bytes: 0 };
        let result = self.tar.append_data(&mut header, path, &mut counted);
        let found = counted.bytes;
        result?;
        if found == size { Ok(()) } else { Err(Error::Size { path: path.to_owned(), expected: size, found }) }
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As for a directory.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        self.advance(path)?;
        let mut header = self.header(tar::EntryType::Symlink, 0o777);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    /// Completes the layer; returns the writer.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(self) -> Result<(W, Layer), Error> {
        let media_type = self.options.compression.media_type();
        let (compressor, diff_id, _) = self.tar.into_inner()?.finish();
        let (to, digest, size) = compressor.finish()?.finish();
        Ok((to, Layer { descriptor: Descriptor::new(media_type, digest, size), diff_id }))
    }

    fn header(&self, kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.options.owner.0);
        header.set_gid(self.options.owner.1);
        header.set_mtime(self.options.mtime);
        header.set_size(0);
        header
    }

    /// Checks that `path` is in order, and writes its missing parent directories.
    fn advance(&mut self, path: &str) -> Result<(), Error> {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
            return Err(Error::Path { path: path.to_owned() });
        }
        if let Some(before) = &self.last {
            match order(before, path) {
                Ordering::Less => {}
                Ordering::Equal => return Err(Error::Twice { path: path.to_owned() }),
                Ordering::Greater => {
                    return Err(Error::Order { path: path.to_owned(), before: before.clone() });
                }
            }
        }
        self.open.retain(|open| path.strip_prefix(open.as_str()).is_some_and(|rest| rest.starts_with('/')));
        let above: Vec<String> =
            path.match_indices('/').filter_map(|(at, _)| path.get(..at).map(str::to_owned)).collect();
        for directory in above.into_iter().skip(self.open.len()) {
            // A file or a link with that name was written before, so it cannot contain anything.
            if self.last.as_deref() == Some(&directory) {
                return Err(Error::Twice { path: directory });
            }
            self.put_directory(directory)?;
        }
        self.last = Some(path.to_owned());
        Ok(())
    }

    fn put_directory(&mut self, path: String) -> Result<(), Error> {
        let mut header = self.header(tar::EntryType::Directory, 0o755);
        match self.options.directories.get(&path) {
            Some(kept) => {
                header.set_mode(kept.mode);
                header.set_uid(kept.uid);
                header.set_gid(kept.gid);
            }
            // Only directories listed in the layer get its owner; parent directories may be the base's.
            None if self.last.as_deref() != Some(&path) => {
                header.set_uid(0);
                header.set_gid(0);
            }
            None => {}
        }
        self.tar.append_data(&mut header, format!("{path}/"), io::empty())?;
        self.open.push(path);
        Ok(())
    }
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes = self.bytes.saturating_add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(compression: Compression) -> Options {
        Options { mtime: 946_684_800, compression, ..Options::default() }
    }

    fn write(entries: &BTreeMap<Vec<String>, Vec<u8>>, compression: Compression) -> (Vec<u8>, Layer) {
        let mut writer = LayerWriter::new(Vec::new(), options(compression)).unwrap();
        for (path, data) in entries {
            let path = path.join("/");
            writer
                .file(&path, if data.len() % 2 == 0 { 0o755 } else { 0o644 }, data.len() as u64, data.as_slice())
                .unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpack(data: &[u8], compression: Compression) -> Vec<u8> {
        let mut plain = Vec::new();
        match compression {
            Compression::Gzip => flate2::read::GzDecoder::new(data).read_to_end(&mut plain).unwrap(),
            Compression::Zstd => zstd::Decoder::new(data).unwrap().read_to_end(&mut plain).unwrap(),
        };
        plain
    }

    #[test]
    fn a_layer_has_the_same_digest_on_every_machine() {
        let mut writer = LayerWriter::new(Vec::new(), options(Compression::Gzip)).unwrap();
        let text = "the quick brown fox jumps over the lazy dog\n".repeat(2000);
        writer.file("usr/bin/fox", 0o755, text.len() as u64, text.as_bytes()).unwrap();
        writer.symlink("usr/bin/vixen", "fox").unwrap();
        let numbers: String = (0..60_000_u32).map(|n| format!("{n} {:x}\n", n.wrapping_mul(2_654_435_761))).collect();
        writer.file("usr/share/numbers", 0o644, numbers.len() as u64, numbers.as_bytes()).unwrap();
        let (_, layer) = writer.finish().unwrap();
        let found = (layer.descriptor.digest.to_string(), layer.diff_id.to_string());
        assert_eq!(
            found,
            (
                "sha256:df501412195383aa60085e3a1fb7d0c1123ccfb94dab99c30c1d955c18aa1581".to_owned(),
                "sha256:e09e9d4d418719ed4ece27bc6a3f1de47ad00478987291376cd93131fc45fa86".to_owned()
            ),
            "the compressor or tar writes other bytes than it did: every image gets another digest"
        );
    }

    #[test]
    fn directories_above_are_there_once_and_keep_what_the_base_says() {
        let sticky = Attributes { mode: 0o1777, uid: 0, gid: 0 };
        let options = Options {
            owner: (1000, 1001),
            directories: BTreeMap::from([("tmp".to_owned(), sticky)]),
            ..options(Compression::Gzip)
        };
        let mut writer = LayerWriter::new(Vec::new(), options).unwrap();
        writer.directory("srv/own").unwrap();
        for path in ["srv/own/a/b", "srv/own/c", "tmp/x"] {
            writer.file(path, 0o644, 1, b"x".as_slice()).unwrap();
        }
        let (data, _) = writer.finish().unwrap();
        let plain = unpack(&data, Compression::Gzip);
        let mut archive = tar::Archive::new(plain.as_slice());
        let found: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                format!("{path} {:o} {}", header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        assert_eq!(
            found,
            [
                "srv/ 755 0",
                "srv/own/ 755 1000",
                "srv/own/a/ 755 0",
                "srv/own/a/b 644 1000",
                "srv/own/c 644 1000",
                "tmp/ 1777 0",
                "tmp/x 644 1000"
            ]
        );
    }

    #[test]
    fn what_leaves_the_root_or_comes_twice_is_refused() {
        let mut writer = LayerWriter::new(Vec::new(), options(Compression::Gzip)).unwrap();
        for path in ["../x", "/x", "a/../../x", "a//b", ""] {
            assert!(matches!(writer.symlink(path, "x"), Err(Error::Path { .. })), "expected `{path}` to be refused");
        }
        writer.symlink("b", "x").unwrap();
        assert!(matches!(writer.symlink("b", "x"), Err(Error::Twice { .. })));
        assert!(matches!(writer.symlink("b/c", "x"), Err(Error::Twice { .. })));
        assert!(matches!(writer.symlink("a", "x"), Err(Error::Order { .. })));
        let short = writer.file("c", 0o644, 5, b"abc".as_slice());
        assert!(matches!(short, Err(Error::Size { expected: 5, found: 3, .. })), "{short:?}");
    }

    proptest! {
        #[test]
        fn equal_files_give_equal_bytes_whatever_their_order_was(
            files in proptest::collection::vec(
                (proptest::collection::vec("[a-c.-]{1,2}x", 1..4), proptest::collection::vec(any::<u8>(), 0..300)), 0..12),
            zstd: bool,
        ) {
            let compression = if zstd { Compression::Zstd } else { Compression::Gzip };
            let sorted: BTreeMap<Vec<String>, Vec<u8>> = files.iter().cloned().collect();
            // A file may not be a directory too.
            let keys: Vec<_> = sorted.keys().cloned().collect();
            prop_assume!(!keys.iter().any(|a| keys.iter().any(|b| b.len() > a.len() && b.starts_with(a))));
            let reversed: BTreeMap<_, _> = sorted.clone().into_iter().rev().collect();
            let (data, layer) = write(&sorted, compression);
            prop_assert_eq!(&write(&reversed, compression), &(data.clone(), layer.clone()));
            prop_assert_eq!(layer.descriptor.digest, Digest::of(&data));
            prop_assert_eq!(layer.descriptor.size, data.len() as u64);
            prop_assert_eq!(layer.diff_id, Digest::of(&unpack(&data, compression)));
        }
    }
}
