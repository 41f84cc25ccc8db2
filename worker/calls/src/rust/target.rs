//! `--target`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::refusal::Refusal;

/// Refuses targets that are, or may be, described by a file, and those whose outputs have other names than on Linux.
pub(super) fn check(target: &str, environment: &BTreeMap<OsString, OsString>) -> Result<(), Refusal> {
    let is_file =
        target.ends_with(".json") || target.contains('/') || environment.contains_key(OsStr::new("RUST_TARGET_PATH"));
    if is_file || !target.contains("-linux-") {
        return Err(Refusal::Platform { option: format!("--target {target}") });
    }
    Ok(())
}
