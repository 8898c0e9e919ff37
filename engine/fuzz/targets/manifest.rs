//! See `entries::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    entries::manifest(input);
});
