//! Listening TCP sockets of this network namespace, by `NETLINK_SOCK_DIAG`, and by `/proc/net/tcp` where that is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) port: u16,
    pub(super) address: IpAddr,
    pub(super) uid: u32,
    pub(super) inode: u32,
}

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` of linux/netlink.h.
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
/// Bit of the state `TCP_LISTEN`.
const LISTEN: u32 = 1 << 10;
/// Lengths of `struct nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// All listening TCP sockets; empty if the kernel does not say.
pub(super) fn listeners() -> Vec<Listener> {
    let mut found = Vec::new();
    for (family, table) in [(2u8, "/proc/net/tcp"), (10, "/proc/net/tcp6")] {
        match dump(family) {
            Ok(sockets) => found.extend(sockets),
            Err(_) => found.extend(parse_table(&std::fs::read_to_string(table).unwrap_or_default())),
        }
    }
    found
}

fn dump(family: u8) -> Result<Vec<Listener>, Errno> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    let len = u32::try_from(HEADER + REQUEST).map_err(|_| Errno::OVERFLOW)?;
    request.extend(len.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, IPPROTO_TCP, 0, 0]);
    request.extend(LISTEN.to_ne_bytes());
    request.resize(HEADER + REQUEST, 0);
    send(&socket, &request, SendFlags::empty())?;

    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32 * 1024];
    // Each answer comes at once, in the sender's context; the bound is for a kernel that never says that it is done.
    for _ in 0..1024 {
        let (len, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        if parse_messages(buffer.get(..len).unwrap_or_default(), &mut found)? {
            return Ok(found);
        }
    }
    Err(Errno::OVERFLOW)
}

/// Takes the sockets out of one datagram; true when it was the last.
fn parse_messages(mut bytes: &[u8], found: &mut Vec<Listener>) -> Result<bool, Errno> {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, ..] = *header;
        let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).map_err(|_| Errno::BADMSG)?;
        let body = bytes.get(HEADER..len).ok_or(Errno::BADMSG)?;
        match u16::from_ne_bytes([e, f]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(Errno::BADMSG),
            SOCK_DIAG_BY_FAMILY => found.extend(parse_socket(body)),
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct inet_diag_msg` of linux/inet_diag.h.
fn parse_socket(body: &[u8]) -> Option<Listener> {
    let body = body.first_chunk::<MESSAGE>()?;
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let source = body.get(8..24)?.first_chunk::<16>()?;
    let address = match body.first()? {
        2 => Ipv4Addr::from(*source.first_chunk::<4>()?).into(),
        10 => Ipv6Addr::from(*source).into(),
        _ => return None,
    };
    let uid = u32::from_ne_bytes(*body.get(64..)?.first_chunk()?);
    let inode = u32::from_ne_bytes(*body.get(68..)?.first_chunk()?);
    Some(Listener { port, address, uid, inode })
}

/// The listening entries of `/proc/net/tcp` or `/proc/net/tcp6`.
fn parse_table(text: &str) -> Vec<Listener> {
    text.lines().skip(1).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    // State 0A is TCP_LISTEN.
    if fields.get(3) != Some(&"0A") {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Words of the address are printed in the machine's order.
    let mut bytes = Vec::with_capacity(16);
    for index in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(index..index + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
        16 => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(Listener {
        port: u16::from_str_radix(port, 16).ok()?,
        address,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netlink_and_proc_agree_on_a_listener() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let by_netlink = dump(2).unwrap().into_iter().find(|socket| socket.port == port).unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let by_table = parse_table(&table).into_iter().find(|socket| socket.port == port).unwrap();
        assert_eq!(by_netlink, by_table);
        assert_eq!(by_netlink.address, IpAddr::from([127, 0, 0, 1]));
        let owner = super::super::socket_owner::find(&[by_netlink.inode]);
        assert_eq!(owner.get(&by_netlink.inode).unwrap().0, std::process::id());
    }

    #[test]
    fn listeners_of_ipv6_are_read() {
        let line = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1";
        let socket = parse_line(line).unwrap();
        assert_eq!(
            (socket.port, socket.address, socket.uid, socket.inode),
            (8080, Ipv6Addr::LOCALHOST.into(), 1000, 4242)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let mut found = Vec::new();
        assert!(parse_messages(&[255; 40], &mut found).is_err());
        assert!(!parse_messages(&[0; 3], &mut found).unwrap());
        assert!(parse_messages(&[0; 16], &mut found).is_err());
        assert!(parse_line("x").is_none());
    }
}
