//! systemd's notify protocol across the container's boundary (`NOTIFY_SOCKET`).
//!
//! The container gets a socket of its own at `/run/notify/notify.sock`; when its process sends `READY=1` there, the runtime sends it to the
//! outer socket, with the process' id.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketType};

use crate::error::{Code, Context, Result, errno_text};
use crate::log;
use crate::socket;
use crate::spec::Mount;

/// Directory inside the container.
const INSIDE: &str = "/run/notify";

/// The outer socket, if this command was started by something that waits for readiness.
pub(crate) fn outer() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|p| !p.is_empty())
}

/// Makes the directory that the container sees, and the mount and variable that show it.
pub(crate) fn prepare(entry_path: &str) -> Result<(Mount, String)> {
    let dir = format!("{entry_path}/notify");
    rustix::fs::mkdirat(CWD, dir.as_str(), Mode::from_raw_mode(0o755)).context(Code::Socket, &dir)?;
    let mount = Mount {
        destination: INSIDE.to_owned(),
        r#type: Some("bind".to_owned()),
        source: Some(dir),
        options: ["bind", "nosuid", "noexec", "nodev", "private"].map(str::to_owned).to_vec(),
        ..Mount::default()
    };
    Ok((mount, format!("NOTIFY_SOCKET={INSIDE}/notify.sock")))
}

/// The socket in that directory; only if creation made the directory, and somebody outside can be told.
pub(crate) fn listen(entry_path: &str) -> Result<Option<OwnedFd>> {
    let Some(outer) = outer() else { return Ok(None) };
    if rustix::fs::access(format!("{entry_path}/notify"), rustix::fs::Access::EXISTS).is_err() {
        return Ok(None);
    }
    // The variable is left over from something that has ended: nobody wants to know when the container is ready.
    if let Err(e) = socket::connect_datagram(&outer) {
        log::warn(&format!("NOTIFY_SOCKET {outer}: {}: readiness is not waited for", errno_text(e)));
        return Ok(None);
    }
    let path = format!("{entry_path}/notify/notify.sock");
    match rustix::fs::unlink(path.as_str()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e).context(Code::Socket, &path),
    }
    let socket = socket::bind(&path, SocketType::DGRAM).context(Code::Socket, &path)?;
    // Any user of the container may report that it is ready.
    rustix::fs::chmodat(CWD, path.as_str(), Mode::from_raw_mode(0o777), AtFlags::empty())
        .context(Code::Socket, &path)?;
    Ok(Some(socket))
}

/// Waits until the container is ready or its process has ended.
pub(crate) fn wait(socket: &OwnedFd, pidfd: &OwnedFd, pid: i32) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e).context(Code::Socket, "poll"),
        }
        let [message, end] = fds.map(|f| !f.revents().is_empty());
        if message && forward(socket, pid)? {
            return Ok(());
        }
        if end {
            return Ok(());
        }
    }
}

/// Handles one message; true if it says that the container is ready.
pub(crate) fn forward(socket: &OwnedFd, pid: i32) -> Result<bool> {
    let mut text = [0u8; 4096];
    let (n, _) = match rustix::net::recv(socket, &mut text, RecvFlags::DONTWAIT) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
        Err(e) => return Err(e).context(Code::Socket, "NOTIFY_SOCKET"),
    };
    let ready = text.get(..n).unwrap_or(&[]).split(|b| *b == b'\n').any(|line| line == b"READY=1");
    if ready && let Some(outer) = outer() {
        let told = socket::connect_datagram(&outer)
            .and_then(|outside| socket::send(&outside, format!("READY=1\nMAINPID={pid}\n").as_bytes()));
        // Whoever wanted to know is gone, which is no reason to leave the container alone.
        if let Err(e) = told {
            log::warn(&format!("NOTIFY_SOCKET {outer}: {}: nobody is told that the container is ready", errno_text(e)));
        }
    }
    Ok(ready)
}

/// What the runtime removes with its records.
pub(crate) fn remove(entry_path: &str) {
    // Not there for most containers.
    let _ = rustix::fs::unlink(format!("{entry_path}/notify/notify.sock"));
    let _ = rustix::fs::unlinkat(CWD, format!("{entry_path}/notify"), AtFlags::REMOVEDIR);
}
