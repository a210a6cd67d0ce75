//! Waiting for descriptors: epoll, with tokens that say what a descriptor is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

/// What a descriptor is for. Ids are never reused, so that a late event of a closed one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Signals,
    CredentialListener,
    Connection(u64),
    CredentialClient(u64),
    /// The status pipe of a child, by its pid.
    Launch(u64),
    ExecIn(u64),
    ExecOut(u64),
    ExecErr(u64),
    Terminal(u64),
    UnitOutput(u64),
    Tunnel(u64),
}

const ID_BITS: u32 = 56;

impl Token {
    fn pack(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (1u64, 0),
            Self::Signals => (2, 0),
            Self::CredentialListener => (3, 0),
            Self::Connection(id) => (4, id),
            Self::CredentialClient(id) => (5, id),
            Self::Launch(id) => (6, id),
            Self::ExecIn(id) => (7, id),
            Self::ExecOut(id) => (8, id),
            Self::ExecErr(id) => (9, id),
            Self::Terminal(id) => (10, id),
            Self::UnitOutput(id) => (11, id),
            Self::Tunnel(id) => (12, id),
        };
        (kind << ID_BITS) | id
    }

    fn unpack(packed: u64) -> Option<Self> {
        let id = packed & ((1 << ID_BITS) - 1);
        Some(match packed >> ID_BITS {
            1 => Self::Listener,
            2 => Self::Signals,
            3 => Self::CredentialListener,
            4 => Self::Connection(id),
            5 => Self::CredentialClient(id),
            6 => Self::Launch(id),
            7 => Self::ExecIn(id),
            8 => Self::ExecOut(id),
            9 => Self::ExecErr(id),
            10 => Self::Terminal(id),
            11 => Self::UnitOutput(id),
            12 => Self::Tunnel(id),
            _ => return None,
        })
    }
}

/// The epoll instance.
#[derive(Debug, Clone)]
pub(super) struct Poller {
    epoll: Rc<OwnedFd>,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?) })
    }

    /// Registers a descriptor, without interest yet.
    pub(super) fn watch(&self, fd: OwnedFd, token: Token) -> Watched {
        Watched { fd, epoll: Rc::clone(&self.epoll), token, waits_for: None }
    }

    /// Waits; returns what is ready, and whether each can be written. Everything ready is worth a read, which is where errors and ends show.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<(Token, bool)>) -> Result<(), Errno> {
        ready.clear();
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        // Rounded up: when the wait is over the timer must be due.
        let timeout = timeout.map(|timeout| {
            let timeout = timeout.saturating_add(Duration::from_micros(50));
            Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            }
        });
        let count = match wait_for(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno),
        };
        for event in events.iter().take(count) {
            let (flags, data) = (event.flags, event.data);
            let writable = flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            ready.extend(Token::unpack(data.u64()).map(|token| (token, writable)));
        }
        Ok(())
    }
}

fn wait_for(epoll: &OwnedFd, events: &mut [epoll::Event], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    match epoll::wait(epoll, &mut *events, timeout) {
        // epoll_pwait2 came with Linux 5.11, and some sandboxes refuse it. epoll_wait knows whole milliseconds only.
        Err(Errno::NOSYS | Errno::PERM) if timeout.is_some() => {
            let rounded = timeout.map(|timeout| Timespec { tv_sec: timeout.tv_sec.saturating_add(1), tv_nsec: 0 });
            epoll::wait(epoll, events, rounded.as_ref())
        }
        other => other,
    }
}

/// A descriptor in the epoll instance; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Watched {
    fd: OwnedFd,
    epoll: Rc<OwnedFd>,
    token: Token,
    /// `None`: it is not in the set.
    waits_for: Option<epoll::EventFlags>,
}

impl Watched {
    /// Sets what to wait for. With nothing, the descriptor leaves the set: epoll would go on reporting its end, in a busy loop.
    pub(super) fn interest(&mut self, reads: bool, writes: bool) {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, reads);
        flags.set(epoll::EventFlags::OUT, writes);
        self.wait_for(Some(flags).filter(|flags| !flags.is_empty()));
    }

    /// Waits only for the other side to hang up; whoever is told so must drop this.
    pub(super) fn only_end(&mut self) {
        self.wait_for(Some(epoll::EventFlags::empty()));
    }

    fn wait_for(&mut self, flags: Option<epoll::EventFlags>) {
        let data = epoll::EventData::new_u64(self.token.pack());
        let changed = match (self.waits_for, flags) {
            (before, after) if before == after => return,
            (None, Some(flags)) => epoll::add(&self.epoll, &self.fd, data, flags),
            (Some(_), Some(flags)) => epoll::modify(&self.epoll, &self.fd, data, flags),
            (_, None) => epoll::delete(&self.epoll, &self.fd),
        };
        if changed.is_ok() {
            self.waits_for = flags;
        }
    }

    /// Whether the other side has hung up.
    pub(super) fn hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::empty())];
        let asked = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok() && polled.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// Another descriptor for the same thing.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Reads once. `Ok(None)`: nothing there now. `Ok(Some(0))`: the end, or an error, for which there is nothing else to be done.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(count) => Some(count),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(0),
        }
    }

    /// Writes once; `None` if it would block.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match rustix::io::write(&self.fd, bytes) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            other => other,
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A forked child that has not executed yet may still hold the open file: closing ours would leave it in the set.
        self.interest(false, false);
    }
}
