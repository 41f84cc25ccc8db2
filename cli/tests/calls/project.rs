//! Projects whose calls are counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_harness::{Built, Farm, project, unpack, until, write};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A `kiln.toml` with one step, which leaves `out`.
pub(crate) fn config(name: &str, run: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1\"\n[steps.build]\nrun = '''\n{run}\n'''\noutputs = [\"out\"]\n{more}\n\
         [artifacts.all]\nfrom = \"build\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
    )
}

/// A C project of some files with own and generated headers. No project of another name has files of equal content.
pub(crate) fn c_project(name: &str, more: &str) -> tempfile::TempDir {
    let run = "make -s -j4 && mkdir out && cp prog obj/*.o obj/*.d out";
    let makefile = "OBJECTS = $(patsubst src/%.c,obj/%.o,$(sort $(wildcard src/*.c)))\n\
        prog: $(OBJECTS)\n\tcc -o $@ $(OBJECTS)\n\
        obj/%.o: src/%.c made.h\n\t@mkdir -p obj\n\tcc -O1 -g -Wall -Ifirst -Isecond -I. -MMD -c -o $@ $<\n\
        made.h:\n\techo '#define MADE 4' > made.h\n";
    let dir = project(&[
        ("kiln.toml", &config(name, run, more)),
        ("Makefile", makefile),
        ("second/own.h", "#define OWN 3\n"),
        ("first/none.h", ""),
    ]);
    for number in 1..=6 {
        let text = format!(
            "// {name}\n#include <stdio.h>\n#include \"own.h\"\n#include \"made.h\"\nint f{number}(int x) {{ printf(\"%d\", OWN + MADE); return x * {number}; }}\n"
        );
        write(dir.path(), &format!("src/f{number}.c"), &text);
    }
    write(dir.path(), "src/main.c", &format!("// {name}\nint f1(int);\nint main(void) {{ return f1(0); }}\n"));
    dir
}

/// Where a step waits until its test lets it go on. A step sees no file of the test's, but the test sees the step's processes.
pub(crate) struct Gate(String);

impl Gate {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // No other process sleeps for as long.
        Self(format!("{}.{}", 10_000_000 + std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The command at which a step waits.
    pub(crate) fn wait(&self) -> String {
        format!("{{ sleep {} || :; }}", self.0)
    }

    /// Waits until the step is there.
    pub(crate) fn reached(&self) -> Pid {
        let words = format!("sleep\0{}\0", self.0);
        let waits = |entry: &std::fs::DirEntry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == words.as_bytes())
        };
        let found = until("the step to be at its gate", || std::fs::read_dir("/proc").unwrap().flatten().find(waits));
        Pid::from_raw(found.file_name().to_str().unwrap().parse().unwrap())
    }

    /// Waits until the step is there, and lets it go on.
    pub(crate) fn open(&self) {
        kill(self.reached(), Signal::SIGTERM).unwrap();
    }
}

/// What became of the calls of a build's only step that ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) hits: u64,
    pub(crate) compiled: u64,
    pub(crate) elsewhere: u64,
    pub(crate) refused: BTreeMap<String, u64>,
}

impl Calls {
    /// Calls that ran apart from their step, wherever.
    pub(crate) fn ran(&self) -> u64 {
        self.compiled + self.elsewhere
    }
}

pub(crate) fn calls(built: &Built, step: &str) -> Calls {
    let finished = built.of_type("step_finished").into_iter().find(|event| event["step"] == step);
    let calls = finished.unwrap()["calls"].clone();
    let refused = calls["refused"].as_object().cloned().unwrap_or_default();
    Calls {
        hits: calls["hits"].as_u64().unwrap_or_default(),
        compiled: calls["compiled"].as_u64().unwrap_or_default(),
        elsewhere: calls["elsewhere"].as_u64().unwrap_or_default(),
        refused: refused.into_iter().map(|(reason, count)| (reason, count.as_u64().unwrap())).collect(),
    }
}

/// Hits and compiled ones of the step `build`, wherever they were compiled.
pub(crate) fn counts(built: &Built) -> (u64, u64) {
    let calls = calls(built, "build");
    (calls.hits, calls.ran())
}

/// Every file of the build's `out`, by name.
pub(crate) fn outputs(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let unpacked = unpack(&dir.join("kiln-out"));
    let out = unpacked.path().join("out");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&out).unwrap_or_else(|error| panic!("{}: {error}", out.display())).flatten() {
        let path = entry.path();
        if path.is_file() {
            found.insert(entry.file_name().into_string().unwrap(), std::fs::read(path).unwrap());
        }
    }
    assert!(!found.is_empty());
    found
}

/// Builds, and answers what the build left.
pub(crate) fn built(farm: &Farm, dir: &Path) -> (Built, BTreeMap<String, Vec<u8>>) {
    let built = farm.build(dir, &[]).well();
    let left = outputs(dir);
    (built, left)
}
