//! `config.json`: parsed, checked, compiled as `create` does before it makes anything.
//! Run with `make fuzz TARGET=spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::spec(bytes));
