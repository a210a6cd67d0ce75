//! Seccomp profiles: compiled, within the kernel's limits, or refused.
//! Run with `make fuzz TARGET=seccomp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hull::fuzz::seccomp(bytes));
