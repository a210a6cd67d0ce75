//! Unix sockets: paths of any length, descriptors in messages.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

/// A path that fits a socket address, through the directory's descriptor if necessary; the descriptor must live as long as the path is used.
fn address(path: &str) -> Result<(SocketAddrUnix, Option<OwnedFd>), Errno> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok((address, None));
    }
    let (dir, name) = path.rsplit_once('/').ok_or(Errno::NAMETOOLONG)?;
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    Ok((SocketAddrUnix::new(short.as_str())?, Some(dir)))
}

/// Connects to a stream socket of the caller's.
pub(crate) fn connect(path: &str) -> Result<OwnedFd, Errno> {
    connect_to(path, SocketType::STREAM)
}

/// Connects to a datagram socket of the caller's (systemd's notify socket).
pub(crate) fn connect_datagram(path: &str) -> Result<OwnedFd, Errno> {
    connect_to(path, SocketType::DGRAM)
}

/// As systemd and programs in Go write it, `@` begins the name of an abstract socket.
fn connect_to(path: &str, kind: SocketType) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let result = match path.strip_prefix('@') {
        Some(name) => rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?),
        None => {
            let (address, _dir) = address(path)?;
            rustix::net::connect(&socket, &address)
        }
    };
    result.map(|()| socket)
}

/// Binds a socket of a kind at a path.
pub(crate) fn bind(path: &str, kind: SocketType) -> Result<OwnedFd, Errno> {
    let (address, _dir) = address(path)?;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 4)?;
    }
    Ok(socket)
}

/// Two connected sockets that preserve message boundaries.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends bytes.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Sends bytes with one descriptor.
pub(crate) fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: impl AsFd) -> Result<(), Errno> {
    send_with_fds(socket, bytes, &[fd.as_fd()])
}

/// Sends bytes with some descriptors.
pub(crate) fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Receives one message, with a descriptor if it carries one. An empty message is the end.
pub(crate) fn receive(socket: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let (bytes, fds) = receive_with_fds(socket, 16_384)?;
    Ok((bytes, fds.into_iter().last()))
}

/// How many descriptors one message carries at most.
/// More hierarchies of cgroups than any kernel has.
const MOST_FDS: usize = 32;

/// Receives one message of at most `limit` bytes with its descriptors. An empty message is the end.
pub(crate) fn receive_with_fds(socket: impl AsFd, limit: usize) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut buffer = vec![0u8; limit];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut reset = false;
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            // The other side died with unread data of ours, which the kernel reports once: its last messages come after that.
            Err(Errno::CONNRESET) if !reset => reset = true,
            Err(Errno::CONNRESET) => return Ok((Vec::new(), Vec::new())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    buffer.truncate(received.bytes);
    Ok((buffer, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_over_unread_data() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"never read").unwrap();
        send(&theirs, b"last words").unwrap();
        drop(theirs);
        assert_eq!(receive(&ours).unwrap().0, b"last words");
        assert_eq!(receive(&ours).unwrap().0, b"");
    }
}
