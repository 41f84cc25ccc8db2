//! Compressed contents: the header of gzip, and what is inside.

use std::io::Read;

use super::place::{Found, Place, shown};
use super::{Kind, formats, times};

/// Most memory for a dictionary, which content that is compressed may ask for: 64 MiB, as much as `xz -9` needs.
const XZ_KIB: u32 = 66 << 10;
const WINDOW_LOG: u32 = 26;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    pub(super) fn of(data: &[u8]) -> Option<Self> {
        match data {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// What is inside, if it is whole and not larger than this.
    fn unpack(self, data: &[u8], most: u64) -> Option<Vec<u8>> {
        let mut unpacked = Vec::new();
        let limit = most.saturating_add(1);
        let read = match self {
            Self::Gzip => flate2::read::MultiGzDecoder::new(data).take(limit).read_to_end(&mut unpacked),
            Self::Zstd => zstd::Decoder::new(data).and_then(|mut reader| {
                reader.window_log_max(WINDOW_LOG)?;
                reader.take(limit).read_to_end(&mut unpacked)
            }),
            Self::Xz => lzma_rust2::XzReader::new_mem_limit(data, true, XZ_KIB).take(limit).read_to_end(&mut unpacked),
            Self::Bzip2 => bzip2::read::MultiBzDecoder::new(data).take(limit).read_to_end(&mut unpacked),
        };
        let is_whole = read.is_ok() && u64::try_from(unpacked.len()).unwrap_or(u64::MAX) <= most;
        is_whole.then_some(unpacked)
    }
}

pub(super) fn compare(found: &mut Found<'_>, place: &Place, packing: Packing, first: &[u8], second: &[u8]) {
    if packing == Packing::Gzip {
        header(found, place, first, second);
    }
    let room = found.room();
    let (Some(one), Some(other)) = (packing.unpack(first, room), packing.unpack(second, room)) else {
        return;
    };
    found.spend(one.len().max(other.len()));
    if one != other {
        return formats::compare(found, &place.unpacked(), &one, &other);
    }
    if found.len() == 0 {
        let words = format!("the same content, compressed differently ({})", packing.name());
        found.add(place, Kind::Content, words);
    }
}

/// The header of gzip (RFC 1952): the time of the file, and its name.
fn header(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let read = |data| {
        let decoder = flate2::read::GzDecoder::new(data);
        decoder.header().map(|header| (header.mtime(), header.filename().map(<[u8]>::to_vec)))
    };
    let (Some((a, one)), Some((b, other))) = (read(first), read(second)) else { return };
    if a != b {
        let (a, b) = (times::shown(a.into()), times::shown(b.into()));
        found.add(place, Kind::Time, format!("time stamp {a} against {b} (gzip header)"));
    }
    if one != other {
        let name = |name: Option<Vec<u8>>| shown(&String::from_utf8_lossy(&name.unwrap_or_default()));
        found.add(place, Kind::Path, format!("name `{}` against `{}` (gzip header)", name(one), name(other)));
    }
}
