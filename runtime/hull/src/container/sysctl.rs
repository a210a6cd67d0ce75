//! Kernel parameters of the container's namespaces.
//!
//! They are written through the host's procfs, opened before any mount of the container exists; what a key names there
//! depends on the namespaces of the writer.

use crate::error::{Code, Context, Error, Result};
use crate::procfs::Proc;
use crate::spec::{Linux, NamespaceType, Spec};

/// Keys of the IPC namespace.
const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// A key with dots as separators, however it was written: if its first separator is a slash, dots belong to names.
fn parts(key: &str) -> Vec<String> {
    let slash_first = key.find('/').is_some_and(|s| key.find('.').is_none_or(|d| s < d));
    if slash_first {
        key.split('/').map(str::to_owned).collect()
    } else {
        key.split('.').map(|p| p.replace('/', ".")).collect()
    }
}

fn property(key: &str) -> String {
    format!("linux.sysctl[{key}]")
}

/// Refuses keys that do not belong to the container's namespaces.
pub(crate) fn check(key: &str, has: &dyn Fn(NamespaceType) -> bool) -> Result<()> {
    let parts = parts(key);
    if parts.iter().any(|p| p.is_empty() || p == "..") {
        return Err(Error::invalid(property(key), format!("linux.sysctl: {key:?} is not a key")));
    }
    let dotted = parts.join(".");
    let needs = |kind, name: &str| {
        if has(kind) {
            Ok(())
        } else {
            Err(Error::invalid(property(key), format!("linux.sysctl {key} needs its own {name} namespace")))
        }
    };
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        needs(NamespaceType::Ipc, "ipc")
    } else if dotted.starts_with("net.") {
        needs(NamespaceType::Network, "network")
    } else if dotted.starts_with("user.") {
        needs(NamespaceType::User, "user")
    } else if matches!(dotted.as_str(), "kernel.domainname" | "kernel.hostname") {
        needs(NamespaceType::Uts, "uts")
    } else {
        let text = format!("linux.sysctl {key} is not kept apart by any namespace: it would change the host's");
        Err(Error::invalid(property(key), text))
    }
}

/// Refuses a name that the configuration says twice, and not the same.
pub(crate) fn check_names(spec: &Spec, key: &str, value: &str) -> Result<()> {
    let (field, name) = match parts(key).join(".").as_str() {
        "kernel.hostname" => ("hostname", &spec.hostname),
        "kernel.domainname" => ("domainname", &spec.domainname),
        _ => return Ok(()),
    };
    match name.as_deref().filter(|name| !name.is_empty() && *name != value) {
        None => Ok(()),
        Some(name) => {
            let text = format!("linux.sysctl {key} is {value:?}, but {field} is {name:?}: leave one of them out");
            Err(Error::invalid(property(key), text))
        }
    }
}

/// Writes the configured parameters.
pub(crate) fn apply(proc: &Proc, linux: &Linux) -> Result<()> {
    linux.sysctl.iter().try_for_each(|(key, value)| {
        let path = format!("sys/{}", parts(key).join("/"));
        proc.write(&path, value.as_bytes()).doing(Code::Sysctl, &property(key), &format!("{key}={value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_swap_after_a_leading_slash() {
        assert_eq!(parts("net.ipv4.conf.eth0/1.forwarding"), ["net", "ipv4", "conf", "eth0.1", "forwarding"]);
        assert_eq!(parts("net/ipv4/conf/eth0.1/forwarding"), ["net", "ipv4", "conf", "eth0.1", "forwarding"]);
    }

    #[test]
    fn host_wide_keys_are_refused() {
        let all = |_| true;
        assert!(check("kernel.core_pattern", &all).is_err());
        assert!(check("net.ipv4.ip_forward", &all).is_ok());
        assert!(check("net.ipv4.ip_forward", &|_| false).is_err());
        assert!(check("net/../kernel/core_pattern", &all).is_err());
    }
    #[test]
    fn a_name_that_is_said_twice_must_be_the_same() {
        let spec = Spec { hostname: Some("one".to_owned()), ..Spec::default() };
        assert!(check_names(&spec, "kernel.hostname", "one").is_ok());
        assert!(check_names(&spec, "kernel.domainname", "two").is_ok());
        let error = check_names(&spec, "kernel/hostname", "two").unwrap_err().to_string();
        assert!(error.contains("\"two\", but hostname is \"one\""), "{error}");
    }
}
