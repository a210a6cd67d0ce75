//! Mount options of any type of mount.
//! Run with `make fuzz TARGET=mount_options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::mount_options(bytes));
