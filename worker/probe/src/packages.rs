//! The system files that a build can read in addition to tools: headers, libraries, and other contents of packages.
//!
//! A package manager's database describes them exactly and is read quickly. Without one, headers and libraries are
//! indexed by path, size and time. Files in `/usr/local` belong to no package and are hashed.
//!
//! Invariant: two machines with the same packages have the same digest, in whichever order they were installed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_proto::digest::{DigestFunction, Hasher};

/// Headers and libraries that no package owns.
const LOCAL: &[&str] = &["usr/local/include", "usr/local/lib", "usr/local/lib64", "usr/local/share/pkgconfig"];
/// Headers and libraries of a system without a package database.
const UNMANAGED: &[&str] = &["usr/include", "usr/lib", "usr/lib64", "lib", "lib64", "usr/share/pkgconfig"];
/// The content below `/usr/local` is hashed up to this many bytes; beyond that only paths, sizes and times are.
const MAX_HASHED_BYTES: u64 = 64 << 20;
/// Maximum number of entries of an index; a system has about 100,000.
const MAX_ENTRIES: usize = 2_000_000;

/// Arguments for `rpm`: each package with version, architecture and the digest of its header.
pub(super) const RPM_QUESTION: [&str; 3] = ["-qa", "--qf", r"%{NAME} %{EVR} %{ARCH} %{SHA256HEADER}\n"];

/// Package databases and directories outside packages: their times change when something is installed.
const WATCHED: &[&str] = &[
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "var/lib/pacman/local",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/include",
    "usr/lib",
    "usr/local/include",
    "usr/local/lib",
];

/// Runs the machine's own `rpm`.
pub(super) fn ask_rpm() -> Option<String> {
    let output = std::process::Command::new("rpm").args(RPM_QUESTION).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A cheap value that changes when packages are installed or removed.
pub fn stamp(root: &Path) -> String {
    let of = |path: &&str| {
        let data = fs::metadata(within(root, path)?).ok()?;
        Some(format!("{path} {} {}.{}\n", data.len(), data.mtime(), data.mtime_nsec()))
    };
    WATCHED.iter().filter_map(of).collect()
}

/// A digest of what a build can read of the system at `root`. `rpm` returns the system's RPM packages, one per line.
pub(super) fn digest(root: &Path, cache: Option<&Path>, rpm: impl FnOnce() -> Option<String>) -> String {
    let mut hasher = DigestFunction::Sha256.hasher();
    match installed(root, rpm) {
        Some(packages) => packages.iter().for_each(|package| line(&mut hasher, package)),
        None => index(root, UNMANAGED).iter().for_each(|file| line(&mut hasher, &file.stamp())),
    }
    line(&mut hasher, &local(root, cache));
    hasher.finish().hex()[..32].to_owned()
}

fn line(hasher: &mut Hasher, text: &str) {
    hasher.update(text.as_bytes());
    hasher.update(b"\n");
}

/// Each installed package with its version, sorted; `None` without a known package database.
fn installed(root: &Path, rpm: impl FnOnce() -> Option<String>) -> Option<Vec<String>> {
    let read = |path: &str| fs::read_to_string(within(root, path)?).ok();
    let mut packages = Vec::new();
    if let Some(status) = read("var/lib/dpkg/status") {
        packages.extend(dpkg(&status));
    }
    // Distroless images and others have one file for each package.
    for path in files(root, "var/lib/dpkg/status.d") {
        packages.extend(fs::read_to_string(path).iter().flat_map(|status| dpkg(status)));
    }
    if let Some(database) = read("lib/apk/db/installed").or_else(|| read("usr/lib/apk/db/installed")) {
        packages.extend(apk(&database));
    }
    packages.extend(names(root, "var/lib/pacman/local").into_iter().map(|name| format!("pacman {name}")));
    let has_rpm = ["var/lib/rpm", "usr/lib/sysimage/rpm"].iter().any(|path| !names(root, path).is_empty());
    if has_rpm && let Some(text) = rpm() {
        packages.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("rpm {line}")));
    }
    packages.sort();
    packages.dedup();
    (!packages.is_empty()).then_some(packages)
}

/// Reads dpkg's database (dpkg-query(1)): paragraphs, of which those with an "installed" status count.
fn dpkg(status: &str) -> Vec<String> {
    let of = |paragraph: &str| {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
        };
        // Files below `status.d` lack this field.
        let is_installed =
            field("Status").rsplit(' ').next().is_some_and(|word| word.is_empty() || word == "installed");
        let package = format!("deb {} {} {}", field("Package"), field("Version"), field("Architecture"));
        (is_installed && !field("Package").is_empty()).then_some(package)
    };
    status.split("\n\n").filter_map(of).collect()
}

/// Reads apk's database: paragraphs with one-letter fields.
fn apk(database: &str) -> Vec<String> {
    let of = |paragraph: &str| {
        let field = |letter: &str| paragraph.lines().find_map(|line| line.strip_prefix(letter)).unwrap_or_default();
        let package = format!("apk {} {} {}", field("P:"), field("V:"), field("C:"));
        (!field("P:").is_empty()).then_some(package)
    };
    database.split("\n\n").filter_map(of).collect()
}

fn within(root: &Path, path: &str) -> Option<PathBuf> {
    kiln_sandbox::within(root, &Path::new("/").join(path))
}

fn names(root: &Path, path: &str) -> Vec<String> {
    let entries = within(root, path).and_then(|path| fs::read_dir(path).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn files(root: &Path, path: &str) -> Vec<PathBuf> {
    let entries = within(root, path).and_then(|path| fs::read_dir(path).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// A file or link of an index.
struct Indexed {
    /// Path relative to the root.
    path: String,
    full: PathBuf,
    size: u64,
    time: (i64, i64),
    link: Option<String>,
}

impl Indexed {
    /// A line that changes when the file is replaced.
    fn stamp(&self) -> String {
        match &self.link {
            Some(target) => format!("{}\t-> {target}", self.path),
            None => format!("{}\t{}\t{}.{}", self.path, self.size, self.time.0, self.time.1),
        }
    }
}

/// Whether programs create such a file just by running, so that it is not part of the system.
fn is_left_by_runs(name: &str) -> bool {
    name == "__pycache__" || name.ends_with(".pyc") || name.ends_with(".cache")
}

/// Files and links below these directories, by path.
fn index(root: &Path, directories: &[&str]) -> Vec<Indexed> {
    let mut found: BTreeMap<String, Indexed> = BTreeMap::new();
    let mut waiting: Vec<(String, PathBuf)> = Vec::new();
    for directory in directories {
        // On most systems `/lib` is a link to `/usr/lib`, which is indexed only once.
        let real = root.join(directory);
        if fs::symlink_metadata(&real).is_ok_and(|data| data.is_dir()) {
            waiting.push(((*directory).to_owned(), real));
        }
    }
    while let Some((path, full)) = waiting.pop() {
        for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(data) = entry.metadata() else { continue };
            if is_left_by_runs(&name) || found.len() >= MAX_ENTRIES {
                continue;
            }
            let path = format!("{path}/{name}");
            if data.is_dir() {
                waiting.push((path, entry.path()));
                continue;
            }
            let link = data.is_symlink().then(|| fs::read_link(entry.path()).ok()).flatten();
            let link = link.map(|target| target.to_string_lossy().into_owned());
            let time = (data.mtime(), data.mtime_nsec());
            found.insert(path.clone(), Indexed { path, full: entry.path(), size: data.len(), time, link });
        }
    }
    found.into_values().collect()
}

/// A digest of `/usr/local`, by content if it is small, so that machines that were set up alike match. The digest is
/// remembered in `cache` until a file there changes.
fn local(root: &Path, cache: Option<&Path>) -> String {
    let files = index(root, LOCAL);
    let mut stamps = DigestFunction::Sha256.hasher();
    files.iter().for_each(|file| line(&mut stamps, &file.stamp()));
    let stamps = stamps.finish().hex();
    if files.iter().map(|file| file.size).sum::<u64>() > MAX_HASHED_BYTES {
        return stamps;
    }
    if let Some(known) = cache.and_then(|cache| fs::read_to_string(cache).ok())
        && let Some((of, content)) = known.trim().split_once(' ')
        && of == stamps
    {
        return content.to_owned();
    }
    let mut content = DigestFunction::Sha256.hasher();
    for file in &files {
        line(&mut content, &file.path);
        match &file.link {
            Some(target) => line(&mut content, target),
            // A build could not read an unreadable file either.
            None => content.update(&fs::read(&file.full).unwrap_or_default()),
        }
    }
    let content = content.finish().hex();
    if let Some(cache) = cache {
        let _ = fs::write(cache, format!("{stamps} {content}\n"));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn of(files: &[(&str, &str)]) -> String {
        digest(root(files).path(), None, || None)
    }

    fn paragraph(name: &str, version: &str, status: &str) -> String {
        format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\nConffiles:\n /etc/x 1\n\n")
    }

    #[test]
    fn another_package_or_version_is_another_system_and_another_order_is_not() {
        let zlib = paragraph("zlib1g-dev", "1.2.13", "install ok installed");
        let ssl = paragraph("libssl-dev", "3.0.11", "install ok installed");
        let newer = paragraph("libssl-dev", "3.0.15", "install ok installed");
        let removed = paragraph("libfoo-dev", "1", "deinstall ok config-files");
        let system = |text: String| of(&[("var/lib/dpkg/status", &text)]);
        assert_eq!(system(format!("{zlib}{ssl}")), system(format!("{ssl}{removed}{zlib}")));
        assert_ne!(system(format!("{zlib}{ssl}")), system(zlib.clone()));
        assert_ne!(system(format!("{zlib}{ssl}")), system(format!("{zlib}{newer}")));
        let apk = |version| of(&[("lib/apk/db/installed", &format!("C:Q1\nP:musl-dev\nV:{version}\n\n"))]);
        assert_ne!(apk("1.2.4"), apk("1.2.5"));
        let rpm = |text: &'static str| {
            let root = root(&[("var/lib/rpm/rpmdb.sqlite", "x")]);
            digest(root.path(), None, || Some(text.to_owned()))
        };
        assert_ne!(rpm("openssl-devel-3.0-1.x86_64\n"), rpm("openssl-devel-3.1-1.x86_64\n"));
    }

    #[test]
    fn what_was_installed_by_hand_counts_by_its_content_and_a_systems_files_where_no_package_manager_says_more() {
        let status = paragraph("libc6-dev", "2.36", "install ok installed");
        let by_hand = |header: &str| of(&[("var/lib/dpkg/status", &status), ("usr/local/include/x.h", header)]);
        assert_eq!(by_hand("int x;"), by_hand("int x;"));
        assert_ne!(by_hand("int x;"), by_hand("int y;"));
        assert_ne!(of(&[("usr/include/a.h", "1")]), of(&[("usr/include/a.h", "1"), ("usr/include/b.h", "")]));
    }

    #[test]
    fn a_remembered_answer_holds_until_a_file_changes() {
        let root = root(&[("usr/local/lib/libx.a", "1")]);
        let cache = root.path().join("cache");
        let ask = || digest(root.path(), Some(&cache), || None);
        let first = ask();
        assert!(cache.is_file());
        assert_eq!(ask(), first);
        fs::write(root.path().join("usr/local/lib/libx.a"), "22").unwrap();
        assert_ne!(ask(), first);
    }
}
