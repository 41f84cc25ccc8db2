//! Several coordinators are one farm: one leads, and when it is killed, stopped, cut off or replaced, another takes over, without anybody
//! having to do anything.
//!
//! The long form: `KILN_FAILOVER_BUILDS=300 cargo test -p kiln-cli --test failover soak -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

mod faults;
mod invocations;
mod joined;
mod members;
mod recorded;
mod rolling;
mod split;
mod storm;
mod trials;

use std::path::Path;

use kiln_harness::{Built, project};

/// A project whose artifact is known in advance, and whose steps take so many tenths of a second.
fn tree(word: &str, tenths: u32) -> tempfile::TempDir {
    let config = format!(
        "name = \"made\"\nversion = \"1\"\n\
         [steps.deps]\ninputs = [\"in.txt\"]\nrun = \"\"\"for t in $(seq {tenths}); do sleep 0.1; echo deps $t; done\n\
         read word < in.txt; for line in $(seq 2000); do echo $line $word; done > layer\"\"\"\noutputs = [\"layer\"]\n\
         [steps.compile]\nneeds = [\"deps\"]\nrun = \"\"\"for t in $(seq {tenths}); do sleep 0.1; echo compile $t; done\n\
         sed 's/^/made /' layer > made\"\"\"\noutputs = [\"made\"]\n\
         [artifacts.made]\nfrom = \"compile\"\nfiles = [\"made\"]\nkind = \"binary\"\ncheck_elf = false\n"
    );
    project(&[("kiln.toml", &config), ("in.txt", &format!("{word}\n"))])
}

/// Why what a build left is not what it should have left, if it is not.
fn wrong(built: &Built, dir: &Path, word: &str) -> Option<String> {
    let made = kiln_harness::find(&dir.join("kiln-out"), "made").and_then(|path| std::fs::read_to_string(path).ok());
    let expected: String = (1..=2000).map(|line| format!("made {line} {word}\n")).collect();
    let is_right = built.0.code == 0 && made.as_ref() == Some(&expected);
    (!is_right).then(|| format!("build of {word} ended with {}: {}\n{}", built.0.code, built.0.out, built.0.err))
}
