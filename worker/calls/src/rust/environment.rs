//! The environment of rustc.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// What differs between builds and has no meaning for a crate. All else counts: `env!` and procedural macros read anything. The
/// job server is left out because a call has one of its own.
const DENIED: [&str; 18] = [
    "CARGO_MAKEFLAGS",
    // Where a step finds the caches of its tools.
    "CCACHE_REMOTE_STORAGE",
    "GOCACHEPROG",
    "NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN",
    "NX_SELF_HOSTED_REMOTE_CACHE_SERVER",
    "SCCACHE_WEBDAV_ENDPOINT",
    "TURBO_API",
    "TURBO_TEAM",
    "TURBO_TOKEN",
    "MAKEFLAGS",
    "MFLAGS",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "RUSTC_WRAPPER",
    // How many jobs there may be depends on what else the farm does.
    "CARGO_BUILD_JOBS",
    "CMAKE_BUILD_PARALLEL_LEVEL",
];
const DENIED_PREFIX: &[u8] = b"KILN_";

/// The part of the environment that a call has.
pub(super) fn allowed(environment: &BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let is_allowed = |name: &OsStr| {
        !DENIED.iter().any(|denied| name == *denied) && !name.as_encoded_bytes().starts_with(DENIED_PREFIX)
    };
    environment.iter().filter(|(name, _)| is_allowed(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}
