//! Source trees, git repositories and unpacked artifacts.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A source tree with these files.
pub fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}

pub fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A copy of an example of this repository, outside of its git tree.
pub fn example(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = crate::workspace().join("cli/examples").join(name);
    copy(&from, dir.path());
    dir
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Unpacks the only `.tar.zst` below a directory after comparing its checksum; returns where.
pub fn unpack(dir: &Path) -> tempfile::TempDir {
    let archive = find(dir, ".tar.zst").unwrap_or_else(|| panic!("no archive in {}", dir.display()));
    let data = std::fs::read(&archive).unwrap();
    let said = std::fs::read_to_string(format!("{}.sha256", archive.display())).unwrap();
    let digest = kiln_proto::digest::DigestFunction::Sha256.digest(&data);
    assert!(said.starts_with(&digest.hex()), "expected the checksum of the archive, found {said}");
    let to = tempfile::tempdir().unwrap();
    tar::Archive::new(zstd::Decoder::new(data.as_slice()).unwrap()).unpack(to.path()).unwrap();
    to
}

/// A file below a directory whose name ends with this.
pub fn find(dir: &Path, suffix: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path, suffix);
        }
        path.to_string_lossy().ends_with(suffix).then_some(path)
    })
}

/// The output of a command.
pub fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(&program).args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{:?} {arguments:?}: {}", program.as_ref(), text(&output.stderr));
    text(&output.stdout)
}

/// Makes a directory a git repository with all its files committed; returns the commit's name.
pub fn commit(dir: &Path) -> String {
    if !dir.join(".git").exists() {
        git(dir, &["init", "-q"]);
    }
    git(dir, &["add", "-A"]);
    git(dir, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "change"]);
    git(dir, &["rev-parse", "HEAD"]).trim().to_owned()
}

pub fn git(dir: &Path, arguments: &[&str]) -> String {
    output("git", arguments, dir)
}

const MAVEN_SETTINGS: &str = "<settings><mirrors><mirror><id>debian</id><mirrorOf>*</mirrorOf>\
                              <url>file:///usr/share/maven-repo</url></mirror></mirrors></settings>";

/// Files that make Maven fetch from Debian's packages.
pub const MAVEN_OF_DEBIAN: [(&str, &str); 2] =
    [(".mvn/maven.config", "-s\n.mvn/settings.xml\n"), (".mvn/settings.xml", MAVEN_SETTINGS)];

/// Makes Maven fetch from Debian's packages in this project.
pub fn use_debian(dir: &Path) {
    MAVEN_OF_DEBIAN.iter().for_each(|(path, text)| write(dir, path, text));
}
