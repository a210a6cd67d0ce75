//! Command lines, words separated by null bytes.
//! Run with `make fuzz TARGET=command_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::command_line(bytes));
