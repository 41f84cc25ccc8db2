//! What is said about gcc, compared with gcc.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kiln_calls::{
    Call, Files, Invocation, Kind, native_query, search_directories, search_query, understand, with_native,
};
use support::details;

const COMPILER: &str = "gcc";

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        std::fs::read(path).ok()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(match metadata {
            metadata if metadata.is_file() => Kind::File,
            metadata if metadata.is_dir() => Kind::Directory,
            _ => Kind::Other,
        })
    }
}

fn understood(directory: &Path, arguments: &[&str]) -> Call {
    let invocation = Invocation {
        program: COMPILER.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        directory: directory.to_owned(),
        environment: BTreeMap::new(),
    };
    understand(&invocation, &Disk).unwrap_or_else(|refusal| panic!("{arguments:?}: {refusal}"))
}

fn run(directory: &Path, arguments: &[OsString]) -> Output {
    Command::new(COMPILER).args(arguments).current_dir(directory).env("LC_ALL", "C").output().unwrap()
}

fn compile(directory: &Path, arguments: &[OsString]) {
    let output = run(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { BTreeSet::from([path]) }).collect()
}

fn project() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().canonicalize().unwrap();
    std::fs::create_dir_all(at.join("src")).unwrap();
    std::fs::create_dir_all(at.join("d.x")).unwrap();
    std::fs::write(at.join("src/a.c"), "#include \"a.h\"\nint f(int x) { return x + A; }\n").unwrap();
    std::fs::write(at.join("src/a.h"), "#ifndef A\n#define A 1\n#endif\n").unwrap();
    std::fs::write(at.join("src/b.S"), "#define X 1\n.long X\n").unwrap();
    (directory, at)
}

#[test]
fn the_compiler_writes_what_is_foreseen_and_nothing_else() {
    let everything = ["-MD", "--coverage", "-fstack-usage", "-gsplit-dwarf", "-fcallgraph-info"];
    let cases: [&[&str]; 13] = [
        &["-c", "src/a.c"],
        &["-c", "src/a.c", "-o", "d.x/b.o"],
        &["-c", "src/a.c", "-o", "d.x/a.c.o"],
        &["-c", "src/a.c", "-o", "d.x/b"],
        &["-c", "src/a.c", "-od.x/b.pic.lo"],
        &["-c", "src/a.c", "-o", "d.x/.b.o"],
        &["-S", "src/a.c"],
        &["-S", "src/a.c", "-o", "d.x/b.asm"],
        &["-c", "-S", "src/a.c"],
        &["-c", "src/a.c", "-MFd.x/z.d", "-MTx", "-MQ", "y", "-MP"],
        &["-c", "-x", "c++", "src/a.c"],
        &["-c", "src/a.h"],
        &["-x", "c-header", "-c", "src/a.c", "-o", "d.x/a.h.gch"],
    ];
    let precompiled = ["-MD", "src/a.h", "-o", "d.x/all.gch"];
    let all = cases.map(|case| everything.iter().chain(case).copied().collect());
    for arguments in all.into_iter().chain([precompiled.to_vec()]) {
        let (_directory, at) = project();
        let call = understood(&at, &arguments);
        let before = files_below(&at);
        compile(&at, &call.arguments);
        let written: BTreeSet<PathBuf> = files_below(&at).difference(&before).cloned().collect();
        for output in &call.outputs {
            let is_there = written.contains(&output.absolute);
            assert!(is_there || !output.required, "{arguments:?}: expected {output:?}, found {written:?}");
        }
        let foreseen: BTreeSet<PathBuf> = call.outputs.iter().map(|output| output.absolute.clone()).collect();
        assert!(written.is_subset(&foreseen), "{arguments:?}: expected {foreseen:?}, found {written:?}");
    }
}

#[test]
fn a_depfile_by_an_option_of_the_preprocessor_is_foreseen() {
    for option in ["-Wp,-MD,d.x/.a.d", "-Wp,-MMD,d.x/.a.d"] {
        let (_directory, at) = project();
        let call = understood(&at, &[option, "-c", "src/a.c", "-o", "d.x/b.o"]);
        compile(&at, &call.arguments);
        assert!(call.outputs.iter().all(|output| output.required && output.absolute.is_file()), "{option}");
    }
}

#[test]
fn assembler_that_is_preprocessed_is_foreseen() {
    let (_directory, at) = project();
    let call = understood(&at, &["-MD", "-c", "src/b.S"]);
    compile(&at, &call.arguments);
    assert!(call.outputs.iter().all(|output| output.absolute.is_file()), "{:?}", call.outputs);
}

#[test]
fn two_outputs_are_refused_because_the_compiler_overwrites_the_source() {
    let (_directory, at) = project();
    let invocation = Invocation {
        program: COMPILER.into(),
        arguments: ["-c", "src/a.c", "-o", "b.o", "-o", "c.o"].map(OsString::from).into(),
        directory: at,
        environment: BTreeMap::new(),
    };
    assert_eq!(understand(&invocation, &Disk).unwrap_err().label(), "output_ambiguous");
}

#[test]
fn response_files_are_read_as_the_compiler_reads_them() {
    let (_directory, at) = project();
    let text = "-c 'src/a.c'\n\t-DTEXT=\\\"a\\ b\\\" \"-DOTHER=\\\"c d\\\"\" -o\nby_file.o '-DE=' -D F\n";
    std::fs::write(at.join("args"), text).unwrap();
    std::fs::write(at.join("src/a.c"), "const char *x = TEXT OTHER; int E f[F];\n").unwrap();
    let call = understood(&at, &["@args"]);
    compile(&at, &["@args".into()]);
    let expanded: Vec<OsString> = call
        .arguments
        .iter()
        .map(|argument| if argument == "by_file.o" { "by_list.o".into() } else { argument.clone() })
        .collect();
    compile(&at, &expanded);
    assert!(std::fs::read(at.join("by_file.o")).unwrap() == std::fs::read(at.join("by_list.o")).unwrap());
}

#[test]
fn what_native_stands_for_compiles_to_the_same_object() {
    for options in [
        &["-march=native"][..],
        &["-mtune=native"],
        &["-O2", "-march=native", "-mtune=generic"],
        &["-mno-red-zone", "-march=native"],
    ] {
        if options.contains(&"-mno-red-zone") && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let (_directory, at) = project();
        let arguments: Vec<&str> = options.iter().chain(&["-c", "src/a.c", "-o", "native.o"]).copied().collect();
        let call = understood(&at, &arguments);
        compile(&at, &call.arguments);
        let object = std::fs::read(at.join("native.o")).unwrap();
        let answer = run(&at, &native_query(&call)).stderr;
        let call = with_native(call, &String::from_utf8(answer).unwrap()).unwrap();
        assert!(details(&call).native.is_empty());
        assert!(
            call.arguments.iter().all(|argument| !argument.to_str().unwrap().contains("=native")),
            "{:?}",
            call.arguments
        );
        compile(&at, &call.arguments);
        assert!(std::fs::read(at.join("native.o")).unwrap() == object, "{options:?}");
    }
}

#[test]
fn native_is_refused_where_the_driver_does_not_answer() {
    let (_directory, at) = project();
    for answer in ["", "gcc: error: nothing\n", " /usr/lib/cc1 -E -quiet /dev/null\n", " /usr/lib/cc1 -march=native\n"]
    {
        let call = understood(&at, &["-march=native", "-c", "src/a.c"]);
        assert_eq!(with_native(call, answer).unwrap_err().label(), "native", "{answer}");
    }
}

#[test]
fn the_compilers_own_directories_are_read_from_what_it_prints() {
    let (_directory, at) = project();
    let directories = |arguments: &[&str]| {
        let query = search_query(&understood(&at, arguments));
        search_directories(&String::from_utf8(run(&at, &query).stderr).unwrap())
    };
    let of_c = directories(&["-c", "src/a.c"]);
    assert!(of_c.quote.is_empty());
    assert!(of_c.bracket.iter().any(|directory| directory.join("stdio.h").is_file()));
    assert!(of_c.bracket.iter().all(|directory| directory.is_dir() && !directory.to_string_lossy().contains("/../")));
    assert!(of_c.missing.iter().all(|directory| !directory.exists()));
    assert!(
        directories(&["--sysroot=/nowhere", "-c", "src/a.c"])
            .missing
            .iter()
            .any(|directory| directory.starts_with("/nowhere"))
    );
    let of_cxx = directories(&["-x", "c++", "-c", "src/a.c"]);
    assert!(of_cxx.bracket[0].join("vector").is_file());
    assert!(directories(&["-nostdinc", "-c", "src/a.c"]).bracket.is_empty());
    assert!(
        directories(&["--sysroot=/nowhere", "-c", "src/a.c"])
            .bracket
            .iter()
            .all(|directory| !directory.join("stdio.h").is_file())
    );
}
