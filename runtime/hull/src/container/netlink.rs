//! Messages of routing netlink, as far as interfaces and their addresses need them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// A request in the making.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    body: Vec<u8>,
}

impl Request {
    /// Begins with the structure that messages of this type have.
    pub(super) fn new(kind: u16, structure: &[u8]) -> Self {
        Self { kind, body: structure.to_vec() }
    }

    /// Appends an attribute; its length must fit the wire's 16 bits (CVE-2021-43784).
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Result<Self, Errno> {
        let len = u16::try_from(value.len().saturating_add(4)).map_err(|_| Errno::OVERFLOW)?;
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        while !self.body.len().is_multiple_of(4) {
            self.body.push(0);
        }
        Ok(self)
    }

    fn bytes(&self, flags: u16) -> Result<Vec<u8>, Errno> {
        let total = self.body.len().saturating_add(HEADER);
        let mut message = Vec::with_capacity(total);
        message.extend_from_slice(&u32::try_from(total).map_err(|_| Errno::OVERFLOW)?.to_ne_bytes());
        message.extend_from_slice(&self.kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        // Sequence number and sender: there is one request at a time, and the kernel knows the sender.
        message.extend_from_slice(&1u32.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(&self.body);
        Ok(message)
    }

    /// Has the kernel do it.
    pub(super) fn done_by(&self, socket: &OwnedFd) -> Result<(), Errno> {
        let mut answer = [0u8; 4096];
        let len = hull_sys::net::netlink_exchange(socket.as_fd(), &self.bytes(REQUEST | ACK)?, &mut answer)?;
        match messages(answer.get(..len).unwrap_or_default()).next() {
            Some((NLMSG_ERROR, body)) => error_of(body),
            _ => Err(Errno::PROTO),
        }
    }

    /// Requests all objects of a kind: type and content of each answer.
    pub(super) fn dump(&self, socket: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        // The kernel fills the buffer up to this size, and does not tell if that was too little.
        let mut answer = vec![0u8; 32 << 10];
        let mut len = hull_sys::net::netlink_exchange(socket.as_fd(), &self.bytes(REQUEST | DUMP)?, &mut answer)?;
        loop {
            for (kind, body) in messages(answer.get(..len).unwrap_or_default()) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error_of(body),
                    kind => each(kind, body),
                }
            }
            len = hull_sys::net::netlink_receive(socket.as_fd(), &mut answer)?;
        }
    }
}

fn error_of(body: &[u8]) -> Result<(), Errno> {
    match field(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
        None => Err(Errno::PROTO),
    }
}

/// Bytes of a fixed number at a place.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Splits attributes, each with its length in front and aligned to four bytes: `header` reads from the beginning of one its length, its type
/// and the size of the header.
fn parts<'a>(
    mut bytes: &'a [u8],
    header: impl Fn(&[u8]) -> Option<(usize, u16, usize)> + 'a,
) -> impl Iterator<Item = (u16, &'a [u8])> {
    std::iter::from_fn(move || {
        let (len, kind, size) = header(bytes)?;
        let content = bytes.get(size..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    parts(bytes, |b| {
        let len = usize::try_from(u32::from_ne_bytes(field(b, 0)?)).ok()?;
        Some((len, u16::from_ne_bytes(field(b, 4)?), HEADER))
    })
}

/// Attributes behind a message's structure.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    parts(bytes, |b| Some((usize::from(u16::from_ne_bytes(field(b, 0)?)), u16::from_ne_bytes(field(b, 2)?), 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_an_error_on_the_wire() {
        assert_eq!(Request::new(16, &[]).attribute(1, &vec![0; 70_000]).unwrap_err(), Errno::OVERFLOW);
    }

    #[test]
    fn messages_are_aligned_and_counted() {
        let request = Request::new(20, &[0; 8]).attribute(3, b"eth0\0").unwrap();
        let bytes = request.bytes(REQUEST).unwrap();
        assert_eq!((bytes.len() % 4, u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize), (0, bytes.len()));
        let (kind, body) = messages(&bytes).next().unwrap();
        assert_eq!((kind, attributes(&body[8..]).collect::<Vec<_>>()), (20, vec![(3, &b"eth0\0"[..])]));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        for bytes in [&[][..], &[0; 16], &[0xff; 16], &[17, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }
}
