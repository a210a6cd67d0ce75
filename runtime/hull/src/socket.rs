//! Unix sockets: paths of any length, descriptors in messages.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

/// A path that fits a socket address, going through the directory's descriptor if it has to; the descriptor must live
/// as long as the path is used.
fn address(path: &str) -> Result<(SocketAddrUnix, Option<OwnedFd>), Errno> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok((address, None));
    }
    let (dir, name) = path.rsplit_once('/').ok_or(Errno::NAMETOOLONG)?;
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    Ok((SocketAddrUnix::new(short.as_str())?, Some(dir)))
}

/// Connects to a stream socket.
pub(crate) fn connect(path: &str) -> Result<OwnedFd, Errno> {
    let (address, _dir) = address(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Connects to a datagram socket (systemd's notify socket).
pub(crate) fn connect_datagram(path: &str) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
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

/// Two connected sockets that keep message borders.
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
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
    let mut buffer = [0u8; 16384];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            // The other side died with unread data of ours: also the end.
            Err(Errno::CONNRESET) => return Ok((Vec::new(), None)),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last();
        }
    }
    Ok((buffer.get(..received.bytes).unwrap_or(&[]).to_vec(), fd))
}
