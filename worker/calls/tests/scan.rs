//! What a call may include, found without a preprocessor.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use kiln_calls::manifest::{Present, Read, Variant};
use kiln_calls::scan::{Fallback, Scanner, Sources};
use kiln_calls::{Files, Kind, SystemSearch, absolute, understand};
use kiln_proto::digest::{Digest, DigestFunction};
use support::{Memory, invocation};

/// Files in memory, in which directories exist where files are below them.
struct World {
    files: Memory,
    reads: Cell<usize>,
}

impl World {
    fn is_directory(&self, path: &Path) -> bool {
        self.files.kind(path) == Some(Kind::Directory)
            || self.files.0.keys().any(|file| file != path && file.starts_with(path))
    }
}

impl Present for World {
    fn digest(&self, path: &Path) -> Option<Read> {
        let content = self.files.read(path)?;
        Some(Read { digest: DigestFunction::Sha256.digest(&content), executable: false })
    }

    fn absent(&self, path: &Path) -> bool {
        self.files.read(path).is_none() && !self.is_directory(path)
    }

    fn listing(&self, path: &Path) -> Option<Digest> {
        self.is_directory(path).then(|| DigestFunction::Sha256.digest(b"names"))
    }
}

impl Sources for World {
    fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.reads.set(self.reads.get() + 1);
        self.files.read(path)
    }

    fn directory(&self, path: &Path) -> Option<PathBuf> {
        let path = absolute(Path::new("/"), path);
        self.is_directory(&path).then_some(path)
    }
}

fn scanned(line: &str, files: &[(&str, &str)]) -> Result<Variant, Fallback> {
    let world = World { files: Memory::new(files), reads: Cell::new(0) };
    let call = understand(&invocation(line), &world.files).unwrap();
    let system =
        SystemSearch { bracket: vec!["/usr/local/include".into(), "/usr/include".into()], ..SystemSearch::default() };
    let variant = Scanner::default().scan(&call, &system, &world)?;
    assert!(variant.matches(&world), "what was scanned must be as it is: {variant:?}");
    Ok(variant)
}

fn shown<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<&'a str> {
    paths.into_iter().map(|path| path.to_str().unwrap()).filter(|path| !path.contains("stdc-predef.h")).collect()
}

fn read(line: &str, files: &[(&str, &str)]) -> Vec<String> {
    let variant = scanned(line, files).unwrap();
    shown(variant.read.keys()).into_iter().map(str::to_owned).collect()
}

/// The paths of headers that were looked for in vain, without their precompiled forms.
fn absent(line: &str, files: &[(&str, &str)]) -> Vec<String> {
    let variant = scanned(line, files).unwrap();
    let paths = shown(&variant.absent).into_iter().filter(|path| !path.ends_with(".gch") && !path.ends_with(".pch"));
    paths.map(str::to_owned).collect()
}

#[test]
fn headers_are_found_in_the_compilers_order() {
    let files = [
        ("/build/src/a.c", "#include \"x.h\"\n#include <x.h>\n#include <s.h>"),
        ("/build/q/x.h", "#include \"y.h\""),
        ("/build/q/y.h", ""),
        ("/build/i/x.h", ""),
        ("/build/s/s.h", ""),
        ("/usr/include/s.h", ""),
    ];
    let line = "gcc -isystem s -I i -iquote q -c src/a.c";
    assert_eq!(read(line, &files), ["/build/i/x.h", "/build/q/x.h", "/build/q/y.h", "/build/s/s.h", "/build/src/a.c"]);
    assert_eq!(absent(line, &files), ["/build/i/s.h", "/build/src/x.h", "/usr/local/include"]);
}

#[test]
fn a_new_header_that_shadows_is_a_miss() {
    let files = [("/build/a.c", "#include <x.h>"), ("/build/i/other.h", ""), ("/build/j/x.h", "")];
    let variant = scanned("gcc -I i -I j -c a.c", &files).unwrap();
    let mut now = World { files: Memory::new(&files), reads: Cell::new(0) };
    assert!(variant.matches(&now));
    now.files.0.insert("/build/i/x.h".into(), Some(Vec::new()));
    assert!(!variant.matches(&now));
}

#[test]
fn a_new_directory_of_headers_is_a_miss() {
    let files = [("/build/a.c", "#include <x.h>"), ("/build/j/x.h", "")];
    let variant = scanned("gcc -I gen -I j -c a.c", &files).unwrap();
    let mut now = World { files: Memory::new(&files), reads: Cell::new(0) };
    now.files.0.insert("/build/gen/y.h".into(), Some(Vec::new()));
    assert!(!variant.matches(&now));
}

#[test]
fn a_directory_where_a_header_could_be_is_passed_over_and_remembered() {
    let files = [("/build/a.c", "#include <vector>"), ("/build/i/vector/x.h", ""), ("/usr/include/vector", "")];
    let variant = scanned("gcc -I i -c a.c", &files).unwrap();
    assert_eq!(shown(variant.read.keys()), ["/build/a.c", "/usr/include/vector"]);
    assert_eq!(shown(variant.listed.keys()), ["/build/i/vector"]);
}

#[test]
fn include_next_goes_on_after_the_directory_of_the_file() {
    let files = [
        ("/build/a.c", "#include <x.h>"),
        ("/build/i/x.h", "#include_next <x.h>"),
        ("/build/j/x.h", "#include_next <x.h>\n#if __has_include_next(<z.h>)\n#endif"),
        ("/usr/include/x.h", ""),
    ];
    let line = "gcc -I i -I j -c a.c";
    assert_eq!(read(line, &files), ["/build/a.c", "/build/i/x.h", "/build/j/x.h", "/usr/include/x.h"]);
    assert_eq!(absent(line, &files), ["/usr/include/z.h", "/usr/local/include"]);
}

#[test]
fn a_directory_of_the_system_stays_where_the_system_has_it() {
    // As gcc says: "ignoring duplicate directory", "as it is a non-system directory that duplicates a system directory".
    let files = [("/build/a.c", "#include <x.h>"), ("/usr/include/x.h", ""), ("/build/s/x.h", "")];
    assert_eq!(read("gcc -I/usr/include -isystem s -c a.c", &files), ["/build/a.c", "/build/s/x.h"]);
}

#[test]
fn forced_includes_are_looked_for_in_the_working_directory_first() {
    let files =
        [("/build/src/a.c", ""), ("/build/conf.h", "#include \"sub.h\""), ("/build/sub.h", ""), ("/build/i/m.h", "")];
    let line = "gcc -include conf.h -imacros m.h -Ii -c src/a.c";
    assert_eq!(read(line, &files), ["/build/conf.h", "/build/i/m.h", "/build/src/a.c", "/build/sub.h"]);
}

#[test]
fn precompiled_headers_are_inputs_and_their_absence_counts() {
    let files = [("/build/a.c", "#include \"all.h\""), ("/build/all.h", ""), ("/build/all.h.gch", "binary")];
    assert_eq!(read("gcc -c a.c", &files), ["/build/a.c", "/build/all.h", "/build/all.h.gch"]);
    let variant = scanned("gcc -include all.h -c a.c", &files[..2]).unwrap();
    assert!(variant.absent.contains(Path::new("/build/all.h.gch")));
    let directory = [("/build/a.c", ""), ("/build/all.h", ""), ("/build/all.h.gch/c", "")];
    let fallback = scanned("gcc -include all.h -c a.c", &directory).unwrap_err();
    assert!(matches!(fallback, Fallback::PrecompiledHeaders { .. }), "{fallback}");
}

#[test]
fn names_with_dots_are_followed() {
    let files = [
        ("/build/src/a.c", "#include \"../inc/./x.h\"\n#include \"none/../y.h\""),
        ("/build/inc/x.h", ""),
        ("/build/src/y.h", ""),
    ];
    // `none` does not exist, so there is no way through it, whatever the name says.
    let variant = scanned("gcc -c src/a.c", &files).unwrap();
    assert!(variant.read.contains_key(Path::new("/build/inc/x.h")));
}

#[test]
fn includes_of_macros_are_resolved_where_all_definitions_are_plain() {
    let files = [
        ("/build/a.c", "#include \"conf.h\"\n#include FIRST\n#include GIVEN\n#ifdef NEVER\n#include NEVER\n#endif"),
        ("/build/conf.h", "#ifdef A\n#define FIRST \"one.h\"\n#else\n#define FIRST ALIAS\n#endif\n#include \"late.h\""),
        ("/build/late.h", "#define ALIAS <two.h>"),
        ("/build/one.h", "#define MORE \"three.h\"\n#include MORE"),
        ("/usr/include/two.h", ""),
        ("/build/three.h", ""),
        ("/build/given.h", ""),
    ];
    let line = "gcc -DGIVEN=\"given.h\" -c a.c";
    let found = read(line, &files);
    for name in ["/build/one.h", "/usr/include/two.h", "/build/three.h", "/build/given.h"] {
        assert!(found.contains(&name.to_owned()), "{name} in {found:?}");
    }
}

#[test]
fn includes_that_only_the_preprocessor_can_expand_are_reported() {
    let fallback = |text: &str, line: &str| scanned(line, &[("/build/a.c", text)]).unwrap_err();
    for text in [
        "#define X(x) <x>\n#include X(a)",
        "#define X STR(a)\n#include X",
        "#include BOOST_PP_ITERATE()",
        "#if __has_include(STR(x))\n#endif",
    ] {
        assert!(matches!(fallback(text, "gcc -c a.c"), Fallback::Computed { .. }), "{text}");
    }
    assert!(matches!(fallback("#include X", "gcc -DX=STR(a) -c a.c"), Fallback::Computed { .. }));
}

#[test]
fn files_that_the_assembler_reads_are_reported() {
    let fallback = |line: &str, path: &str, text: &str| scanned(line, &[(path, text)]).unwrap_err();
    let incbin = "asm(\".incbin\" \" \\\"x\\\"\");";
    assert!(matches!(fallback("gcc -c a.c", "/build/a.c", incbin), Fallback::Assembler { .. }));
    assert!(matches!(fallback("gcc -c a.S", "/build/a.S", " .include \"x.s\""), Fallback::Assembler { .. }));
    assert!(scanned("gcc -c a.S", &[("/build/a.S", "#define X 1\n .long X")]).is_ok());
}

#[test]
fn what_is_only_asked_for_is_an_input_but_not_followed() {
    let files = [
        ("/build/a.c", "#if __has_include(\"x.h\") && __has_embed(\"d\")\n#endif\n#embed \"e\""),
        ("/build/x.h", "#include \"y.h\""),
        ("/build/d", ""),
        ("/build/e", ""),
    ];
    assert_eq!(read("gcc -c a.c", &files), ["/build/a.c", "/build/d", "/build/e", "/build/x.h"]);
    assert_eq!(absent("gcc -c a.c", &files), ["/usr/include", "/usr/local/include"]);
}

#[test]
fn inputs_of_the_arguments_are_inputs_or_absent() {
    let files = [("/build/a.c", ""), ("/build/p.so", "")];
    let variant = scanned("gcc -fplugin=./p.so -fprofile-use -c a.c", &files).unwrap();
    assert!(variant.read.contains_key(Path::new("/build/p.so")));
    assert!(variant.absent.contains(Path::new("/build/a.gcda")));
}

#[test]
fn each_file_is_read_once_for_all_calls() {
    let world = World {
        files: Memory::new(&[
            ("/build/a.c", "#include \"x.h\""),
            ("/build/b.c", "#include \"x.h\"\n"),
            ("/build/x.h", ""),
        ]),
        reads: Cell::new(0),
    };
    let scanner = Scanner::default();
    let system = SystemSearch::default();
    let reads: Vec<usize> = ["gcc -c a.c", "gcc -c b.c", "gcc -g -c a.c"]
        .map(|line| {
            scanner.scan(&understand(&invocation(line), &world.files).unwrap(), &system, &world).unwrap();
            world.reads.get()
        })
        .into();
    assert_eq!(reads, [2, 3, 3]);
}

/// The time is the same in every call, so text that has it needs no rule.
#[test]
fn texts_with_the_time_are_like_any_other() {
    let files = [
        ("/build/a.c", "#include \"b.h\"\nchar *t = __DATE__ __TIME__ __TIMESTAMP__; int Ident__DATE__;"),
        ("/build/b.h", ""),
    ];
    assert_eq!(read("gcc -c a.c", &files), ["/build/a.c", "/build/b.h"]);
}

#[test]
fn a_source_that_is_not_there_is_reported() {
    assert!(matches!(scanned("gcc -c a.c", &[]), Err(Fallback::Unreadable { .. })));
}
