//! Compiles the shim that stands in for compilers inside steps as a small static program, which the worker carries with it.
//!
//! It has to start at once and to run in every root, so it is not linked against any library of this machine. Where no static C library
//! is installed, it is an ordinary program, which runs wherever the worker itself does.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../call/src");
    println!("cargo::rerun-if-changed=build.rs");
    let made = PathBuf::from(variable("OUT_DIR")).join("kiln-call");
    let sources = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../call/src");
    let is_static = compile(&sources, &made, true);
    if !is_static && !compile(&sources, &made, false) {
        println!("cargo::error=cannot compile the shim at `{}`; the lines above say why", sources.display());
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Compiles the library and then the program; `false` if that is not possible in this way.
fn compile(sources: &Path, made: &Path, is_static: bool) -> bool {
    let directory = made.with_extension(if is_static { "static" } else { "dynamic" });
    if std::fs::create_dir_all(&directory).is_err() {
        return false;
    }
    let library = directory.join("libkiln_call.rlib");
    let compiler = || {
        let mut command = Command::new(variable("RUSTC"));
        command.args(["--edition", "2024", "--target", &variable("TARGET"), "-C", "opt-level=s", "-C", "panic=abort"]);
        command.args(["-C", "strip=symbols", "-C", "codegen-units=1", "--cap-lints", "allow"]);
        command.args(["-C", if is_static { "target-feature=+crt-static" } else { "target-feature=-crt-static" }]);
        if let Ok(linker) = std::env::var("RUSTC_LINKER") {
            command.arg("-C").arg(format!("linker={linker}"));
        }
        command
    };
    let mut first = compiler();
    first
        .args(["--crate-name", "kiln_call", "--crate-type", "rlib"])
        .arg(sources.join("lib.rs"))
        .arg("-o")
        .arg(&library);
    let mut second = compiler();
    second
        .args(["--crate-name", "kiln_call_shim", "--crate-type", "bin", "-C", "lto=fat"])
        .arg(sources.join("main.rs"));
    second.arg("--extern").arg(format!("kiln_call={}", library.display())).arg("-o").arg(made);
    [first, second].iter_mut().all(|command| {
        let ended = command.output();
        if let (Ok(ended), false) = (&ended, is_static) {
            eprintln!("{}", String::from_utf8_lossy(&ended.stderr));
        }
        ended.is_ok_and(|ended| ended.status.success())
    })
}
