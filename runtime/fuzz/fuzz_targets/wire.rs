//! Errors that the container's process sends to the runtime.
//! Run with `make fuzz TARGET=wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::wire(bytes));
