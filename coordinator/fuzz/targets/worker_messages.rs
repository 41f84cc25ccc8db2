#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_coordinator::fuzzing::worker_messages(data));
