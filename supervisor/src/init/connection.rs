//! A connection of the host: frames in and out, bounded both ways.

use berth_supervisor_protocol::{Event, FrameReader, Kind, Reply, encode_frame, encode_json};
use rustix::io::Errno;
use serde::Serialize;

use super::poller::Watched;

/// When more than this waits to be read by the host, sources of output pause.
pub(super) const HIGH_WATER: usize = 128 * 1024;
/// When more than this waits to be read by a process, the connection is not read.
pub(super) const INPUT_HIGH_WATER: usize = 128 * 1024;
/// Bytes that a host may have on their way to a command or a port: few enough that its connection never has to wait.
pub(super) const INPUT_WINDOW: u32 = 128 * 1024;
/// Largest piece of output in one frame.
pub(super) const PIECE: usize = 32 * 1024;
/// A connection that has this much waiting gets no more events: it is cut off.
const MAX_PENDING: usize = 8 * 1024 * 1024;

/// What a connection is used for now.
#[derive(Debug)]
pub(super) enum Mode {
    /// Waiting for a request.
    Idle,
    /// A worker is being started with it.
    Handover,
    /// A command without a terminal.
    Exec(u64),
    /// Attached to a terminal.
    Terminal {
        id: u64,
        /// Position in its output.
        cursor: u64,
        /// It stood still: the terminal does not wait for it until it has caught up.
        lagging: bool,
        /// Where `cursor` was when the stall timer was armed.
        stalled_at: Option<u64>,
    },
    Tunnel(u64),
    PortsWatch,
    UnitWatch,
    UnitLogs {
        unit: String,
        run: u64,
        cursor: u64,
        /// `None`: to the end of the run.
        until: Option<u64>,
    },
    Credentials,
    ActivityWatch {
        min_interval_ms: u64,
        /// A timer will tell it.
        armed: bool,
        last_sent: berth_supervisor_protocol::Activity,
    },
    /// Only what is still to be sent.
    Closing,
}

/// Bytes of input that a command or a port has read, of which the host has not been told.
#[derive(Debug, Default)]
pub(super) struct Taken(usize);

impl Taken {
    pub(super) fn add(&mut self, count: usize) {
        self.0 += count;
    }

    /// What to tell the host about input that was read, once that is worth a message. A host that waits with nothing on its way still has
    /// half a window.
    pub(super) fn tell(&mut self) -> Option<Event> {
        let bytes = u32::try_from(self.0).ok().filter(|bytes| *bytes >= INPUT_WINDOW / 2)?;
        self.0 = 0;
        Some(Event::Window { bytes })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Watched,
    pub(super) reader: FrameReader,
    pub(super) mode: Mode,
    out: Vec<u8>,
    sent: usize,
    /// More was to be sent than any connection should have waiting.
    overflown: bool,
}

impl Connection {
    pub(super) fn new(socket: Watched) -> Self {
        Self { socket, reader: FrameReader::new(), mode: Mode::Idle, out: Vec::new(), sent: 0, overflown: false }
    }

    /// Bytes that the host has not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    pub(super) fn reply(&mut self, reply: &Reply) {
        self.json(reply);
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.json(event);
    }

    fn json<T: Serialize>(&mut self, value: &T) {
        if self.pending() > MAX_PENDING || encode_json(value, &mut self.out).is_err() {
            self.overflown = true;
        }
    }

    /// Sends up to [`PIECE`] bytes per frame; does nothing if `bytes` is empty.
    pub(super) fn bytes(&mut self, kind: Kind, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.overflown |= encode_frame(kind, piece, &mut self.out).is_err();
        }
    }

    /// Sends the end of a stream.
    pub(super) fn end(&mut self, kind: Kind) {
        self.overflown |= encode_frame(kind, &[], &mut self.out).is_err();
    }

    /// Writes what the socket accepts. Returns false if the connection is of no further use.
    pub(super) fn flush(&mut self) -> bool {
        if self.overflown {
            return false;
        }
        while self.sent < self.out.len() {
            match self.socket.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(Errno::PIPE | Errno::CONNRESET) | Err(_) => return false,
            }
        }
        if self.sent == self.out.len() {
            // The buffer of a burst is not kept for the life of an idle connection.
            if self.out.capacity() > 64 * 1024 {
                self.out = Vec::new()
            } else {
                self.out.clear()
            }
            self.sent = 0;
        } else if self.sent > HIGH_WATER {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        true
    }
}
