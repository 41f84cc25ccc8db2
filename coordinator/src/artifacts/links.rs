//! Links of artifacts. Pure.
//!
//! Invariant: no link of an artifact needs anything of the build that is not in the artifact.

use kiln_core::plan::ArtifactKind;

/// Where a sandbox has the project's tree: a path that no other machine has.
const BUILD: &str = "/build";

/// Why a link that would stand at `path` is of no use in an artifact, with what to do about it; none where it is.
///
/// An archive is unpacked on a machine that has a system of its own, so that a link to an absolute path may well mean that; and an
/// image is a system.
pub(super) fn useless(kind: &ArtifactKind, path: &str, target: &str) -> Option<String> {
    let is_absolute = target.starts_with('/');
    let is_of_the_build = target == BUILD || target.strip_prefix(BUILD).is_some_and(|rest| rest.starts_with('/'));
    match kind {
        ArtifactKind::Binary if is_absolute || leaves(path, target) => {
            Some("which is no part of the artifact: copy the file itself".to_owned())
        }
        ArtifactKind::Archive if is_of_the_build => Some(format!(
            "where only the build had something: make it relative, or copy the file itself (at `{path}` of the archive)"
        )),
        ArtifactKind::Archive if !is_absolute && leaves(path, target) => Some(format!(
            "which leads out of the archive from its place there, `{path}`: copy the file itself, or take what it points \
             to into the archive"
        )),
        ArtifactKind::Image(_) if !is_absolute && leaves(path, target) => {
            Some(format!("which leaves the image's root from its place there, `/{path}`: make it absolute or shorter"))
        }
        _ => None,
    }
}

/// Whether a relative link at `path` points out of the directory that `path` is relative to, or nowhere.
fn leaves(path: &str, target: &str) -> bool {
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    target.is_empty()
}

#[cfg(test)]
mod tests {
    use ArtifactKind::{Archive, Binary};

    use super::*;

    #[test]
    fn a_link_that_leads_out_of_the_artifact_is_useless_and_one_into_the_system_is_not() {
        for (path, target) in
            [("a", "../a"), ("d/a", "../../a"), ("d/a", "b/../../../c"), ("a", ""), ("a", "/build"), ("a", "/build/x")]
        {
            assert!(useless(&Archive, path, target).is_some(), "expected `{path}` -> `{target}` to be refused");
            assert!(useless(&Binary, path, target).is_some(), "expected `{path}` -> `{target}` to be refused");
        }
        for (path, target) in [("a", "b"), ("d/a", "../b"), ("a", "./d/../b"), ("d/e/a", "../../b")] {
            assert_eq!((useless(&Archive, path, target), useless(&Binary, path, target)), (None, None));
        }
        for target in ["/usr/lib/libc.so.6", "/builds/x"] {
            assert_eq!(useless(&Archive, "a", target), None);
            assert!(useless(&Binary, "a", target).is_some());
        }
    }
}
