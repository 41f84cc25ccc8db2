//! What tools make beside the sources, and what is for one machine only.
//!
//! Invariant: a directory counts as made only where something beside or in it proves it; a name alone decides nothing.

use std::ffi::OsStr;
use std::path::Path;

/// Whether a tool made this directory from the sources, and a build makes it again.
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
        "__pycache__" => true,
        ".kiln" => true,
        _ => holds("pyvenv.cfg"),
    }
}

/// Whether a file holds settings of one machine.
pub(super) fn is_environment(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(".env")) else { return false };
    rest.is_empty() || rest == ".local" || (rest.starts_with('.') && rest.ends_with(".local"))
}
