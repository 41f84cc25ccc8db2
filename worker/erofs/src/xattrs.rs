//! Extended attributes, which follow their inode.

use super::Error;

/// What the names of attributes begin with, and the number that stands for it.
const PREFIXES: [(&str, u8); 3] = [("user.", 1), ("trusted.", 4), ("security.", 6)];
/// Bytes before the attributes (`struct erofs_xattr_ibody_header`).
pub(super) const HEADER: usize = 12;

/// A node's attributes on disk; empty if it has none.
pub(super) fn encode<'a>(xattrs: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    for (name, value) in xattrs {
        if body.is_empty() {
            body.resize(HEADER, 0);
        }
        let wrong = || Error::Attribute(name.to_owned());
        let known = PREFIXES.iter().find_map(|(prefix, number)| Some((name.strip_prefix(prefix)?, *number)));
        let (rest, prefix) = known.filter(|(rest, _)| !rest.is_empty()).ok_or_else(wrong)?;
        body.push(u8::try_from(rest.len()).map_err(|_| wrong())?);
        body.push(prefix);
        body.extend_from_slice(&u16::try_from(value.len()).map_err(|_| wrong())?.to_le_bytes());
        body.extend_from_slice(rest.as_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
        words(&body).ok_or_else(wrong)?;
    }
    Ok(body)
}

/// How an inode says how many bytes its attributes take.
pub(super) fn words(body: &[u8]) -> Option<u16> {
    match body.len() {
        0 => Some(0),
        bytes => u16::try_from((bytes.checked_sub(HEADER)? / 4).checked_add(1)?).ok(),
    }
}
