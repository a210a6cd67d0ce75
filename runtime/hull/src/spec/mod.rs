//! The OCI runtime specification 1.3 as Rust types.
//!
//! Properties the specification does not name are skipped, as it demands; `null` reads as absent everywhere,
//! because callers written in Go produce it.
//!
//! Every type has a default, so that a configuration is built from what differs, or read from JSON:
//!
//! ```
//! use hull::spec::{Linux, Mount, Namespace, NamespaceType, Process, Resources, Root, Spec, resources};
//!
//! let spec = Spec {
//!     oci_version: "1.3.0".into(),
//!     root: Some(Root { path: "rootfs".into(), readonly: true }),
//!     process: Some(Process { args: vec!["/bin/web".into()], cwd: "/".into(), ..Process::default() }),
//!     mounts: vec![Mount {
//!         destination: "/data".into(),
//!         source: Some("/srv/data".into()),
//!         options: vec!["rbind".into(), "ro".into()],
//!         ..Mount::default()
//!     }],
//!     linux: Some(Linux {
//!         namespaces: vec![Namespace { r#type: NamespaceType::Mount, path: None }],
//!         resources: Some(Resources { pids: Some(resources::Pids { limit: Some(100) }), ..Resources::default() }),
//!         ..Linux::default()
//!     }),
//!     ..Spec::default()
//! };
//! let read: Spec = serde_json::from_str(&serde_json::to_string(&spec)?)?;
//! assert_eq!(read.mounts[0].options, ["rbind", "ro"]);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod config;
mod linux;
mod objects;
mod place;
mod process;
pub mod resources;
pub mod seccomp;

pub use config::{Hook, Hooks, IdMapping, Mount, Root, Spec};
pub use linux::{Device, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType, NetDevice, Personality, TimeOffset};
pub(crate) use objects::from_slice;
use objects::{named_objects, object, object_or_default, objects};
pub use process::{Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::Resources;
pub use seccomp::Seccomp;

use serde::{Deserialize, Deserializer};

use crate::error::Error;

/// Reads a document that is an object, such as `config.json`. `file` is its name; `parent` the property whose value it is, if it is not a
/// whole configuration.
pub(crate) fn read<'de, T: Deserialize<'de>>(json: &'de [u8], file: &str, parent: &str) -> crate::error::Result<T> {
    from_slice(json).map_err(|error| {
        let property = place::of_error(json, &error, parent);
        if property.is_empty() {
            return Error::invalid(file, format!("{file}: {error}"));
        }
        Error::invalid(property.as_str(), format!("{file}: {property}: {error}"))
    })
}

/// Reads `null` as the empty value.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
