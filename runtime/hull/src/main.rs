//! The runtime as a program.

#![no_main]

hull_sys::program!(hull::cli::main);
