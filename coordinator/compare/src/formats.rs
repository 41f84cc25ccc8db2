//! Which reader compares a content.

use super::place::{Found, Place};
use super::{archive, binary, elf, json, packed, text};

/// Bytes at the beginning that decide whether something is text.
const LOOKED_AT: usize = 8 << 10;
const PYC_HEADER: usize = 16;

/// Finds what differs between two contents, as what they are.
pub(super) fn compare(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    if first == second || found.is_full() {
        return;
    }
    let before = found.len();
    if place.depth() <= found.limits.depth {
        by_format(found, place, first, second);
    }
    // What a reader does not see is told of all the same.
    if found.len() == before && !found.is_full() {
        binary::compare(found, place, first, second);
    }
}

fn by_format(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let both = |magic: &[u8]| first.starts_with(magic) && second.starts_with(magic);
    let named = |ends: &[&str]| ends.iter().any(|end| place.name.ends_with(end));
    if both(b"\x7fELF") {
        elf::compare(found, place, first, second);
    } else if both(b"!<arch>\n") {
        archive::compare(found, place, archive::Format::Ar, first, second);
    } else if both(b"PK\x03\x04") || both(b"PK\x05\x06") {
        archive::compare(found, place, archive::Format::Zip, first, second);
    } else if archive::is_tar(first) && archive::is_tar(second) {
        archive::compare(found, place, archive::Format::Tar, first, second);
    } else if let Some(packing) = packed::Packing::of(first).filter(|one| packed::Packing::of(second) == Some(*one)) {
        packed::compare(found, place, packing, first, second);
    } else if named(&[".pyc"]) && first.len().min(second.len()) >= PYC_HEADER && first.get(..4) == second.get(..4) {
        pyc(found, place, first, second);
    } else if is_text(first) && is_text(second) {
        let (Ok(first), Ok(second)) = (std::str::from_utf8(first), std::str::from_utf8(second)) else { return };
        if !json::compare(found, place, first, second) {
            text::compare(found, place, first, second);
        }
    }
}

fn is_text(data: &[u8]) -> bool {
    let start = data.get(..LOOKED_AT.min(data.len())).unwrap_or_default();
    !start.contains(&0) && std::str::from_utf8(data).is_ok()
}

/// A compiled Python module: its header has the time of its source, unless it has a hash (PEP 552).
fn pyc(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let number = |data: &[u8], at: usize| {
        let bytes = data.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let is_timed = |data: &[u8]| number(data, 4) == Some(0);
    if is_timed(first) && is_timed(second) {
        let (a, b) = (number(first, 8).unwrap_or_default(), number(second, 8).unwrap_or_default());
        if a != b {
            let words = format!(
                "time stamp {} against {} (of its source, in the header of a compiled Python module)",
                super::times::shown(a.into()),
                super::times::shown(b.into())
            );
            found.add(place, super::Kind::Time, words);
        }
    }
    let body = |data: &'_ [u8]| data.get(PYC_HEADER..).map(<[u8]>::to_vec).unwrap_or_default();
    let (one, other) = (body(first), body(second));
    if one != other {
        binary::compare(found, &place.part("its code".to_owned()), &one, &other);
    }
}
