//! The runtime as a program.

#![no_main]

hull_sys::program!(hull::cli::main);
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
hull_sys::early_start!(hull_early_start);
