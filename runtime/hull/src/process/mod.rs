//! The container's process: identity, rights, limits and the execve.

pub(crate) mod caps;
pub(crate) mod filter;
pub(crate) mod labels;
pub(crate) mod landlock;
pub(crate) mod launch;
pub(crate) mod limits;
pub(crate) mod notify;
pub(crate) mod own_binary;
mod syscalls;
pub(crate) mod wasm;
