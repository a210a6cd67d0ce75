//! JSON messages with descriptors over a unix socket that keeps message boundaries.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message. Layer lists are the longest: 128 paths.
const MAX_MESSAGE_LEN: usize = 128 * 1024;
/// Most descriptors with one message.
const MAX_FDS: usize = 4;

/// A message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The kernel refused.
    #[error("a message between two of Berth's processes could not be passed")]
    Io(#[from] std::io::Error),
    /// The other process is gone.
    #[error("the other process ended without an answer")]
    Closed,
    /// It is not what was expected.
    #[error("a message between two of Berth's processes is not understood")]
    Json(#[source] serde_json::Error),
    /// It is too long.
    #[error("a message between two of Berth's processes has {0} bytes, the limit is {MAX_MESSAGE_LEN}")]
    TooLong(usize),
}

impl From<Errno> for MessageError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A connected pair.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), MessageError> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `value` and, with it, `fds`.
pub(crate) fn send<T: Serialize>(socket: impl AsFd, value: &T, fds: &[BorrowedFd<'_>]) -> Result<(), MessageError> {
    let json = serde_json::to_vec(value).map_err(MessageError::Json)?;
    if json.len() > MAX_MESSAGE_LEN {
        return Err(MessageError::TooLong(json.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(MessageError::Io(Errno::INVAL.into()));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&json)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(MessageError::Closed),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message and its descriptors.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), MessageError> {
    let mut buffer = vec![0; MAX_MESSAGE_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(MessageError::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if len == 0 {
        return Err(MessageError::Closed);
    }
    let value = serde_json::from_slice(buffer.get(..len).unwrap_or_default()).map_err(MessageError::Json)?;
    Ok((value, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_and_a_descriptor_arrive() {
        let (left, right) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&left, &vec!["a", "b"], &[file.as_fd()]).unwrap();
        let (value, fds) = receive::<Vec<String>>(&right).unwrap();
        assert_eq!(value, ["a", "b"]);
        assert_eq!(fds.len(), 1);
        drop(left);
        assert!(matches!(receive::<()>(&right), Err(MessageError::Closed)));
    }
}
