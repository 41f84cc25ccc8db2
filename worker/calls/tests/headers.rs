//! The scanner compared with `gcc -M` on the headers of the machine: it must find at least what the compiler reads.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_calls::manifest::{Present, Read};
use kiln_calls::scan::{Scanner, Sources};
use kiln_calls::{Files, Invocation, Kind, rules, search_directories, search_query, understand};
use kiln_proto::digest::{Digest, DigestFunction};
use proptest::prelude::*;

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        std::fs::read(path).ok()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(if metadata.is_dir() { Kind::Directory } else { Kind::File })
    }
}

impl Present for Disk {
    fn digest(&self, path: &Path) -> Option<Read> {
        let content = std::fs::read(path).ok()?;
        Some(Read { digest: DigestFunction::Blake3.digest(&content), executable: false })
    }

    fn absent(&self, path: &Path) -> bool {
        !path.exists()
    }

    fn listing(&self, path: &Path) -> Option<Digest> {
        path.is_dir().then(|| DigestFunction::Blake3.digest(b""))
    }
}

impl Sources for Disk {
    fn content(&self, path: &Path) -> Option<Vec<u8>> {
        std::fs::read(path).ok()
    }

    fn directory(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok().filter(|path| path.is_dir())
    }
}

fn gcc(directory: &Path, arguments: &[OsString]) -> std::process::Output {
    Command::new("gcc").args(arguments).current_dir(directory).env("LC_ALL", "C").output().unwrap()
}

/// The files that the compiler reads; `None` if it does not accept the source.
fn by_compiler(directory: &Path, arguments: &[&str]) -> Option<BTreeSet<PathBuf>> {
    let arguments: Vec<OsString> =
        arguments.iter().chain(&["-M"]).filter(|argument| **argument != "-c").map(OsString::from).collect();
    let output = gcc(directory, &arguments);
    output.status.success().then(|| {
        let prerequisites = rules(&output.stdout).into_iter().flat_map(|rule| rule.prerequisites);
        prerequisites.map(|path| directory.join(path).canonicalize().unwrap()).collect()
    })
}

/// The files that the scanner finds.
fn by_scanner(scanner: &Scanner, directory: &Path, arguments: &[&str]) -> BTreeSet<PathBuf> {
    scan(scanner, directory, arguments).unwrap_or_else(|| panic!("{arguments:?}: the scanner cannot tell"))
}

/// The same; `None` if the scanner cannot tell.
fn scan(scanner: &Scanner, directory: &Path, arguments: &[&str]) -> Option<BTreeSet<PathBuf>> {
    let invocation = Invocation {
        program: "gcc".into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        directory: directory.to_owned(),
        environment: BTreeMap::new(),
    };
    let call = understand(&invocation, &Disk).unwrap();
    let answer = gcc(directory, &search_query(&call)).stderr;
    let system = search_directories(&String::from_utf8(answer).unwrap());
    let variant = scanner.scan(&call, &system, &Disk).ok()?;
    Some(variant.read.keys().map(|path| path.canonicalize().unwrap()).collect())
}

/// Checks a source of one include for each name that the compiler accepts. Returns how many there were.
fn check(suffix: &str, names: &[String], options: &[&str]) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().canonicalize().unwrap();
    let scanner = Scanner::default();
    let mut checked = 0;
    for name in names {
        let source = format!("a.{suffix}");
        std::fs::write(at.join(&source), format!("#include <{name}>\n")).unwrap();
        let arguments: Vec<&str> = options.iter().copied().chain(["-c", &source]).collect();
        let Some(expected) = by_compiler(&at, &arguments) else { continue };
        let found = by_scanner(&scanner, &at, &arguments);
        let missed: Vec<_> = expected.difference(&found).collect();
        assert!(missed.is_empty(), "{arguments:?} with <{name}>: the compiler reads {missed:?} too");
        assert!(expected.len() > 1, "{name}");
        checked += 1;
    }
    checked
}

/// The names of files in the first directory that has `sample`.
fn headers(language: &str, sample: &str) -> Vec<String> {
    let query = ["-v", "-E", "-x", language, "/dev/null"].map(OsString::from);
    let system = search_directories(&String::from_utf8(gcc(Path::new("/"), &query).stderr).unwrap());
    let directory = system.bracket.iter().find(|directory| directory.join(sample).is_file()).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn all_headers_of_the_cxx_library_are_found() {
    assert!(check("cc", &headers("c++", "vector"), &["-std=c++20"]) > 80);
}

#[test]
fn all_headers_of_the_c_library_are_found() {
    let names: Vec<String> = headers("c", "stdio.h").into_iter().filter(|name| name.ends_with(".h")).collect();
    assert!(check("c", &names, &["-D_GNU_SOURCE"]) > 60);
}

/// Pieces of sources in which an include may hide, or may seem to be.
const PIECES: [&str; 26] = [
    "#include <n0.h>\n",
    "#include \"n1.h\"\n",
    "# include/**/<n2.h>\n",
    "#inc\\\nlude <n3.h>\n",
    "%:include <n4.h>\n",
    "#include_next <n5.h>\n",
    "#if 1\n",
    "#if 0\n",
    "#else\n",
    "#endif\n",
    "/*",
    "*/",
    "//",
    "\\\n",
    "\n",
    "\"",
    "'",
    "R\"(",
    ")\"",
    "R\"x(",
    ")x\"",
    "\\",
    "1'0",
    " ",
    "#define N <n6.h>\n",
    "#include N\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever surrounds an include, it is found if the compiler finds it.
    #[test]
    fn includes_are_found_where_the_compiler_finds_them(
        (suffix, standard) in proptest::sample::select(&[("cc", "-std=c++17"), ("c", "-std=gnu17"), ("c", "-std=c11")][..]),
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        for name in 0..7 {
            std::fs::write(at.join(format!("n{name}.h")), "").unwrap();
        }
        let source = format!("a.{suffix}");
        std::fs::write(at.join(&source), pieces.concat()).unwrap();
        let arguments = [standard, "-I.", "-c", &source];
        if let (Some(expected), Some(found)) = (by_compiler(&at, &arguments), scan(&Scanner::default(), &at, &arguments)) {
            let missed: Vec<_> = expected.difference(&found).collect();
            prop_assert!(missed.is_empty(), "{standard} {pieces:?}: the compiler reads {missed:?} too");
        }
    }
}
