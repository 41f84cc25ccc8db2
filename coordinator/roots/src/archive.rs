//! Archives that `ADD` unpacks: they are known by their content, whatever their names.

use std::io::{self, BufReader, Read};

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_images::layer::unpacked;
use kiln_images::manifest::media_type;
use kiln_proto::digest::Digest;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::{Error, Imported, Roots};

/// Bytes of a file that tell what it is: those of an archive's first header.
const HEAD: usize = 512;
/// Compressions that layers of images do not have.
const BZIP2: &str = "application/x-bzip2";
const XZ: &str = "application/x-xz";
/// Memory that an archive in xz may need to be read: as much as its strongest level takes.
const XZ_MEMORY_KIB: u32 = 100 << 10;

/// What a file begins with, as the media type of an archive.
fn compression(head: &[u8]) -> &'static str {
    match head {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => media_type::OCI_LAYER_ZSTD,
        [b'B', b'Z', b'h', ..] => BZIP2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => XZ,
        _ => media_type::OCI_LAYER,
    }
}

/// The decompressed content of an archive of this media type.
///
/// # Errors
/// If reading fails.
pub(crate) fn plain<'a>(media_type: &str, archive: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match media_type {
        BZIP2 => Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(archive))),
        XZ => Box::new(lzma_rust2::XzReader::new_mem_limit(BufReader::new(archive), true, XZ_MEMORY_KIB)),
        media_type => unpacked(media_type, archive)?,
    })
}

/// Whether an archive begins here: its first header is one.
fn begins(data: impl Read) -> bool {
    let mut archive = tar::Archive::new(data);
    // What an archive says of its first entry may come before that.
    archive.entries().is_ok_and(|entries| matches!(entries.raw(true).next(), Some(Ok(_))))
}

impl Roots {
    /// The content of a file that is an archive; none if it is not one. `name` is for people.
    ///
    /// # Errors
    /// If it begins as an archive and cannot be read to its end, or the store fails.
    pub(crate) async fn archive(&self, file: &Digest, name: &str) -> Result<Option<Imported>, Error> {
        let mut pieces = self.blobs().read(file, 0, Some(HEAD as u64)).await?;
        let mut head = Vec::new();
        while let Some(piece) = pieces.try_next().await? {
            head.extend_from_slice(&piece);
        }
        let media_type = compression(&head);
        let is_archive = match media_type {
            media_type::OCI_LAYER => begins(&*head),
            media_type => self.begins_inside(media_type, file).await?,
        };
        if !is_archive {
            return Ok(None);
        }
        match self.import(media_type, file).await {
            Err(Error::Tar(error)) => Err(Error::Archive { path: name.to_owned(), reason: error.to_string() }),
            imported => imported.map(Some),
        }
    }

    /// Whether a compressed file is an archive. What cannot be decompressed is none.
    async fn begins_inside(&self, media_type: &'static str, file: &Digest) -> Result<bool, Error> {
        let pieces = self.blobs().read(file, 0, None).await?;
        let pieces = pieces.map_err(io::Error::other).map_ok(Bytes::from);
        let bridge = SyncIoBridge::new(StreamReader::new(pieces));
        let reading = tokio::task::spawn_blocking(move || plain(media_type, bridge).is_ok_and(begins));
        Ok(reading.await.map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file `a` as an archive, and that compressed by other programs.
    const BZIP2_OF_NOTHING: &[u8] = b"BZh9\x17rE8P\x90\0\0\0\0";

    #[test]
    fn what_is_no_archive_is_a_file() {
        assert!(!begins(&b""[..]) && !begins(&[0; 1024][..]) && !begins(&[b'x'; 1024][..]));
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        archive.append_data(&mut header, "a", &b"x"[..]).unwrap();
        let data = archive.into_inner().unwrap();
        assert!(begins(&data[..HEAD]));
        assert!(!begins(plain(BZIP2, BZIP2_OF_NOTHING).unwrap()));
        assert!(!plain(XZ, &b"\xfd7zXZ\0 and nothing of the kind"[..]).is_ok_and(begins));
    }
}
