//! The host's own network: what the agent reads of it, and the one thing that it switches on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::link::{self, LinkError};
use super::slot::{INTERFACE_PREFIX, Subnets, SubnetsUsed};

/// The host's IPv4 addresses, by interface.
pub(super) fn addresses() -> Vec<(String, Ipv4Addr)> {
    let output = std::process::Command::new("ip").args(["-4", "-j", "address"]).output();
    let Ok(output) = output else { return Vec::new() };
    let Ok(links) = serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout) else { return Vec::new() };
    links
        .iter()
        .flat_map(|link| {
            let name = link["ifname"].as_str().unwrap_or_default().to_owned();
            let infos = link["addr_info"].as_array().cloned().unwrap_or_default();
            infos.into_iter().filter_map(move |info| Some((name.clone(), info["local"].as_str()?.parse().ok()?)))
        })
        .collect()
}

/// The addresses for this home's workspaces: those that its interfaces have, else ones that no other interface here has.
pub(crate) fn choose_subnets(configured: Subnets, home: &Path) -> Result<Subnets, SubnetsUsed> {
    let prefix = configured.named_for(home).prefix();
    let (ours, others): (Vec<_>, Vec<_>) = addresses().into_iter().partition(|(name, _)| name.starts_with(&prefix));
    let others: Vec<Ipv4Addr> = others.into_iter().map(|(_, address)| address).collect();
    configured.for_home(home, ours.first().map(|(_, address)| *address), &others)
}

/// The host's own addresses, without those towards workspaces.
pub(super) fn own_addresses() -> BTreeSet<Ipv4Addr> {
    addresses()
        .into_iter()
        .filter(|(name, _)| !name.starts_with(INTERFACE_PREFIX))
        .map(|(_, address)| address)
        .collect()
}

/// The host's name servers, and one of them that only its loopback reaches.
pub(super) fn name_servers() -> (Vec<Ipv4Addr>, Option<Ipv4Addr>) {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<Ipv4Addr> =
        text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok()).collect();
    let loopback = servers.iter().copied().find(Ipv4Addr::is_loopback);
    (servers.into_iter().filter(|server| !server.is_loopback()).collect(), loopback)
}

pub(super) fn forwarding(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding")
}

pub(super) fn uplinks_file(root: &Path) -> PathBuf {
    root.with_file_name("uplinks")
}

/// Answers come in through the interfaces of the default route, so forwarding must be on there. The interfaces on which we switched it on are
/// recorded, so that a restarted agent still knows to switch it off.
pub(super) fn switch_forwarding_on(root: &Path) -> Result<Vec<String>, LinkError> {
    let file = uplinks_file(root);
    let mut switched: BTreeSet<String> =
        std::fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    // Destination and mask zero: the default route.
    let uplinks: BTreeSet<String> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields.get(1) == Some(&"00000000")).then(|| fields.first().map(|name| (*name).to_owned())).flatten()
        })
        .collect();
    for uplink in &uplinks {
        if std::fs::read_to_string(forwarding(uplink)).is_ok_and(|value| value.trim() == "0") {
            switched.insert(uplink.clone());
            let list = switched.iter().cloned().collect::<Vec<_>>().join("\n");
            std::fs::write(&file, list).map_err(|source| LinkError::Setting {
                path: file.display().to_string(),
                value: uplink.clone(),
                source,
            })?;
            link::set(&forwarding(uplink), "1")?;
        }
    }
    Ok(switched.intersection(&uplinks).cloned().collect())
}
