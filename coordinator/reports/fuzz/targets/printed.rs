//! What a test runner prints, which may be anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (out, err) = data.split_at(data.len() / 3 * 2);
    let limits = kiln_reports::Limits { tests: 100, ..kiln_reports::Limits::default() };
    let _ = kiln_reports::read_output(out, err, &limits);
});
