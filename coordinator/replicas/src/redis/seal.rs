//! Seals: whoever can write to Redis, but does not have the farm's key, cannot make up anything that a coordinator accepts.
//!
//! A sealed value is one byte for the layout, an HMAC-SHA256, and the value. The MAC covers the farm's prefix and where the value is
//! stored, so that a value that was moved is refused too. A seal does not show that a value is the latest. Its key is made at the
//! farm's first start and stored in Redis, encrypted with the farm's key: when that is rotated, only this one value changes.

use bytes::Bytes;
use kiln_state::farm_key::{self, FarmKey, Purpose};

/// The layout of sealed values.
const LAYOUT: u8 = 1;
/// Bytes of a seal.
pub(super) const BYTES: usize = 1 + farm_key::BYTES;

/// Seals what belongs to one farm.
#[derive(Debug, Clone)]
pub(super) struct Sealer {
    key: FarmKey,
    farm: String,
}

impl Sealer {
    pub(super) fn new(key: &[u8; farm_key::BYTES], farm: &str) -> Self {
        Self { key: FarmKey::of(key), farm: farm.to_owned() }
    }

    /// Seals a value that is stored at `place`.
    pub(super) fn seal(&self, place: &[&[u8]], value: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(BYTES + value.len());
        sealed.push(LAYOUT);
        sealed.extend_from_slice(&self.key.seal(Purpose::Journal, &self.parts(place, value)));
        sealed.extend_from_slice(value);
        sealed
    }

    /// The value that was sealed for `place`; `None` if it was not.
    pub(super) fn open(&self, place: &[&[u8]], sealed: &Bytes) -> Option<Bytes> {
        let (layout, rest) = sealed.split_first()?;
        let (mac, value) = rest.split_at_checked(farm_key::BYTES)?;
        let is_ours = *layout == LAYOUT && self.key.verify(Purpose::Journal, &self.parts(place, value), mac);
        is_ours.then(|| sealed.slice_ref(value))
    }

    fn parts<'a>(&'a self, place: &[&'a [u8]], value: &'a [u8]) -> Vec<&'a [u8]> {
        [&[self.farm.as_bytes()], place, &[value]].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_opens_where_it_was_sealed_and_unchanged_only(value: Vec<u8>, at: usize, change in 1..=255_u8) {
            let sealer = Sealer::new(&[1; 32], "farm");
            let sealed = Bytes::from(sealer.seal(&[b"a", b"b"], &value));
            prop_assert_eq!(sealer.open(&[b"a", b"b"], &sealed), Some(Bytes::from(value)));
            prop_assert_eq!(sealer.open(&[b"ab"], &sealed), None);
            prop_assert_eq!(sealer.open(&[b"a", b"c"], &sealed), None);
            prop_assert_eq!(Sealer::new(&[1; 32], "other").open(&[b"a", b"b"], &sealed), None);
            prop_assert_eq!(Sealer::new(&[2; 32], "farm").open(&[b"a", b"b"], &sealed), None);
            let mut changed = sealed.to_vec();
            let at = at % changed.len();
            changed[at] ^= change;
            prop_assert_eq!(sealer.open(&[b"a", b"b"], &changed.into()), None);
        }

        #[test]
        fn any_bytes_are_refused(value: Vec<u8>) {
            prop_assert_eq!(Sealer::new(&[2; 32], "farm").open(&[], &value.into()), None);
        }
    }
}
