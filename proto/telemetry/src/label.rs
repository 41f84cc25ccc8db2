//! Limits the number of label values that come from outside.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// The value used for all values without a label of their own.
pub const OTHER: &str = "other";
/// Maximum length of a label value, in bytes.
const LONGEST: usize = 40;

/// The values of one label: the first few well-formed ones; all others become [`OTHER`].
#[derive(Debug)]
pub struct Bounded {
    most: usize,
    known: Mutex<BTreeSet<String>>,
}

impl Bounded {
    /// At most `most` values in addition to [`OTHER`].
    pub fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The label for a value, which is added if there is space.
    pub fn admit(&self, value: &str) -> String {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !known.contains(value) {
            if known.len() >= self.most || !is_plain(value) {
                return OTHER.to_owned();
            }
            known.insert(value.to_owned());
        }
        value.to_owned()
    }

    /// The label for a value that its sender must not be able to add.
    pub fn known(&self, value: &str) -> String {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.contains(value) { value.to_owned() } else { OTHER.to_owned() }
    }
}

fn is_plain(value: &str) -> bool {
    (1..=LONGEST).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_plain_values_are_labels_and_no_others() {
        let systems = Bounded::new(2);
        assert_eq!(systems.known("debian:12"), OTHER, "expected a client not to make a label");
        assert_eq!(systems.admit("debian:12"), "debian:12");
        for strange in ["", "a\"} 1\nup 0", "ä", &"x".repeat(41)] {
            assert_eq!(systems.admit(strange), OTHER, "expected {strange:?} to be no label");
        }
        assert_eq!(systems.admit("ubuntu:24.04"), "ubuntu:24.04");
        assert_eq!(systems.admit("alpine:3.20"), OTHER, "expected no third one");
        assert_eq!(systems.known("debian:12"), "debian:12");
    }
}
