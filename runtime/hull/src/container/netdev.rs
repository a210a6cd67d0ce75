//! Host network devices that move into the container (`linux.netDevices`).
//!
//! The kernel takes a device down and drops its addresses when it moves to another namespace; hull restores the permanent ones.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hull_sys::namespace as ns;
use hull_sys::net;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::netlink::{Request, attributes, field};
use crate::error::{Code, Context, Error, Result};
use crate::spec::NetDevice;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// An address: what its message says, with the host's index of the device.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Address, local address, broadcast address: type and value.
    values: Vec<(u16, Vec<u8>)>,
}

/// Moves all devices into the network namespace of `pid`.
pub(super) fn move_all(devices: &BTreeMap<String, NetDevice>, pid: i32) -> Result<()> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(Code::Network, path)
    };
    let (host, container) = (open("/proc/thread-self/ns/net")?, open(&format!("/proc/{pid}/ns/net"))?);
    let socket = net::route_socket().context(Code::Network, "netlink")?;
    for (name, device) in devices {
        let wanted = device.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
        for n in [name.as_str(), wanted] {
            if n.is_empty() || n.len() > 15 || n == "." || n == ".." || n.contains(['/', ':', ' ']) {
                let text = format!("linux.netDevices: {n:?} is not an interface name");
                return Err(Error::invalid(format!("linux.netDevices[{name}]"), text));
            }
        }
        let index = net::interface_index(name).context(Code::Network, name)?;
        let addresses =
            lasting_addresses(&socket, index).doing(Code::Network, name, &format!("addresses of {name}"))?;
        let inside = within(&container, &host, || free_name(wanted).context(Code::Network, wanted))?;
        set_link(index, &inside, container.as_raw_fd())
            .and_then(|r| r.done_by(&socket))
            .context(Code::Network, name)?;
        within(&container, &host, || {
            settle(&inside, &addresses).doing(Code::Network, &inside, &format!("setting {inside} up in the container"))
        })?;
    }
    Ok(())
}

/// Does something in the container's network namespace.
fn within<T>(container: &OwnedFd, host: &OwnedFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    ns::setns(container.as_fd(), ns::NETWORK).context(Code::NamespaceJoin, "network")?;
    let done = work();
    ns::setns(host.as_fd(), ns::NETWORK).doing(Code::NamespaceJoin, "network", "the host's network")?;
    done
}

/// The name that a pattern like `eth%d` stands for.
fn free_name(wanted: &str) -> Result<String, Errno> {
    if !wanted.contains("%d") {
        return Ok(wanted.to_owned());
    }
    (0..4096u32)
        .map(|n| wanted.replace("%d", &n.to_string()))
        .find(|name| matches!(net::interface_index(name), Err(Errno::NODEV | Errno::NAMETOOLONG)))
        .ok_or(Errno::NFILE)
}

/// Names and moves an interface.
fn set_link(index: u32, name: &str, namespace: i32) -> Result<Request, Errno> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_NET_NS_FD: u16 = 28;
    let text = [name.as_bytes(), b"\0"].concat();
    Request::new(RTM_NEWLINK, &link(index, 0))
        .attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes())?
        .attribute(IFLA_IFNAME, &text)
}

/// `struct ifinfomsg`: family, pad, type, index, flags, which of the flags change.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// The addresses that the specification keeps: permanent ones of global scope.
fn lasting_addresses(socket: &OwnedFd, index: u32) -> Result<Vec<Address>, Errno> {
    let mut addresses = Vec::new();
    // The kernel lists all addresses of all devices.
    Request::new(RTM_GETADDR, &[0; 8]).dump(socket, |kind, body| {
        if kind == RTM_NEWADDR && field(body, 4).map(u32::from_ne_bytes) == Some(index) {
            addresses.extend(lasting_address(body));
        }
    })?;
    Ok(addresses)
}

fn lasting_address(body: &[u8]) -> Option<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    const IFA_FLAGS: u16 = 8;
    const PERMANENT: u32 = 0x80;
    const UNIVERSE: u8 = 0;
    // struct ifaddrmsg: family, prefix, flags, scope, index
    let [family, prefix, flags, scope] = field(body, 0)?;
    let mut flags = u32::from(flags);
    let mut values = Vec::new();
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_FLAGS => flags = u32::from_ne_bytes(field(value, 0)?),
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => values.push((kind, value.to_vec())),
            _ => {}
        }
    }
    (flags & PERMANENT != 0 && scope == UNIVERSE).then_some(Address { family, prefix, flags, values })
}

/// Gives an interface of this network namespace its addresses, and sets it up.
fn settle(name: &str, addresses: &[Address]) -> Result<(), Errno> {
    const IFA_FLAGS: u16 = 8;
    // Home address, temporary addresses derived from it, no route for its prefix, multicast group joined: the flags that a caller can set.
    const KEPT: u32 = 0x10 | 0x100 | 0x200 | 0x400;
    const IFF_UP: u32 = 1;
    let socket = net::route_socket()?;
    let index = net::interface_index(name)?;
    for address in addresses {
        let [a, b, c, d] = index.to_ne_bytes();
        let structure = [address.family, address.prefix, 0, 0, a, b, c, d];
        let flags = (address.flags & KEPT).to_ne_bytes();
        let mut request = Request::new(RTM_NEWADDR, &structure).attribute(IFA_FLAGS, &flags)?;
        for (kind, value) in &address.values {
            request = request.attribute(*kind, value)?;
        }
        request.done_by(&socket)?;
    }
    Request::new(RTM_NEWLINK, &link(index, IFF_UP)).done_by(&socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(flags: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Option<Address> {
        let mut body = vec![2, 24, flags, scope, 7, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend_from_slice(&u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
        }
        lasting_address(&body)
    }

    #[test]
    fn addresses_that_last_are_kept() {
        let local: (u16, &[u8]) = (2, &[10, 0, 0, 1]);
        let kept = address(0x80, 0, &[local, (3, b"eth0")]).unwrap();
        assert_eq!((kept.family, kept.prefix, kept.values), (2, 24, vec![(2, vec![10, 0, 0, 1])]));
        assert_eq!(address(0, 0, &[local]), None, "one with an end");
        assert_eq!(address(0x80, 253, &[local]), None, "one of the link");
        // All flags are in an attribute; the byte has the first eight.
        assert_eq!(address(0, 0, &[local, (8, &0x280u32.to_ne_bytes())]).unwrap().flags, 0x280);
    }
}
