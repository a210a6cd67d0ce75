//! Which TCP ports are listened on, for those who watch.
//!
//! The kernel tells nobody that a socket started to listen (`sock_diag` has multicast groups for destroyed sockets only, and a seccomp
//! notifier on listen(2) would put PID 1 into the path of every server and take the one notifier a nested container runtime may want). So,
//! and only while somebody watches, the list is read (one netlink dump of listening sockets, some tens of microseconds) shortly after
//! something happened that starting a server comes with (output of a command, the end of a process), and once a second otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_supervisor_protocol::{Event, ListeningPort, Reply};

use super::Init;
use super::connection::Mode;
use super::socket_diag::{Listener, listeners};
use super::timers::{Timer, Timers};

/// Without any sign, the list is read this often.
const IDLE: Duration = Duration::from_secs(1);
/// After a sign, this soon: programs announce their port around the time at which they listen.
const SOON: Duration = Duration::from_millis(40);

/// What is known of ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    watchers: usize,
    known: Vec<ListeningPort>,
    /// Owners of sockets by inode, so that only new sockets cost a search through the processes.
    owners: BTreeMap<u32, Option<(u32, String)>>,
    /// When the next reading is due.
    next: Option<Instant>,
}

impl Ports {
    /// Something happened that often comes with a new port.
    pub(super) fn nudge(&mut self, timers: &mut Timers) {
        if self.watchers > 0 {
            self.arm(SOON, timers);
        }
    }

    fn arm(&mut self, delay: Duration, timers: &mut Timers) {
        let at = Instant::now() + delay;
        // A reading that is due sooner serves both.
        if self.next.is_none_or(|next| next > at) {
            self.next = Some(at);
            timers.after(delay, Timer::Ports);
        }
    }

    fn read(&mut self) -> Vec<ListeningPort> {
        let sockets = listeners();
        self.owners.retain(|inode, _| sockets.iter().any(|socket| socket.inode == *inode));
        let unknown: Vec<u32> =
            sockets.iter().map(|socket| socket.inode).filter(|inode| !self.owners.contains_key(inode)).collect();
        if !unknown.is_empty() {
            let mut found = super::socket_owner::find(&unknown);
            self.owners.extend(unknown.into_iter().map(|inode| (inode, found.remove(&inode))));
        }
        merge(&sockets, &self.owners)
    }
}

/// One entry per port, however many addresses and sockets it has.
fn merge(sockets: &[Listener], owners: &BTreeMap<u32, Option<(u32, String)>>) -> Vec<ListeningPort> {
    let mut ports: BTreeMap<u16, ListeningPort> = BTreeMap::new();
    for socket in sockets {
        let entry = ports.entry(socket.port).or_insert_with(|| ListeningPort {
            port: socket.port,
            addresses: Vec::new(),
            pid: None,
            process: None,
            uid: socket.uid,
        });
        let address = socket.address.to_string();
        if !entry.addresses.contains(&address) {
            entry.addresses.push(address);
            entry.addresses.sort();
        }
        if let (None, Some(Some((pid, name)))) = (entry.pid, owners.get(&socket.inode)) {
            (entry.pid, entry.process) = (Some(*pid), Some(name.clone()));
        }
    }
    ports.into_values().collect()
}

impl Init {
    /// The list now.
    pub(super) fn ports_now(&mut self) -> Reply {
        Reply::Ports { ports: self.ports.read() }
    }

    /// The list now, and its changes from now on.
    pub(super) fn ports_watch(&mut self, connection: u64) {
        let ports = self.ports.read();
        self.ports.known.clone_from(&ports);
        self.reply(Some(connection), &Reply::Ports { ports });
        self.set_mode(connection, Mode::PortsWatch);
        self.ports.watchers += 1;
        self.ports.arm(IDLE, &mut self.timers);
    }

    /// A watcher has gone.
    pub(super) fn ports_unwatch(&mut self) {
        self.ports.watchers = self.ports.watchers.saturating_sub(1);
    }

    /// Time to read the list.
    pub(super) fn ports_due(&mut self) {
        if self.ports.watchers == 0 {
            self.ports.next = None;
            return;
        }
        if self.ports.next.is_none_or(|next| next > Instant::now()) {
            // The later of two timers; the one for `next` still comes.
            return;
        }
        self.ports.next = None;
        let ports = self.ports.read();
        if ports != self.ports.known {
            self.ports.known.clone_from(&ports);
            let event = Event::Ports { ports };
            for (id, connection) in &mut self.connections {
                if matches!(connection.mode, Mode::PortsWatch) {
                    connection.event(&event);
                    self.dirty.insert(*id);
                }
            }
        }
        self.ports.arm(IDLE, &mut self.timers);
    }
}
