//! The environment of a C or C++ compiler.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::refusal::Refusal;

/// What compilers and the programs they run read. A list of what is allowed, not of what is denied: a `VERSION` that a makefile
/// exports must not make every call miss. Sources: GCC's manual, "Environment Variables Affecting GCC"; Clang's manual.
const ALLOWED: [&str; 14] = [
    "PATH",
    "LANG",
    "SOURCE_DATE_EPOCH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "COMPILER_PATH",
    "LIBRARY_PATH",
    "GCC_EXEC_PREFIX",
    "GCC_COMPARE_DEBUG",
    "GCC_COLORS",
    "CCC_OVERRIDE_OPTIONS",
    "LANGUAGE",
];
const ALLOWED_PREFIXES: [&str; 2] = ["LC_", "CLANG_CONFIG_"];
/// They make the compiler write, or add to, a file that no argument names.
const WRITES: [&str; 2] = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];

/// The part of the environment that a call has.
pub(super) fn allowed(environment: &BTreeMap<OsString, OsString>) -> Result<BTreeMap<OsString, OsString>, Refusal> {
    if let Some(name) = WRITES.iter().find(|name| environment.contains_key(OsStr::new(name))) {
        return Err(Refusal::Environment { name: (*name).to_owned() });
    }
    let is_allowed = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        ALLOWED.iter().any(|allowed| allowed.as_bytes() == name)
            || ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    Ok(environment
        .iter()
        .filter(|(name, _)| is_allowed(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect())
}
