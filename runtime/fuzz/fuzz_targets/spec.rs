//! `config.json`: parsed, checked, compiled as `create` does before it makes anything.
//! Run with `cargo +nightly fuzz run --fuzz-dir runtime/fuzz spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::spec(bytes));
