#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| schoolgate_proxy::fuzzing::chunks(input));
