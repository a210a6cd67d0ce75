//! Resolves a workspace's private hosts: the addresses to open, and the names that must resolve to them inside.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::host;
use super::rules::{Opening, OpeningKind};

/// What `allowPrivateHosts` come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// To open.
    pub openings: Vec<Opening>,
    /// Names with the address that was opened: inside the workspace they must not resolve to another.
    pub names: Vec<(String, Ipv4Addr)>,
    /// Entries without an IPv4 address.
    pub unresolved: Vec<String>,
}

/// Which openings `host:port` entries come to now, and the names to write into the workspace's hosts file. Entries that cannot be
/// resolved are left out and named: the start goes on, what needs them will say so.
pub async fn resolve(allow: &[String]) -> Resolved {
    let mut resolved = Resolved::default();
    // Asked of a program, so only when there is something to compare with.
    let mut own: Option<BTreeSet<Ipv4Addr>> = None;
    for entry in allow {
        let Some((host, port)) = split_host_port(entry) else {
            resolved.unresolved.push(entry.clone());
            continue;
        };
        let addresses: Vec<Ipv4Addr> = match tokio::net::lookup_host((host.as_str(), port)).await {
            Ok(found) => found
                .filter_map(|address| match address {
                    SocketAddr::V4(v4) => Some(*v4.ip()),
                    SocketAddr::V6(_) => None,
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        if addresses.is_empty() {
            resolved.unresolved.push(entry.clone());
        }
        for address in addresses {
            let kind = if address.is_loopback() {
                OpeningKind::Loopback
            } else {
                if own.is_none() {
                    own = tokio::task::spawn_blocking(host::own_addresses).await.ok();
                }
                let ours = own.as_ref().is_some_and(|own| own.contains(&address));
                if ours { OpeningKind::Host } else { OpeningKind::Forwarded }
            };
            resolved.openings.push(Opening { address, port, kind });
            if host.parse::<IpAddr>().is_err() && host != "localhost" {
                resolved.names.push((host.clone(), address));
            }
        }
    }
    resolved.openings.sort();
    resolved.openings.dedup();
    // The loopback map has one address a port.
    let mut seen = BTreeSet::new();
    resolved.openings.retain(|opening| opening.kind != OpeningKind::Loopback || seen.insert(opening.port));
    resolved.names.dedup();
    resolved
}

fn split_host_port(entry: &str) -> Option<(String, u16)> {
    let (host, port) = entry.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.len() <= 253 && host.chars().all(good)).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_hosts_are_split_strictly() {
        assert_eq!(split_host_port("Git.Internal:8080"), Some(("git.internal".to_owned(), 8080)));
        for text in ["x", "x:", "x:0", ":80", "x:99999", "a b:1", "a/b:1", "a\nb:1"] {
            assert_eq!(split_host_port(text), None, "{text:?}");
        }
    }
}
