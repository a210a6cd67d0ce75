//! The receiving end of descriptor-passing sockets: consoles and seccomp listeners.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::command::{patience, timespec};

/// A listening socket at a path short enough for a socket address.
pub(crate) struct Receiver {
    listener: UnixListener,
    pub(crate) path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Receiver {
    pub(crate) fn new() -> Result<Receiver> {
        let folder = tempfile::Builder::new().prefix("hc").tempdir_in("/tmp")?;
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path)?;
        Ok(Receiver { listener, path, _folder: folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The message and the descriptors that the next connection brings.
    pub(crate) fn receive(&self) -> Result<(String, Vec<OwnedFd>)> {
        receive_from(&self.accept()?)
    }

    /// The same of a connection that its sender closes after one message.
    pub(crate) fn receive_all(&self) -> Result<(String, Vec<OwnedFd>)> {
        let mut stream = self.accept()?;
        let (mut message, descriptors) = receive_from(&stream)?;
        stream.set_read_timeout(Some(patience()))?;
        stream.read_to_string(&mut message).context("the connection is not closed")?;
        Ok((message, descriptors))
    }

    fn accept(&self) -> Result<UnixStream> {
        ready(&self.listener, patience()).context("nobody connected to the socket")?;
        Ok(self.listener.accept()?.0)
    }
}

fn receive_from(stream: &UnixStream) -> Result<(String, Vec<OwnedFd>)> {
    ready(stream, patience()).context("no message came over the socket")?;
    let mut bytes = vec![0_u8; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), descriptors))
}

/// Waits until something can be read.
pub(crate) fn ready(descriptor: &impl std::os::fd::AsFd, patience: Duration) -> Result<()> {
    let mut set = [PollFd::new(descriptor, PollFlags::IN)];
    ensure!(poll(&mut set, Some(&timespec(patience)?))? > 0, "nothing after {} s", patience.as_secs());
    Ok(())
}

/// Reads a terminal until `wanted` has appeared, or its other end is gone.
pub(crate) fn read_until(terminal: &OwnedFd, wanted: &str) -> Result<String> {
    let mut file = std::fs::File::from(terminal.try_clone()?);
    let mut text = String::new();
    let mut bytes = [0_u8; 4096];
    while !text.contains(wanted) {
        ready(terminal, patience()).with_context(|| format!("the terminal showed {text:?}"))?;
        match file.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
    }
    Ok(text)
}
