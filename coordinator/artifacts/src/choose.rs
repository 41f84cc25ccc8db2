//! Selects which output files an artifact includes, and where each goes.
//!
//! Invariant: two files never go to the same path unless they are equal, and nothing goes outside the artifact.

use kiln_planner::plan::{self, Artifact, ArtifactFile, ArtifactKind};
use kiln_trees::tree::{Entry, Tree};

use super::assemble::Error;
use super::links;

/// A file, a link, or a directory that is empty or has a special mode.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    /// Its path in the outputs.
    pub(super) from: String,
    /// Its path in the artifact.
    pub(super) to: String,
    /// What it is.
    pub(super) entry: Entry,
}

/// Selects the files that the description names from the expanded outputs.
pub(super) fn choose(artifact: &Artifact, outputs: &Tree) -> Result<Vec<Chosen>, Error> {
    let all = leaves(outputs);
    let mut chosen = Vec::new();
    for file in &artifact.files {
        choose_file(artifact, file, outputs, &all, &mut chosen)?;
    }
    check_links(artifact, &chosen)?;
    Ok(chosen)
}

/// Rejects links that would not work in the artifact. All links are known here, because one may lead through another.
fn check_links(artifact: &Artifact, chosen: &[Chosen]) -> Result<(), Error> {
    let target = |one: &Chosen| match &one.entry {
        Entry::Symlink { target } => Some((one.to.clone(), target.clone())),
        _ => None,
    };
    let links: links::Links = chosen.iter().filter_map(target).collect();
    for one in chosen {
        if let Entry::Symlink { target } = &one.entry
            && let Some(why) = links::link_problem(&artifact.kind, &one.to, target, &links)
        {
            return Err(layout(artifact, format!("`{}` is a symbolic link to `{target}`, {why}", one.from)));
        }
    }
    Ok(())
}

/// Lays out the selected files.
pub(super) fn lay_out<'a>(artifact: &Artifact, chosen: impl IntoIterator<Item = &'a Chosen>) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    for one in chosen {
        tree.insert(&one.to, one.entry.clone()).map_err(|error| layout(artifact, error.to_string()))?;
    }
    Ok(tree)
}

fn layout(artifact: &Artifact, reason: String) -> Error {
    Error::Layout { artifact: artifact.name.clone(), reason }
}

fn choose_file(
    artifact: &Artifact,
    file: &ArtifactFile,
    outputs: &Tree,
    all: &[(String, Entry)],
    into: &mut Vec<Chosen>,
) -> Result<(), Error> {
    let path = file.path.trim_start_matches("./").trim_end_matches('/');
    let globs = [path.to_owned()];
    let is_directory = matches!(outputs.get(path), Some(Entry::Directory(_)));
    let is_file = matches!(outputs.get(path), Some(Entry::File { .. } | Entry::Symlink { .. }));
    let below = format!("{path}/");
    let found: Vec<&(String, Entry)> = match (is_file, is_directory) {
        (true, _) => all.iter().filter(|(found, _)| found == path).collect(),
        (_, true) => all.iter().filter(|(found, _)| found == path || found.starts_with(&below)).collect(),
        _ => all.iter().filter(|(found, _)| plan::matches(&globs, found)).collect(),
    };
    if found.is_empty() {
        let shown: Vec<&str> = all.iter().take(10).map(|(found, _)| found.as_str()).collect();
        let more = match all.len().saturating_sub(shown.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let found = if shown.is_empty() { "nothing".to_owned() } else { format!("{}{more}", shown.join(", ")) };
        return Err(Error::NoFile { artifact: artifact.name.clone(), path: file.path.clone(), found });
    }
    for (from, entry) in found {
        let to = match &file.dest {
            None if is_file && artifact.kind == ArtifactKind::Binary => {
                from.rsplit('/').next().unwrap_or(from).to_owned()
            }
            None => from.clone(),
            Some(dest) => destination(dest, path, from, is_file, is_directory),
        };
        let to = match &artifact.kind {
            ArtifactKind::Image(image) => image.place(&to),
            _ => to,
        };
        let to = to.trim_end_matches('/').to_owned();
        if to.is_empty() {
            // The artifact's own root is an empty directory.
            continue;
        }
        into.push(Chosen { from: from.clone(), to, entry: entry.clone() });
    }
    Ok(())
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

/// All files and links of an expanded tree by path, and the directories that are empty or have special modes.
fn leaves(tree: &Tree) -> Vec<(String, Entry)> {
    fn walk(tree: &Tree, prefix: &str, found: &mut Vec<(String, Entry)>) {
        for (name, entry) in &tree.entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match entry {
                Entry::Directory(below) => {
                    if below.entries.is_empty() || below.mode.is_some() {
                        let own = Tree { mode: below.mode, ..Tree::default() };
                        found.push((path.clone(), Entry::Directory(own)));
                    }
                    walk(below, &path, found);
                }
                Entry::File { .. } | Entry::Symlink { .. } => found.push((path, entry.clone())),
                Entry::Sealed { .. } => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_planner::plan::Image;
    use kiln_proto::digest::DigestFunction;

    fn file(text: &str) -> Entry {
        Entry::file(DigestFunction::Sha256.digest(text.as_bytes()), false)
    }

    fn image(files: &[(&str, Option<&str>)], workdir: &str) -> Artifact {
        let files =
            files.iter().map(|(path, dest)| ArtifactFile { path: (*path).to_owned(), dest: dest.map(str::to_owned) });
        let image = Image { workdir: Some(workdir.to_owned()), ..Image::default() };
        Artifact {
            name: "i".into(),
            from: vec!["s".into()],
            files: files.collect(),
            kind: ArtifactKind::Image(Box::new(image)),
            check_elf: true,
            bundle_libraries: false,
        }
    }

    fn outputs(entries: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::default();
        for (path, entry) in entries {
            tree.insert(path, entry.clone()).unwrap();
        }
        tree
    }

    fn places(artifact: &Artifact, outputs: &Tree) -> Result<Vec<String>, String> {
        let chosen = choose(artifact, outputs).map_err(|error| error.to_string())?;
        lay_out(artifact, &chosen).map_err(|error| error.to_string())?;
        Ok(chosen.into_iter().map(|one| one.to).collect())
    }

    #[test]
    fn an_images_files_go_to_absolute_places_or_into_the_working_directory() {
        let tree = outputs(&[
            ("app/main.py", file("1")),
            ("app/data", Entry::Directory(Tree::default())),
            ("out/shop", file("2")),
        ]);
        let artifact =
            image(&[("app", None), ("out/shop", Some("/usr/bin/")), ("app", Some("/")), ("out", Some("."))], "/srv");
        let expected = ["srv/app/data", "srv/app/main.py", "usr/bin/shop", "data", "main.py", "srv/shop"];
        assert_eq!(places(&artifact, &tree).unwrap(), expected);
    }

    #[test]
    fn modes_and_empty_directories_come_along() {
        let key = Entry::File { digest: DigestFunction::Sha256.digest(b"k"), executable: false, mode: Some(0o600) };
        let tree = outputs(&[
            ("out/etc/key", key.clone()),
            ("out/etc", Entry::Directory(Tree { mode: Some(0o700), ..Tree::default() })),
            ("out/var/spool", Entry::Directory(Tree::default())),
        ]);
        let files = vec![ArtifactFile { path: "out".into(), dest: Some(".".into()) }];
        let artifact = Artifact { files, kind: ArtifactKind::Archive, ..image(&[], "/") };
        let laid = lay_out(&artifact, &choose(&artifact, &tree).unwrap()).unwrap();
        assert_eq!(laid.get("etc/key"), Some(&key));
        assert!(matches!(laid.get("etc"), Some(Entry::Directory(below)) if below.mode == Some(0o700)), "{laid:?}");
        assert!(matches!(laid.get("var/spool"), Some(Entry::Directory(_))), "{laid:?}");
    }

    #[test]
    fn links_past_the_root_and_two_files_at_one_place_are_refused() {
        let link = Entry::Symlink { target: "../../../etc".into() };
        let leaving = places(&image(&[("l", None)], "/srv"), &outputs(&[("l", link)])).unwrap_err();
        assert!(leaving.contains("`/srv/l`") && leaving.contains("leaves the image's root"), "{leaving}");
        let absolute = Entry::Symlink { target: "/usr/bin/python3".into() };
        assert!(places(&image(&[("l", None)], "/srv"), &outputs(&[("l", absolute)])).is_ok());
        let two = outputs(&[("a/x", file("1")), ("b/x", file("2"))]);
        let twice = places(&image(&[("a", Some("/")), ("b", Some("/"))], "/"), &two).unwrap_err();
        assert!(twice.contains("`x` occurs twice in the tree"), "{twice}");
    }
}
