//! `kiln build` on a farm of real processes: what users and their CI see.

#![allow(clippy::unwrap_used)]

mod artifacts;
mod checklist;
mod command;
mod daily;
mod kills;
mod lost;
mod refused;
mod steps;

use kiln_harness::project;

/// A `kiln.toml` of one step `work` with this command.
pub(crate) fn work(run: &str, more: &str) -> tempfile::TempDir {
    let config = format!("name = \"p\"\nversion = \"1\"\n[steps.work]\nrun = '''{run}'''\n{more}\n");
    project(&[("kiln.toml", &config), ("in", "input\n")])
}

/// Text that no other build of this run contains.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) const CHAIN: &str = r#"
name = "chain"
version = "1.0"
[steps.one]
inputs = ["in"]
run = "tr a-z A-Z < in > one; echo ran-one"
outputs = ["one"]
[steps.two]
needs = ["one"]
inputs = ["extra"]
run = "mkdir -p d; cat one extra > d/two; ln -s two d/link; chmod +x d/two; echo ran-two"
outputs = ["d"]
[steps.test]
needs = ["two"]
inputs = ["in"]
run = "test -x d/two; cat d/link; echo shard $KILN_SHARD of $KILN_SHARDS"
shards = 3
[artifacts.chain]
from = "two"
files = ["d"]
kind = "archive"
"#;
