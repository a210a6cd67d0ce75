//! System calls that rustix does not have, one a function; the only unsafe code of the repository.

mod raw;
pub mod seccomp;
