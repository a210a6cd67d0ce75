//! The host's connections: accepted, read, flushed, dropped.

use berth_supervisor_protocol::{Event, Reply};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Init;
use super::connection::{Connection, HIGH_WATER, Mode};
use super::poller::Token;
use crate::launch::LaunchError;

/// Most connections at once. More wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 512;

impl Init {
    /// Takes new connections in.
    pub(super) fn accept(&mut self) {
        while self.connections.len() < MAX_CONNECTIONS {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let id = self.new_id();
                    let mut socket = self.poller.watch(socket, Token::Connection(id));
                    socket.interest(true, false);
                    self.connections.insert(id, Connection::new(socket));
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                // Out of descriptors or memory: until a connection ends, accepting again is of no use.
                Err(_) => break,
            }
        }
        self.listener.interest(self.connections.is_empty(), false);
    }

    /// A connection can be read or written.
    pub(super) fn connection_ready(&mut self, id: u64) {
        self.dirty.insert(id);
        // An idle one needs two reads for a request: its length, its body.
        for _ in 0..2 {
            if !self.wants_input(id) {
                // What it has sent is still unread, with the end of the stream behind it.
                let gone =
                    |connection: &Connection| !matches!(connection.mode, Mode::Handover) && connection.socket.hung_up();
                if self.connections.get(&id).is_some_and(gone) {
                    self.drop_connection(id);
                }
                return;
            }
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let idle = matches!(connection.mode, Mode::Idle);
            // While idle, not a byte more than the request is read: what follows may be for a worker.
            let room = if idle { connection.reader.missing().min(self.buffer.len()) } else { self.buffer.len() };
            match connection.socket.read(self.buffer.get_mut(..room).unwrap_or_default()) {
                None => return,
                Some(0) => {
                    self.drop_connection(id);
                    return;
                }
                Some(count) => connection.reader.push(self.buffer.get(..count).unwrap_or_default()),
            }
            loop {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                match connection.reader.next_frame() {
                    Ok(Some(frame)) => self.frame(id, &frame),
                    Ok(None) => break,
                    Err(_) => {
                        self.drop_connection(id);
                        return;
                    }
                }
            }
        }
    }

    /// Whether there is room for more bytes from the host.
    fn wants_input(&self, id: u64) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        match &connection.mode {
            Mode::Handover => false,
            // A host that only asks and never reads.
            Mode::Idle => connection.pending() < HIGH_WATER,
            Mode::Exec(id) => self.execs.get(id).is_none_or(|exec| !exec.input_is_full()),
            Mode::Terminal { id, .. } => self.terminals.get(id).is_none_or(|terminal| !terminal.input_is_full()),
            Mode::Tunnel(id) => self.tunnels.get(id).is_none_or(|tunnel| !tunnel.input_is_full()),
            Mode::PortsWatch
            | Mode::UnitWatch
            | Mode::UnitLogs { .. }
            | Mode::Credentials
            | Mode::ActivityWatch { .. }
            | Mode::Closing => true,
        }
    }

    /// Settles every connection that something happened to: output moved and flushed, interests set.
    pub(super) fn settle(&mut self) {
        // Moving one's output may affect others. Whatever is left after this many rounds is done at the next call, which follows at once.
        for _ in 0..1024 {
            let Some(id) = self.dirty.pop_first() else { return };
            self.settle_one(id);
        }
    }

    fn settle_one(&mut self, id: u64) {
        loop {
            self.pump(id);
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let before = connection.pending();
            if !connection.flush() {
                self.drop_connection(id);
                return;
            }
            // Only a connection that took everything may have room for more.
            if before == 0 || connection.pending() > 0 {
                break;
            }
        }
        let Some(connection) = self.connections.get(&id) else { return };
        let pending = connection.pending();
        if matches!(connection.mode, Mode::Closing) && pending == 0 {
            self.drop_connection(id);
            return;
        }
        match connection.mode {
            Mode::Exec(exec) => self.exec_settle(exec),
            Mode::Tunnel(tunnel) => self.tunnel_settle(tunnel),
            _ => {}
        }
        let reads = self.wants_input(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            match connection.mode {
                // The command does not read its input; it must be ended all the same once nobody is there any more.
                Mode::Exec(_) | Mode::Terminal { .. } | Mode::Tunnel(_) if !reads && pending == 0 => {
                    connection.socket.only_end();
                }
                _ => connection.socket.interest(reads, pending > 0),
            }
        }
    }

    fn pump(&mut self, id: u64) {
        match self.connections.get(&id).map(|connection| &connection.mode) {
            Some(Mode::Terminal { .. }) => self.terminal_pump(id),
            Some(Mode::UnitLogs { .. }) => self.unit_logs_pump(id),
            _ => {}
        }
    }

    /// Ends a connection, and what hangs on it.
    pub(super) fn drop_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.listener.interest(true, false);
        match connection.mode {
            Mode::Exec(exec) => self.exec_abandoned(exec),
            Mode::Terminal { id: terminal, .. } => self.terminal_detached(terminal),
            Mode::Tunnel(tunnel) => self.tunnel_abandoned(tunnel),
            Mode::PortsWatch => self.ports_unwatch(),
            Mode::Credentials => self.credential_server_gone(id),
            Mode::Idle
            | Mode::Handover
            | Mode::UnitWatch
            | Mode::UnitLogs { .. }
            | Mode::ActivityWatch { .. }
            | Mode::Closing => {}
        }
        self.activity_changed();
    }

    pub(super) fn set_mode(&mut self, id: u64, mode: Mode) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.mode = mode;
            self.dirty.insert(id);
            self.activity_changed();
        }
    }

    pub(super) fn reply(&mut self, id: Option<u64>, reply: &Reply) {
        if let Some((id, connection)) = id.and_then(|id| Some((id, self.connections.get_mut(&id)?))) {
            connection.reply(reply);
            self.dirty.insert(id);
        }
    }

    pub(super) fn event(&mut self, id: Option<u64>, event: &Event) {
        if let Some((id, connection)) = id.and_then(|id| Some((id, self.connections.get_mut(&id)?))) {
            connection.event(event);
            self.dirty.insert(id);
        }
    }

    /// Refuses a request and ends the connection: what the host sent after the request is for something that does not exist.
    pub(super) fn refuse(&mut self, id: Option<u64>, error: LaunchError) {
        self.reply(id, &Reply::Error { code: error.code, message: error.message });
        self.close_after_flush(id);
    }

    pub(super) fn close_after_flush(&mut self, id: Option<u64>) {
        if let Some(id) = id {
            self.set_mode(id, Mode::Closing);
        }
    }
}
