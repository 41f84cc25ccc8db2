//! Realistic C, C++, Go and Rust projects: nothing is lost, and what is left out or changed is reported.

use std::io::{Read, Write};
use std::path::Path;

use kiln_harness::{Built, Farm, commit, git, output, project, unpack};

const PROGRAM: &str = "#include <stdio.h>\nint main(void) { puts(WORD); return 0; }\n";

fn warnings(built: &Built) -> String {
    let text = |event: serde_json::Value| format!("{}\n", event["text"].as_str().unwrap_or_default());
    built.of_type("warning").into_iter().map(text).collect()
}

fn unpacked(dir: &Path) -> tempfile::TempDir {
    unpack(&dir.join("kiln-out"))
}

fn said(dir: &Path, program: &str) -> String {
    output(dir.join(program), &[], dir).trim().to_owned()
}

#[test]
fn make_programs_of_one_name_keep_their_directories_and_data_files_are_named() {
    let dir = project(&[
        ("Makefile", "all: server/app client/app\n%/app: %/main.c\n\t$(CC) -DWORD='\"$*\"' -o $@ $<\n"),
        ("client/main.c", PROGRAM),
        ("server/main.c", PROGRAM),
        ("share/words.txt", "hi\n"),
    ]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    let out = unpacked(dir.path());
    assert_eq!(said(out.path(), "bin/server/app"), "server");
    assert_eq!(said(out.path(), "bin/client/app"), "client");
    assert!(warnings(&built).contains("left out: `share/words.txt`"), "{}", warnings(&built));
}

#[test]
fn a_makefile_without_destdir_is_installed_into_the_artifact() {
    let makefile = "SHELL = /bin/bash\nPREFIX = /usr/local\nprog: prog.c\n\t$(CC) -DWORD='\"hi\"' -o $@ $<\n\
                    install: prog\n\t[[ -d $(PREFIX)/bin ]] || mkdir -p $(PREFIX)/bin\n\
                    \tinstall -D -o root -g root prog $(PREFIX)/bin/prog\n\
                    \tinstall -D -m644 words.txt $(PREFIX)/share/prog/words.txt\n\
                    \tln -sf $(PREFIX)/bin/prog /usr/bin/p\n\tldconfig\n";
    let dir = project(&[("Makefile", makefile), ("prog.c", PROGRAM), ("words.txt", "hi\n")]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    let out = unpacked(dir.path());
    assert_eq!(said(out.path(), "usr/local/bin/prog"), "hi");
    assert_eq!(std::fs::read_to_string(out.path().join("usr/local/share/prog/words.txt")).unwrap(), "hi\n");
    assert_eq!(std::fs::read_link(out.path().join("usr/bin/p")).unwrap(), Path::new("/usr/local/bin/prog"));
    assert_eq!(warnings(&built), "");
}

#[test]
fn programs_find_the_projects_own_libraries_wherever_the_archive_is_unpacked() {
    let makefile = "prefix = /usr/local\nprog: prog.c libword.so\n\t$(CC) -o $@ prog.c -L. -lword\nlibword.so: word.c\n\t$(CC) -shared \
                    -fPIC -o $@ word.c\ninstall: prog\n\tinstall -D prog $(DESTDIR)$(prefix)/bin/prog\n\
                    \tinstall -D libword.so $(DESTDIR)$(prefix)/lib/libword.so\n";
    let cmake = "cmake_minimum_required(VERSION 3.16)\nproject(prog C)\nadd_library(word SHARED word.c)\nadd_executable(prog prog.c)\n\
                 target_link_libraries(prog word)\ninstall(TARGETS prog word)\n";
    let meson = "project('prog', 'c')\nword = shared_library('word', 'word.c', install: true)\n\
                 executable('prog', 'prog.c', link_with: word, install: true)\n";
    let sources = [
        ("prog.c", "#include <stdio.h>\nconst char *word(void);\nint main(void) { puts(word()); return 0; }\n"),
        ("word.c", "const char *word(void) { return \"found\"; }\n"),
    ];
    for build_file in [("Makefile", makefile), ("CMakeLists.txt", cmake), ("meson.build", meson)] {
        let files: Vec<(&str, &str)> = sources.into_iter().chain([build_file]).collect();
        let dir = project(&files);
        let built = Farm::shared().build(dir.path(), &[]).well();
        assert_eq!(said(unpacked(dir.path()).path(), "usr/local/bin/prog"), "found", "{}", build_file.0);
        assert_eq!(warnings(&built), "", "{}", build_file.0);
    }
}

#[test]
fn a_makefile_that_is_not_safe_for_parallel_jobs_is_repeated_with_one() {
    let makefile = "all: gen prog\ngen:\n\tsleep 1; echo '#define WORD \"made\"' > n.h\nprog: main.c\n\t$(CC) -include n.h -o prog main.c\n";
    let dir = project(&[("Makefile", makefile), ("main.c", PROGRAM)]);
    let first = Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(said(unpacked(dir.path()).path(), "bin/prog"), "made");
    let second = Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(second.caches()["compile"], "hit");
    for built in [first, second] {
        assert!(warnings(&built).contains("was repeated with one"), "{}", warnings(&built));
    }
}

#[test]
fn what_a_build_asks_git_is_answered_from_the_commit() {
    let makefile = "VERSION := $(shell git describe --tags --always)\nSHORT := $(shell git rev-parse --short HEAD)\n\
                    DATE := $(shell git log -1 --format=%cd 2>/dev/null)\n\
                    prog: prog.c\n\t$(CC) -DWORD='\"$(VERSION) $(SHORT)\"' -o $@ $<\n";
    let dir = project(&[("Makefile", makefile), ("prog.c", PROGRAM)]);
    let id = commit(dir.path());
    git(dir.path(), &["tag", "v3.1.4"]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(said(unpacked(dir.path()).path(), "bin/prog"), format!("v3.1.4 {}", &id[..7]));
    let warned = warnings(&built);
    assert!(warned.contains("runs `git log -1 --format=%cd`"), "expected a note about unknown values: {warned}");
}

#[test]
fn a_step_that_looks_for_a_name_is_told_of_the_network() {
    let makefile = "all:\n\techo 'curl: (6) Could not resolve host: example.com' >&2; exit 6\n";
    let dir = project(&[("Makefile", makefile), ("a.c", "")]);
    let built = Farm::shared().build(dir.path(), &[]);
    assert_eq!(built.0.code, 1);
    assert!(warnings(&built).contains("`network = true`"), "{}", built.0.out);
}

/// Serves one file to any client, for the duration of the test.
pub(crate) fn serve(file: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                file.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file));
        }
    });
    format!("http://{address}")
}

#[test]
fn what_cmake_fetches_is_fetched_once_and_compiled_without_the_network() {
    let mut tar = tar::Builder::new(Vec::new());
    let dep = "cmake_minimum_required(VERSION 3.14)\nproject(dep C)\nadd_library(dep STATIC dep.c)\n";
    for (path, text) in [("dep/CMakeLists.txt", dep), ("dep/dep.c", "int dep(void) { return 0; }\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let url = serve(tar.into_inner().unwrap());
    let cmake = format!(
        "cmake_minimum_required(VERSION 3.14)\nproject(app VERSION 1.0 LANGUAGES C)\ninclude(FetchContent)\n\
         FetchContent_Declare(dep URL {url}/dep.tar)\nFetchContent_MakeAvailable(dep)\n\
         add_executable(app main.c)\ntarget_link_libraries(app dep)\ninstall(TARGETS app)\n"
    );
    let main = "int dep(void);\nint main(void) { return dep(); }\n";
    let dir = project(&[("CMakeLists.txt", &cmake), ("main.c", main)]);
    // The server is on the machine's loopback, which steps otherwise cannot reach.
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    farm.build(dir.path(), &[]).well();
    assert_eq!(said(unpacked(dir.path()).path(), "usr/local/bin/app"), "");
    std::fs::write(dir.path().join("main.c"), format!("{main}\n// edited\n")).unwrap();
    let edited = farm.build(dir.path(), &[]).well();
    assert_eq!(edited.caches()["fetch"], "hit");
    assert_eq!(edited.caches()["compile"], "miss");
}

#[test]
fn go_itself_says_which_packages_are_programs() {
    let main = |word: &str| format!("package main\n\nfunc main() {{ println(\"{word}\") }}\n");
    let dir = project(&[
        ("billing/cmd/httpd/main.go", &main("billing")),
        ("cmd/root.go", "package cmd\n\nfunc Execute() string { return \"root\" }\n"),
        ("examples/hi/main.go", &main("hi")),
        ("go.mod", "module example.org/fleet\n\ngo 1.19\n"),
        ("main.go", "package main\n\nimport \"example.org/fleet/cmd\"\n\nfunc main() { println(cmd.Execute()) }\n"),
        ("orders/cmd/httpd/main.go", &main("orders")),
    ]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    for (program, word) in [("fleet", "root"), ("billing/cmd/httpd", "billing"), ("orders/cmd/httpd", "orders")] {
        let ran = std::process::Command::new(dir.path().join("kiln-out/fleet").join(program)).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stderr).trim(), word);
    }
    assert!(warnings(&built).contains("left out: `./examples/hi`"), "{}", warnings(&built));
    let other = project(&[("go.mod", "module example.org/other\n\ngo 1.18\n"), ("main.go", &main("other"))]);
    let other = Farm::shared().build(other.path(), &[]).well();
    assert_eq!(other.caches()["std"], "hit", "expected the standard library to be keyed by the toolchain alone");
}

#[test]
fn a_patched_crate_is_compiled_as_it_is_and_binaries_of_one_name_are_kept_apart() {
    let member = |name: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nserde_json = \"=1.0.100\"\n[[bin]]\nname = \"httpd\"\npath = \"main.rs\"\n"
        )
    };
    let main = |word: &str| format!("fn main() {{ println!(\"{word} {{}}\", serde_json::json!(-12)); }}\n");
    let itoa = "#![no_std]\npub struct Buffer { bytes: [u8; 40] }\npub trait Integer { fn show(self, bytes: &mut [u8; 40]) -> usize; }\n\
        macro_rules! all { ($($t:ty)*) => { $(impl Integer for $t { fn show(self, bytes: &mut [u8; 40]) -> usize {\n\
        let (mut left, mut at) = ((self as i128).unsigned_abs(), 40);\n\
        loop { at -= 1; bytes[at] = b'0' + (left % 10) as u8; left /= 10; if left == 0 { break } }\n\
        if (self as i128) < 0 { at -= 1; bytes[at] = b'-' } at } })* } }\n\
        all!(i8 u8 i16 u16 i32 u32 i64 u64 isize usize i128 u128);\n\
        impl Buffer { pub fn new() -> Self { Buffer { bytes: [0; 40] } }\n\
        pub fn format<I: Integer>(&mut self, i: I) -> &str { let at = i.show(&mut self.bytes); core::str::from_utf8(&self.bytes[at..]).unwrap() } }\n";
    let (billing, orders) = (member("billing"), member("orders"));
    let dir = project(&[
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"billing\", \"orders\"]\nresolver = \"2\"\n[workspace.lints.rust]\nmissing_docs = \"deny\"\n[patch.crates-io]\nitoa = { path = \"vendored/itoa\" }\n",
        ),
        ("README.md", "one\n"),
        ("billing/Cargo.toml", &billing),
        ("billing/main.rs", &main("billing")),
        ("orders/Cargo.toml", &orders),
        ("orders/main.rs", &main("orders")),
        ("vendored/itoa/Cargo.toml", "[package]\nname = \"itoa\"\nversion = \"1.0.99\"\nedition = \"2018\"\n"),
        ("vendored/itoa/src/lib.rs", itoa),
    ]);
    output("cargo", &["generate-lockfile"], dir.path());
    let built = Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(said(dir.path(), "kiln-out/billing-httpd"), "billing -12");
    assert_eq!(said(dir.path(), "kiln-out/orders-httpd"), "orders -12");
    assert!(!built.log().contains("warning: unused"), "expected no warnings about stubs: {}", built.log());
    std::fs::write(dir.path().join("README.md"), "two\n").unwrap();
    let edited = Farm::shared().build(dir.path(), &[]).well();
    assert!(
        edited.caches().values().all(|cache| cache == "hit"),
        "expected hits, because no source reads it: {:?}",
        edited.caches()
    );
}
