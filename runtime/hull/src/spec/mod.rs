//! The OCI runtime specification 1.3 as Rust types.
//!
//! Properties the specification does not name are skipped, as it demands; `null` reads as absent everywhere,
//! because callers written in Go produce it.

pub mod config;
pub mod linux;
pub mod process;
pub mod resources;
pub mod seccomp;

pub use config::{Hook, Hooks, IdMapping, Mount, Root, Spec};
pub use linux::{Device, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType, NetDevice, Personality, TimeOffset};
pub use process::{Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::Resources;
pub use seccomp::Seccomp;

use serde::{Deserialize, Deserializer};

/// Reads `null` as the empty value.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
