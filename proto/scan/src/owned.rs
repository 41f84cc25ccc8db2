//! Recognises directories that tools create next to sources, and files for a single machine.
//!
//! Invariant: a directory counts as created by a tool only if something in it or next to it proves that; a name alone
//! is not enough.

use std::ffi::OsStr;
use std::path::Path;

/// Whether a tool created this directory from the sources, so that a build recreates it.
pub(super) fn is_made(dir: &Path) -> bool {
    let Some(name) = dir.file_name().and_then(OsStr::to_str) else { return false };
    let beside = |file: &str| dir.parent().is_some_and(|parent| parent.join(file).is_file());
    let holds = |path: &str| dir.join(path).exists();
    match name {
        "node_modules" => beside("package.json"),
        "target" => {
            (beside("Cargo.toml") && (holds("CACHEDIR.TAG") || holds(".rustc_info.json")))
                || (beside("pom.xml") && (holds("maven-status") || holds("maven-archiver")))
        }
        "bundle" => {
            let vendor = dir.parent().filter(|parent| parent.file_name() == Some(OsStr::new("vendor")));
            vendor.and_then(Path::parent).is_some_and(|project| project.join("Gemfile").is_file()) && holds("ruby")
        }
        "vendor" => beside("composer.json") && holds("composer/installed.json"),
        ".zig-cache" | "zig-cache" | "zig-out" => beside("build.zig"),
        "__pycache__" => true,
        ".kiln" => true,
        _ => holds("pyvenv.cfg"),
    }
}

/// Whether a file contains settings of a single machine.
pub(super) fn is_environment(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(".env")) else { return false };
    rest.is_empty() || rest == ".local" || (rest.starts_with('.') && rest.ends_with(".local"))
}
