//! What is in the layers of an image or in an archive: the entries of a tar, and the space that layers waste.
//!
//! Invariant: whatever the bytes are, memory is bounded, and what is left out is said.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod waste;

use std::io::{self, Read};

use kiln_proto::digest::{Digest, DigestFunction};

pub use waste::{Placed, Sum, Waste};

/// Entries of one layer that are kept, and characters of their paths.
const ENTRIES: usize = 50_000;
const PATH: usize = 1_024;

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With its content.
    File(Digest),
    /// Whatever is in it has entries of its own.
    Directory,
    /// A link, a device, or the like.
    Other,
    /// What layers before have at this path is gone.
    Removed,
    /// What the directory at this path had in layers before is gone.
    Emptied,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the root, without a slash at its begin.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The bytes of its content.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File(digest) => digest.size,
            _ => 0,
        }
    }
}

/// A layer's entries in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of the archive.
    pub entries: Vec<Entry>,
    /// It has more, or could not be read to its end.
    pub is_cut: bool,
}

impl Listing {
    /// The entries of a tar archive, as far as it can be read: it may end anywhere, and be anything.
    pub fn of(archive: impl Read) -> Self {
        list(archive)
    }
}

fn list(archive: impl Read) -> Listing {
    let mut listing = Listing::default();
    let mut archive = tar::Archive::new(archive);
    let Ok(entries) = archive.entries() else { return Listing { is_cut: true, ..listing } };
    for entry in entries {
        match entry.and_then(|mut entry| self::entry(&mut entry)) {
            Ok(_) if listing.entries.len() >= ENTRIES => {
                listing.is_cut = true;
                break;
            }
            Ok(Some(entry)) => listing.entries.push(entry),
            Ok(None) => {}
            Err(_) => {
                listing.is_cut = true;
                break;
            }
        }
    }
    listing
}

/// One entry; none for the root. Whiteouts as the OCI image specification has them, in its `layer.md`.
fn entry(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Option<Entry>> {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let path: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let Some((name, above)) = path.split_last() else { return Ok(None) };
    let (kind, path) = match name.strip_prefix(".wh.") {
        Some(".wh..opq") => (Kind::Emptied, above.join("/")),
        Some(removed) => (Kind::Removed, above.iter().copied().chain([removed]).collect::<Vec<_>>().join("/")),
        None => {
            let kind = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                    let size = entry.size();
                    let digest = content(entry)?;
                    if digest.size != size {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Kind::File(digest)
                }
                tar::EntryType::Directory => Kind::Directory,
                _ => Kind::Other,
            };
            (kind, path.join("/"))
        }
    };
    Ok(Some(Entry { path: path.chars().take(PATH).collect(), kind }))
}

fn content(entry: &mut impl Read) -> io::Result<Digest> {
    let mut hasher = DigestFunction::Blake3.hasher();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match entry.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer with these entries; one without content is a directory.
    pub(super) fn layer(entries: &[(&str, Option<&str>)]) -> Listing {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            let data = content.unwrap_or_default();
            header.set_size(data.len() as u64);
            header.set_entry_type(if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
            archive.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
        list(archive.into_inner().unwrap().as_slice())
    }

    #[test]
    fn files_and_whiteouts_are_told_apart() {
        let listing = layer(&[
            ("./etc", None),
            ("./etc/a", Some("12345")),
            ("etc/.wh.b", Some("")),
            ("x/.wh..wh..opq", Some("")),
        ]);
        let found: Vec<(&str, u64, bool)> = listing
            .entries
            .iter()
            .map(|entry| (entry.path.as_str(), entry.size(), matches!(entry.kind, Kind::Removed | Kind::Emptied)))
            .collect();
        assert_eq!(found, [("etc", 0, false), ("etc/a", 5, false), ("etc/b", 0, true), ("x", 0, true)]);
        assert!(!listing.is_cut && listing.entries[3].kind == Kind::Emptied);
    }

    #[test]
    fn whatever_the_bytes_are_they_are_a_listing() {
        assert!(list([7_u8; 5_000].as_slice()).is_cut);
        assert_eq!(list([].as_slice()), Listing::default());
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1 << 40);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path("large").unwrap();
        header.set_cksum();
        archive.append(&header, [0_u8; 512].as_slice()).unwrap();
        let listing = list(archive.into_inner().unwrap().as_slice());
        assert!(
            listing.is_cut && listing.entries.is_empty(),
            "expected what ends within a file to be cut: {listing:?}"
        );
    }
}
