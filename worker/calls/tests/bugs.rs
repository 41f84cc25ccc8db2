//! Errors that other compiler caches had, as their users reported them: what was served although it was not what the compiler would
//! have made.

#![allow(clippy::unwrap_used)]

mod support;

use kiln_calls::manifest::{Toolchain, key};
use kiln_calls::understand;
use kiln_proto::digest::{Digest, DigestFunction};
use support::{Memory, call, invocation, refused};

fn key_of(line: &str) -> Digest {
    key(&call(line), &Toolchain(DigestFunction::Sha256.digest(b"gcc")))
}

fn differ(one: &str, other: &str) {
    assert_ne!(key_of(one), key_of(other), "`{one}` and `{other}`");
}

#[test]
fn equal_sources_with_other_names_do_not_share_a_depfile() {
    differ("gcc -MD -c foo.c -o x.o", "gcc -MD -c bar.c -o x.o");
    differ("gcc -MD -c foo.c -o x.o", "gcc -MD -c foo.c -o y.o");
    differ("gcc -MD -MF x.d -c foo.c", "gcc -MD -MF y.d -c foo.c");
}

#[test]
fn objects_that_name_a_file_beside_them_are_not_shared_between_names() {
    differ("gcc -gsplit-dwarf -c a.c -o x.o", "gcc -gsplit-dwarf -c a.c -o d/x.o");
    differ("gcc --coverage -c a.c -o x.o", "gcc --coverage -c a.c -o d/x.o");
}

#[test]
fn objects_that_name_the_working_directory_are_not_shared_between_directories() {
    let in_directory = |directory: &str| {
        let mut invocation = invocation("gcc -g -c /build/a.c -o /build/a.o");
        invocation.directory = directory.into();
        key(&understand(&invocation, &Memory::default()).unwrap(), &Toolchain(DigestFunction::Sha256.digest(b"gcc")))
    };
    assert_ne!(in_directory("/build/x"), in_directory("/build/y"));
}

#[test]
fn options_in_another_order_are_another_call() {
    differ("gcc -Werror -Wno-error -c a.c", "gcc -Wno-error -Werror -c a.c");
    differ("gcc -I a -I b -c a.c", "gcc -I b -I a -c a.c");
}

#[test]
fn macros_for_a_precompiled_header_are_part_of_the_call() {
    differ("gcc -DX=1 all.h", "gcc -DX=2 all.h");
}

#[test]
fn colours_come_from_what_is_asked_for() {
    differ("gcc -fdiagnostics-color=always -c a.c", "gcc -c a.c");
    let coloured = |colours: Option<&str>| {
        let mut invocation = invocation("gcc -c a.c");
        invocation.environment = colours.map(|value| ("GCC_COLORS".into(), value.into())).into_iter().collect();
        key(&understand(&invocation, &Memory::default()).unwrap(), &Toolchain(DigestFunction::Sha256.digest(b"gcc")))
    };
    assert_ne!(coloured(None), coloured(Some("error=01")));
}

#[test]
fn another_compiler_makes_another_call() {
    let of = |compiler: &[u8]| key(&call("gcc -c a.c"), &Toolchain(DigestFunction::Sha256.digest(compiler)));
    assert_ne!(of(b"gcc 12.2.0-14"), of(b"gcc 12.2.0-15"));
}

#[test]
fn words_that_are_joined_otherwise_are_another_call() {
    differ("gcc -D A=1 -c a.c", "gcc -DA=1 -c a.c");
    differ("gcc -DA -DB -c a.c", "gcc -DA-DB -c a.c");
}

#[test]
fn modules_are_never_served() {
    assert_eq!(refused("clang++ -std=c++20 -fmodules -c a.cc"), "modules");
}
