//! Paths in a source tree: relative to its root and `/`-separated; the root itself is the empty string.

use crate::Source;

/// Whether the file exists.
pub fn has(source: &dyn Source, path: &str) -> bool {
    source.paths().binary_search_by(|p| p.as_str().cmp(path)).is_ok()
}

/// A path relative to a directory that contains it; empty for the directory itself.
pub fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(directory)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Why `path` is not a valid path below the root of the tree, if it is not.
pub fn path_problem(path: &str) -> Option<&'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() || path == "." {
        Some("names no file")
    } else if path.starts_with('/') {
        Some("is absolute")
    } else if path.split('/').any(|part| part == "..") {
        Some("leaves the tree by `..`")
    } else if path.split('/').any(|part| part.is_empty() || part == ".") || path.contains('\0') {
        Some("is not in its plain form")
    } else {
        None
    }
}

/// The base name of a path.
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The directory of a path; empty for the root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// `path` relative to `directory`, with `.` and `..` resolved; `None` if it leaves the tree.
pub fn join(directory: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
