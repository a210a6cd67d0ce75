//! Capability sets by name.

use hull_sys::prctl;
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::spec::Capabilities;

/// Names by number.
pub(crate) const NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets as bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapabilityBits {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The bit of a capability; names are taken in any case, with or without `CAP_`.
pub(crate) fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let index = NAMES.iter().position(|known| *known == upper || known.strip_prefix("CAP_") == Some(upper.as_str()))?;
    1u64.checked_shl(u32::try_from(index).ok()?)
}

/// Names in a set of bits.
pub(crate) fn names(bits: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, name)| *name)
}

/// Capabilities this kernel has.
pub(crate) fn known_by_kernel() -> u64 {
    let mut bits = 0u64;
    for number in 0..64u32 {
        if prctl::bounding_has(number).is_none() {
            break;
        }
        bits |= 1u64 << number;
    }
    bits
}

/// Turns the names into bits. An unknown name is logged and left out, as the specification asks.
pub(crate) fn resolve(capabilities: Option<&Capabilities>) -> CapabilityBits {
    let Some(c) = capabilities else { return CapabilityBits::default() };
    let mut unknown = std::collections::BTreeSet::new();
    let mut set = |names: &[String]| -> u64 {
        names.iter().fold(0u64, |bits, name| match bit(name) {
            Some(bit) => bits | bit,
            None => {
                // The same name is usually in several sets.
                unknown.insert(name.clone());
                bits
            }
        })
    };
    let bits = CapabilityBits {
        bounding: set(&c.bounding),
        effective: set(&c.effective),
        permitted: set(&c.permitted),
        inheritable: set(&c.inheritable),
        ambient: set(&c.ambient),
    };
    if !unknown.is_empty() {
        // In runc's words, which others look for.
        let unknown: Vec<String> = unknown.into_iter().collect();
        crate::log::warn(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    // Engines whose inheritable set is empty on purpose (CVE-2022-24769) may still list ambient ones: Buildah does so for each step of a
    // build, and the warning would be in the step's output.
    let tell = if bits.inheritable == 0 { crate::log::info } else { crate::log::warn };
    for name in names(bits.ambient & !(bits.permitted & bits.inheritable)) {
        tell(&format!("can't raise ambient capability {name}: it must be permitted and inheritable"));
    }
    bits
}

/// Logs which capabilities cannot be granted, as the specification demands: those that the runtime itself does not have,
/// among them all that this kernel does not know.
pub(crate) fn tell_missing(bits: &CapabilityBits) {
    let Ok(own) = prctl::capabilities() else { return };
    let missing = (bits.bounding | bits.effective | bits.permitted) & !own.permitted;
    if missing != 0 {
        let names: Vec<&str> = names(missing).collect();
        crate::log::warn(&format!("process.capabilities: the runtime has no {} to give on", names.join(", ")));
    }
}

/// Drops everything outside the bounding set; needs CAP_SETPCAP, so it comes before the change of ids.
pub(crate) fn limit_bounding(bits: &CapabilityBits) -> Result<()> {
    for number in 0..64u32 {
        if bits.bounding >> number & 1 == 1 {
            continue;
        }
        match prctl::bounding_drop(number) {
            Ok(()) => {}
            // Past the last one.
            Err(Errno::INVAL) => return Ok(()),
            Err(e) => {
                let error = Error::os(Code::Capabilities, "process.capabilities.bounding", e);
                return Err(error.says("of the bounding set"));
            }
        }
    }
    Ok(())
}

/// Writes the other four sets, after the change of ids.
pub(crate) fn apply(bits: &CapabilityBits) -> Result<()> {
    let now = prctl::capabilities().doing(Code::Capabilities, "process.capabilities", "")?;
    // Nobody can get what the runtime itself does not have.
    let sets = prctl::CapabilitySets {
        effective: bits.effective & bits.permitted & now.permitted,
        permitted: bits.permitted & now.permitted,
        inheritable: bits.inheritable & (now.permitted | now.inheritable),
    };
    prctl::set_capabilities(sets).doing(
        Code::Capabilities,
        "process.capabilities",
        "of the effective, permitted and inheritable sets",
    )?;
    prctl::ambient_clear().doing(Code::Capabilities, "process.capabilities.ambient", "of the ambient set")?;
    let ambient = bits.ambient & sets.permitted & sets.inheritable;
    for number in 0..64u32 {
        if ambient >> number & 1 == 1 {
            prctl::ambient_raise(number).doing(
                Code::Capabilities,
                "process.capabilities.ambient",
                "of the ambient set",
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_form() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("net_raw"), Some(1 << 13));
        assert_eq!(bit("CAP_NOPE"), None);
        assert_eq!(names(1 << 40).collect::<Vec<_>>(), ["CAP_CHECKPOINT_RESTORE"]);
    }

    #[test]
    fn absent_capabilities_are_none_at_all() {
        assert_eq!(resolve(None), CapabilityBits::default());
    }
}
