//! Which files are programs, and which are links, where the file system does not say so: git's index does, else the file itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Error;
use super::walk::{Found, Kind, inside};

/// What git's index says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InIndex {
    /// It may be executed.
    Program,
    /// It may not.
    Plain,
    /// It is a symbolic link, whose target is the file's content where links cannot be made.
    Link,
}

/// Whether a file begins as programs of Unix do: with `#!`, or as ELF does.
pub(super) fn is_program(path: &Path) -> bool {
    let mut begin = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read(&mut begin)).unwrap_or_default();
    let begin = begin.get(..read).unwrap_or_default();
    begin.starts_with(b"#!") || begin == b"\x7fELF"
}

/// Reads what `git ls-files --stage -z` says, by path.
pub(super) fn of_index(listed: &[u8]) -> HashMap<String, InIndex> {
    let entries = listed.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let known = entries.filter_map(|entry| {
        let (about, path) = entry.split_once('\t')?;
        let what = match about.split(' ').next()? {
            "100755" => InIndex::Program,
            "120000" => InIndex::Link,
            "100644" => InIndex::Plain,
            _ => return None,
        };
        Some((path.to_owned(), what))
    });
    known.collect()
}

/// Corrects what was found below `root` by what the index says of paths, else by what the files themselves say.
///
/// # Errors
/// If a link leads out of the tree, as where links are links.
pub(super) fn correct(root: &Path, found: &mut [Found], index: &HashMap<String, InIndex>) -> Result<(), Error> {
    for one in found {
        let Kind::File { stat, executable, .. } = &mut one.kind else { continue };
        match index.get(&one.path) {
            Some(InIndex::Program) => *executable = true,
            Some(InIndex::Plain) => *executable = false,
            // Longer than any path: it has been replaced by a file.
            Some(InIndex::Link) if stat.size <= 4096 => {
                if let Ok(target) = std::fs::read_to_string(root.join(&one.path)) {
                    one.kind = Kind::Symlink { target: inside(&one.path, Path::new(&target))? };
                }
            }
            _ => *executable = is_program(&root.join(&one.path)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stat;

    #[test]
    fn the_index_says_what_a_file_is_and_else_the_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &str| {
            std::fs::write(dir.path().join(name), content).unwrap();
            let stat = Stat::new(&dir.path().join(name).metadata().unwrap());
            Found { path: name.to_owned(), kind: Kind::File { stat, executable: false, mode: None } }
        };
        let mut found = vec![
            put("plain.sh", "#!/bin/sh\n"),
            put("tool", "whatever"),
            put("link", "tool"),
            put("new.sh", "#!/bin/sh\n"),
            put("elf", "\x7fELF..."),
            put("text", "#"),
        ];
        let index =
            of_index(b"100644 1 0\tplain.sh\x00100755 2 0\ttool\x00120000 3 0\tlink\x00160000 4 0\tsubmodule\x00");
        correct(dir.path(), &mut found, &index).unwrap();
        let is = |name: &str| match &found.iter().find(|one| one.path == name).unwrap().kind {
            Kind::File { executable, .. } => executable.to_string(),
            Kind::Symlink { target } => target.clone(),
            other => format!("{other:?}"),
        };
        let all = ["plain.sh", "tool", "link", "new.sh", "elf", "text"].map(is);
        assert_eq!(all, ["false", "true", "tool", "true", "true", "false"]);
        let mut leaves = [put("link", "../other")];
        assert!(matches!(correct(dir.path(), &mut leaves, &index), Err(Error::Link { .. })));
    }
}
