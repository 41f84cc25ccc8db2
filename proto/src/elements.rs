//! Counts a message's elements before it is decoded: an empty one takes two bytes on the wire and a hundred in memory.
//!
//! Invariant: the count is at least the number of elements that decoding allocates, and counting allocates nothing.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A type of message: which of its fields are messages, and of which type. Any other length-delimited field is one element.
#[derive(Debug)]
pub struct Kind {
    below: &'static [(u32, &'static Kind)],
}

static LEAF: Kind = Kind { below: &[] };
static NODE_PROPERTIES: Kind = Kind { below: &[(1, &LEAF)] };
static FILE: Kind = Kind { below: &[(2, &LEAF), (6, &NODE_PROPERTIES)] };
static DIRECTORY_NODE: Kind = Kind { below: &[(2, &LEAF)] };
static SYMLINK: Kind = Kind { below: &[(4, &NODE_PROPERTIES)] };
static PLATFORM: Kind = Kind { below: &[(1, &LEAF)] };

/// `Directory`.
pub static DIRECTORY: Kind = Kind { below: &[(1, &FILE), (2, &DIRECTORY_NODE), (3, &SYMLINK), (5, &NODE_PROPERTIES)] };
/// `Tree`.
pub static TREE: Kind = Kind { below: &[(1, &DIRECTORY), (2, &DIRECTORY)] };
/// `Command`.
pub static COMMAND: Kind = Kind { below: &[(2, &LEAF), (5, &PLATFORM)] };
/// `Action`.
pub static ACTION: Kind = Kind { below: &[(1, &LEAF), (2, &LEAF), (6, &LEAF), (10, &PLATFORM)] };

static BUILD_EVENT_ID: Kind = Kind { below: &[(4, &LEAF)] };
static ENTRIES: Kind = Kind { below: &[(1, &LEAF)] };
static FILES: Kind = Kind { below: &[(1, &LEAF), (2, &LEAF), (3, &LEAF), (4, &LEAF)] };
/// An event of Bazel: those of its parts that may have many.
pub static BUILD_EVENT: Kind = Kind {
    below: &[
        (1, &BUILD_EVENT_ID),
        (7, &FILES),
        (10, &FILES),
        (13, &LEAF),
        (16, &ENTRIES),
        (23, &FILES),
        (24, &ENTRIES),
        (26, &ENTRIES),
    ],
};

/// Maximum number of labels, files, options and entries of one event of Bazel.
pub const MAX_OF_EVENT: u64 = 500_000;
/// Maximum number of arguments, variables, outputs and properties of one command or action.
pub const MAX_OF_COMMAND: u64 = 500_000;

/// Why a message was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has too many elements.
    #[error("it has more than {most} elements")]
    TooMany {
        /// The maximum number.
        most: u64,
    },
    /// It is malformed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Decodes a message that may have at most `most` elements.
///
/// # Errors
/// If it has more, or is malformed.
pub fn decode<M: prost::Message + Default>(kind: &Kind, data: &[u8], most: u64) -> Result<M, Error> {
    let mut left = most;
    count(kind, data, &mut left)?.ok_or(Error::TooMany { most })?;
    Ok(M::decode(data)?)
}

/// Subtracts a message's elements from `left`; `None` if there are too many.
fn count(kind: &Kind, mut data: &[u8], left: &mut u64) -> Result<Option<()>, DecodeError> {
    while data.has_remaining() {
        let (tag, wire_type) = decode_key(&mut data)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut data, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut data)?;
        // A truncated field is reported by the decoder.
        let Some(inner) = usize::try_from(length).ok().and_then(|length| data.get(..length)) else {
            return Ok(Some(()));
        };
        data.advance(inner.len());
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return Ok(None),
        }
        let below = kind.below.iter().find(|(known, _)| *known == tag);
        if let Some((_, kind)) = below
            && count(kind, inner, left)?.is_none()
        {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::reapi;

    #[test]
    fn what_would_grow_a_hundredfold_is_not_decoded_wherever_it_is() {
        let empty = |tag: u8, count: usize| [tag << 3 | 2, 0].repeat(count);
        let within = |tag: u8, inner: Vec<u8>| {
            let mut data = vec![tag << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut data);
            [data, inner].concat()
        };
        let most = 1000;
        for data in [
            within(1, empty(1, 1001)),
            within(2, within(1, within(6, empty(1, 1001)))),
            empty(2, 1001),
            within(1, within(5, empty(1, 1001))),
        ] {
            assert!(matches!(decode::<reapi::Tree>(&TREE, &data, most), Err(Error::TooMany { .. })));
        }
        for data in [empty(1, 1001), empty(7, 1001), within(5, empty(1, 1001))] {
            assert!(matches!(decode::<reapi::Command>(&COMMAND, &data, most), Err(Error::TooMany { .. })));
        }
        for (field, list) in
            [(1, within(4, empty(1, 1001))), (7, empty(9, 1001)), (10, empty(2, 1001)), (13, empty(4, 1001))]
        {
            let event = within(field, list);
            assert!(matches!(
                decode::<crate::build_events::BuildEvent>(&BUILD_EVENT, &event, most),
                Err(Error::TooMany { .. })
            ));
        }
        let platform = within(10, empty(1, 1001));
        assert!(matches!(decode::<reapi::Action>(&ACTION, &platform, most), Err(Error::TooMany { .. })));
    }

    #[test]
    fn what_is_no_larger_is_decoded_as_ever() {
        let arguments = vec!["an argument\n\u{12}".to_owned(); 900];
        let command = reapi::Command { arguments, ..Default::default() };
        let decoded: reapi::Command = decode(&COMMAND, &command.encode_to_vec(), 1000).unwrap();
        assert_eq!(decoded, command);
        assert!(matches!(decode::<reapi::Command>(&COMMAND, &[0x0a, 0x05, b'x'], 1000), Err(Error::Malformed(_))));
    }
}
