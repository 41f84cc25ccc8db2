//! Symbolic links of artifacts. Pure.
//!
//! Invariant: no link of an artifact depends on a file of the build that is not in the artifact.

use std::collections::BTreeMap;

use kiln_planner::plan::ArtifactKind;

/// The path of the project's tree in a sandbox, which exists on no other machine.
const BUILD: &str = "/build";

/// Links of an artifact, by path: a link's target may lead through others.
pub(super) type Links = BTreeMap<String, String>;

/// Maximum number of links that are followed, as in the kernel (path_resolution(7)).
const MAX_LINKS_FOLLOWED: usize = 40;

/// Why a link at `path` would not work in an artifact, with a fix; `None` if it works.
///
/// An archive is unpacked on a machine that has its own system, so a link to an absolute path may be intended; an image
/// is a complete system.
pub(super) fn link_problem(kind: &ArtifactKind, path: &str, target: &str, links: &Links) -> Option<String> {
    let is_absolute = target.starts_with('/');
    let is_of_the_build = target == BUILD || target.strip_prefix(BUILD).is_some_and(|rest| rest.starts_with('/'));
    match kind {
        ArtifactKind::Binary if is_absolute || leaves(path, target, links) => {
            Some("which is not part of the artifact: copy the file itself".to_owned())
        }
        ArtifactKind::Archive if is_of_the_build => Some(format!(
            "which exists only during the build: make it relative, or copy the file itself (at `{path}` in the archive)"
        )),
        ArtifactKind::Archive if !is_absolute && leaves(path, target, links) => Some(format!(
            "which leads out of the archive from its path there, `{path}`: copy the file itself, or include what it points \
             to"
        )),
        ArtifactKind::Image(_) if !is_absolute && leaves(path, target, links) => {
            Some(format!("which leaves the image's root from its path there, `/{path}`: make it absolute or shorter"))
        }
        _ => None,
    }
}

/// Whether a relative link at `path` leaves the directory that `path` is relative to, or leads nowhere. Resolved like
/// in a file system: `up/..` is the parent of the directory that the link `up` points to.
fn leaves(path: &str, target: &str, links: &Links) -> bool {
    let mut at: Vec<&str> = path.split('/').collect();
    at.pop();
    let mut waiting: Vec<&str> = target.rsplit('/').collect();
    let mut followed = 0_usize;
    while let Some(part) = waiting.pop() {
        match part {
            "." | "" => {}
            ".." if at.pop().is_none() => return true,
            ".." => {}
            name => {
                at.push(name);
                let Some(next) = links.get(&at.join("/")) else { continue };
                followed = followed.saturating_add(1);
                // Absolute links are checked on their own.
                if followed > MAX_LINKS_FOLLOWED || next.starts_with('/') {
                    return false;
                }
                at.pop();
                waiting.extend(next.rsplit('/'));
            }
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
        let none = Links::new();
        for (path, target) in
            [("a", "../a"), ("d/a", "../../a"), ("d/a", "b/../../../c"), ("a", ""), ("a", "/build"), ("a", "/build/x")]
        {
            let (archive, binary) =
                (link_problem(&Archive, path, target, &none), link_problem(&Binary, path, target, &none));
            assert!(archive.is_some() && binary.is_some(), "expected `{path}` -> `{target}` to be refused");
        }
        for (path, target) in [("a", "b"), ("d/a", "../b"), ("a", "./d/../b"), ("d/e/a", "../../b")] {
            let (archive, binary) =
                (link_problem(&Archive, path, target, &none), link_problem(&Binary, path, target, &none));
            assert_eq!((archive, binary), (None, None));
        }
        for target in ["/usr/lib/libc.so.6", "/builds/x"] {
            assert_eq!(link_problem(&Archive, "a", target, &none), None);
            assert!(link_problem(&Binary, "a", target, &none).is_some());
        }
    }

    #[test]
    fn a_link_is_followed_through_other_links_as_the_file_system_would() {
        let links: Links = [("p/q/up", "../.."), ("round", "round"), ("in", "p/q"), ("system", "/usr")]
            .map(|(at, to)| (at.into(), to.into()))
            .into();
        // By its letters, `p/q/up/../../..` is the directory itself.
        for (path, target) in
            [("x", "p/q/up/../../.."), ("x", "p/q/up/.."), ("d/x", "../in/up/../y"), ("p/q/x", "up/..")]
        {
            assert!(
                link_problem(&Archive, path, target, &links).is_some(),
                "expected `{path}` -> `{target}` to be refused"
            );
        }
        for (path, target) in [("x", "p/q/up/p"), ("x", "in/up/p/q"), ("x", "round/y"), ("x", "system/lib")] {
            assert_eq!(
                link_problem(&Archive, path, target, &links),
                None,
                "expected `{path}` -> `{target}` to be taken"
            );
        }
    }
}
