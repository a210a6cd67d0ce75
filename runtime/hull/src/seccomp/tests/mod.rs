//! Each program is run by an interpreter of the kernel's rules; libseccomp is the oracle.

mod behaviour;
mod cached;
mod decided;
mod differential;
mod interpreter;
mod oracle;
pub(crate) mod random;

use crate::spec::Seccomp;

/// moby's default profile as its daemon writes it for a container with the default capabilities.
const MOBY: &str = include_str!("moby-default.json");

fn profile(json: &str) -> Seccomp {
    serde_json::from_str(json).unwrap()
}
