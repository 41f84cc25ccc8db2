//! Arguments, files and texts that nobody would write: nothing panics, and what is understood holds together.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use kiln_calls::{
    Call, Details, Invocation, dep_info, native_query, rules, search_directories, search_query, understand, with_native,
};
use proptest::prelude::*;
use support::Memory;

const PROGRAMS: [&str; 8] = ["gcc", "g++", "clang", "x86_64-linux-gnu-gcc-12", "kiln-call", "/usr/bin/rustc", "ld", ""];

/// Pieces of which options consist.
const PIECES: [&str; 72] = [
    "-c",
    "-S",
    "-o",
    "-x",
    "c",
    "c++",
    "c-header",
    "none",
    "-E",
    "-M",
    "-MD",
    "-MMD",
    "-MF",
    "-MT",
    "-I",
    "-Iinc",
    "-I=x",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-iprefix",
    "-iwithprefix",
    "-include",
    "-imacros",
    "-DX",
    "-D",
    "-UX",
    "-Wp,-MD,x.d",
    "-Wp,",
    "-Wa,",
    "-Wl,",
    "-Xclang",
    "-load",
    "-march=native",
    "-mtune=native",
    "-flto",
    "--coverage",
    "-gsplit-dwarf",
    "-fprofile-use",
    "-fplugin=p.so",
    "--sysroot",
    "--sysroot=/s",
    "-specs=x",
    "-B",
    "-",
    "--",
    "@args",
    "@",
    "-O2",
    "-fPIC",
    "-std=c11",
    "a.c",
    "b.cc",
    "a.h",
    "a.S",
    "a.o",
    "../a.c",
    "/dev/null",
    "kiln-call",
    "gcc",
    "rustc",
    "--crate-name",
    "--crate-type",
    "lib,bin",
    "--emit=dep-info,link",
    "--out-dir",
    "out",
    "-C",
    "extra-filename=-1",
    "--extern",
    "a=b",
    "-L",
];

fn arguments() -> impl Strategy<Value = Vec<OsString>> {
    let piece = proptest::sample::select(&PIECES[..]).prop_map(OsString::from);
    let bytes = proptest::collection::vec(1u8.., 0..8).prop_map(OsString::from_vec);
    let joined = (proptest::sample::select(&PIECES[..]), proptest::collection::vec(1u8.., 0..5))
        .prop_map(|(piece, bytes)| OsString::from_vec([piece.as_bytes(), &bytes].concat()));
    proptest::collection::vec(prop_oneof![6 => piece, 1 => bytes, 1 => joined], 0..14)
}

fn is_clean(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Options with their values that are understood wherever they stand.
const C_GROUPS: [&str; 30] = [
    "-Iinc",
    "-I inc/../x",
    "-isystem s",
    "-iquote q",
    "-idirafter z",
    "-include c.h",
    "-imacros m.h",
    "-DX=1",
    "-D Y",
    "-UX",
    "-MD",
    "-MMD -MP",
    "-MF d/x.d",
    "-MT x",
    "-o out/x.o",
    "-O2",
    "-g",
    "-gsplit-dwarf",
    "--coverage",
    "-fstack-usage",
    "-flto",
    "-frandom-seed=1",
    "-Wall",
    "-fPIC",
    "-march=native",
    "-fprofile-use",
    "-specs=x.specs",
    "-Wa,--noexecstack",
    "@args",
    "b.o -lm",
];
const RUST_GROUPS: [&str; 14] = [
    "-C opt-level=3",
    "-C extra-filename=-1",
    "-Cmetadata=1",
    "--edition=2021",
    "--extern a=t/liba.rlib",
    "-L dependency=t",
    "-L native=n",
    "--test",
    "--crate-type staticlib",
    "--cfg x",
    "--json=artifacts",
    "-g",
    "--cap-lints allow",
    "--emit=metadata",
];

fn groups(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(of), 0..8)
}

/// What must be true of a call that is understood.
fn check(call: &Call, invocation: &Invocation, files: &Memory) {
    assert!(is_clean(&call.source), "{call:?}");
    assert!(!call.outputs.is_empty());
    for (at, output) in call.outputs.iter().enumerate() {
        assert!(is_clean(&output.absolute), "{call:?}");
        assert!(output.absolute != call.source);
        assert!(call.outputs[..at].iter().all(|other| other.absolute != output.absolute), "{call:?}");
    }
    assert!(call.inputs.iter().all(|input| is_clean(&input.path)));
    assert!(call.arguments.iter().all(|argument| !argument.as_bytes().starts_with(b"@")), "{call:?}");
    assert!(call.environment.iter().all(|(name, value)| invocation.environment.get(name) == Some(value)));
    // Without response files, the arguments are the user's.
    if invocation.arguments.iter().all(|argument| !argument.as_bytes().starts_with(b"@")) {
        assert!(invocation.arguments.ends_with(&call.arguments));
    }
    // The call that the cell runs is the same call.
    let again = Invocation {
        program: call.program.clone(),
        arguments: call.arguments.clone(),
        directory: call.directory.clone(),
        environment: call.environment.clone(),
    };
    assert_eq!(understand(&again, files).as_ref(), Ok(call));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_arguments_are_understood_or_refused(
        program in proptest::sample::select(&PROGRAMS[..]),
        arguments in arguments(),
        response: Vec<u8>,
        variables in proptest::collection::btree_map("CPATH|LC_ALL|OUT_DIR|X", "[a-z:/]{0,6}", 0..3),
    ) {
        let files = Memory([(PathBuf::from("/build/args"), Some(response))].into());
        let environment: BTreeMap<OsString, OsString> = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let invocation = Invocation { program: program.into(), arguments, directory: "/build".into(), environment };
        match understand(&invocation, &files) {
            Ok(call) => {
                check(&call, &invocation, &files);
                search_query(&call);
                native_query(&call);
            }
            Err(refusal) => {
                prop_assert!(!refusal.to_string().is_empty());
                prop_assert!(refusal.label().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
            }
        }
    }

    #[test]
    fn calls_that_are_understood_hold_together(
        (program, goal, groups) in prop_oneof![
            (proptest::sample::select(&["gcc", "g++", "clang-14"][..]), Just("-c src/main.c"), groups(&C_GROUPS)),
            (Just("/usr/bin/rustc"), Just("src/lib.rs --crate-name foo --crate-type lib --emit=dep-info,metadata,link --out-dir t"), groups(&RUST_GROUPS)),
        ],
        at: proptest::sample::Index,
        odd in proptest::option::weighted(0.2, arguments()),
    ) {
        let files = Memory([(PathBuf::from("/build/args"), Some(b"-DFROM=file '-DA B'".to_vec()))].into());
        let mut groups: Vec<Vec<OsString>> = groups.iter().map(|group| group.split(' ').map(OsString::from).collect()).collect();
        groups.insert(at.index(groups.len() + 1), goal.split(' ').map(OsString::from).collect());
        groups.extend(odd.clone());
        let arguments = groups.concat();
        let invocation = Invocation { program: program.into(), arguments, directory: "/build".into(), environment: BTreeMap::new() };
        match understand(&invocation, &files) {
            Ok(call) => check(&call, &invocation, &files),
            Err(refusal) => prop_assert!(
                odd.is_some() || refusal.label() == "output_ambiguous",
                "{:?}: {}", invocation.arguments, refusal
            ),
        }
    }

    #[test]
    fn any_answer_of_a_driver_is_read(answer in "( \"?(/usr/lib/)?(cc1|clang)\"?( \"?-cc1\"?)?( (-march=\\PC{0,9}|\"-mtune=x\"|--param|\\\\|\"-target-cpu\" \"z\")){0,6}\n|#include <...>\n| /usr\\PC{0,5}\n|\\PC*\n){0,6}") {
        search_directories(&answer);
        let invocation = support::invocation("gcc -march=native -O2 -c a.c");
        let call = understand(&invocation, &Memory::default()).unwrap();
        if let Ok(call) = with_native(call, &answer) {
            let Details::C(details) = &call.details else { panic!("expected a call of a C compiler") };
            prop_assert!(details.native.is_empty());
            prop_assert!(call.arguments.iter().all(|argument| argument != "-march=native"));
        }
    }

    #[test]
    fn any_depfile_is_read(text in "([a-z./]{1,3}|[:\\\\ #$\n\t]|# env-dep:|\\PC){0,30}", bytes: Vec<u8>) {
        rules(text.as_bytes());
        dep_info(text.as_bytes());
        rules(&bytes);
        dep_info(&bytes);
    }
}
