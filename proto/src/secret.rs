//! Secrets exchanged between Kiln's processes, and how they are kept from leaving memory.
//!
//! Invariant: the value of a [`Secret`] or a [`Credential`] is neither shown by `Debug` nor left in memory after use.

use std::fmt;

use zeroize::Zeroize;

use crate::v1::{Credential, Secret};

/// Minimum length of a secret in bytes: shorter ones could not be masked without hiding half of a step's output.
pub const MIN_BYTES: usize = 4;
/// Maximum length of a secret in bytes: Linux limits variables to 128 KiB.
pub const MAX_BYTES: usize = 64 << 10;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// Why a value cannot be a secret, as a phrase that follows its name and reveals nothing about the value.
pub fn problem(value: &str) -> Option<String> {
    let bytes = value.len();
    if bytes < MIN_BYTES {
        Some(format!(
            "has {bytes} bytes; expected at least {MIN_BYTES}, because less cannot be masked in the output of steps"
        ))
    } else if bytes > MAX_BYTES {
        Some(format!("has {bytes} bytes; expected at most {MAX_BYTES}"))
    } else if value.contains('\0') {
        Some("contains a NUL, which a variable cannot".to_owned())
    } else {
        None
    }
}

/// Whether `name` is valid for a secret: letters, digits and `_`, not starting with a digit, as in shell variables.
pub fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_name_and_nothing_of_its_value() {
        let secret = Secret { name: "NPM_TOKEN".into(), value: "hunter22".into() };
        let request = crate::v1::SubmitRequest { secrets: vec![secret.clone()], ..Default::default() };
        let lease = crate::v1::Lease { secrets: vec![secret], ..Default::default() };
        for shown in [format!("{request:?}"), format!("{lease:#?}")] {
            assert!(shown.contains("NPM_TOKEN") && !shown.contains("hunter22"), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_told_without_showing_it() {
        assert_eq!(problem("hunter22"), None);
        for bad in ["", "abc", "nul\0nul", &"x".repeat(MAX_BYTES + 1)] {
            let words = problem(bad).expect("expected a problem");
            assert!(bad.is_empty() || !words.contains(bad), "{words}");
        }
        assert!(is_name("_A1") && !is_name("1A") && !is_name("A-B") && !is_name(""));
    }
}
