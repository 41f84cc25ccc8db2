//! Reports of tests, which any step may write.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = kiln_reports::read(data, &kiln_reports::Limits::default());
});
