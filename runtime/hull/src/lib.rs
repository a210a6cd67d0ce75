//! An OCI runtime: create, start, enter and delete containers.

pub mod seccomp;
pub mod spec;
