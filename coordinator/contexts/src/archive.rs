//! Archives: what compresses them is known by their first bytes, and no entry is written to a path of its own.

use std::collections::HashMap;
use std::io::{self, Read};

use bytes::Bytes;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Blob;
use kiln_trees::tree::{Entry, Tree, resolve, unusual_mode};
use tempfile::TempDir;

use crate::Error;

/// Bytes that say what a file is.
const HEAD_BYTES: u64 = 1024;
/// The size of a header in an archive.
const HEADER_BYTES: usize = 512;
/// Most entries of an archive.
const MAX_ENTRIES: usize = 1_000_000;
/// Files up to this size stay in memory.
const WHOLE_BYTES: u64 = 64 << 10;
/// Most links on the way to a file.
const MAX_LINKS: usize = 40;

/// The content of an archive.
pub(crate) struct Unpacked {
    pub(crate) tree: Tree,
    pub(crate) blobs: HashMap<Digest, Blob>,
    pub(crate) notes: Vec<String>,
    pub(crate) kept: TempDir,
}

/// The first bytes of a stream, and the whole stream.
pub(crate) fn head<R: Read>(mut from: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::new();
    from.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((head.clone(), io::Cursor::new(head).chain(from)))
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    None,
}

fn compression(head: &[u8]) -> Option<Compression> {
    Some(match head {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        head if is_header(head) => Compression::None,
        _ => return None,
    })
}

/// Whether a header of an archive is there: its checksum is right. An archive can also be empty.
fn is_header(head: &[u8]) -> bool {
    let Some(header) = head.get(..HEADER_BYTES) else { return false };
    if header.iter().all(|byte| *byte == 0) {
        return true;
    }
    let text = String::from_utf8_lossy(header.get(148..156).unwrap_or_default()).into_owned();
    let said = u32::from_str_radix(text.trim_matches(|c: char| c == ' ' || c == '\0'), 8);
    let sum =
        header.iter().enumerate().map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }));
    said == Ok(sum.sum())
}

/// Whether a file that begins with these bytes is an archive.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    compression(head).is_some()
}

/// Reads an archive. `shown` is its name in errors.
pub(crate) fn unpack(head: &[u8], from: impl Read, function: DigestFunction, shown: &str) -> Result<Unpacked, Error> {
    let plain: Box<dyn Read + '_> = match compression(head) {
        Some(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(from)),
        Some(Compression::Bzip2) => Box::new(bzip2::read::MultiBzDecoder::new(from)),
        Some(Compression::Xz) => Box::new(lzma_rust2::XzReader::new(from, true)),
        Some(Compression::Zstd) => Box::new(zstd::Decoder::new(from).map_err(Error::Temporary)?),
        Some(Compression::None) | None => Box::new(from),
    };
    let kept = tempfile::Builder::new().prefix("kiln-context-").tempdir().map_err(Error::Temporary)?;
    let unpacked = Unpacked { tree: Tree::default(), blobs: HashMap::new(), notes: Vec::new(), kept };
    let mut reader = Reader { unpacked, function, count: 0, files: 0 };
    match reader.read(plain) {
        Ok(()) => Ok(reader.unpacked),
        Err(reason) => Err(Error::Archive { shown: shown.to_owned(), reason }),
    }
}

struct Reader {
    unpacked: Unpacked,
    function: DigestFunction,
    count: usize,
    files: usize,
}

impl Reader {
    fn read(&mut self, plain: impl Read) -> Result<(), String> {
        let mut archive = tar::Archive::new(plain);
        for entry in archive.entries().map_err(|error| error.to_string())? {
            let mut entry = entry.map_err(|error| format!("it cannot be read: {error}"))?;
            self.count = self.count.saturating_add(1);
            if self.count > MAX_ENTRIES {
                return Err(format!("it has more than {MAX_ENTRIES} entries"));
            }
            let path = text(&entry.path_bytes())?;
            let Some(path) = inside(&path)? else { continue };
            let mode = entry.header().mode().unwrap_or(0o644) & 0o7777;
            let kind = entry.header().entry_type();
            let node = if kind.is_dir() {
                Entry::Directory(Tree { mode: unusual_mode(mode, true), ..Tree::default() })
            } else if kind.is_symlink() {
                let target = entry.link_name_bytes().ok_or_else(|| format!("`{path}` is a link to nothing"))?;
                Entry::Symlink { target: text(&target)? }
            } else if kind.is_hard_link() {
                let target = entry.link_name_bytes().ok_or_else(|| format!("`{path}` is a link to nothing"))?;
                let target = inside(&text(&target)?)?.unwrap_or_default();
                let there = self.unpacked.tree.get(&target).cloned();
                there.ok_or_else(|| format!("`{path}` is a link to `{target}`, which is not before it"))?
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                let executable = mode & 0o100 != 0;
                let digest = self.file(&mut entry).map_err(|error| format!("`{path}` cannot be read: {error}"))?;
                Entry::File { digest, executable, mode: unusual_mode(mode, executable) }
            } else if kind.is_fifo() || kind.is_character_special() || kind.is_block_special() {
                self.unpacked.notes.push(format!("`{path}` is left out: a pipe or a device has no content to copy"));
                continue;
            } else {
                continue;
            };
            let tree = &mut self.unpacked.tree;
            let is_directory = matches!(node, Entry::Directory(_));
            let merges = is_directory && matches!(tree.get(&path), Some(Entry::Directory(_)));
            let put = if merges { tree.insert(&path, node) } else { tree.replace(&path, node) };
            put.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The content of a file: in memory if it is small.
    fn file(&mut self, content: &mut impl Read) -> io::Result<Digest> {
        let mut data = Vec::new();
        content.by_ref().take(WHOLE_BYTES + 1).read_to_end(&mut data)?;
        if data.len() as u64 <= WHOLE_BYTES {
            let digest = self.function.digest(&data);
            self.unpacked.blobs.insert(digest, Blob::Bytes(Bytes::from(data)));
            return Ok(digest);
        }
        self.files = self.files.saturating_add(1);
        let path = self.unpacked.kept.path().join(self.files.to_string());
        let mut file = std::fs::File::create(&path)?;
        let mut hasher = self.function.hasher();
        while !data.is_empty() {
            hasher.update(&data);
            io::Write::write_all(&mut file, &data)?;
            data.clear();
            content.by_ref().take(WHOLE_BYTES).read_to_end(&mut data)?;
        }
        let digest = hasher.finish();
        self.unpacked.blobs.insert(digest, Blob::File(path));
        Ok(digest)
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let invalid = || format!("the name `{}` is not valid UTF-8", String::from_utf8_lossy(bytes));
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| invalid())
}

/// A path of the archive below its root; none for the root itself.
fn inside(path: &str) -> Result<Option<String>, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(format!("`{path}` leads out of it"));
    }
    Ok(Some(parts.join("/")).filter(|path| !path.is_empty()))
}

impl Unpacked {
    /// The content of a file, also through links that stay inside.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut path = resolve("", path)?;
        for _ in 0..MAX_LINKS {
            match self.tree.get(&path)? {
                Entry::Symlink { target } => {
                    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
                    let (base, target) = target.strip_prefix('/').map_or((above, target.as_str()), |rest| ("", rest));
                    path = resolve(base, target)?;
                }
                Entry::File { digest, .. } => {
                    return match self.unpacked_blob(digest)? {
                        Blob::Bytes(data) => Some(data.to_vec()),
                        Blob::File(path) => std::fs::read(path).ok(),
                        // No file of an archive is kept in parts.
                        Blob::Part(..) => None,
                    };
                }
                _ => return None,
            }
        }
        None
    }

    fn unpacked_blob(&self, digest: &Digest) -> Option<&Blob> {
        self.blobs.get(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: DigestFunction = DigestFunction::Sha256;

    fn packed(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &[u8], mode: u32, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, target: &str) {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }

    fn read(data: &[u8]) -> Result<Unpacked, String> {
        let (first, whole) = head(data).unwrap();
        assert!(is_archive(&first));
        unpack(&first, whole, F, "it").map_err(|error| error.to_string())
    }

    #[test]
    fn files_modes_and_links_are_read_whatever_compresses_them() {
        let large = vec![7; 200 << 10];
        let plain = packed(|builder| {
            file(builder, b"./Dockerfile", 0o644, b"FROM scratch\n");
            file(builder, b"/abs/tool", 0o4755, b"x");
            file(builder, b"large", 0o644, &large);
            link(builder, tar::EntryType::Link, "hard", "./large");
            link(builder, tar::EntryType::Symlink, "abs/link", "../Dockerfile");
        });
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, &plain).unwrap();
            encoder.finish().unwrap()
        };
        let bzip2 = {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            io::Write::write_all(&mut encoder, &plain).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for data in [&plain, &gzip, &bzip2, &zstd] {
            let unpacked = read(data).unwrap();
            assert_eq!(unpacked.read("abs/link").unwrap(), b"FROM scratch\n");
            assert_eq!(unpacked.read("hard").unwrap(), large);
            assert!(matches!(unpacked.tree.get("abs/tool"), Some(Entry::File { mode: Some(0o4755), .. })));
        }
    }

    #[test]
    fn what_leads_out_is_refused_and_nothing_is_written_beside() {
        let out = packed(|builder| file(builder, b"../../escaped", 0o644, b"x"));
        assert!(read(&out).err().unwrap().contains("leads out"));
        let through = packed(|builder| {
            link(builder, tar::EntryType::Symlink, "etc", "/etc");
            file(builder, b"etc/escaped", 0o644, b"x");
        });
        assert!(read(&through).is_err());
        let hard = packed(|builder| link(builder, tar::EntryType::Link, "shadow", "/etc/shadow"));
        assert!(read(&hard).err().unwrap().contains("`etc/shadow`, which is not before it"));
        let linked = packed(|builder| link(builder, tar::EntryType::Symlink, "Dockerfile", "../../etc/passwd"));
        assert_eq!(read(&linked).unwrap().read("Dockerfile"), None);
    }

    #[test]
    fn a_dockerfile_is_no_archive_and_half_an_archive_is_none() {
        for text in [&b"FROM scratch\n"[..], b"", &[b'#'; 2000][..]] {
            assert!(!is_archive(&head(text).unwrap().0));
        }
        let whole = packed(|builder| file(builder, b"a", 0o644, &[1; 5000]));
        assert!(read(&whole[..1500]).is_err());
    }
}
