//! Which outputs an artifact takes, and where they stand in it. Pure.
//!
//! Invariant: no link of an artifact needs anything of the build that is not in the artifact.

use kiln_core::plan::{self, Artifact, ArtifactKind};
use kiln_proto::tree::{Entry, Tree};

use super::assemble::Error;
use crate::builds::source::flatten;

/// Where a sandbox has the project's tree: a path that no other machine has.
const BUILD: &str = "/build";

/// Lays out the files that the description names.
pub(super) fn choose(artifact: &Artifact, outputs: &Tree) -> Result<Tree, Error> {
    let all = flatten(outputs);
    let layout = |reason: String| Error::Layout { artifact: artifact.name.clone(), reason };
    let mut tree = Tree::default();
    for file in &artifact.files {
        let path = file.path.trim_start_matches("./").trim_end_matches('/');
        let globs = [path.to_owned()];
        let is_directory = matches!(outputs.get(path), Some(Entry::Directory(_)));
        let is_file = matches!(outputs.get(path), Some(Entry::File { .. } | Entry::Symlink { .. }));
        let chosen: Vec<&(String, Entry)> = match (is_file, is_directory) {
            (true, _) => all.iter().filter(|(found, _)| found == path).collect(),
            (_, true) => all.iter().filter(|(found, _)| found.starts_with(&format!("{path}/"))).collect(),
            _ => all.iter().filter(|(found, _)| plan::matches(&globs, found)).collect(),
        };
        if chosen.is_empty() {
            let found: Vec<&str> = all.iter().take(10).map(|(found, _)| found.as_str()).collect();
            let more = if all.len() > 10 { format!(" and {} more", all.len() - 10) } else { String::new() };
            let found = if found.is_empty() { "nothing".to_owned() } else { format!("{}{more}", found.join(", ")) };
            return Err(Error::NoFile { artifact: artifact.name.clone(), path: file.path.clone(), found });
        }
        for (found, entry) in chosen {
            let to = match &file.dest {
                None if is_file && artifact.kind == ArtifactKind::Binary => {
                    found.rsplit('/').next().unwrap_or(found).to_owned()
                }
                None => found.clone(),
                Some(dest) => destination(dest, path, found, is_file, is_directory),
            };
            if let Entry::Symlink { target } = entry
                && let Some(why) = useless(artifact.kind, &to, target)
            {
                return Err(layout(format!("`{found}` is a symbolic link to `{target}`, {why}")));
            }
            tree.insert(&to, entry.clone()).map_err(|error| layout(error.to_string()))?;
        }
    }
    Ok(tree)
}

/// Why a link that would stand at `path` is of no use in an artifact, with what to do about it; none where it is.
///
/// An archive is unpacked on a machine that has a system of its own, so that a link to an absolute path may well mean that.
fn useless(kind: ArtifactKind, path: &str, target: &str) -> Option<String> {
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

fn destination(dest: &str, path: &str, found: &str, is_file: bool, is_directory: bool) -> String {
    let name = found.rsplit('/').next().unwrap_or(found);
    let within = if is_directory { found.strip_prefix(path).unwrap_or(found).trim_start_matches('/') } else { name };
    match dest.trim_start_matches("./") {
        "." | "" => within.to_owned(),
        dest if is_file && !dest.ends_with('/') => dest.to_owned(),
        dest => format!("{}/{within}", dest.trim_end_matches('/')),
    }
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
            assert!(useless(Archive, path, target).is_some(), "expected `{path}` -> `{target}` to be refused");
            assert!(useless(Binary, path, target).is_some(), "expected `{path}` -> `{target}` to be refused");
        }
        for (path, target) in [("a", "b"), ("d/a", "../b"), ("a", "./d/../b"), ("d/e/a", "../../b")] {
            assert_eq!((useless(Archive, path, target), useless(Binary, path, target)), (None, None));
        }
        for target in ["/usr/lib/libc.so.6", "/builds/x"] {
            assert_eq!(useless(Archive, "a", target), None);
            assert!(useless(Binary, "a", target).is_some());
        }
    }
}
