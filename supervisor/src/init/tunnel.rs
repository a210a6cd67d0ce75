//! Tunnels to ports on the workspace's loopback interface, with half-close.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_supervisor_protocol::{ErrorCode, Frame, Kind, Reply};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, connect, shutdown, socket_with, sockopt};

use super::Init;
use super::connection::{HIGH_WATER, INPUT_HIGH_WATER, INPUT_WINDOW, Mode, Taken};
use super::poller::{Token, Watched};
use crate::launch::LaunchError;

/// A TCP connection inside the workspace.
#[derive(Debug)]
pub(super) struct Tunnel {
    connection: u64,
    port: u16,
    socket: Watched,
    connected: bool,
    /// The other loopback address is still to be tried.
    second_try: bool,
    /// From the host, not yet taken by the socket.
    input: Vec<u8>,
    taken: Taken,
    host_ended: bool,
    host_end_told: bool,
    socket_ended: bool,
}

impl Tunnel {
    pub(super) fn input_is_full(&self) -> bool {
        self.input.len() > INPUT_HIGH_WATER
    }

    /// Writes what the socket accepts; false if it is broken.
    fn write(&mut self) -> bool {
        if !self.input.is_empty() {
            match rustix::net::send(&self.socket, &self.input, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.taken.add(count);
                    self.input.drain(..count);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        if self.input.is_empty() && self.host_ended && !self.host_end_told {
            self.host_end_told = true;
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        true
    }
}

fn dial(port: u16, v6: bool) -> Result<OwnedFd, Errno> {
    let (family, address): (_, SocketAddr) = if v6 {
        (AddressFamily::INET6, (Ipv6Addr::LOCALHOST, port).into())
    } else {
        (AddressFamily::INET, (Ipv4Addr::LOCALHOST, port).into())
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

fn refused(port: u16, errno: Errno) -> LaunchError {
    let code = if errno == Errno::CONNREFUSED { ErrorCode::ConnectionRefused } else { ErrorCode::Failed };
    LaunchError { code, message: format!("nothing in the workspace listens on port {port} ({errno})") }
}

impl Init {
    /// Connects to a port.
    pub(super) fn tunnel_open(&mut self, connection: u64, port: u16) -> Result<(), LaunchError> {
        let (socket, second_try) = match dial(port, false) {
            Ok(socket) => (socket, true),
            Err(_) => (dial(port, true).map_err(|errno| refused(port, errno))?, false),
        };
        let id = self.new_id();
        let mut socket = self.poller.watch(socket, Token::Tunnel(id));
        socket.interest(false, true);
        let tunnel = Tunnel {
            connection,
            port,
            socket,
            connected: false,
            second_try,
            input: Vec::new(),
            taken: Taken::default(),
            host_ended: false,
            host_end_told: false,
            socket_ended: false,
        };
        self.tunnels.insert(id, tunnel);
        self.set_mode(connection, Mode::Tunnel(id));
        Ok(())
    }

    /// The socket of a tunnel can be read or written.
    pub(super) fn tunnel_ready(&mut self, id: u64, writable: bool) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        self.dirty.insert(tunnel.connection);
        if !tunnel.connected {
            self.tunnel_connected(id);
            return;
        }
        if writable && !tunnel.write() {
            self.tunnel_end(id);
            return;
        }
        let Some(connection) = self.connections.get_mut(&tunnel.connection) else { return };
        if !tunnel.socket_ended && connection.pending() < HIGH_WATER {
            match tunnel.socket.read(&mut self.buffer) {
                None => {}
                Some(0) => {
                    tunnel.socket_ended = true;
                    connection.end(Kind::Data);
                }
                Some(count) => {
                    connection.bytes(Kind::Data, self.buffer.get(..count).unwrap_or_default());
                    self.touch_tunnel();
                }
            }
        }
        self.tunnel_settle(id);
    }

    fn tunnel_connected(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let (connection, port) = (tunnel.connection, tunnel.port);
        match sockopt::socket_error(&tunnel.socket) {
            Ok(Ok(())) => {
                tunnel.connected = true;
                self.reply(Some(connection), &Reply::Connected { input_window: Some(INPUT_WINDOW) });
                self.tunnel_settle(id);
            }
            Ok(Err(errno)) | Err(errno) => {
                if tunnel.second_try {
                    tunnel.second_try = false;
                    if let Ok(socket) = dial(port, true) {
                        let mut socket = self.poller.watch(socket, Token::Tunnel(id));
                        socket.interest(false, true);
                        tunnel.socket = socket;
                        return;
                    }
                }
                self.tunnels.remove(&id);
                self.refuse(Some(connection), refused(port, errno));
            }
        }
    }

    /// A frame of the host for a tunnel.
    pub(super) fn tunnel_frame(&mut self, id: u64, frame: &Frame) -> bool {
        if frame.kind != Kind::Data {
            return false;
        }
        self.touch_tunnel();
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return true };
        if frame.payload.is_empty() {
            tunnel.host_ended = true;
        } else if !tunnel.host_ended {
            tunnel.input.extend_from_slice(&frame.payload);
        }
        if tunnel.connected && !tunnel.write() {
            self.tunnel_end(id);
            return true;
        }
        self.tunnel_settle(id);
        true
    }

    /// Waits for whatever can continue; ends a tunnel that is closed both ways.
    pub(super) fn tunnel_settle(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        if !tunnel.connected {
            return;
        }
        if tunnel.socket_ended && tunnel.host_end_told {
            self.tunnel_end(id);
            return;
        }
        let Some(connection) = self.connections.get_mut(&tunnel.connection) else { return };
        if let Some(window) = tunnel.taken.tell() {
            connection.event(&window);
            self.dirty.insert(tunnel.connection);
        }
        let room = connection.pending() < HIGH_WATER;
        tunnel.socket.interest(!tunnel.socket_ended && room, !tunnel.input.is_empty());
    }

    /// The connection has gone.
    pub(super) fn tunnel_abandoned(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.remove(&id) else { return };
        if !tunnel.input.is_empty() {
            // Closed in peace, it would wait behind what the server does not read, for as long as the server lives: reset, it is told.
            let _ = sockopt::set_socket_linger(&tunnel.socket, Some(Duration::ZERO));
        }
    }

    /// Drops the socket, and the connection after what is still to be sent.
    fn tunnel_end(&mut self, id: u64) {
        let Some(tunnel) = self.tunnels.remove(&id) else { return };
        if let Some(connection) = self.connections.get_mut(&tunnel.connection).filter(|_| !tunnel.socket_ended) {
            connection.end(Kind::Data);
        }
        self.close_after_flush(Some(tunnel.connection));
    }
}
