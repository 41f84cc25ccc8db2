//! Two contents of one file: the first half of the input and the second.

#![no_main]

use kiln_compare::{Conditions, Limits, Runs};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let conditions = Conditions { began: 1_796_032_931, ended: 1_796_032_932, cpus: 2, host_name: "kiln".into() };
    let runs = Runs { first: &conditions, second: &conditions };
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let found = kiln_compare::contents("file.pyc", first, second, runs, &limits);
    assert_eq!(found.is_empty(), first == second);
});
