//! Projects whose calls are counted.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_harness::{Built, Farm, project, unpack, write};

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
