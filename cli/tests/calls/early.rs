//! Crates whose metadata is handed out before their compiler has ended.
//!
//! What follows the metadata is the link, so its length is in the hands of a linker that the project brings along: it is slow, or never
//! ends, in a cell, and only there.

use kiln_harness::{Farm, project, write};

use super::attacks::CLIENT;
use super::project::{built, calls, config};

/// A linker that does this in a cell, and links at once in the step.
fn linker(in_cell: &str) -> String {
    format!("#!/bin/sh\n[ -e /kiln/call/farm.sock ] || {{ {in_cell}; }}\nexec cc \"$@\"\n")
}

/// rustc's arguments for the library `early.rs`, which is linked as well.
const ARGUMENTS: &str = "--crate-name early --edition=2021 early.rs --crate-type lib --crate-type cdylib --emit=dep-info,metadata,link \
    --error-format=json --json=artifacts --out-dir /build/made -C linker=slow-cc -C panic=abort";

fn early(name: &str, run: &str, in_cell: &str, more: &[(&str, &str)]) -> tempfile::TempDir {
    let run = format!(
        "chmod +x tools/slow-cc; export PATH=$PATH:/build/tools; mkdir out made\n\
        compile() {{ kiln-call rustc {ARGUMENTS} \"$@\"; }}\n\
        handed_out() {{ until [ -e made/libearly.rmeta ]; do sleep 0.01; done; }}\n{run}"
    );
    let dir = project(&[
        ("kiln.toml", &config(name, &run, "cpus = 2\ntimeout = \"5m\"")),
        ("tools/slow-cc", &linker(in_cell)),
        ("early.rs", &format!("pub fn early() -> &'static str {{ \"{name}\" }}\n")),
    ]);
    more.iter().for_each(|(path, content)| write(dir.path(), path, content));
    dir
}

#[test]
fn announced_metadata_is_there_while_the_compiler_is_at_work_and_with_a_hit_too() {
    // The call never ends, so only what is handed out before its end can arrive.
    let endless = early(
        "endless",
        "compile 2> said & handed_out; until grep -q libearly.rmeta said; do sleep 0.01; done; ls -A made > out/made; cp said out; kill $!",
        "while :; do sleep 1; done",
        &[],
    );
    let (ran, left) = built(Farm::shared(), endless.path());
    let made = String::from_utf8_lossy(&left["made"]).into_owned();
    assert_eq!(made.split_whitespace().collect::<Vec<_>>(), ["early.d", "libearly.rmeta"]);
    let said = String::from_utf8_lossy(&left["said"]).into_owned();
    assert!(said.contains("\"emit\":\"metadata\"") && !said.contains("\"emit\":\"link\""), "{said}");
    assert_eq!(calls(&ran, "build").compiled, 0, "expected the call not to have ended");

    for (round, expected) in [("one", (0, 1)), ("two", (1, 0))] {
        let run = format!("compile 2> out/said; cp made/* out; echo {round}");
        let whole = early("whole", &run, "true", &[]);
        let (ran, left) = built(Farm::shared(), whole.path());
        let calls = calls(&ran, "build");
        assert_eq!((calls.hits, calls.compiled), expected, "{calls:?}");
        let said = String::from_utf8_lossy(&left["said"]).into_owned();
        let lines: Vec<bool> = said.lines().map(|line| line.contains("metadata")).collect();
        assert_eq!(lines, [false, true, false, false], "expected each output to be announced once: {said}");
        assert!(left.contains_key("libearly.rlib") && left.contains_key("libearly.so"));
    }
}

#[test]
fn a_file_that_changes_after_that_fails_the_call_if_it_makes_a_difference() {
    let source = "pub const FLAG: &str = include_str!(\"flag.txt\");\n#[no_mangle]\npub extern \"C\" fn early() -> usize { FLAG.len() }\n";
    let changed = early(
        "changed-after",
        "echo one > flag.txt; compile 2> out/said & handed_out; echo two > flag.txt; wait $! && echo WRONG >> out/said; echo $? > out/code",
        "sleep 10",
        &[("early.rs", source)],
    );
    let (ran, left) = built(Farm::shared(), changed.path());
    let said = String::from_utf8_lossy(&left["said"]).into_owned();
    assert_eq!(calls(&ran, "build").refused.get("differs"), Some(&1), "{:?}", calls(&ran, "build"));
    assert_eq!(left["code"], b"1\n", "{said}");
    assert!(said.contains("/build/made/libearly.rmeta` had been handed out") && !said.contains("WRONG"), "{said}");
}

#[test]
fn a_file_that_changes_after_that_makes_the_compiler_run_again_if_it_makes_none() {
    // A macro looks whether the file is there, and does not care.
    let mac = "use proc_macro::TokenStream;\n#[proc_macro]\npub fn nothing(_: TokenStream) -> TokenStream { let _ = std::path::Path::new(\"/build/probe\").exists(); TokenStream::new() }\n";
    let source = "look::nothing!();\n#[warn(dead_code)]\nfn unused() {}\n#[no_mangle]\npub extern \"C\" fn early() -> u8 { 1 }\n";
    let run = "kiln-call rustc --crate-name look --edition=2021 look.rs --crate-type proc-macro --extern proc_macro --emit=link --out-dir made\n\
        compile --extern look=made/liblook.so 2> out/said & handed_out; touch probe; wait $! || exit 1; cp made/* out";
    let again = early("changed-idly", run, "sleep 10", &[("early.rs", source), ("look.rs", mac)]);
    let (ran, left) = built(Farm::shared(), again.path());
    assert_eq!(calls(&ran, "build").refused.get("differs"), Some(&1), "{:?}", calls(&ran, "build"));
    let said = String::from_utf8_lossy(&left["said"]).into_owned();
    for words in ["never used", "\"emit\":\"metadata\"", "\"emit\":\"link\""] {
        let expected = if words.contains("link") { 2 } else { 1 };
        assert_eq!(said.lines().filter(|line| line.contains(words)).count(), expected, "{words}: {said}");
    }
    let plain = project(&[]);
    for file in ["kiln.toml", "early.rs", "look.rs", "tools/slow-cc"] {
        let text = std::fs::read_to_string(again.path().join(file)).unwrap();
        write(
            plain.path(),
            file,
            &text.replace("outputs =", "split = false\noutputs =").replace("kiln-call rustc", "rustc"),
        );
    }
    let (_, right) = built(Farm::shared(), plain.path());
    assert!(left["libearly.rmeta"] == right["libearly.rmeta"] && left["libearly.rlib"] == right["libearly.rlib"]);
}

#[test]
fn nothing_is_handed_out_that_a_macro_made_of_a_file_that_nobody_knew_of() {
    // Calls do not get what looks like an object, so the macro finds nothing in a cell and another value in the step.
    let mac = "use proc_macro::TokenStream;\n#[proc_macro]\npub fn value(_: TokenStream) -> TokenStream { std::fs::read_to_string(\"/build/hidden.o\").unwrap_or(\"0u32\".to_owned()).parse().unwrap() }\n";
    let run = "export CARGO_TARGET_DIR=/build/target CARGO_HOME=/build/.cargo CARGO_NET_OFFLINE=true; echo 7u32 > hidden.o; cargo build --release; mkdir out; cp target/release/app out; out/app > out/said";
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
    };
    let dir = project(&[
        ("kiln.toml", &config("hidden", run, "cpus = 2")),
        ("Cargo.toml", "[workspace]\nmembers = [\"app\", \"base\", \"reads\"]\nresolver = \"2\"\n"),
        ("reads/Cargo.toml", &package("reads", "[lib]\nproc-macro = true\n")),
        ("reads/src/lib.rs", mac),
        ("base/Cargo.toml", &package("base", "[dependencies]\nreads = { path = \"../reads\" }\n")),
        ("base/src/lib.rs", "pub const VALUE: u32 = reads::value!();\n"),
        ("app/Cargo.toml", &package("app", "[dependencies]\nbase = { path = \"../base\" }\n")),
        ("app/src/main.rs", "fn main() { println!(\"{}\", base::VALUE); }\n"),
    ]);
    let (ran, left) = built(Farm::shared(), dir.path());
    assert_eq!(left["said"], b"7\n");
    assert_eq!(calls(&ran, "build").refused.get("differs"), Some(&1), "{:?}", calls(&ran, "build"));
}

#[test]
fn an_output_that_is_a_link_leads_nowhere_outside_of_its_cell() {
    let (outside, name) = (std::env::temp_dir().join("kiln-test-of-links"), "kiln-test-of-links");
    std::fs::write(&outside, "the machine's own").unwrap();
    // A macro that puts a link where the compiler writes what it depends on, to a file that the machine has too.
    let mac = format!(
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn link(_: TokenStream) -> TokenStream {{ if !std::path::Path::new(\"/kiln/call/farm.sock\").exists() {{ std::os::unix::fs::symlink(\"/tmp/{name}\", \"/build/made/early.d\").unwrap(); }} TokenStream::new() }}\n"
    );
    let run = "kiln-call rustc --crate-name look --edition=2021 look.rs --crate-type proc-macro --extern proc_macro --emit=link --out-dir made\n\
        compile --extern look=made/liblook.so; cp made/early.d out";
    let dir = early("linked-out", run, "true", &[("early.rs", "look::link!();\n"), ("look.rs", &mac)]);
    let (ran, left) = built(Farm::shared(), dir.path());
    std::fs::remove_file(&outside).unwrap();
    assert!(String::from_utf8_lossy(&left["early.d"]).contains("early.rs"), "expected the compiler's own words");
    let calls = calls(&ran, "build");
    assert!(calls.refused.values().sum::<u64>() >= 1 && calls.compiled == 1, "{calls:?}");
}

#[test]
fn a_step_that_takes_what_is_handed_out_and_hangs_up_stops_the_call() {
    let script = r#"
import shutil
arguments = b"--crate-name early --edition=2021 early.rs --crate-type lib --crate-type cdylib --emit=dep-info,metadata,link --error-format=json --json=artifacts --out-dir /build/made -C linker=slow-cc -C panic=abort".split()
environment = ((b'SOURCE_DATE_EPOCH', b'946684800'), (b'PATH', os.environb[b'PATH']), (b'HOME', os.environb[b'HOME']))
s = connect()
s.settimeout(240)
s.sendall(ask(shutil.which('rustc', path=os.environ['PATH'].split(':', 1)[1]).encode(), arguments, environment=environment))
kind, data, fds = answer(s)
assert kind == b'E' and len(fds) == 2, (kind, data[:200])
for fd in fds:
    try:
        os.write(fd, b'evil')
        print('CHANGED')
    except OSError:
        pass
s.close()
print('ok')
"#;
    let run = "python3 attack.py > out/said; cat out/said";
    let attack = format!("{CLIENT}\n{script}");
    let dir = early("hangs-up", run, "while :; do sleep 1; done", &[("attack.py", &attack)]);
    let (_, left) = built(Farm::shared(), dir.path());
    assert_eq!(left["said"], b"ok\n");
}
