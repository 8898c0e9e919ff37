//! See `entries::loader`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    entries::loader(input);
});
