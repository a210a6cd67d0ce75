//! Terminals: made in the container's devpts, the master passed on by descriptor.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Uid};
use rustix::mount::OpenTreeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::plan::TerminalTo;
use super::sync::{self, Message};
use crate::error::{Code, Context, Error, Result};
use crate::process::launch::take_terminal;
use crate::rootfs::mounts::move_onto;
use crate::rootfs::resolve::Root;
use crate::socket;
use crate::spec::Process;

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    slave: OwnedFd,
}

fn from_master(master: OwnedFd, process: &Process) -> Result<Terminal> {
    rustix::pty::unlockpt(&master).doing(Code::Console, "/dev/ptmx", "unlock")?;
    // By descriptor, never by the name the pty has in some mount (CVE-2025-52565).
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).doing(Code::Console, "/dev/ptmx", "other end")?;
    if let Some(size) = &process.console_size {
        let cells = |n| {
            u16::try_from(n).map_err(|_| Error::invalid("process.consoleSize", "process.consoleSize: at most 65535"))
        };
        let size = Winsize { ws_row: cells(size.height)?, ws_col: cells(size.width)?, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).doing(Code::Console, "process.consoleSize", "size")?;
    }
    let _ = rustix::fs::fchown(&slave, Some(Uid::from_raw(process.user.uid)), None);
    Ok(Terminal { master, slave })
}

/// Makes a terminal in the container's devpts, and /dev/console of it.
pub(crate) fn open_inside(devpts: Option<&OwnedFd>, root: &Root, process: &Process) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = match devpts {
        Some(devpts) => rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()),
        None => rustix::fs::open("/dev/ptmx", flags, Mode::empty()),
    }
    .context(Code::Console, "/dev/ptmx")?;
    let terminal = from_master(master, process)?;
    if let Ok(dev) = root.open_no_symlinks("/dev") {
        let make =
            OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Never through a link of the image (CVE-2026-88264).
        let target = match rustix::fs::openat(&dev, "console", path, Mode::empty()) {
            Ok(fd) => fd,
            Err(_) => rustix::fs::openat(&dev, "console", make, Mode::from_raw_mode(0o600))
                .context(Code::Console, "/dev/console")?,
        };
        let stat = rustix::fs::fstat(&target).context(Code::Console, "/dev/console")?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() {
            return Err(Error::new(Code::Console, "/dev/console").says("/dev/console is a symlink"));
        }
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&terminal.slave, "", clone).context(Code::Console, "/dev/console")?;
        move_onto(&tree, &target, "/dev/console")?;
    }
    Ok(terminal)
}

/// Makes a terminal in the devpts of the caller's mount namespace.
pub(crate) fn open_on_host(process: &Process) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).context(Code::Console, "/dev/ptmx")?;
    from_master(master, process)
}

/// Sets a terminal whose contents are copied to put no carriage return before a newline: a file or a pipe then gets exactly what the program
/// wrote, and a terminal adds its own.
///
/// Called before the program runs, which may change the settings.
pub(super) fn plain_lines(master: &OwnedFd) -> Result<()> {
    let mut modes = tcgetattr(master).doing(Code::Console, "/dev/ptmx", "modes")?;
    modes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(master, OptionalActions::Now, &modes).doing(Code::Console, "/dev/ptmx", "modes")
}

/// Hands the master out.
pub(crate) fn send(to: &TerminalTo, master: &OwnedFd, sync: impl AsFd) -> Result<()> {
    match to {
        TerminalTo::Socket(socket) => send_master(socket, master),
        TerminalTo::Runtime => {
            plain_lines(master)?;
            let copy = rustix::io::fcntl_dupfd_cloexec(master, 3).doing(Code::Console, "/dev/ptmx", "master")?;
            sync::send(sync, &Message::Terminal(copy)).doing(Code::Console, "/dev/ptmx", "runtime")
        }
    }
}

/// Sends the master as engines expect it.
pub(crate) fn send_master(socket: impl AsFd, master: &OwnedFd) -> Result<()> {
    socket::send_with_fd(socket, b"/dev/ptmx", master).doing(Code::Console, "--console-socket", "console socket")
}

/// Makes the terminal the caller's controlling terminal and standard streams; closes the master.
pub(crate) fn attach(terminal: Terminal) -> Result<()> {
    drop(terminal.master);
    take_terminal(&terminal.slave)
}
