//! Dockerfiles made of pieces at random. A run prints its seed; `KILN_FUZZ_SEED=…` repeats it.

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The number of files.
const FILES: usize = 4_000;

const NAMES: [&str; 22] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
    "run",
    "Copy",
    "ONBUILD RUN",
    "ONBUILD COPY",
];
const FLAGS: [&str; 9] = [
    "--mount=type=cache,target=/x",
    "--link",
    "--from=\"a b\"",
    "--x='y'",
    "--chown=a\\ b",
    "--",
    "--a=\"",
    "--platform=$X",
    "-x",
];
const PIECES: [&str; 34] = [
    "a",
    "/b/",
    "c=d",
    "e=\"f g\"",
    "h='i",
    "\"j\"",
    "'k'",
    "\\",
    "\\\\",
    "\\ ",
    "$X",
    "${X}",
    "[\"l\", \"m\"]",
    "[1]",
    "[\"n\"",
    "<<EOF",
    "<<-EOF",
    "<<'EOF'",
    "<<A <<B",
    "2<<A",
    "<<",
    "<<<A",
    "#",
    "# o",
    "=",
    "CMD",
    "NONE",
    "ä",
    "\t",
    ",",
    "--p",
    "`",
    "q`",
    "RUN",
];
const ENDS: [&str; 14] = [
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\n\n",
    " \\\n",
    "\\\n",
    " \\ \n",
    "\n# comment\n",
    " \\\n\n",
    " \\\n# comment\n",
    "\nEOF\n",
    "\nA\nB\n",
    "\n\tEOF\n",
];

fn line() -> impl Strategy<Value = String> {
    let select = |of: &'static [&'static str]| prop::sample::select(of);
    let words = prop::collection::vec(select(&PIECES), 0..5);
    let flags = prop::collection::vec(select(&FLAGS), 0..3);
    let between = prop::sample::select(&[" ", "  ", "\t", " "][..]);
    (prop::option::weighted(0.9, select(&NAMES)), flags, words, between, select(&ENDS)).prop_map(
        |(name, flags, words, between, end)| {
            let parts: Vec<&str> = name.into_iter().chain(flags).chain(words).collect();
            format!("{}{end}", parts.join(between))
        },
    )
}

fn file() -> impl Strategy<Value = String> {
    let first = prop::sample::select(
        &["", "", "# escape=`\n", "# escape=\\\n# check=skip=all\n", "#\n", "\u{feff}", "  \n"][..],
    );
    (first, prop::collection::vec(line(), 1..6)).prop_map(|(first, lines)| format!("{first}{}", lines.concat()))
}

pub fn files() -> Vec<String> {
    let given = std::env::var("KILN_FUZZ_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    eprintln!("{FILES} files of KILN_FUZZ_SEED={seed}");
    let mut start = [0; 32];
    start[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &start));
    let strategy = file();
    (0..FILES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}
