//! System calls that rustix does not have, one a function; the only unsafe code of the repository.
//!
//! Everything here is a safe function: what could make a call unsound (a fork in a threaded process, a pointer that
//! dies too early) is checked or owned inside. Calls that rustix has are taken from there.

pub mod bpf;
pub mod config;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub mod early;
pub mod entry;
pub mod fd;
pub mod keyring;
pub mod landlock;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod own_clone;
pub mod pidfd;
pub mod prctl;
pub mod process;
pub mod ptrace;
mod raw;
pub mod sandbox_mount;
pub mod sandbox_process;
pub mod sched;
pub mod seccomp;
pub mod signal;
