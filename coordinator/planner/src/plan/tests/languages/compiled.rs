//! Rust, Go, C and Java.

use insta::assert_snapshot;

use super::{planned, refused, written};
use crate::plan::{Source, Step, input_files};

const LOCK: &str = "version = 4\n\n[[package]]\nname = \"itoa\"\nversion = \"1.0.1\"\nsource = \"registry+x\"\n\n\
                    [[package]]\nname = \"shop\"\nversion = \"1.4.2\"\ndependencies = [\n \"itoa\",\n]\n";

#[test]
fn a_rust_package() {
    let manifest = "[package]\nname = \"shop\"\nversion = \"1.4.2\"\nedition = \"2024\"\n[dependencies]\nitoa = \"1\"\n\
                    [[bench]]\nname = \"speed\"\nharness = false\n";
    assert_snapshot!(written(&[
        (".cargo/config.toml", ""), ("Cargo.lock", LOCK), ("Cargo.toml", manifest), ("benches/speed.rs", ""),
        ("build.rs", ""), ("src/lib.rs", ""), ("src/main.rs", ""),
    ], &["src/other.rs"]), @r###"
# rust: `Cargo.toml` is a package; `Cargo.lock` locks its dependencies
name = "shop"
# version: from the manifest, currently 1.4.2

[steps.fetch]
why = "fetches the packages that `Cargo.lock` names"
inputs = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
unversioned = ["Cargo.toml", "Cargo.lock"]
run = '''
cargo fetch --locked
rm -f .cargo-home/.global-cache*'''
outputs = [".cargo-home"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target", CARGO_TERM_COLOR = "always" }
network = true
tools = ["cargo"]
[steps.fetch.files]
"benches/speed.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''
"build.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''
"src/lib.rs" = '''
//! In place of the source.
#![allow(warnings)]
'''
"src/main.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''

[steps.deps]
why = "compiles the dependencies; keyed by the manifests and the lock file, with the sources stubbed"
needs = ["fetch"]
inputs = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]
unversioned = ["Cargo.toml", "Cargo.lock"]
run = '''
cargo build --release --offline --locked
cargo clean --release --offline -p shop
rm -f target/.rustc_info.json'''
outputs = ["target"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target", CARGO_TERM_COLOR = "always" }
cpus = 2
memory = "2GiB"
tools = ["cargo", "rustc", "cc"]
[steps.deps.files]
"benches/speed.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''
"build.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''
"src/lib.rs" = '''
//! In place of the source.
#![allow(warnings)]
'''
"src/main.rs" = '''
//! In place of the source.
#![allow(warnings)]
fn main() {}
'''

[steps.compile]
why = "compiles the project's own packages"
needs = ["fetch", "deps"]
run = "cargo build --release --offline --locked"
outputs = ["target/release/shop"]
env = { CARGO_HOME = "/build/.cargo-home", CARGO_TARGET_DIR = "/build/target", CARGO_TERM_COLOR = "always" }
cpus = 2
memory = "2GiB"
tools = ["cargo", "rustc", "cc"]

[artifacts.shop]
from = ["compile"]
files = [{ path = "target/release/shop", dest = "shop" }]
"###);
}

#[test]
fn a_rust_workspace_with_members_libraries_and_path_dependencies() {
    let plan = planned(&[
        (
            "Cargo.lock",
            &format!(
                "{LOCK}\n[[package]]\nname = \"parts\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"odd\"\nversion = \"0.1.0\"\n"
            ),
        ),
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nexclude = [\"crates/left-out\"]\n"),
        ("crates/left-out/Cargo.toml", "[package]\nname = \"left-out\""),
        ("crates/left-out/src/main.rs", ""),
        ("crates/parts/Cargo.toml", "[package]\nname = \"parts\"\nversion = \"0.1.0\"\n[lib]\nproc-macro = true\n"),
        ("crates/parts/src/lib.rs", ""),
        (
            "crates/shop/Cargo.toml",
            "[package]\nname = \"shop\"\nversion = \"1.4.2\"\n[dependencies]\nitoa = \"1\"\n\
          odd = { path = \"../../odd\" }\n",
        ),
        ("crates/shop/src/bin/admin.rs", ""),
        ("crates/shop/src/bin/serve/main.rs", ""),
        ("odd/Cargo.toml", "[package]\nname = \"odd\"\nversion = \"0.1.0\"\n[lib]\npath = \"odd.rs\"\n"),
        ("odd/odd.rs", ""),
    ]);
    let [fetch, deps, compile] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!(
        fetch.inputs,
        ["Cargo.toml", "crates/parts/Cargo.toml", "crates/shop/Cargo.toml", "odd/Cargo.toml", "Cargo.lock"]
    );
    let stubs: Vec<&str> = deps.files.keys().map(String::as_str).collect();
    assert_eq!(
        stubs,
        ["crates/parts/src/lib.rs", "crates/shop/src/bin/admin.rs", "crates/shop/src/bin/serve/main.rs", "odd/odd.rs"]
    );
    assert!(deps.run.contains("\ncargo clean --release --offline -p parts -p shop -p odd\n"), "{}", deps.run);
    assert_eq!(compile.outputs, ["target/release/admin", "target/release/serve"]);
    assert_eq!(plan.artifacts.len(), 2);
}

#[test]
fn a_rust_library_and_a_program_that_needs_nothing() {
    let library = planned(&[
        ("Cargo.toml", "[package]\nname = \"my-parts\"\nversion = \"1.0.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n"),
        ("src/lib.rs", ""),
    ]);
    assert_eq!(library.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["compile"]);
    assert_eq!(library.steps[0].outputs, ["target/release/libmy_parts.so"]);
    assert_eq!(library.notes.len(), 1);
}

#[test]
fn a_go_module() {
    assert_snapshot!(without_functions(&written(&[
        ("cmd/shop/main.go", ""),
        ("go.mod", "module example.com/shop/v2\n\ngo 1.21\n\nrequire (\n\trsc.io/quote v1.5.2\n\tgolang.org/x/text v0.1.0 // indirect\n)\n"),
        ("go.sum", "rsc.io/quote v1.5.2 h1:x\nrsc.io/quote v1.5.2/go.mod h1:x\ngolang.org/x/text v0.1.0/go.mod h1:x\n"),
    ], &["cmd/shop/main.go"])), @r###"
# go: `go.mod` is a module
name = "shop"
# version: from git describe

[steps.std]
why = "compiles the standard library; keyed by the toolchain alone"
inputs = ["!**"]
run = '''
go build -trimpath -buildvcs=false -ldflags=-buildid= std
find .kiln/go-cache -type f -name '*-a' -exec sed -i -E 's/[ 0-9]{20}$/  946684800000000000/' {} +
rm -f .kiln/go-cache/trim.txt
'''
outputs = [".kiln/go-cache"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
cpus = 2
memory = "2GiB"
tools = ["go >=1.21 (go.mod)"]

[steps.fetch]
why = "fetches the modules that `go.sum` names"
inputs = ["go.mod", "go.sum"]
run = '''
go mod download
mkdir -p .kiln/go-mod'''
outputs = [".kiln/go-mod"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
network = true
tools = ["go >=1.21 (go.mod)"]

[steps.deps]
why = "compiles the requirements; keyed by the `go.mod` and `go.sum` files"
needs = ["std", "fetch"]
inputs = ["go.mod", "go.sum"]
run = '''
date +%s > .kiln/go-cache/trim.txt
find .kiln/go-cache -type f > .kiln/known
go list -e -f '{{if not .Error}}{{.ImportPath}}{{end}}' rsc.io/quote/... | xargs -r -n 50 go build -trimpath -buildvcs=false -ldflags=-buildid= || true
xargs rm -f < .kiln/known
find .kiln/go-cache -type f -name '*-a' -exec sed -i -E 's/[ 0-9]{20}$/  946684800000000000/' {} +
rm -f .kiln/go-cache/trim.txt
'''
outputs = [".kiln/go-cache"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
cpus = 2
memory = "2GiB"
tools = ["go >=1.21 (go.mod)"]

[steps.compile]
why = "compiles the project's own packages"
needs = ["std", "fetch", "deps"]
run = '''
. ./.kiln/functions.sh
compile() { go build -trimpath -buildvcs=false -ldflags=-buildid= "$@"; }
programs ./...
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: no package `main` was found, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { GOCACHE = "/build/.kiln/go-cache", GOFLAGS = "-modcacherw", GOMODCACHE = "/build/.kiln/go-mod", GOTOOLCHAIN = "local" }
cpus = 2
memory = "2GiB"
tools = ["go >=1.21 (go.mod)"]
[steps.compile.files]
".kiln/functions.sh" = ..

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
}

#[test]
fn the_standard_library_of_go_is_keyed_by_no_file() {
    let plan = planned(&[("go.mod", "module example.com/shop\n"), ("main.go", "package main\n")]);
    let names: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["std", "compile"]);
    let source = super::tree(&[("go.mod", ""), ("main.go", "")]);
    assert_eq!(input_files(&plan.steps[0], source.paths()), Vec::<usize>::new());
}

#[test]
fn a_go_program_that_waits_for_its_version_gets_it() {
    let go = |main: &str| compile(&[("go.mod", "module a\n"), ("main.go", main)]);
    let waits = go("package main\n\nvar (\n\tversion = \"dev\"\n\tcommit string = \"none\"\n)\n");
    assert!(waits.stamp);
    assert!(waits.run.contains("-X main.version=$KILN_VERSION -X main.commit=$KILN_COMMIT"), "{}", waits.run);
    for text in ["var version = \"1.2.3\"", "func main() {\n\tversion := \"dev\"\n}", "const version = \"dev\""] {
        assert!(!go(&format!("package main\n\n{text}\n")).stamp, "{text}");
    }
    assert!(!go("package other\n\nvar version = \"dev\"\n").stamp);
}

#[test]
fn a_go_workspace_keys_on_every_module() {
    let plan = planned(&[
        ("a/go.mod", "module example.com/a\n\nrequire (\n\texample.com/b v0.0.0\n\trsc.io/quote v1.5.2\n)\n"),
        ("a/go.sum", "rsc.io/quote v1.5.2 h1:x\n"),
        ("a/main.go", ""),
        ("b/b.go", ""),
        ("b/go.mod", "module example.com/b\n"),
        ("go.work", "go 1.21\n\nuse (\n\t./a\n\t./b\n)\n"),
    ]);
    let step = |name: &str| plan.steps.iter().find(|s| s.name == name).unwrap();
    assert_eq!(step("fetch").inputs, ["a/go.mod", "a/go.sum", "b/go.mod", "go.work"]);
    assert!(step("compile").run.contains("programs ./a/... ./b/...\n"), "{}", step("compile").run);
}

/// The plan without the functions that its steps share.
fn without_functions(text: &str) -> String {
    let mut shown = String::new();
    let mut quoted = false;
    for line in text.lines() {
        if line.starts_with("\".kiln/") && line.ends_with("= '''") {
            shown.push_str(&format!("{}..\n", line.trim_end_matches("'''")));
            quoted = true;
        } else if !quoted {
            shown.push_str(&format!("{line}\n"));
        }
        quoted &= line != "'''";
    }
    shown
}

fn compile(files: &[(&str, &str)]) -> Step {
    planned(files).steps.into_iter().find(|step| step.name == "compile").unwrap()
}

#[test]
fn c_by_cmake() {
    let cmake = "cmake_minimum_required(VERSION 3.16)\nproject(count VERSION 1.2.0 LANGUAGES C)\n";
    assert_snapshot!(without_functions(&written(&[("CMakeLists.txt", cmake), ("main.c", "")], &["main.c"])), @r###"
# c (cmake): `CMakeLists.txt` is a CMake project
name = "count"
# version: from the manifest, currently 1.2.0

[steps.compile]
why = "compiles the project and installs it into a staging directory"
run = '''
. ./.kiln/functions.sh
with_plain_compilers cmake -S . -B .kiln/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local -DCMAKE_INSTALL_RPATH='$ORIGIN/../lib;$ORIGIN/../lib64'
in_parallel cmake --build .kiln/build
rootless env DESTDIR="$PWD/.kiln/out" cmake --install .kiln/build
note_installed_twice
has_files .kiln/out || collect
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: the build installed nothing and left no program or library, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { CMAKE_COLOR_DIAGNOSTICS = "ON", LD_RUN_PATH = "$ORIGIN/../lib" }
cpus = 2
memory = "2GiB"
tools = ["cmake", "make", "cc"]
[steps.compile.files]
".kiln/functions.sh" = ..
".kiln/install-without-owners" = ..
".kiln/staging-shell" = ..

[artifacts.count]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
}

#[test]
fn c_by_meson_with_wraps() {
    assert_snapshot!(without_functions(&written(
        &[("main.c", ""), ("meson.build", "project('count', 'c', version: '0.3')\n"), ("subprojects/zlib.wrap", "")],
        &["main.c"]
    )), @r###"
# c (meson): `meson.build` is a Meson project
name = "count"
# version: from the manifest, currently 0.3

[steps.fetch]
why = "fetches the subprojects that wraps name"
inputs = ["meson.build", "subprojects"]
run = "meson subprojects download"
outputs = ["subprojects"]
network = true
tools = ["meson"]

[steps.compile]
why = "compiles the project and installs it into a staging directory"
needs = ["fetch"]
run = '''
. ./.kiln/functions.sh
meson setup .kiln/build --buildtype=release --prefix=/usr/local --libdir=lib --wrap-mode=nodownload -Db_colorout=always
in_parallel meson compile -C .kiln/build
rootless env DESTDIR="$PWD/.kiln/out" meson install -C .kiln/build --no-rebuild
has_files .kiln/out || collect
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: the build installed nothing and left no program or library, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { LDFLAGS = "-Wl,-rpath,$ORIGIN/../lib", LD_RUN_PATH = "$ORIGIN/../lib" }
cpus = 2
memory = "2GiB"
tools = ["meson", "ninja", "cc"]
[steps.compile.files]
".kiln/functions.sh" = ..
".kiln/install-without-owners" = ..
".kiln/staging-shell" = ..

[artifacts.count]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
kind = "archive"
"###);
}

#[test]
fn c_by_a_makefile_installs_below_the_staging_directory_whether_it_knows_destdir_or_not() {
    let with = compile(&[("Makefile", "install: all\n\tcp a $(DESTDIR)/usr/bin\n")]);
    assert!(with.run.contains("then rootless make DESTDIR=\"$PWD/.kiln/out\" install"), "{}", with.run);
    let empty = compile(&[("Makefile", "DESTDIR ?=\ninstall: all\n\tcp a $(DESTDIR)/usr/bin\n")]);
    assert!(empty.run.contains("rootless make DESTDIR="), "{}", empty.run);
    let own = "DESTDIR=${PREFIX}/bin\ninstall: all\n\tcp a $(DESTDIR)\n\tcp a.1 $(PREFIX)/man/man1\n";
    let own = compile(&[("Makefile", own)]);
    assert!(own.run.contains("then install_below make PREFIX=/usr/local;"), "its `DESTDIR` is a place: {}", own.run);
    let none = compile(&[("Makefile", "install:\n\tcp a /usr/bin\n")]);
    assert!(none.run.contains("then install_below make DESTDIR=\"$PWD/.kiln/out\";"), "{}", none.run);
}

#[test]
fn what_no_install_hands_over_is_named() {
    let files =
        [("Makefile", "a: a.c\n"), ("README.txt", ""), ("a.c", ""), ("share/words.txt", ""), ("tests/x.dat", "")];
    let run = compile(&files).run;
    assert!(run.contains("left out: `share/words.txt`;"), "{run}");
    assert!(!run.contains("README"), "{run}");
}

#[test]
fn a_configure_script_goes_before_cmake_which_is_used_where_it_fails() {
    let plan = planned(&[("CMakeLists.txt", "project(x)"), ("configure", ""), ("main.c", "")]);
    let step = &plan.steps[0];
    assert!(step.run.contains("if ./configure --prefix=/usr/local; then\n"), "{}", step.run);
    assert!(step.run.contains("elif command -v cmake > /dev/null && command -v make > /dev/null"), "{}", step.run);
    assert_eq!(step.tools, ["make", "cc"], "CMake may be absent");
    let alone = compile(&[("configure.ac", ""), ("main.c", "")]);
    assert!(alone.run.contains("autoreconf -fi\n./configure --prefix=/usr/local\n"), "{}", alone.run);
}

#[test]
fn a_build_that_asks_git_is_stamped_and_no_other() {
    let asks = compile(&[("Makefile", "VERSION := $(shell git describe --tags)\na: a.c\n"), ("a.c", "")]);
    assert!(asks.stamp && asks.files.contains_key(".kiln/bin/git"));
    assert!(asks.run.starts_with(". ./.kiln/functions.sh\nchmod +x .kiln/bin/git\n"), "{}", asks.run);
    assert!(!asks.run.contains(".git/HEAD"), "nothing looks for a repository");
    let looks = compile(&[("a.c", ""), ("meson.build", "project('a', 'c')\nx = vcs_tag(input: 'a', output: 'b')\n")]);
    assert!(looks.stamp && looks.run.contains(".git/HEAD"), "{}", looks.run);
    let silent = compile(&[("Makefile", "a: a.c\n"), ("a.c", "")]);
    assert!(!silent.stamp && !silent.files.contains_key(".kiln/bin/git"));
    let script = "fn main() { std::process::Command::new(\"git\").args([\"rev-parse\", \"HEAD\"]); }";
    let rust = compile(&[("Cargo.toml", "[package]\nname = \"a\"\n"), ("build.rs", script), ("src/main.rs", "")]);
    assert!(rust.stamp);
}

#[test]
fn what_cmake_fetches_is_a_step_with_the_network_that_sees_no_source() {
    let cmake = "project(a VERSION 1.0)\ninclude(FetchContent)\nfile(READ include/version.h v)\n\
                 FetchContent_Declare(dep URL https://example.com/dep.tar.gz)\nFetchContent_MakeAvailable(dep)\n";
    let files = [("CMakeLists.txt", cmake), ("include/version.h", ""), ("main.c", "")];
    let plan = planned(&files);
    let [fetch, compile] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert!(fetch.network && !compile.network);
    assert_eq!(fetch.inputs, ["CMakeLists.txt", "include/version.h"]);
    assert!(compile.run.contains("-DFETCHCONTENT_FULLY_DISCONNECTED=ON"), "{}", compile.run);
    assert!(fetch.run.contains("reachable https://example.com/dep.tar.gz\n"), "{}", fetch.run);
    let later = "project(a)\nExternalProject_Add(dep\n  GIT_REPOSITORY https://example.com/dep)\n";
    let later = planned(&[("CMakeLists.txt", later), ("main.c", "")]);
    assert_snapshot!(later.notes.join("\n"), @r#"`CMakeLists.txt` downloads by `ExternalProject_Add`, and the step `compile` has no network: if the build fails for that, write the plan down with `kiln init` and give the step `network = true`"#);
}

#[test]
fn the_tests_of_a_cmake_project_are_not_built() {
    let cmake = "project(a)\noption(FMT_TEST \"tests\" ${MAIN})\noption(LATEST \"x\" ON)\ninclude(CTest)\n";
    let run = compile(&[("CMakeLists.txt", cmake), ("main.c", "")]).run;
    assert!(run.contains("64' -DFMT_TEST=OFF -DBUILD_TESTING=OFF\n"), "{run}");
}

#[test]
fn a_submodule_that_is_not_checked_out_is_named() {
    let modules = "[submodule \"z\"]\n\tpath = third_party/z\n\turl = https://example.com/z\n";
    let always = ("CMakeLists.txt", "project(a)\nadd_subdirectory(third_party/z)\n");
    assert_snapshot!(refused(&[(".gitmodules", modules), always, ("main.c", "")]), @r#"the submodule `third_party/z` is not checked out: run `git submodule update --init --recursive`; `CMakeLists.txt` reads it"#);
    let perhaps = ("CMakeLists.txt", "project(a)\nif(TESTS)\n  add_subdirectory(third_party/z)\nendif()\n");
    let noted = planned(&[(".gitmodules", modules), perhaps, ("main.c", "")]);
    assert_snapshot!(noted.notes.join("\n"), @"the submodule `third_party/z` is not checked out: run `git submodule update --init --recursive`");
    assert!(planned(&[(".gitmodules", modules), always, ("third_party/z/CMakeLists.txt", "")]).notes.is_empty());
}

#[test]
fn rust_binaries_of_one_name_are_kept_apart_and_libraries_are_handed_over_beside_binaries() {
    let member = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n[[bin]]\nname = \"httpd\"\npath = \"m.rs\"\n")
    };
    let (a, b) = (member("billing"), member("orders"));
    let lib = "[package]\nname = \"ffi-c\"\n[lib]\ncrate-type = [\"cdylib\", \"staticlib\"]\n\
               [[bin]]\nname = \"extra\"\npath = \"x.rs\"\nrequired-features = [\"more\"]\n[features]\nmore = []\n";
    let plan = planned(&[
        (
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"billing\"\nversion = \"0.1.0\"\n\
                        [[package]]\nname = \"ffi-c\"\nversion = \"0.0.0\"\n[[package]]\nname = \"orders\"\nversion = \"0.1.0\"\n",
        ),
        ("Cargo.toml", "[workspace]\nmembers = [\"billing\", \"orders\", \"ffi\"]\n"),
        ("billing/Cargo.toml", &a),
        ("billing/m.rs", ""),
        ("ffi/Cargo.toml", lib),
        ("ffi/src/lib.rs", ""),
        ("ffi/x.rs", ""),
        ("orders/Cargo.toml", &b),
        ("orders/m.rs", ""),
    ]);
    let names: Vec<&str> = plan.artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["billing-httpd", "orders-httpd", "libffi_c"]);
    let step = &plan.steps[0];
    assert_eq!(
        step.outputs,
        [
            ".kiln/out/billing/httpd",
            ".kiln/out/orders/httpd",
            "target/release/libffi_c.so",
            "target/release/libffi_c.a"
        ]
    );
    assert!(
        step.run
            .contains("-p orders --bin httpd\nmkdir -p .kiln/out/orders\ncp target/release/httpd .kiln/out/orders/"),
        "{}",
        step.run
    );
    assert_snapshot!(plan.notes.join("\n"), @r#"the binary `extra` is left out: it needs `--features more`, which a step of a `kiln.toml` can give"#);
}

#[test]
fn a_patched_package_that_others_are_compiled_against_is_no_stub() {
    let lock = "version = 4\n[[package]]\nname = \"itoa\"\nversion = \"1.0.99\"\n\
                [[package]]\nname = \"json\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\ndependencies = [\n \"itoa\",\n]\n\
                [[package]]\nname = \"shop\"\nversion = \"0.1.0\"\ndependencies = [\n \"json\",\n]\n";
    let plan = planned(&[
        ("Cargo.lock", lock),
        (
            "Cargo.toml",
            "[package]\nname = \"shop\"\nversion = \"0.1.0\"\n[dependencies]\njson = \"1\"\n[patch.crates-io]\nitoa = { path = \"vendored/itoa\" }\n",
        ),
        ("src/main.rs", ""),
        ("vendored/itoa/Cargo.toml", "[package]\nname = \"itoa\"\nversion = \"1.0.99\"\n"),
        ("vendored/itoa/src/lib.rs", ""),
    ]);
    let [fetch, deps, _] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert!(fetch.files.contains_key("vendored/itoa/src/lib.rs"), "to fetch, a stub will do");
    assert_eq!(deps.files.keys().collect::<Vec<_>>(), ["src/main.rs"]);
    assert_eq!(deps.inputs, ["Cargo.toml", "vendored/itoa/Cargo.toml", "Cargo.lock", "vendored/itoa"]);
    assert!(deps.run.contains("\ncargo clean --release --offline -p shop\n"), "{}", deps.run);
}

#[test]
fn documentation_that_no_source_names_is_no_input_of_a_compiler() {
    let manifest = ("Cargo.toml", "[package]\nname = \"a\"\nreadme = \"README.md\"\n");
    let files = [
        (".github/workflows/ci.yml", ""),
        manifest,
        ("LICENSE-MIT", ""),
        ("README.md", ""),
        ("src/main.rs", "fn main() {}"),
    ];
    assert_eq!(compile(&files).inputs, ["!.github", "!LICENSE-MIT", "!README.md"]);
    let reads =
        [manifest, ("LICENSE-MIT", ""), ("README.md", ""), ("src/main.rs", "#![doc = include_str!(\"../README.md\")]")];
    assert_eq!(compile(&reads).inputs, ["!LICENSE-MIT"]);
    let embeds = [manifest, ("README.md", ""), ("src/main.rs", "static D: Dir = include_dir!(\"..\");")];
    assert!(compile(&embeds).inputs.is_empty());
    let go = |main| [("LICENSE", ""), ("README.md", ""), ("go.mod", "module a\n"), ("main.go", main)];
    assert_eq!(compile(&go("package main\n")).inputs, ["!LICENSE", "!README.md"]);
    assert_eq!(compile(&go("package main\n//go:embed *.md\nvar f embed.FS\n")).inputs, Vec::<String>::new());
    assert_eq!(compile(&go("package main\n//go:embed static/*\nvar f embed.FS\n")).inputs, ["!LICENSE", "!README.md"]);
}

#[test]
fn java_by_maven_gradle_and_alone() {
    let pom = "<project><artifactId>shop</artifactId><version>1.4.2</version></project>";
    assert_snapshot!(written(&[("pom.xml", pom), ("src/main/java/A.java", "")], &["src/main/java/A.java"]), @r###"
# java (maven): `pom.xml` is a Maven project
name = "shop"
# version: from the manifest, currently 1.4.2

[steps.deps]
why = "fills the local repository; keyed by the `pom.xml` files"
inputs = ["pom.xml"]
unversioned = ["pom.xml"]
run = '''
mkdir -p .kiln
attempt() {
    rm -f .kiln/filled
    { mvn -B -Dmaven.repo.local=/build/.kiln/m2 "$@" && touch .kiln/filled; } 2>&1 | tee .kiln/attempt
    [ -e .kiln/filled ]
}
# what cannot be fetched is the layer's failure, and no other
fetched() {
    ! grep -qE 'Could not (resolve|transfer|find artifact)|could not be resolved|Unknown host' .kiln/attempt
}
stand_in() {
    for directory in src/main/java; do
        mkdir -p "$directory/kiln"
        echo 'package kiln; public final class Main { public static void main(String[] words) {} }' \
            > "$directory/kiln/Main.java"
    done
}
attempt -fae -DskipTests package org.apache.maven.plugins:maven-dependency-plugin:build-classpath -Dmdep.includeScope=runtime -Dmdep.outputFile=target/kiln-classpath || { fetched && stand_in && attempt -fae -Dcheckstyle.skip -Dspotless.check.skip -Dlicense.skip -Drat.skip -Dpmd.skip -Dcpd.skip -Dspotbugs.skip -Djacoco.skip -Dmaven.javadoc.skip -DskipTests package org.apache.maven.plugins:maven-dependency-plugin:build-classpath -Dmdep.includeScope=runtime -Dmdep.outputFile=target/kiln-classpath; } ||
    { fetched && attempt dependency:go-offline; } || {
    echo 'kiln: Maven cannot fetch everything from the pom.xml files alone: see above, or give the step that compiles network = true in a kiln.toml' >&2
    exit 1
}
# what differs from one run to the next
find .kiln/m2 \( -name '*.lastUpdated' -o -name resolver-status.properties -o -name _remote.repositories \) \
    -delete
'''
outputs = [".kiln/m2"]
network = true
memory = "2GiB"
tools = ["mvn", "java", "javac"]

[steps.compile]
why = "compiles and packages the project without its tests"
needs = ["deps"]
run = '''
mvn -B -o -Dmaven.repo.local=/build/.kiln/m2 -Dproject.build.outputTimestamp=2000-01-01T00:00:00Z -DskipTests package org.apache.maven.plugins:maven-dependency-plugin:build-classpath -Dmdep.includeScope=runtime -Dmdep.outputFile=target/kiln-classpath
mkdir -p .kiln/gather
javac -d .kiln/gather .kiln/Gather.java
java -cp .kiln/gather Gather .
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: the build left no jar or war, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["mvn", "java", "javac"]
[steps.compile.files]
".kiln/Gather.java" = "kiln:Gather.java"

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
    assert_snapshot!(written(&[
        ("build.gradle", "version = '1.4.2'\ndependencies { }\n"),
        ("settings.gradle", "rootProject.name = 'shop'\n"),
        ("src/main/java/A.java", ""),
    ], &["src/main/java/A.java"]), @r###"
# java (gradle): `settings.gradle` is a Gradle project
name = "shop"
# version: from the manifest, currently 1.4.2

[steps.deps]
why = "resolves every configuration; keyed by the build files"
inputs = ["build.gradle", "settings.gradle"]
unversioned = ["build.gradle", "settings.gradle"]
run = '''
gradle --no-daemon -Dorg.gradle.configuration-cache=false -Dorg.gradle.unsafe.configuration-cache=false -Dorg.gradle.unsafe.isolated-projects=false --init-script .kiln/resolve.gradle kilnResolve
find .kiln/gradle-home -name '*.lock' -delete
rm -rf .kiln/gradle-home/daemon'''
outputs = [".kiln/gradle-home"]
env = { GRADLE_USER_HOME = "/build/.kiln/gradle-home" }
network = true
tools = ["gradle", "java", "javac"]
[steps.deps.files]
".kiln/resolve.gradle" = '''
allprojects {
    tasks.create('kilnResolve') {
        doLast {
            def all = project.configurations.findAll { it } + project.buildscript.configurations.findAll { it }
            all.each { configuration ->
                def open = !configuration.hasProperty('canBeResolved') || configuration.canBeResolved
                if (open) { configuration.files }
            }
        }
    }
}
'''

[steps.compile]
why = "compiles and packages the project without its tests"
needs = ["deps"]
run = '''
gradle --no-daemon -Dorg.gradle.configuration-cache=false -Dorg.gradle.unsafe.configuration-cache=false -Dorg.gradle.unsafe.isolated-projects=false --offline --init-script .kiln/stage.gradle build -x test kilnStage
mkdir -p .kiln/gather
javac -d .kiln/gather .kiln/Gather.java
java -cp .kiln/gather Gather .
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: the build left no jar or war, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
env = { GRADLE_USER_HOME = "/build/.kiln/gradle-home" }
cpus = 2
memory = "2GiB"
tools = ["gradle", "java", "javac"]
[steps.compile.files]
".kiln/Gather.java" = "kiln:Gather.java"
".kiln/stage.gradle" = '''
allprojects {
    tasks.withType(AbstractArchiveTask) {
        preserveFileTimestamps = false
        reproducibleFileOrder = true
    }
}
gradle.projectsEvaluated {
    rootProject.allprojects { module ->
        def has = { name -> module.tasks.findByName(name) != null }
        def fat = ['bootJar', 'bootWar', 'shadowJar'].findAll { has(it) }
        def needed = module.configurations.findByName('runtimeClasspath')
        def build = module.hasProperty('layout') ? module.layout.buildDirectory.get().asFile : module.buildDir
        def root = module.rootProject.projectDir.toPath()
        def lines = ['module=' + root.relativize(module.projectDir.toPath())]
        module.tasks.create('kilnStage') { stage ->
            if (module.plugins.hasPlugin('application') && fat.isEmpty()) { stage.dependsOn 'installDist' }
            if (has('shadowJar')) { stage.dependsOn 'shadowJar' }
            if (has('assemble')) { stage.dependsOn 'assemble' }
            if (needed != null) { stage.dependsOn needed }
            stage.doLast {
                def jars = needed == null ? [] : needed.files.collect { it.path }
                build.mkdirs()
                new File(build, 'kiln-classpath').text = (lines + jars).join('\n') + '\n'
            }
        }
    }
}
'''

[artifacts.shop]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
note: no `gradle.lockfile` locks the dependencies, so two builds of one commit could differ: enable `dependencyLocking` and run `gradle dependencies --write-locks`
"###);
    assert_snapshot!(written(&[("src/A.java", ""), ("src/words.properties", "")], &["src/A.java"]), @r###"
# java: there are 1 Java sources and no build tool's file
name = "project"
# version: from git describe

[steps.compile]
why = "compiles every source and packs the classes into a jar"
run = '''
mkdir -p .kiln/classes .kiln/build
find src -path ./.kiln -prune -o -name '*.java' ! -path '*/test/*' -print | LC_ALL=C sort > .kiln/sources
javac -encoding UTF-8 -d .kiln/classes -cp 'lib/*' @.kiln/sources
(cd src && find . -type f ! -name '*.java' -exec cp --parents {} /build/.kiln/classes/ \;)
(cd .kiln/classes && find . -type f | LC_ALL=C sort | sed 's,^\./,,' > ../entries &&
    jar --create --file=../build/project.jar @../entries)
find lib -name '*.jar' 2>/dev/null | LC_ALL=C sort > .kiln/build/kiln-classpath
mkdir -p .kiln/gather
javac -d .kiln/gather .kiln/Gather.java
java -cp .kiln/gather Gather .kiln/build
if [ -z "$(find .kiln/out -type f 2>/dev/null | head -n 1)" ]; then
    echo 'kiln: the build left no jar or war, so there is no artifact' >&2
    exit 1
fi
'''
outputs = [".kiln/out"]
cpus = 2
memory = "2GiB"
tools = ["javac", "jar"]
[steps.compile.files]
".kiln/Gather.java" = "kiln:Gather.java"

[artifacts.project]
from = ["compile"]
files = [{ path = ".kiln/out", dest = "." }]
"###);
}
