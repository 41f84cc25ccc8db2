//! Detected CMake projects, which call compilers through a launcher.

use kiln_harness::{Farm, project, unpack, write};

use super::project::calls;

/// A program of C and C++, which installs the paths of the compilers that CMake found.
fn cmake(name: &str, more: &str) -> tempfile::TempDir {
    let lists = format!(
        "cmake_minimum_required(VERSION 3.13)\nproject({name} VERSION 1.0 LANGUAGES C CXX)\n{more}\n\
         add_executable({name} one.c two.cc)\nfile(WRITE ${{CMAKE_BINARY_DIR}}/compilers \"${{CMAKE_C_COMPILER}}\\n${{CMAKE_CXX_COMPILER}}\\n\")\n\
         install(TARGETS {name} DESTINATION bin)\ninstall(FILES ${{CMAKE_BINARY_DIR}}/compilers DESTINATION share/{name})\n"
    );
    let dir = project(&[
        ("CMakeLists.txt", &lists),
        ("one.c", &format!("// {name}\nint two(void);\nint main(void) {{ return two(); }}\n")),
        ("two.cc", &format!("// {name}\nextern \"C\" int two(void) {{ return 0; }}\n")),
    ]);
    write(dir.path(), "launch", "#!/bin/sh\nexec \"$@\"\n");
    kiln_harness::output("chmod", &["+x", "launch"], dir.path());
    dir
}

#[test]
fn cmake_finds_the_compilers_themselves_and_calls_them_through_the_launcher() {
    let dir = cmake("launched", "");
    let built = Farm::shared().build(dir.path(), &[]).well();
    let split = calls(&built, "compile");
    assert_eq!(split.compiled, 2, "{split:?}");
    let out = unpack(&dir.path().join("kiln-out"));
    let path = kiln_harness::find(out.path(), "compilers").unwrap();
    let compilers = std::fs::read_to_string(path).unwrap();
    assert!(compilers.lines().count() == 2 && !compilers.contains("kiln"), "{compilers}");
    write(dir.path(), "one.c", "// launched again\nint two(void);\nint main(void) { return two(); }\n");
    let again = calls(&Farm::shared().build(dir.path(), &[]).well(), "compile");
    assert_eq!((again.hits, again.compiled), (1, 1), "{again:?}");
}

#[test]
fn a_project_with_a_launcher_of_its_own_keeps_it() {
    let dir = cmake("ownlauncher", "set(CMAKE_C_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/launch)");
    let split = calls(&Farm::shared().build(dir.path(), &[]).well(), "compile");
    assert_eq!(split.compiled, 1, "expected only the C++ file to be split: {split:?}");
}
