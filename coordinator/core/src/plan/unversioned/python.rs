//! `pyproject.toml` and `uv.lock`. Poetry's lock file does not hold the project's version.
//!
//! Invariant: uv's entries for packages of the tree, known by their source, lose the version that their
//! `pyproject.toml` loses.

use toml_edit::{DocumentMut, value};

use super::NONE;

pub(super) fn manifest(text: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    if let Some(version) = document.get_mut("project").and_then(|p| p.get_mut("version")) {
        *version = value(NONE);
    }
    let poetry = document.get_mut("tool").and_then(|t| t.get_mut("poetry"));
    if let Some(version) = poetry.and_then(|p| p.get_mut("version")) {
        *version = value(NONE);
    }
    Some(document.to_string())
}

pub(super) fn uv_lock(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for (index, block) in text.split("[[package]]").enumerate() {
        if index > 0 {
            out.push_str("[[package]]");
        }
        let kinds = ["editable", "virtual", "directory"];
        let source = block.lines().find_map(|line| line.strip_prefix("source = { ")).unwrap_or_default();
        let local = index > 0 && kinds.iter().any(|kind| source.starts_with(kind));
        for line in block.split_inclusive('\n') {
            if local && line.starts_with("version = ") {
                out.push_str(&format!("version = \"{NONE}\"\n"));
            } else {
                out.push_str(line);
            }
        }
    }
    Some(out)
}
