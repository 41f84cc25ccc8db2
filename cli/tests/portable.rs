//! The client for Windows, built here and run by Wine, against a farm of real processes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use kiln_harness::{Farm, cannot_run, kept, project, write};

const TARGET: &str = "x86_64-pc-windows-gnu";
/// Debian's package keeps it where no `PATH` looks.
const WINE: &str = "/usr/lib/wine/wine64";
/// What Rust's standard library takes from a library of Windows 10 that Wine 8 lacks.
const RANDOM: &str = "#include <windows.h>\nBOOLEAN NTAPI SystemFunction036(PVOID, ULONG);\n\
    __declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }\n";

/// The client with what it needs beside it, once for all tests; none, with a message, if this machine cannot make it.
fn windows() -> Option<&'static Path> {
    static CLIENT: OnceLock<Option<PathBuf>> = OnceLock::new();
    CLIENT.get_or_init(|| make().map_err(|why| cannot_run(&why)).ok()).as_deref()
}

fn make() -> Result<PathBuf, String> {
    if cfg!(not(target_arch = "x86_64")) || !Path::new(WINE).exists() {
        return Err(format!("`{WINE}` (Debian: wine64)"));
    }
    let ran = |command: &mut Command| -> Result<(), String> {
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let words = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {words}")) }
    };
    // Beside the other artifacts, so that what is there already is not compiled again. Nobody debugs it.
    let place = kept().join("windows");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--target", TARGET, "-p", "kiln-cli", "--no-default-features"]);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TARGET_DIR", &place);
    ran(cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()))?;
    let beside = place.join(TARGET).join("debug");
    let source = beside.join("random.c");
    std::fs::write(&source, RANDOM).map_err(|error| error.to_string())?;
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    ran(gcc.args(["-shared", "-o"]).arg(beside.join("bcryptprimitives.dll")).arg(&source).arg("-ladvapi32"))?;
    Ok(beside.join("kiln.exe"))
}

/// Runs the client in this directory. Each call has Windows of its own, so that tests do not share its settings.
fn kiln(in_directory: &Path, arguments: &[&str]) -> Output {
    static PREFIX: OnceLock<tempfile::TempDir> = OnceLock::new();
    // Nobody drops a static.
    let prefix = PREFIX.get_or_init(kiln_harness::caretaker::directory);
    let mut command = Command::new(WINE);
    command.arg(windows().unwrap()).args(arguments).current_dir(in_directory);
    command.env("WINEPREFIX", prefix.path()).env("WINEDEBUG", "-all").env("WINEDLLOVERRIDES", "mscoree=;mshtml=");
    command.env_remove("KILN_FARM").env_remove("DISPLAY").output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A directory as Wine shows it to programs.
fn on_windows(path: &Path) -> String {
    format!("Z:{}", path.display().to_string().replace('/', "\\"))
}

/// The files below a directory, without what names the build.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in std::fs::read_dir(&at).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_none_or(|extension| extension != "json") {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn c_project() -> tempfile::TempDir {
    let config = "name = \"portable\"\nversion = \"1\"\n[steps.build]\n\
        run = \"mkdir -p out && cc -O1 -Isrc/deep -o out/prog src/main.c && ./tools/stamp.sh > out/stamp\"\noutputs = [\"out\"]\n\
        [artifacts.all]\nfrom = \"build\"\nfiles = [\"out\"]\nkind = \"archive\"\n\
        [artifacts.files]\nfrom = \"build\"\nfiles = [\"out/stamp\"]\nkind = \"binary\"\n";
    let dir = project(&[
        ("kiln.toml", config),
        ("src/main.c", "#include <stdio.h>\n#include \"own.h\"\nint main(void) { puts(OWN); return 0; }\n"),
        ("src/deep/own.h", "#define OWN \"hello\"\n"),
        ("tools/stamp.sh", "#!/bin/sh\necho stamped\n"),
    ]);
    kiln_system::set_mode(&dir.path().join("tools/stamp.sh"), 0o755).unwrap();
    dir
}

#[test]
fn a_client_for_windows_says_what_it_and_its_farm_lack() {
    if windows().is_none() {
        return;
    }
    let (farm, dir) = (Farm::shared(), tempfile::tempdir().unwrap());
    let looked = |arguments: &[&str]| {
        let output = kiln(dir.path(), &[&["doctor", "--json"], arguments].concat());
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
        (output.status.code(), report.to_string())
    };
    let (_, report) = looked(&["--farm", &farm.url]);
    assert!(report.contains("this machine") && report.contains("the coordinator answers"), "{report}");
    // It runs no steps itself.
    let (code, report) = looked(&[]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("this `kiln` is a client only") && report.contains("kiln login"), "{report}");
}

#[test]
fn the_client_for_windows_builds_what_the_one_for_linux_does() {
    if windows().is_none() {
        return;
    }
    let farm = Farm::shared();
    let (here, there) = (c_project(), c_project());
    farm.build(here.path(), &["--output", here.path().join("made").to_str().unwrap()]).well();
    let source = on_windows(there.path());
    let output = kiln(there.path(), &["build", "--farm", &farm.url, "--output", "made", &source]);
    assert!(output.status.success(), "{}", said(&output));
    let (linux, windows) = (files(&here.path().join("made")), files(&there.path().join("made")));
    assert!(linux.len() >= 4 && linux == windows, "{:?} {:?}", linux.keys(), windows.keys());
    // No step ran: the sources were the same tree, with the same mode for the script.
    assert!(said(&output).contains("hit"), "{}", said(&output));
}

#[test]
fn a_rust_project_comes_out_the_same_and_a_failure_is_told_with_its_line() {
    if windows().is_none() {
        return;
    }
    let farm = Farm::shared();
    let rust = || {
        let manifest = "[package]\nname = \"portable-rust\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
        let lock = "version = 3\n\n[[package]]\nname = \"portable-rust\"\nversion = \"0.1.0\"\n";
        project(&[
            ("Cargo.toml", manifest),
            ("Cargo.lock", lock),
            ("src/main.rs", "fn main() { println!(\"hello\"); }\n"),
        ])
    };
    let (here, there) = (rust(), rust());
    farm.build(here.path(), &["--output", here.path().join("made").to_str().unwrap()]).well();
    let arguments = ["build", "--farm", &farm.url, "--output", "made", "."];
    let output = kiln(there.path(), &arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(files(&here.path().join("made")), files(&there.path().join("made")));
    write(there.path(), "src/main.rs", "fn main() { nothing() }\n");
    let output = kiln(there.path(), &arguments);
    let words = said(&output);
    assert!(output.status.code() == Some(1) && words.contains("src/main.rs:1:13"), "{words}");
}

#[test]
fn what_needs_linux_says_what_to_do_instead() {
    if windows().is_none() {
        return;
    }
    let dir = project(&[("kiln.toml", "name = \"x\"\n")]);
    for (arguments, words) in [
        (&["up"][..], "run `kiln up` on a Linux machine"),
        (&["build", "."], "name a farm with `--farm URL` or `KILN_FARM`"),
        (&["farm", "init", "dir", "--host", "x"], "`kiln farm init` works on a farm's directory"),
        (&["ccache-storage"], "for Unix only"),
    ] {
        let output = kiln(dir.path(), arguments);
        let said = said(&output);
        assert!(output.status.code() == Some(2) && said.contains(words), "{arguments:?}: {said}");
    }
    let version = said(&kiln(dir.path(), &["--version"]));
    assert!(version.starts_with("kiln ") && version.contains("protocol"), "{version}");
}

#[test]
fn an_artifact_with_a_name_that_windows_lacks_is_refused_and_nothing_is_written_elsewhere() {
    if windows().is_none() {
        return;
    }
    for (name, reason) in
        [("aux.txt", "device"), ("a:b", "Windows has no names with"), ("up\\\\..\\\\out", "Windows has no names with")]
    {
        let config = format!(
            "name = \"names\"\nversion = \"1\"\n[steps.build]\nrun = '''mkdir -p out/d; echo x > 'out/d/{}'; echo y > out/d/fine'''\n\
             outputs = [\"out\"]\n[artifacts.files]\nfrom = \"build\"\nfiles = [\"out/d/**\"]\nkind = \"binary\"\n",
            name.replace("\\\\", "\\")
        );
        let dir = project(&[("kiln.toml", &config)]);
        let output = kiln(dir.path(), &["build", "--farm", &Farm::shared().url, "--output", "made", "."]);
        let words = said(&output);
        assert!(output.status.code() == Some(2) && words.contains(reason), "{name}: {words}");
        assert!(!dir.path().join("out").exists() && !dir.path().join("made/out").exists());
    }
}

#[test]
fn the_client_for_macos_needs_no_framework_of_apples() {
    // With one of these it could be linked only on a Mac with Xcode.
    let frameworks = ["security-framework", "core-foundation", "system-configuration", "objc2", "fsevent-sys"];
    for target in ["aarch64-apple-darwin", "x86_64-apple-darwin"] {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "--prefix", "none", "-e", "normal", "-p", "kiln-cli", "--no-default-features"]);
        let output = tree.args(["--target", target]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(tree.contains("rustls-platform-verifier v") && tree.contains("iana-time-zone v"), "{tree}");
        let found: Vec<&str> =
            tree.lines().filter(|line| frameworks.iter().any(|name| line.starts_with(name))).collect();
        assert!(found.is_empty(), "{target}: {found:?}");
    }
}
