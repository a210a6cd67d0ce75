//! State files: what is read is written and read again the same.
//! Run with `cargo +nightly fuzz run --fuzz-dir runtime/fuzz state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::state(bytes));
