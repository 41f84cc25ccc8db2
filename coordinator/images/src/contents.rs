//! Finds what matters in an image's layers for the layers on top: libraries, links, and special directories.
//!
//! Invariant: layers are read once, front to back, in constant memory apart from what is found.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::layer::{Attributes, unpacked};
use crate::metered::Metered;

/// Maximum number of libraries, links and special directories in one image.
const MAX_FOUND: usize = 1_000_000;
/// Maximum size of a C library that is searched for its version.
const MAX_LIBC_BYTES: u64 = 16 << 20;
/// The start of glibc's version banner.
const GLIBC_BANNER: &[u8] = b"GNU C Library";

/// The relevant contents of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contents {
    /// Names of shared libraries, in any directory.
    pub libraries: BTreeSet<String>,
    /// Symbolic links, by path without a leading slash: an entry below one would replace it.
    pub links: BTreeMap<String, String>,
    /// Directories whose mode is not 0755 or whose owner is not root.
    pub directories: BTreeMap<String, Attributes>,
    /// glibc's version.
    pub glibc: Option<(u32, u32)>,
}

impl Contents {
    /// Adds a compressed layer; returns the digest of its tar.
    ///
    /// # Errors
    /// If it is not a valid tar.
    pub fn add(&mut self, layer_type: &str, layer: impl Read) -> io::Result<Digest> {
        self.add_all(unpacked(layer_type, layer)?)
    }

    fn add_all(&mut self, layer: impl Read) -> io::Result<Digest> {
        let mut hashing = Hashing { inner: layer, hasher: Hasher::default() };
        self.add_tar(&mut hashing)?;
        // Data after the end of the tar counts too.
        io::copy(&mut hashing, &mut io::sink())?;
        Ok(hashing.hasher.finish())
    }

    fn add_tar(&mut self, layer: impl Read) -> io::Result<()> {
        let (layer, allowance) = Metered::new(layer);
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries()? {
            let mut entry = entry?;
            allowance.within();
            self.add_entry(&mut entry)?;
            if entry.header().entry_type().is_gnu_sparse() {
                // A sparse entry may claim an enormous size; its data is skipped.
                allowance.between_after(entry.header().entry_size()?);
            } else {
                io::copy(&mut entry, &mut io::sink())?;
                allowance.between_after(0);
            }
            let found = self.libraries.len().saturating_add(self.links.len()).saturating_add(self.directories.len());
            if found > MAX_FOUND {
                let words = format!("it has more than {MAX_FOUND} links, libraries and special directories");
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        let path = entry.path()?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        if let Some(gone) = name.strip_prefix(".wh.") {
            let directory = path.strip_suffix(&name).unwrap_or_default();
            self.remove(&format!("{directory}{gone}"), gone == ".wh..opq");
            return Ok(());
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            self.directory(path, entry)?;
            return Ok(());
        }
        self.directories.remove(&path);
        if kind.is_symlink() {
            let target = entry.link_name()?.map(|target| target.to_string_lossy().into_owned());
            self.links.insert(path, target.unwrap_or_default());
        } else {
            self.links.remove(&path);
        }
        if is_library(&name) {
            self.libraries.insert(name.clone());
        }
        if (name == "libc.so.6" || name.starts_with("libc-2.")) && kind.is_file() {
            let mut data = Vec::new();
            entry.take(MAX_LIBC_BYTES).read_to_end(&mut data)?;
            self.glibc = glibc_version(&data).or(self.glibc);
        }
        Ok(())
    }

    fn directory(&mut self, path: String, entry: &tar::Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let found = Attributes { mode: header.mode()? & 0o7777, uid: header.uid()?, gid: header.gid()? };
        self.links.remove(&path);
        if found == (Attributes { mode: 0o755, uid: 0, gid: 0 }) {
            self.directories.remove(&path);
        } else {
            self.directories.insert(path, found);
        }
        Ok(())
    }

    /// Handles a whiteout by removing what is below. Libraries are kept: a name may exist in several places.
    fn remove(&mut self, path: &str, only_below: bool) {
        let path = if only_below { path.strip_suffix("/.wh..opq").unwrap_or_default() } else { path };
        let gone = |known: &String| {
            known.strip_prefix(path).is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !only_below))
        };
        self.links.retain(|known, _| !gone(known));
        self.directories.retain(|known, _| !gone(known));
    }

    /// The link that a path leads through, with its target.
    pub fn link_above(&self, path: &str) -> Option<(&str, &str)> {
        let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        above.filter_map(|above| self.links.get_key_value(above)).map(|(at, to)| (at.as_str(), to.as_str())).next()
    }
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn is_library(name: &str) -> bool {
    name.strip_suffix(".so").is_some() || name.contains(".so.")
}

/// `GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.`
fn glibc_version(data: &[u8]) -> Option<(u32, u32)> {
    let at = data.windows(GLIBC_BANNER.len()).position(|window| window == GLIBC_BANNER)?;
    let banner = data.get(at..)?;
    let banner = String::from_utf8_lossy(banner.get(..200).unwrap_or(banner)).into_owned();
    let version = banner.split("release version ").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Compression, LayerWriter, Options};

    /// The header of a GNU long name that claims so many bytes.
    fn long_name(bytes: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(bytes);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn a_name_that_never_ends_is_refused_before_it_fills_the_memory_and_long_files_are_read() {
        let endless = io::Cursor::new(long_name(1 << 40)).chain(io::repeat(b'n'));
        let error = Contents::default().add(crate::manifest::media_type::OCI_LAYER, endless).unwrap_err();
        assert!(error.to_string().contains("1048576 bytes"), "{error}");
        let mut writer = LayerWriter::new(Vec::new(), Options::default()).unwrap();
        writer.file("large", 0o644, 3 << 20, io::repeat(7).take(3 << 20)).unwrap();
        writer.symlink("lib", "usr/lib").unwrap();
        let (data, layer) = writer.finish().unwrap();
        let mut contents = Contents::default();
        contents.add(&layer.descriptor.media_type, data.as_slice()).unwrap();
        assert_eq!(contents.links["lib"], "usr/lib");
    }

    #[test]
    fn libraries_links_special_directories_and_the_c_library_are_found_and_whiteouts_take_away() {
        let special = BTreeMap::from([("tmp".to_owned(), Attributes { mode: 0o1777, uid: 0, gid: 0 })]);
        let options = Options { directories: special, compression: Compression::Zstd, ..Options::default() };
        let mut writer = LayerWriter::new(Vec::new(), options).unwrap();
        writer.symlink("bin", "usr/bin").unwrap();
        writer.symlink("lib", "usr/lib").unwrap();
        writer.directory("tmp").unwrap();
        let libc: &[u8] = b"\x7fELF\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0";
        writer.file("usr/lib/libc.so.6", 0o755, libc.len() as u64, libc).unwrap();
        writer.file("usr/lib/libpq.so.5.15", 0o755, 0, io::empty()).unwrap();
        let (data, layer) = writer.finish().unwrap();
        let mut contents = Contents::default();
        let tar = contents.add(&layer.descriptor.media_type, data.as_slice()).unwrap();
        assert_eq!(tar, layer.diff_id);
        assert_eq!(contents.glibc, Some((2, 36)));
        assert!(contents.libraries.contains("libc.so.6") && contents.libraries.contains("libpq.so.5.15"));
        assert_eq!(contents.link_above("lib/x"), Some(("lib", "usr/lib")));
        assert_eq!(contents.link_above("usr/lib/x"), None);
        assert_eq!(contents.directories["tmp"].mode, 0o1777);

        let mut above = LayerWriter::new(Vec::new(), Options::default()).unwrap();
        above.file(".wh.lib", 0o644, 0, io::empty()).unwrap();
        let (data, layer) = above.finish().unwrap();
        contents.add(&layer.descriptor.media_type, data.as_slice()).unwrap();
        assert_eq!(contents.link_above("lib/x"), None);
        assert_eq!(contents.link_above("bin/x"), Some(("bin", "usr/bin")));
    }
}
