//! State files: what is read is written and read again the same.
//! Run with `make fuzz TARGET=state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::state(bytes));
