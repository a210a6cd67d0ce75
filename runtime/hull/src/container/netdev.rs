//! Host network devices that move into the container (`linux.netDevices`).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::spec::NetDevice;

/// Moves all devices into the network namespace of `pid`.
pub(super) fn move_all(devices: &BTreeMap<String, NetDevice>, pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(Code::Network, &path)?;
    let socket = hull_sys::net::route_socket().context(Code::Network, "netlink")?;
    for (name, device) in devices {
        let inside = device.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
        for n in [name.as_str(), inside] {
            if n.is_empty() || n.len() > 15 || n == "." || n == ".." || n.contains(['/', ':', ' ']) {
                return Err(Error::new(
                    Code::ConfigInvalid,
                    format!("linux.netDevices: {n:?} is not an interface name"),
                ));
            }
        }
        let index = hull_sys::net::interface_index(name).context(Code::Network, name)?;
        let message = set_link(index, inside, namespace.as_raw_fd()).context(Code::Network, name)?;
        let mut answer = [0u8; 4096];
        let n = hull_sys::net::netlink_exchange(socket.as_fd(), &message, &mut answer).context(Code::Network, name)?;
        acknowledge(answer.get(..n).unwrap_or(&[])).context(Code::Network, name)?;
    }
    Ok(())
}

/// `RTM_NEWLINK` that names, moves and brings up one interface.
fn set_link(index: u32, name: &str, namespace: i32) -> Result<Vec<u8>, Errno> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 1 | 4;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_NET_NS_FD: u16 = 28;
    let mut body = Vec::with_capacity(64);
    // struct ifinfomsg: family, pad, type, index, flags, change mask
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&0u32.to_ne_bytes());
    body.extend_from_slice(&0u32.to_ne_bytes());
    attribute(&mut body, IFLA_NET_NS_FD, &namespace.to_ne_bytes())?;
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    attribute(&mut body, IFLA_IFNAME, &text)?;
    let total = u32::try_from(body.len().saturating_add(16)).map_err(|_| Errno::OVERFLOW)?;
    let mut message = Vec::with_capacity(body.len().saturating_add(16));
    message.extend_from_slice(&total.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&1u32.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&body);
    Ok(message)
}

/// Appends an attribute; its length must fit the wire's 16 bits (CVE-2021-43784).
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), Errno> {
    let len = u16::try_from(value.len().saturating_add(4)).map_err(|_| Errno::OVERFLOW)?;
    body.extend_from_slice(&len.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    while !body.len().is_multiple_of(4) {
        body.push(0);
    }
    Ok(())
}

fn acknowledge(answer: &[u8]) -> Result<(), Errno> {
    const NLMSG_ERROR: u16 = 2;
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(code.saturating_neg())),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_an_error_on_the_wire() {
        assert_eq!(attribute(&mut Vec::new(), 1, &vec![0; 70_000]), Err(Errno::OVERFLOW));
    }

    #[test]
    fn messages_are_aligned_and_counted() {
        let message = set_link(7, "eth0", 5).unwrap();
        assert_eq!(message.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
    }
}
