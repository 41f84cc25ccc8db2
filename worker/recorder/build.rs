//! Compiles this crate once more, as a library that needs no other and that dynamic programs load before their own.
//!
//! Where that is not possible there is none, and whoever wants to know what a program looks at has to ask the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(preload)");
    let made = PathBuf::from(variable("OUT_DIR")).join("recorder.so");
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    if let Err(reason) = compile(&source, &made) {
        println!(
            "cargo::warning=what compilers look at is recorded more slowly: cannot compile the recorder: {reason}"
        );
        if let Err(error) = std::fs::write(&made, "") {
            println!("cargo::error=cannot write `{}`: {error}", made.display());
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn compile(source: &Path, made: &Path) -> Result<(), String> {
    let mut command = Command::new(variable("RUSTC"));
    command.args(["--edition", "2024", "--crate-name", "kiln_recorder", "--crate-type", "cdylib", "--cfg", "preload"]);
    command.args(["--target", &variable("TARGET"), "-C", "target-feature=-crt-static", "-C", "opt-level=2"]);
    command.args(["-C", "panic=abort", "-C", "codegen-units=1", "-C", "strip=symbols", "--cap-lints", "allow"]);
    command.args([
        "-C",
        "link-arg=-nostdlib",
        "-C",
        "link-arg=-nostartfiles",
        "-C",
        "link-arg=-Wl,-soname,recorder.so",
    ]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    let ended = command.arg(source).arg("-o").arg(made).output().map_err(|error| error.to_string())?;
    if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
}
