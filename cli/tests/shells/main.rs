//! Shells in the places of steps, on farms of real processes: `kiln shell` in a real terminal, and `kiln run`.

#![allow(clippy::unwrap_used)]

mod attacks;
mod beside;
mod ends;
mod places;
mod refused;
mod wire;

use std::path::Path;

use kiln_harness::terminal::Terminal;
use kiln_harness::{Built, Farm, project};

/// A project in C whose compile step fails: the second of two files has an error.
fn broken() -> tempfile::TempDir {
    let config = "name = \"shop\"\n[steps.compile]\nrun = '''\nset -e\necho compiling\ngcc -c good.c -o good.o\ngcc -c bad.c -o bad.o\n\
                  gcc -o shop good.o bad.o\n'''\noutputs = [\"shop\"]\nenv = { FLAVOUR = \"mint\" }\n\
                  [steps.after]\nneeds = [\"compile\"]\nrun = \"true\"\n[artifacts.shop]\nfrom = \"compile\"\nfiles = [\"shop\"]\n";
    project(&[
        ("kiln.toml", config),
        ("good.c", "int answer(void) { return 7; }\n"),
        ("bad.c", "int answer(void);\nint main(void) { return answer() }\n"),
        ("salt", &uuid::Uuid::new_v4().to_string()),
    ])
}

/// A project whose step does this.
fn doing(run: &str, more: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"does\"\n[steps.work]\nrun = '''\n{run}\n'''\noutputs = [\"out\"]\n{more}\n[artifacts.out]\nfrom = \"work\"\nfiles = [\"out\"]\n"
    );
    project(&[("kiln.toml", &config), ("salt", &uuid::Uuid::new_v4().to_string())])
}

/// Builds what fails, and gives the build's id.
#[track_caller]
fn fails(farm: &Farm, dir: &Path) -> String {
    let built = farm.build(dir, &[]);
    assert_eq!(built.0.code, 1, "expected a failure, found\n{}\n{}", built.0.out, built.0.err);
    Built::id(&built)
}

/// `kiln shell` with these arguments, at its prompt.
fn opened(farm: &Farm, arguments: &[&str]) -> Terminal {
    let mut terminal = Terminal::start(&farm.command(&[&["shell"], arguments].concat()));
    terminal.until("ends it");
    // A prompt of our own, which what is echoed does not contain.
    terminal.types("PS1='re''ady> '\r");
    terminal.until("ready> ");
    terminal
}
