//! The runtime as others use it: the program and the library, on real containers.
//!
//! Needs root, cgroups and a static busybox; without them each test says what is missing and passes.

mod bundle;
mod library;
mod program;
